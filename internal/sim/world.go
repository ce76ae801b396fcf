package sim

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/broker/fetch"
	"github.com/streamhouse/streamhouse/broker/ingest"
	"github.com/streamhouse/streamhouse/internal/check"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment/objstore"
	"github.com/streamhouse/streamhouse/segment/objstore/objstoretest"
)

// settings are how a world is made. They follow from the seed.
type settings struct {
	agents           int
	partitions       int32
	load             time.Duration // how long clients work and faults happen
	lease            lease.Config
	topologyInterval time.Duration
	ingest           ingest.Config
	fetch            fetch.Config
	objects          objstore.Policy
	// Of so many calls one fails at all times; 0: none.
	databaseOneIn, bucketOneIn int64
}

// newSettings rolls them. Most worlds are short and have short leases, so that
// many seeds are tried; some last long enough for what takes its time: balance,
// and giving up a bucket.
func newSettings(d *dice) settings {
	s := settings{
		agents: 3 + d.intN(3), partitions: int32(2 + d.intN(3)), load: d.between(4*time.Second, 9*time.Second),
		lease: lease.DefaultConfig(), topologyInterval: 5 * time.Second,
		ingest: ingest.DefaultConfig(), objects: objstore.DefaultPolicy(),
		fetch: fetch.Config{CacheBytes: 64 << 10, BlockBytes: 4 << 10, ReadAheadBlocks: 1},
	}
	s.lease.Duration = []time.Duration{1500 * time.Millisecond, 3 * time.Second, 6 * time.Second}[d.intN(3)]
	if d.oneIn(10) {
		s.load = d.between(20*time.Second, 40*time.Second)
		s.lease.Duration = []time.Duration{6 * time.Second, 12 * time.Second, 30 * time.Second}[d.intN(3)]
	}
	s.lease.RenewInterval = s.lease.Duration * 3 / 5
	s.lease.Margin = min(s.lease.Margin, s.lease.Duration/10)
	if d.oneIn(2) {
		s.databaseOneIn, s.bucketOneIn = int64(50+d.intN(200)), int64(10+d.intN(50))
	}
	s.ingest.InlineMaxBytes = []int64{0, 400, 16 << 10}[d.intN(3)]
	if d.oneIn(2) { // impatient
		s.ingest.UploadTimeout, s.ingest.CommitTimeout, s.ingest.CommitDeadline = 4*time.Second, time.Second, 3*time.Second
		s.objects.AttemptTimeout = time.Second
	}
	return s
}

// world is a cluster with its clients, in virtual time.
type world struct {
	seed     uint64
	settings settings
	mutant   Mutant
	db       *database
	bucket   *objstoretest.Memory
	network  *network
	recorder *check.Recorder
	topic    metadata.NewTopic
	start    time.Time

	faults     faults
	noDatabase gate // nothing comes through to the database
	noBucket   gate // nor to the bucket

	slots []*slot

	over  context.Context // ended when the load ends
	end   context.CancelFunc
	gone  context.Context // ended when the agents are to end for good
	leave context.CancelFunc

	harms, lives, links, afters sync.WaitGroup

	mu         sync.Mutex
	numbers    int32
	living     map[*node]bool // also those whose place another has taken
	events     []event
	wrong      []string
	operations Operations
}

func newWorld(seed uint64, mutant Mutant, dir string) (*world, error) {
	w := &world{seed: seed, mutant: mutant, bucket: objstoretest.NewMemory(), network: newNetwork(), start: time.Now(), living: make(map[*node]bool)}
	w.settings = newSettings(w.dice("settings", 0))
	w.faults.reset()
	w.faults.databaseOneIn.Store(w.settings.databaseOneIn)
	w.faults.bucketOneIn.Store(w.settings.bucketOneIn)
	var err error
	if w.db, err = openDatabase(dir, mutant, w.bucket); err != nil {
		return nil, err
	}
	w.topic = metadata.NewTopic{ID: uuid.New(), Name: "events", Partitions: w.settings.partitions}
	if err := w.db.CreateTopic(context.Background(), w.topic); err != nil {
		return nil, err
	}
	w.over, w.end = context.WithCancel(context.Background())
	w.gone, w.leave = context.WithCancel(context.Background())
	w.recorder = check.NewRecorder()
	for i := range w.settings.agents {
		w.slots = append(w.slots, &slot{id: fmt.Sprintf("agent-%d", i), address: fmt.Sprintf("10.0.0.%d:9092", i+1)})
	}
	return w, nil
}

// dice returns random numbers of their own for who asks by this name.
func (w *world) dice(name string, number int) *dice {
	h := fnv.New64a()
	fmt.Fprint(h, name, number)
	return &dice{r: rand.New(rand.NewPCG(w.seed, h.Sum64()))}
}

func (w *world) loading() bool { return w.over.Err() == nil }

// rest lets time pass, or the load end.
func (w *world) rest(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.over.Done():
	}
}

// later does something at some time that its cause does not wait for.
func (w *world) later(s *site, do func()) {
	after := s.random.between(0, 2*w.settings.lease.Duration)
	if s.random.oneIn(2) {
		after = s.random.latency(50 * time.Millisecond)
	}
	w.afters.Go(func() {
		w.rest(after) // what is late when the load ends arrives then
		pause(s.random.latency(hop))
		do()
	})
}

// supervise runs an agent, again and again at one address: mostly under the same
// id, as most are deployed. While one has not ended it is replaced under its own id,
// and ends when it learns of that: two that go on at one address would be a mistake
// of their operator.
func (w *world) supervise(sl *slot) {
	d := w.dice("supervisor "+sl.address, 0)
	id := sl.id
	var alive atomic.Int32
	for life := 1; w.gone.Err() == nil; life++ {
		w.mu.Lock()
		w.numbers++
		s := newSite(w, w.numbers, id)
		w.mu.Unlock()
		ended := make(chan struct{})
		replaced := make(chan struct{})
		alive.Add(1)
		w.lives.Go(func() {
			defer close(ended)
			defer alive.Add(-1)
			w.live(sl, s, sync.OnceFunc(func() { close(replaced) }))
		})
		select {
		case <-ended:
			if alive.Load() == 0 && d.oneIn(4) {
				id = fmt.Sprintf("%s.%d", sl.id, life)
			}
			w.rest(d.between(50*time.Millisecond, 5*time.Second))
		case <-replaced:
		case <-w.gone.Done():
		}
		if w.gone.Err() == nil {
			pause(d.between(time.Millisecond, 50*time.Millisecond))
		}
	}
}

// live runs one life of an agent. Others may come after it before it has ended,
// and take its place.
func (w *world) live(sl *slot, s *site, replace func()) {
	defer context.AfterFunc(w.gone, s.die)()
	defer s.die()
	err := func() error {
		ctx, cancel := context.WithTimeout(s.life, 30*time.Second)
		defer cancel()
		n, err := startNode(ctx, s, sl.address)
		if err != nil {
			return err
		}
		draining, drain := context.WithCancel(context.Background())
		defer drain()
		sl.take(n, drain, replace)
		defer sl.leave(n)
		w.setLiving(n, true)
		defer w.setLiving(n, false)
		w.note("%s serves at %s", s, sl.address)
		return n.run(draining)
	}()
	if w.note("%s has ended: %v", s, err); err != nil && !expected(err) {
		w.fail("%s has ended: %v", s, err)
	}
}

func (w *world) setLiving(n *node, lives bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if lives {
		w.living[n] = true
	} else {
		delete(w.living, n)
	}
}

// settle waits until no agent has anything in its pool that nobody waits for any
// more, and that would be committed during the final reads.
func (w *world) settle() {
	for deadline := time.Now().Add(patience); ; pause(100 * time.Millisecond) {
		busy := false
		w.mu.Lock()
		for n := range w.living {
			busy = busy || n.buffered() > 0
		}
		w.mu.Unlock()
		switch {
		case !busy:
			return
		case time.Now().After(deadline):
			w.fail("agents do not decide what is in their pools")
			return
		}
	}
}

// expected says whether an agent may end with such an error.
func expected(err error) bool {
	return errors.Is(err, metadata.ErrSuperseded) || errors.Is(err, metadata.ErrUnavailable) ||
		errors.Is(err, metadata.ErrUnknownOutcome) || errors.Is(err, context.DeadlineExceeded)
}

// slot is a place for an agent, at which one life follows on another.
type slot struct {
	id, address string

	mu             sync.Mutex
	node           *node // nil while it is down
	drain, replace func()
}

func (sl *slot) take(n *node, drain, replace func()) {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	sl.node, sl.drain, sl.replace = n, drain, replace
}

// leave empties the place, unless another life is there already.
func (sl *slot) leave(n *node) {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if sl.node == n {
		sl.node = nil
	}
}

// at returns what ends and what replaces a life; nothings if it is not there.
func (w *world) at(s *site) (drain, replace func()) {
	for _, sl := range w.slots {
		sl.mu.Lock()
		if sl.node != nil && sl.node.site == s {
			drain, replace = sl.drain, sl.replace
		}
		sl.mu.Unlock()
	}
	if drain == nil {
		return func() {}, func() {}
	}
	return drain, replace
}

// nodes are the agents that are up.
func (w *world) nodes() []*node {
	var up []*node
	for _, sl := range w.slots {
		sl.mu.Lock()
		if sl.node != nil {
			up = append(up, sl.node)
		}
		sl.mu.Unlock()
	}
	return up
}

func (w *world) anyNode(d *dice) *node {
	up := w.nodes()
	if len(up) == 0 {
		return nil
	}
	return up[d.intN(len(up))]
}

// anyAddress is that of some agent, up or not.
func (w *world) anyAddress(d *dice) string { return w.slots[d.intN(len(w.slots))].address }

// logger is the log of an agent.
func (w *world) logger(*site) *slog.Logger { return slog.New(slog.DiscardHandler) }

// heal ends all faults.
func (w *world) heal() {
	w.faults.reset()
	w.noDatabase.open()
	w.noBucket.open()
	for _, n := range w.nodes() {
		n.site.heal()
	}
}

// run lets the world happen, and returns what was wrong with it.
func (w *world) run() {
	for _, sl := range w.slots {
		w.lives.Go(func() { w.supervise(sl) })
	}
	var clients, readers sync.WaitGroup
	w.startClients(&clients, &readers)
	w.harms.Go(w.zombies)
	w.harms.Go(w.nemesis)
	pause(w.settings.load)
	w.note("the load ends, and all faults with it")
	w.end()
	w.harms.Wait()
	w.heal()
	clients.Wait() // producers, until all is acknowledged
	readers.Wait()
	w.settle()
	w.afters.Wait()
	w.readAll()
	w.leave()
	w.lives.Wait()
	w.network.wires.Wait()
	w.links.Wait()
	pause(time.Second) // for the goroutines of contexts, of which nobody can wait for the end
}
