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
	databaseOneIn, bucketOneIn, callsOneIn int64
	zones                                  int  // 0: none, and agents that do not call each other
	silent                                 bool // the first agent does not take part in calls
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
	s.zones = []int{0, 1, 2, 2, 3, 3}[d.intN(6)]
	s.silent = s.zones > 0 && d.oneIn(8)
	if d.oneIn(2) {
		s.callsOneIn = int64(20 + d.intN(150))
	}
	if d.oneIn(2) {
		s.ingest.RemoteTimeout = d.between(200*time.Millisecond, 2*time.Second)
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
	alive                       atomic.Int32 // lives that have not ended

	mu         sync.Mutex
	numbers    int32
	events     []event
	wrong      []string
	operations Operations
}

func newWorld(seed uint64, mutant Mutant, dir string) (*world, error) {
	w := &world{seed: seed, mutant: mutant, bucket: objstoretest.NewMemory(), network: newNetwork(), start: time.Now()}
	w.settings = newSettings(w.dice("settings", 0))
	w.faults.reset()
	w.faults.databaseOneIn.Store(w.settings.databaseOneIn)
	w.faults.bucketOneIn.Store(w.settings.bucketOneIn)
	w.faults.callsOneIn.Store(w.settings.callsOneIn)
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
	w.place()
	return w, nil
}

// place makes the places for agents, in each zone one at least.
func (w *world) place() {
	d := w.dice("places", 0)
	for i := range w.settings.agents {
		sl := &slot{id: fmt.Sprintf("agent-%d", i), address: fmt.Sprintf("10.0.0.%d:9092", i+1)}
		if n := w.settings.zones; n > 0 {
			in := i
			if i >= n {
				in = d.intN(n)
			}
			sl.zone = zoneName(in)
			if i > 0 || !w.settings.silent {
				sl.calls = fmt.Sprintf("10.0.0.%d:9093", i+1)
			}
		}
		w.slots = append(w.slots, sl)
	}
}

func zoneName(n int) string { return string(rune('a' + n)) }

// dice returns random numbers of their own for who asks by this name.
func (w *world) dice(name string, number int) *dice {
	h := fnv.New64a()
	fmt.Fprint(h, name, number)
	return &dice{r: rand.New(rand.NewPCG(w.seed, h.Sum64()))}
}

// borrowed counts records that one agent took in and another committed.
func (w *world) borrowed(records int64) { atomic.AddInt64(&w.operations.Borrowed, records) }

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
	w.alive.Add(1)
	defer w.alive.Add(-1)
	defer context.AfterFunc(w.gone, s.die)()
	defer s.die()
	err := func() error {
		ctx, cancel := context.WithTimeout(s.life, 30*time.Second)
		defer cancel()
		n, err := startNode(ctx, s, sl)
		if err != nil {
			return err
		}
		draining, drain := context.WithCancel(context.Background())
		defer drain()
		sl.take(s, drain, replace)
		defer sl.leave(s)
		w.note("%s serves at %s", s, sl.address)
		return n.Run(s.life, draining.Done())
	}()
	if w.note("%s has ended: %v", s, err); err != nil && !expected(err) {
		w.fail("%s has ended: %v", s, err)
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
	zone        string // "" if there are none
	calls       string // where other agents reach it; "" if they do not

	mu             sync.Mutex
	site           *site // nil while it is down
	leaving        bool  // it drains
	drain, replace func()
}

func (sl *slot) take(s *site, drain, replace func()) {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	sl.site, sl.leaving, sl.replace = s, false, replace
	sl.drain = func() {
		sl.mu.Lock()
		sl.leaving = sl.leaving || sl.site == s
		sl.mu.Unlock()
		drain()
	}
}

// leave empties the place, unless another life is there already.
func (sl *slot) leave(s *site) {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if sl.site == s {
		sl.site = nil
	}
}

// at returns what ends and what replaces a life; nothings if it is not there.
func (w *world) at(s *site) (drain, replace func()) {
	for _, sl := range w.slots {
		sl.mu.Lock()
		if sl.site == s {
			drain, replace = sl.drain, sl.replace
		}
		sl.mu.Unlock()
	}
	if drain == nil {
		return func() {}, func() {}
	}
	return drain, replace
}

// sites are those of the agents that are up.
func (w *world) sites() []*site {
	var up []*site
	for _, sl := range w.slots {
		sl.mu.Lock()
		if sl.site != nil {
			up = append(up, sl.site)
		}
		sl.mu.Unlock()
	}
	return up
}

func (w *world) anySite(d *dice) *site {
	up := w.sites()
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
	for _, s := range w.sites() {
		s.heal()
	}
}

// settle waits until nobody is left of whom something may still come: agents that
// drain, or were replaced, commit what they have accepted. What a client has given up
// may be with the others for a moment, and for longer if these have asked yet others to
// commit it.
func (w *world) settle() {
	settled := func() bool {
		up := int32(0)
		for _, sl := range w.slots {
			sl.mu.Lock()
			if sl.site != nil && !sl.leaving {
				up++
			}
			sl.mu.Unlock()
		}
		return up == int32(len(w.slots)) && w.alive.Load() == up
	}
	const patience, step = 5 * time.Minute, 50 * time.Millisecond
	for waited := time.Duration(0); !settled(); waited += step {
		if waited > patience {
			w.fail("agents that have left or were replaced do not end")
			return
		}
		pause(step)
	}
	pause(3 * time.Second)
	if w.settings.zones > 0 {
		pause(w.settings.ingest.RemoteTimeout)
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
	w.afters.Wait()
	w.settle()
	w.readAll()
	w.leave()
	w.lives.Wait()
	w.network.wires.Wait()
	w.links.Wait()
	pause(time.Second) // for the goroutines of contexts, of which nobody can wait for the end
}
