package objstore_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/segment/objstore"
	"github.com/streamhouse/streamhouse/segment/objstore/faulty"
	"github.com/streamhouse/streamhouse/segment/objstore/objstoretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	errPermanent = errors.New("permanent")
	unavailable  = objstore.ErrUnavailable
	content      = []byte("content")
)

func TestPolicyConformance(t *testing.T) {
	objstoretest.Run(t, func(*testing.T) objstore.Store {
		return objstore.WithPolicy(objstoretest.NewMemory(), objstore.DefaultPolicy())
	})
}

// withoutChecksum is a store that, like a directory, keeps no checksum.
type withoutChecksum struct{ objstore.Store }

func (s withoutChecksum) Head(ctx context.Context, key string) (objstore.Info, error) {
	info, err := s.Store.Head(ctx, key)
	info.CRC32C = ""
	return info, err
}

// TestPutOutcomes is the table of what can come of a Put and what is made of
// it: the store's faults, who owns the key at first, and the outcome.
func TestPutOutcomes(t *testing.T) {
	fault := func(nth int, phase faulty.Phase, err error) faulty.Rule {
		return faulty.Rule{Op: faulty.Put, Nth: nth, Phase: phase, Err: err}
	}
	slow := func(nth int, phase faulty.Phase) faulty.Rule {
		return faulty.Rule{Op: faulty.Put, Nth: nth, Phase: phase, Delay: 5 * time.Second}
	}
	hang := func(nth int, phase faulty.Phase) faulty.Rule {
		return faulty.Rule{Op: faulty.Put, Nth: nth, Phase: phase, Delay: time.Hour}
	}
	for name, test := range map[string]struct {
		rules  []faulty.Rule
		before string // what is there beforehand
		want   error
		puts   int
	}{
		"sound":                        {puts: 1},
		"taken":                        {before: "other", want: objstore.ErrExists, puts: 1},
		"taken by equal bytes":         {before: "content", want: objstore.ErrExists, puts: 1},
		"fails once":                   {rules: []faulty.Rule{fault(1, faulty.Before, unavailable)}, puts: 2},
		"applied but answer lost":      {rules: []faulty.Rule{fault(1, faulty.After, unavailable)}, puts: 2},
		"fails, taken by other":        {rules: []faulty.Rule{fault(1, faulty.Before, unavailable)}, before: "other", want: objstore.ErrExists, puts: 2},
		"fails, taken by same length":  {rules: []faulty.Rule{fault(1, faulty.Before, unavailable)}, before: "CONTENT", want: objstore.ErrExists, puts: 2},
		"fails for good":               {rules: []faulty.Rule{fault(0, faulty.Before, unavailable)}, want: unavailable, puts: 3},
		"permanent":                    {rules: []faulty.Rule{fault(0, faulty.Before, errPermanent)}, want: errPermanent, puts: 1},
		"slow, hedge wins":             {rules: []faulty.Rule{slow(1, faulty.Before)}, puts: 2},
		"slow to answer, hedge proves": {rules: []faulty.Rule{slow(1, faulty.After)}, puts: 2},
		"slow, hedge fails":            {rules: []faulty.Rule{slow(1, faulty.Before), fault(2, faulty.Before, unavailable)}, puts: 2},
		"slow, taken by other":         {rules: []faulty.Rule{slow(1, faulty.Before)}, before: "other", want: objstore.ErrExists, puts: 2},
		"both hang, then well":         {rules: []faulty.Rule{hang(1, faulty.Before), hang(2, faulty.Before)}, puts: 3},
		"both hang, applied":           {rules: []faulty.Rule{hang(1, faulty.After), fault(2, faulty.Before, unavailable)}, puts: 3},
		"confirmation fails once": {rules: []faulty.Rule{
			fault(1, faulty.After, unavailable), {Op: faulty.Head, Nth: 1, Err: unavailable},
		}, puts: 3},
	} {
		for _, checksum := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/checksum=%t", name, checksum), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					memory := objstoretest.NewMemory()
					if test.before != "" {
						mustPut(t, memory, "k", test.before)
					}
					counted := faulty.New(memory, test.rules...)
					var inner objstore.Store = counted
					if !checksum {
						inner = withoutChecksum{counted}
					}
					s := objstore.WithPolicy(inner, objstore.Policy{
						MaxAttempts: 3, MinBackoff: time.Second, MaxBackoff: 4 * time.Second,
						AttemptTimeout: 20 * time.Second, HedgePut: time.Second,
					})
					err := s.Put(t.Context(), "k", content)
					if !errors.Is(err, test.want) {
						t.Errorf("got error %v, want %v", err, test.want)
					}
					if got := counted.Count(faulty.Put); got != test.puts {
						t.Errorf("%d PUTs, want %d", got, test.puts)
					}
					if err == nil {
						want := objstore.NewReaderAt(t.Context(), memory, "k", int64(len(content)))
						got := make([]byte, len(content))
						if _, err := want.ReadAt(got, 0); err != nil || string(got) != string(content) {
							t.Errorf("a Put that succeeded left %q, error %v", got, err)
						}
					}
				})
			})
		}
	}
}

func mustPut(t *testing.T, s objstore.Store, key, body string) {
	t.Helper()
	if err := s.Put(t.Context(), key, []byte(body)); err != nil {
		t.Fatal(err)
	}
}

func TestGetIsHedgedAndRetried(t *testing.T) {
	for name, test := range map[string]struct {
		rules []faulty.Rule
		want  error
		gets  int
		took  time.Duration
	}{
		"sound":       {gets: 1},
		"absent":      {rules: []faulty.Rule{{Op: faulty.Get, Err: objstore.ErrNotFound}}, want: objstore.ErrNotFound, gets: 1},
		"fails once":  {rules: []faulty.Rule{{Op: faulty.Get, Nth: 1, Err: unavailable}}, gets: 2, took: time.Second},
		"slow once":   {rules: []faulty.Rule{{Op: faulty.Get, Nth: 1, Delay: time.Minute}}, gets: 2, took: 100 * time.Millisecond},
		"always slow": {rules: []faulty.Rule{{Op: faulty.Get, Delay: 200 * time.Millisecond}}, gets: 2, took: 200 * time.Millisecond},
		"hangs":       {rules: []faulty.Rule{{Op: faulty.Get, Delay: time.Hour}}, want: unavailable, gets: 4, took: 21 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := objstoretest.NewMemory()
				mustPut(t, memory, "k", "content")
				counted := faulty.New(memory, test.rules...)
				s := objstore.WithPolicy(counted, objstore.Policy{
					MaxAttempts: 2, MinBackoff: time.Second, AttemptTimeout: 10 * time.Second, HedgeGet: 100 * time.Millisecond,
				})
				begun := time.Now()
				got, err := s.Get(t.Context(), "k", 0, -1)
				if !errors.Is(err, test.want) || (err == nil && string(got) != "content") {
					t.Errorf("got %q, error %v, want error %v", got, err, test.want)
				}
				if n := counted.Count(faulty.Get); n != test.gets {
					t.Errorf("%d GETs, want %d", n, test.gets)
				}
				// The bubble's clock is exact but for the backoff's jitter of a half.
				if took := time.Since(begun); took < test.took/2 || took > test.took*3/2 {
					t.Errorf("took %s, want about %s", took, test.took)
				}
			})
		})
	}
}

func TestHedgesDoNotDoubleTheLoadOfASlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls = 40
		counted := faulty.New(objstoretest.NewMemory(), faulty.Rule{Op: faulty.Put, Delay: 10 * time.Second})
		s := objstore.WithPolicy(counted, objstore.Policy{MaxAttempts: 1, HedgePut: time.Second})
		done := make(chan error, calls)
		for i := range calls {
			go func() { done <- s.Put(t.Context(), fmt.Sprint(i), content) }()
		}
		for range calls {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if got, most := counted.Count(faulty.Put), calls+1+calls/4; got > most || got <= calls {
			t.Errorf("%d PUTs for %d calls, want some hedges, and no more than %d PUTs", got, calls, most)
		}
	})
}

func TestEndOfTheContextEndsTheRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counted := faulty.New(objstoretest.NewMemory(), faulty.Rule{Err: fmt.Errorf("%w: down", unavailable)})
		s := objstore.WithPolicy(counted, objstore.Policy{MaxAttempts: 1000, MinBackoff: time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := s.Put(ctx, "k", content)
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, unavailable) || !strings.Contains(err.Error(), "down") {
			t.Errorf("got %v, want the context's error, which tells what the last attempt met", err)
		}
	})
}

func TestListGoesOnWhereItFailed(t *testing.T) {
	memory := objstoretest.NewMemory()
	var want []string
	for i := range 10 {
		want = append(want, fmt.Sprintf("k%d", i))
		mustPut(t, memory, want[i], "x")
	}
	s := objstore.WithPolicy(&brokenList{Store: memory, after: 3}, objstore.Policy{MaxAttempts: 5})
	var got []string
	for info, err := range s.List(t.Context(), "k", "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, info.Key)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}

	broken := &brokenList{Store: memory, after: 0}
	var last error
	for _, last = range objstore.WithPolicy(broken, objstore.Policy{MaxAttempts: 2}).List(t.Context(), "k", "") {
	}
	if !errors.Is(last, unavailable) || broken.lists != 2 {
		t.Errorf("a List that always fails ended with %v after %d attempts", last, broken.lists)
	}
}

// brokenList breaks each list off after so many keys.
type brokenList struct {
	objstore.Store
	after, lists int
}

func (b *brokenList) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	b.lists++
	return func(yield func(objstore.Info, error) bool) {
		n := 0
		for info, err := range b.Store.List(ctx, prefix, after) {
			if n == b.after {
				yield(objstore.Info{}, fmt.Errorf("%w: page lost", unavailable))
				return
			}
			n++
			if !yield(info, err) {
				return
			}
		}
	}
}

func TestDeleteTriesOnlyWhatFailed(t *testing.T) {
	memory := objstoretest.NewMemory()
	for _, key := range []string{"a", "b", "c"} {
		mustPut(t, memory, key, "x")
	}
	counted := faulty.New(memory,
		faulty.Rule{Op: faulty.Delete, Key: "b", Nth: 1, Err: unavailable},
		faulty.Rule{Op: faulty.Delete, Key: "c", Err: errPermanent})
	s := objstore.WithPolicy(counted, objstore.Policy{MaxAttempts: 3})
	err := s.Delete(t.Context(), "a", "b", "c")
	if failed := objstore.KeyErrors(err); len(failed) != 1 || failed[0].Key != "c" || !errors.Is(err, errPermanent) {
		t.Errorf("got %v, want the failure of c alone", err)
	}
	calls := counted.Calls()
	if len(calls) != 2 || calls[0].Length != 3 || calls[1].Length != 2 {
		t.Errorf("calls were %+v, want one of three keys and one of two", calls)
	}
}
