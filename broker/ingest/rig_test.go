package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamhouse/streamhouse/broker/ingest"
	"github.com/streamhouse/streamhouse/broker/ingest/ingesttest"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol/batch"
	"github.com/streamhouse/streamhouse/segment"
	"github.com/streamhouse/streamhouse/segment/objstore/faulty"
	"github.com/streamhouse/streamhouse/segment/objstore/objstoretest"
)

var topic = uuid.MustParse("00000000-0000-4000-8000-000000000007")

func key(p int32) lease.Key { return lease.Key{TopicID: topic, Partition: p} }

// rig is a pool with all that it stands on, in memory.
type rig struct {
	t       testing.TB
	store   *ingesttest.Store
	commits *ingesttest.Commits
	objects *faulty.Store
	leases  *lease.Manager
	pool    *ingest.Pool
	// from is who leads the partitions, and rpc the way there; nil: this agent.
	from   *rig
	guests bool // others may ask again for what this agent has committed
	rpc    *ingesttest.Commits
	names  *names
	// agents is how many share the store.
	agents atomic.Int64
	// stop ends the pool's Run and waits for it.
	stop func()

	mu    sync.Mutex
	sends []*send
	shown map[lease.Key]int64 // end of what the observer was shown
	bytes map[segment.ID]bool // objects that it was shown
	last  weak.Pointer[byte]  // the last of them
}

// send is one batch given to the pool, and its answer.
type send struct {
	rig    *rig
	key    lease.Key
	batch  batch.Validated
	done   chan struct{} // closed by the answer
	result ingest.Result
}

func (s *send) Answer(r ingest.Result) {
	s.rig.mu.Lock()
	defer s.rig.mu.Unlock()
	if r.BaseOffset >= s.rig.shown[s.key] {
		s.rig.t.Errorf("a producer was answered before the observer")
	}
	s.result = r
	close(s.done)
}

func newRig(t testing.TB, change func(*ingest.Config)) *rig {
	return newAgent(t, "a", ingesttest.NewStore(), faulty.New(objstoretest.NewMemory()), nil, change)
}

// newPair makes an agent that takes appends, and the one that leads.
func newPair(t testing.TB, change func(*ingest.Config)) (u, h *rig) {
	h = newRig(t, change)
	h.guests = true
	return newAgent(t, "u", h.store, h.objects, h, change), h
}

func newAgent(t testing.TB, id string, store *ingesttest.Store, objects *faulty.Store, from *rig, change func(*ingest.Config)) *rig {
	r := &rig{
		t: t, store: store, objects: objects, from: from, names: &names{inner: store},
		commits: ingesttest.NewCommits(store), shown: make(map[lease.Key]int64), bytes: make(map[segment.ID]bool),
	}
	r.agents.Store(1)
	cfg := ingest.DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	log, reg := slog.New(slog.DiscardHandler), prometheus.NewRegistry()
	r.leases = lease.NewManager(r.store, id, lease.DefaultConfig(), lease.NewMetrics(reg), log)
	env := ingest.Environment{
		AgentID: id, Session: uuid.New(), Leases: r.leases, Objects: r.objects, Committer: r.commits,
		Names: r.names, Observer: r, Metrics: ingest.NewMetrics(reg), Log: log,
		Agents: func() int { return int(r.agents.Load()) },
	}
	if from != nil {
		r.rpc = ingesttest.NewCommits(from.pool)
		env.Remote = r.rpc
	}
	r.pool = ingest.NewPool(cfg, env)
	r.stop = run(r.pool.Run)
	t.Cleanup(run(r.leases.Run))
	t.Cleanup(func() { r.stop() })
	return r
}

// names claims names, and fails on purpose.
type names struct {
	inner metadata.Objects
	mu    sync.Mutex
	// before fails a claim unapplied, after applied.
	before, after error
}

func (n *names) set(before, after error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.before, n.after = before, after
}

func (n *names) ClaimOrphans(ctx context.Context, ids []segment.ID) ([]segment.ID, error) {
	n.mu.Lock()
	before, after := n.before, n.after
	n.mu.Unlock()
	if before != nil {
		return nil, before
	}
	claimed, err := n.inner.ClaimOrphans(ctx, ids)
	if err == nil && after != nil {
		return nil, after
	}
	return claimed, err
}

// run starts a loop and returns what ends it.
func run(loop func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); loop(ctx) }()
	return func() { cancel(); <-done }
}

// Committed checks the order in which the observer is shown extents, and that it is
// shown each object once, if this agent has it.
func (r *rig) Committed(object []byte, extents []metadata.PartitionExtent, logStarts []int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := &extents[0]
	id := segment.Object(first.Object)
	if len(logStarts) != len(extents) || object != nil && (first.Inline != nil || r.bytes[id]) {
		r.t.Errorf("observer was shown %d bytes, %d extents, %d log starts", len(object), len(extents), len(logStarts))
	}
	if object != nil {
		r.bytes[id], r.last = true, weak.Make(&object[0])
	}
	for _, e := range extents {
		again := r.guests && e.EndOffset <= r.shown[e.Key]
		if !again && (e.BaseOffset < r.shown[e.Key] || e.BaseOffset > r.shown[e.Key] && r.from == nil) {
			r.t.Errorf("observer was shown offset %d after %d", e.BaseOffset, r.shown[e.Key])
		}
		r.shown[e.Key] = max(r.shown[e.Key], e.EndOffset)
	}
}

// lease returns the lease of a partition, which is borrowed if another agent leads.
func (r *rig) lease(p int32) *lease.Lease {
	if r.from != nil {
		holder := lease.Holder{AgentID: "a", LeaderEpoch: r.from.lease(p).LeaderEpoch(), ExpiresIn: time.Second}
		return r.leases.Borrow(&lease.HeldByOtherError{Key: key(p), Holder: holder})
	}
	a := r.leases.Acquire(context.Background(), []lease.Key{key(p)})[0]
	if a.Err != nil {
		r.t.Fatal(a.Err)
	}
	return a.Lease
}

// placed is a batch for a partition.
type placed struct {
	partition int32
	batch     batch.Validated
}

// add gives batches of one partition to the pool in one call.
func (r *rig) add(p int32, batches ...batch.Validated) []*send {
	r.t.Helper()
	var all []placed
	for _, b := range batches {
		all = append(all, placed{p, b})
	}
	return r.addAll(all...)
}

// addAll gives batches to the pool in one call.
func (r *rig) addAll(batches ...placed) []*send {
	r.t.Helper()
	sends, err := r.tryAdd(batches...)
	if err != nil {
		r.t.Fatal(err)
	}
	return sends
}

func (r *rig) tryAdd(batches ...placed) ([]*send, error) {
	var sends []*send
	var items []ingest.Item
	for _, b := range batches {
		s := &send{rig: r, key: key(b.partition), batch: b.batch, done: make(chan struct{})}
		sends = append(sends, s)
		items = append(items, ingest.Item{Lease: r.lease(b.partition), Batch: b.batch, Receiver: s})
	}
	r.mu.Lock()
	r.sends = append(r.sends, sends...)
	r.mu.Unlock()
	err := r.pool.Add(items)
	if err != nil {
		for _, s := range sends {
			s.Answer(ingest.Failed(err))
		}
	}
	return sends, err
}

// one builds a batch of one record and about size bytes.
func one(t testing.TB, producer int64, sequence int32, size int) batch.Validated {
	name := fmt.Sprintf("p%d s%d ", producer, sequence) + strings.Repeat("x", size)
	return ingesttest.Batch(t, name, producer, 0, sequence, 1)
}

// fate translates an answer.
func fate(r ingest.Result) ingesttest.Fate {
	switch {
	case r.Err == nil:
		return ingesttest.Acked
	case errors.Is(r.Err, metadata.ErrUnknownOutcome):
		return ingesttest.Unknown
	}
	return ingesttest.Failed
}

// check closes the pool and holds the log against the answers.
func (r *rig) check() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	if err := r.pool.Close(ctx); err != nil {
		r.t.Error(err)
	}
	if r.from != nil {
		r.rpc.Wait()
	}
	var sent []ingesttest.Sent
	for _, s := range r.sends {
		select {
		case <-s.done:
			sent = append(sent, ingesttest.Sent{Key: s.key, Batch: s.batch, Fate: fate(s.result), Offset: s.result.BaseOffset})
		default:
			r.t.Errorf("a batch was not answered by the time the pool was closed")
		}
	}
	ingesttest.Check(r.t, r.store, r.objects, sent)
}

// puts and commitCount are what the test has cost so far.
func (r *rig) puts() int        { return r.objects.Count(faulty.Put) }
func (r *rig) commitCount() int { return len(r.commits.Sent()) }

// await waits for answers, all of which must be nil.
func await(t testing.TB, sends []*send) {
	t.Helper()
	for _, s := range sends {
		if <-s.done; s.result.Err != nil {
			t.Errorf("not acknowledged: %v", s.result.Err)
		}
	}
}
