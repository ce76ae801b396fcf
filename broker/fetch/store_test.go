package fetch_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamhouse/streamhouse/broker/fetch"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/sqlite"
	"github.com/streamhouse/streamhouse/protocol/batch"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
	"github.com/streamhouse/streamhouse/segment"
	"github.com/streamhouse/streamhouse/segment/objstore/dir"
)

// embedded is a cluster of one agent on the stores of an embedded deployment,
// and a second reader that knows only what the store tells.
type embedded struct {
	tb      testing.TB
	store   *sqlite.Store
	objects *dir.Store
	term    lease.Term
	here    *fetch.Reader
	other   *fetch.Reader
	fed     *fetch.Reader // by the feed of here
}

const agentID = "agent-1"

func newEmbedded(t *testing.T) *embedded {
	t.Helper()
	folder := t.TempDir()
	store, err := sqlite.Open(t.Context(), filepath.Join(folder, "metadata.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	objects, err := dir.Open(filepath.Join(folder, "objects"))
	if err != nil {
		t.Fatal(err)
	}
	e := &embedded{tb: t, store: store, objects: objects}
	if err := store.CreateTopic(t.Context(), metadata.NewTopic{ID: topicID, Name: "t", Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	granted, err := store.Acquire(t.Context(), agentID, time.Hour, []lease.Key{key(0)})
	if err != nil || granted[0].Err != nil {
		t.Fatalf("acquire: %v, %+v", err, granted)
	}
	e.term = granted[0].Term
	e.here = e.newReader(&leases{led: map[lease.Key]int32{key(0): e.term.LeaderEpoch}}, nil)
	e.other = e.newReader(&leases{}, nil)
	n := newNetwork()
	n.readers[agentID], n.holders[key(0)] = e.here, agentID
	e.fed = e.newReader(&leases{}, n)
	return e
}

func (e *embedded) newReader(l fetch.Leases, peers fetch.Peers) *fetch.Reader {
	r := fetch.New(fetch.Config{BlockBytes: 1 << 10, PollInterval: time.Millisecond, Peers: peers}, e.store, e.objects, l,
		fetch.NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	e.tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			e.tb.Errorf("Run: %v", err)
		}
	})
	return r
}

// produce commits batches as one object, or inline, and tells the reader of
// the agent.
func (e *embedded) produce(inline bool, batches ...batch.Batch) error {
	ctx := context.Background()
	obj := metadata.CommitObject{ID: segment.NewID()}
	var object []byte
	for _, b := range batches {
		c := metadata.CommitBatch{
			Key: key(0), LeaderEpoch: e.term.LeaderEpoch, Length: int32(len(b)), Records: b.RecordCount(),
			ProducerID: -1, MaxTimestamp: b.MaxTimestamp(),
		}
		if inline {
			c.Inline = b
		} else {
			c.Position = int64(len(object))
			object = append(object, b...)
		}
		obj.Batches = append(obj.Batches, c)
	}
	if obj.Size = int64(len(object)); !inline {
		if err := e.objects.Put(ctx, segment.ObjectKey(obj.ID), object); err != nil {
			return err
		}
	}
	results, err := e.store.Commit(ctx, &metadata.Commit{AgentID: agentID, Objects: []metadata.CommitObject{obj}})
	if err != nil {
		return err
	}
	extents := metadata.ExtentsOf(&obj, results[0])
	logStarts := make([]int64, len(extents))
	for i := range logStarts {
		logStarts[i] = results[0][0].LogStartOffset
	}
	e.here.Committed(object, extents, logStarts)
	return nil
}

// follow reads the log from its start until it has seen so many records, and
// returns their values.
func follow(ctx context.Context, r *fetch.Reader, records int) (values []string, err error) {
	for next := int64(0); next < int64(records); {
		q := at(key(0), next)
		q.MaxBytes = 3000
		res := r.Fetch(ctx, []fetch.Request{q}, patient)[0]
		if res.Err != nil {
			return values, res.Err
		}
		for rest := res.Records; len(rest) > 0; {
			b, tail, err := batch.Next(rest)
			if err != nil {
				return values, err
			}
			if b.BaseOffset() > next {
				return values, fmt.Errorf("a batch at %d follows on offset %d", b.BaseOffset(), next)
			}
			records, err := batchtest.Records(b)
			if err != nil {
				return values, err
			}
			for i, r := range records {
				if b.BaseOffset()+int64(i) == next {
					values = append(values, string(r.Value))
					next++
				}
			}
			rest = tail
		}
	}
	return values, nil
}

// All readers follow a log on real stores while it is written.
func TestReadersFollowARealStore(t *testing.T) {
	t.Parallel()
	const commits = 60
	e := newEmbedded(t)
	ctx, cancel := context.WithTimeout(t.Context(), seconds)
	defer cancel()
	var group sync.WaitGroup
	group.Go(func() {
		for i := range commits {
			a, b := fmt.Sprint(2*i), fmt.Sprint(2*i+1)
			if err := e.produce(i%3 == 0, batchtest.Of(a), batchtest.Of(b)); err != nil {
				t.Errorf("produce: %v", err)
				return
			}
		}
	})
	for _, r := range []*fetch.Reader{e.here, e.other, e.fed} {
		group.Go(func() {
			values, err := follow(ctx, r, 2*commits)
			if err != nil {
				t.Errorf("follow: %v", err)
			}
			for i, v := range values {
				if v != fmt.Sprint(i) {
					t.Fatalf("at offset %d: %q", i, v)
				}
			}
		})
	}
	group.Wait()
	cold := e.newReader(&leases{}, nil)
	if values, err := follow(ctx, cold, 2*commits); err != nil || len(values) != 2*commits {
		t.Errorf("a cold reader: %d values, %v", len(values), err)
	}
}

func TestListOffsetsOnARealStore(t *testing.T) {
	t.Parallel()
	e := newEmbedded(t)
	for i := range 4 {
		// batchtest.Of gives the timestamps 1, 2, 3.
		if err := e.produce(i%2 == 0, batchtest.Of("a", "b", "c")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := e.store.DeleteRecords(t.Context(), key(0), 2); err != nil {
		t.Fatal(err)
	}
	asked := []int64{fetch.Latest, fetch.Earliest, 1, 2, 3, 4, fetch.MaxTimestamp}
	want := []int64{12, 2, 2, 2, 2, -1, 2}
	var reqs []fetch.ListRequest
	for _, ts := range asked {
		reqs = append(reqs, fetch.ListRequest{Key: key(0), Timestamp: ts})
	}
	for i, res := range e.other.ListOffsets(t.Context(), reqs, false) {
		if res.Err != nil || res.Offset != want[i] || res.Current != e.term.LeaderEpoch {
			t.Errorf("timestamp %d: %+v, want offset %d", asked[i], res, want[i])
		}
	}
	gone := fetch.ListRequest{Key: lease.Key{TopicID: uuid.New()}, Timestamp: fetch.Latest}
	if res := e.other.ListOffsets(t.Context(), []fetch.ListRequest{gone}, false); res[0].Err == nil {
		t.Error("a topic that is not there has an end")
	}
}
