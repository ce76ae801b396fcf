package partition_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/broker/ingest"
	"github.com/streamhouse/streamhouse/broker/ingest/ingesttest"
	"github.com/streamhouse/streamhouse/broker/partition"
	"github.com/streamhouse/streamhouse/internal/testdb"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/postgres"
	"github.com/streamhouse/streamhouse/metadata/sqlite"
	"github.com/streamhouse/streamhouse/segment/objstore"
	"github.com/streamhouse/streamhouse/segment/objstore/dir"
	"github.com/streamhouse/streamhouse/segment/objstore/faulty"
	"github.com/streamhouse/streamhouse/segment/objstore/objstoretest"
)

// world is a few agents on one backend, and idempotent producers that write
// through whichever agent leads, with five requests in flight, while agents are
// killed, leases are given up and stores fail.
type world struct {
	t       testing.TB
	backend backend
	commits *ingesttest.Commits
	objects *faulty.Store
	cfg     nodeConfig
	batches int    // of each producer
	zones   *zones // nil: there are none

	mu    sync.Mutex
	rand  *rand.Rand
	nodes []*node
	lives []int // of each node
	sent  []ingesttest.Sent

	numbers int // that next gave out
}

const (
	agents     = 3
	partitions = 4
	inFlight   = 5

	producers   = 6 // at a time
	generations = 5 // of them, each with new ids
)

func newWorld(t testing.TB, seed uint64, batches int, b backend, objects objstore.Store, cfg nodeConfig) *world {
	w := &world{
		t: t, backend: b, commits: ingesttest.NewCommits(b), objects: faulty.New(objects),
		cfg: cfg, batches: batches, rand: rand.New(rand.NewPCG(seed, 0)), lives: make([]int, agents),
	}
	w.objects.Seed(seed)
	return w
}

// startNode starts an agent. A restarted one has its id again now and then:
// some are deployed so.
func (w *world) startNode(i int) *node {
	cfg := w.cfg
	cfg.agentID = fmt.Sprintf("agent-%d", i)
	if w.lives[i]%2 == 1 {
		cfg.agentID += "-new"
	}
	if w.zones != nil {
		w.zones.join(w, i, &cfg)
	}
	n := startNode(w.backend, w.commits, w.objects, cfg)
	if w.zones != nil {
		w.zones.joined(cfg.agentID, n)
	}
	return n
}

func (w *world) intN(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rand.IntN(n)
}

func (w *world) node(i int) *node {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nodes[i]
}

// disturb does harm until ctx ends, about every step. The stores always take
// their time, so that something is under way when the harm is done.
func (w *world) disturb(ctx context.Context, step time.Duration) {
	slowPut := faulty.Rule{Op: faulty.Put, Delay: step / 2}
	slowCommit := ingesttest.Fault{Delay: step / 5}
	lost := func(nth int) ingesttest.Fault {
		return ingesttest.Fault{Nth: nth, Delay: step / 5, After: metadata.ErrUnknownOutcome}
	}
	for {
		w.harm(step, slowPut, slowCommit, lost)
		select {
		case <-ctx.Done():
			w.objects.Set()
			w.commits.Set()
			return
		case <-time.After(step/2 + time.Duration(w.intN(int(step)))):
		}
	}
}

func (w *world) harm(step time.Duration, slowPut faulty.Rule, slowCommit ingesttest.Fault, lost func(nth int) ingesttest.Fault) {
	puts := func(r faulty.Rule) { r.Op = faulty.Put; w.objects.Set(r, slowPut) }
	commits := func(f ...ingesttest.Fault) { w.commits.Set(append(f, slowCommit)...) }
	switch w.intN(11) {
	case 0, 1:
		w.kill(w.intN(agents), w.intN(2) == 0)
	case 2:
		w.node(w.intN(agents)).leases.Release(context.Background(), key(int32(w.intN(partitions))))
	case 3:
		puts(faulty.Rule{Probability: 0.3, Err: objstore.ErrUnavailable})
	case 4:
		puts(faulty.Rule{Probability: 0.3, Phase: faulty.After, Err: objstore.ErrUnavailable})
	case 5:
		puts(faulty.Rule{Probability: 0.5, Delay: 3 * step})
	case 6:
		commits(lost(1), ingesttest.Fault{Nth: 3, Before: metadata.ErrUnknownOutcome})
	case 7:
		commits(ingesttest.Fault{Nth: 1, Before: metadata.ErrUnavailable}, ingesttest.Fault{Nth: 2, Delay: 10 * step})
	case 8:
		commits(ingesttest.Fault{Before: metadata.ErrUnavailable})
	case 9:
		commits(lost(0))
	default:
		w.objects.Set(slowPut)
		w.commits.Set(slowCommit)
	}
}

// kill ends an agent, with a proper shutdown or without, and starts another.
func (w *world) kill(i int, proper bool) {
	n := w.node(i)
	if proper {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		n.table.Close(ctx)
		n.leases.ReleaseAll(ctx)
		cancel()
	}
	n.stop()
	w.mu.Lock()
	w.lives[i]++
	w.mu.Unlock()
	n = w.startNode(i)
	w.mu.Lock()
	w.nodes[i] = n
	w.mu.Unlock()
}

// produce is an idempotent producer: it keeps up to five batches in flight, and
// when one fails, it awaits the others and goes on with the first that is not
// acknowledged.
func (w *world) produce(p int32, producer int64, pause time.Duration) {
	appends := make([]partition.Append, w.batches)
	for i := range appends {
		appends[i] = one(w.t, p, producer, int32(i))
	}
	agent := w.intN(agents)
	deadline := time.Now().Add(3 * time.Minute)
	for head := 0; head < len(appends); {
		window := appends[head:min(len(appends), head+1+w.intN(inFlight))]
		acked := w.send(agent, window, pause)
		head += acked
		if acked == len(window) {
			continue
		}
		if time.Now().After(deadline) {
			w.t.Errorf("producer %d is stuck at %d", producer, head)
			return
		}
		<-time.After(pause)
		agent = w.intN(agents)
	}
}

// send appends a window of batches, each in a request of its own, and returns
// how many of the first are acknowledged. The requests are on one connection to
// an agent: they arrive one by one, however those before them have fared, and
// none reaches an agent that has taken its place.
func (w *world) send(agent int, window []partition.Append, pause time.Duration) (acked int) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*pause)
	defer cancel()
	table := w.node(agent).table
	pending := make([]*partition.Pending, len(window))
	for i := range window {
		pending[i] = table.Append(window[i : i+1])
		if w.intN(3) == 0 {
			<-time.After(time.Duration(w.intN(int(pause))))
		}
	}
	for i := range window {
		r := pending[i].Wait(ctx)[0]
		w.record(window[i], r)
		switch {
		case acked < i: // a failure before
		case r.Err == nil:
			acked++
		case errors.Is(r.Err, ingest.ErrOutOfOrderSequence):
			w.t.Errorf("the head of a window is out of order: %+v", window[i].Batch.BaseSequence)
		}
	}
	return acked
}

func (w *world) record(a partition.Append, r partition.Result) {
	fate := ingesttest.Failed
	switch {
	case r.Err == nil:
		fate = ingesttest.Acked
	case errors.Is(r.Err, partition.ErrTimeout), errors.Is(r.Err, metadata.ErrUnknownOutcome):
		fate = ingesttest.Unknown
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = append(w.sent, sent(a.Batch, a.Key, fate, r.BaseOffset))
}

// run lets all producers write while harm is done, and checks the logs. The
// producers' ids count from first.
func (w *world) run(first int64, pause time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	var harm, work sync.WaitGroup
	for i := range agents {
		w.nodes = append(w.nodes, w.startNode(i))
	}
	harm.Go(func() { w.disturb(ctx, pause) })
	if w.zones != nil {
		harm.Go(func() { w.zones.disturb(ctx, w, pause) })
		for range 2 {
			work.Go(func() { w.zones.scatter(w, pause) })
		}
	}
	for i := range producers {
		work.Go(func() {
			for g := range generations {
				w.produce(int32(i%partitions), first+int64(g*producers+i), pause)
			}
		})
	}
	work.Wait()
	cancel()
	harm.Wait()
	if w.zones != nil {
		w.zones.calls.Wait()
	}
	for _, n := range w.nodes {
		if err := n.table.Close(soon(w.t)); err != nil {
			w.t.Error(err)
		}
	}
	for _, n := range w.nodes {
		n.stop()
	}
	ingesttest.Check(w.t, w.backend, w.objects, w.sent)
	w.report()
}

func (w *world) report() {
	var fates [3]int
	for _, s := range w.sent {
		fates[s.Fate]++
	}
	w.t.Logf("%d acknowledged, %d failed, %d unknown; %d commits, %d puts; lives %v", fates[ingesttest.Acked],
		fates[ingesttest.Failed], fates[ingesttest.Unknown], len(w.commits.Sent()), w.objects.Count(faulty.Put), w.lives)
}

// hurried has short times, so that leases end and move in a test.
func hurried(unit time.Duration) nodeConfig {
	cfg := defaults()
	cfg.lease = lease.Config{
		Duration: 20 * unit, RenewInterval: 8 * unit, Margin: 2 * unit, RequestTimeout: 20 * unit, HeldByOtherFor: unit / 2,
	}
	cfg.partition.AcquireTimeout = 40 * unit
	cfg.ingest.PutsPerSecond, cfg.ingest.PutBurst = 1000, 1000
	cfg.ingest.InlineMaxBytes, cfg.ingest.InlineBytesPerSecond, cfg.ingest.InlineBurst = 600, 5000, 2000
	cfg.ingest.MaxLinger = unit
	cfg.ingest.CommitDeadline, cfg.ingest.CommitTimeout, cfg.ingest.UploadTimeout = 50*unit, 50*unit, 50*unit
	return cfg
}

func TestAgentsInMemory(t *testing.T) {
	for seed := range uint64(25) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, seed, 15, ingesttest.NewStore(), objstoretest.NewMemory(), hurried(10*time.Millisecond))
				w.run(1, 10*time.Millisecond)
			})
		})
	}
}

func TestAgentsOnSQLiteAndDirectory(t *testing.T) { onSQLiteAndDirectory(t, testAgentsOn) }

func TestAgentsOnPostgres(t *testing.T) { onPostgres(t, testAgentsOn) }

// onSQLiteAndDirectory runs a test on real stores of one agent.
func onSQLiteAndDirectory(t *testing.T, run func(*testing.T, metadata.Store, objstore.Store)) {
	t.Parallel() // it waits more than it works
	folder := t.TempDir()
	store, err := sqlite.Open(t.Context(), filepath.Join(folder, "metadata.db"))
	if err != nil {
		t.Fatal(err)
	}
	objects, err := dir.Open(filepath.Join(folder, "objects"))
	if err != nil {
		t.Fatal(err)
	}
	run(t, store, objects)
	if err := errors.Join(objects.Close(), store.Close()); err != nil {
		t.Error(err)
	}
}

// onPostgres runs a test on a real metadata store that agents share.
func onPostgres(t *testing.T, run func(*testing.T, metadata.Store, objstore.Store)) {
	t.Parallel() // it waits more than it works
	store, err := postgres.Open(t.Context(), testdb.Postgres(t), postgres.Options{AgentID: "test", Session: uuid.New(), AllowUnsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	run(t, store, objstoretest.NewMemory())
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

// testAgentsOn runs a world on a real metadata store.
func testAgentsOn(t *testing.T, store metadata.Store, objects objstore.Store) {
	first := prepare(t, store)
	newWorld(t, 1, 6, store, objects, hurried(20*time.Millisecond)).run(first, 20*time.Millisecond)
}

// prepare makes the topic, younger than the producers, so that the store believes the
// first sequence that it sees of one. It returns the first producer's id.
func prepare(t *testing.T, store metadata.Store) (first int64) {
	ctx := t.Context()
	first, err := store.AllocateProducerIDs(ctx, producers*generations)
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(10 * time.Millisecond) // by its clock, the store sees that the topic is younger
	if err := store.CreateTopic(ctx, metadata.NewTopic{ID: topic, Name: "events", Partitions: partitions}); err != nil {
		t.Fatal(err)
	}
	return first
}
