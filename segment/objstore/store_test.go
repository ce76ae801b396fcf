package objstore_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/streamhouse/streamhouse/segment/objstore"
	"github.com/streamhouse/streamhouse/segment/objstore/faulty"
	"github.com/streamhouse/streamhouse/segment/objstore/objstoretest"
)

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	inner := faulty.New(objstoretest.NewMemory())
	metrics := objstore.NewMetrics(reg)
	s := objstore.WithMetrics(inner, metrics)
	ctx := t.Context()

	_ = s.Put(ctx, "k", []byte("12345"))
	_ = s.Put(ctx, "k", []byte("12345"))
	_, _ = s.Get(ctx, "k", 1, 3)
	_, _ = s.Get(ctx, "absent", 0, -1)
	_, _ = s.Get(ctx, "k", 3, 100)
	_, _ = s.Head(ctx, "k")
	for range s.List(ctx, "", "") {
	}
	_ = s.Delete(ctx, "k", "l")
	inner.Set(faulty.Rule{Err: unavailable})
	_ = s.Check(ctx)
	for range s.List(ctx, "", "") {
	}
	inner.Set(faulty.Rule{Err: context.DeadlineExceeded})
	_, _ = s.Head(ctx, "k")

	want := `
# HELP streamhouse_object_store_bytes_total Bytes of objects that were read and written with success, by direction.
# TYPE streamhouse_object_store_bytes_total counter
streamhouse_object_store_bytes_total{direction="read"} 3
streamhouse_object_store_bytes_total{direction="write"} 5
# HELP streamhouse_object_store_requests_total Requests to the object store, each attempt and hedge of its own, by operation and outcome.
# TYPE streamhouse_object_store_requests_total counter
streamhouse_object_store_requests_total{operation="check",outcome="unavailable"} 1
streamhouse_object_store_requests_total{operation="delete",outcome="ok"} 1
streamhouse_object_store_requests_total{operation="get",outcome="error"} 1
streamhouse_object_store_requests_total{operation="get",outcome="not_found"} 1
streamhouse_object_store_requests_total{operation="get",outcome="ok"} 1
streamhouse_object_store_requests_total{operation="head",outcome="cancelled"} 1
streamhouse_object_store_requests_total{operation="head",outcome="ok"} 1
streamhouse_object_store_requests_total{operation="list",outcome="ok"} 1
streamhouse_object_store_requests_total{operation="list",outcome="unavailable"} 1
streamhouse_object_store_requests_total{operation="put",outcome="exists"} 1
streamhouse_object_store_requests_total{operation="put",outcome="ok"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want),
		"streamhouse_object_store_requests_total", "streamhouse_object_store_bytes_total"); err != nil {
		t.Error(err)
	}
	for operation, want := range map[string]int64{"put": 2, "get": 2, "head": 1, "list": 1, "delete": 1} {
		if got := metrics.Answered(operation); got != want {
			t.Errorf("%d of %s were answered, want %d", got, operation, want)
		}
	}
	if n, err := testutil.GatherAndCount(reg, "streamhouse_object_store_request_duration_seconds"); err != nil || n != 6 {
		t.Errorf("%d operations have durations, want 6: %v", n, err)
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
}

func TestMetricsConformance(t *testing.T) {
	objstoretest.Run(t, func(*testing.T) objstore.Store {
		return objstore.WithMetrics(objstoretest.NewMemory(), objstore.NewMetrics(prometheus.NewRegistry()))
	})
}

func TestReaderAt(t *testing.T) {
	s := faulty.New(objstoretest.NewMemory())
	mustPut(t, s, "k", "0123456789")
	r := objstore.NewReaderAt(t.Context(), s, "k", 10)
	for _, test := range []struct {
		offset, length int64
		want           string
		err            error
	}{
		{0, 10, "0123456789", nil}, {3, 4, "3456", nil}, {8, 2, "89", nil}, {8, 5, "89", io.EOF}, {10, 1, "", io.EOF}, {50, 1, "", io.EOF}, {5, 0, "", nil},
	} {
		b := make([]byte, test.length)
		n, err := r.ReadAt(b, test.offset)
		if string(b[:n]) != test.want || !errors.Is(err, test.err) {
			t.Errorf("ReadAt %d bytes at %d: got %q, %v, want %q, %v", test.length, test.offset, b[:n], err, test.want, test.err)
		}
	}
	whole, err := io.ReadAll(io.NewSectionReader(r, 0, 10))
	if err != nil || string(whole) != "0123456789" {
		t.Errorf("read %q, %v", whole, err)
	}
	s.Set(faulty.Rule{Err: unavailable})
	if _, err := r.ReadAt(make([]byte, 1), 0); !errors.Is(err, unavailable) {
		t.Errorf("got %v, want the store's error", err)
	}
}

// TestProbe holds stores to what Check is to find out.
func TestProbe(t *testing.T) {
	for name, test := range map[string]struct {
		rule faulty.Rule
		want string
	}{
		"cannot write":           {faulty.Rule{Op: faulty.Put, Err: errPermanent}, "cannot write: "},
		"cannot read":            {faulty.Rule{Op: faulty.Get, Err: errPermanent}, "cannot read: "},
		"damages":                {faulty.Rule{Op: faulty.Get, Phase: faulty.After, Mangle: faulty.FlipBit}, "is not what StreamHouse wrote"},
		"cannot tell the absent": {faulty.Rule{Op: faulty.Head, Err: errPermanent}, "s3:ListBucket"},
	} {
		err := objstore.Probe(t.Context(), faulty.New(objstoretest.NewMemory(), test.rule))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, test.want)
		}
	}
	if err := objstore.Probe(t.Context(), overwriting{objstoretest.NewMemory()}); err == nil || !strings.Contains(err.Error(), "If-None-Match") {
		t.Errorf("a store that overwrites: got %v", err)
	}
}

// overwriting is a store that ignores that Put is conditional.
type overwriting struct{ objstore.Store }

func (s overwriting) Put(ctx context.Context, key string, body []byte) error {
	if err := s.Delete(ctx, key); err != nil {
		return err
	}
	return s.Store.Put(ctx, key, body)
}

func TestProbeIsCheapOnceItHasWritten(t *testing.T) {
	s := faulty.New(objstoretest.NewMemory())
	for _, want := range []int{4, 4 + 3} {
		if err := objstore.Probe(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if got := len(s.Calls()); got != want {
			t.Errorf("%d requests so far, want %d", got, want)
		}
	}
}
