package topology

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// Source is what the watcher reads: metadata.Topics' Topology.
type Source interface {
	Topology(ctx context.Context, since int64) (*metadata.Topology, error)
}

// Config sets the watcher's pace. All fields are required.
type Config struct {
	// Interval is the steady pace at which the store's version is looked at.
	Interval time.Duration
	// AgentFresh is the age of a heartbeat from which on an agent is not named
	// to clients any more: the lease duration, after which its leases are free.
	AgentFresh time.Duration
	// NodeID is this agent's.
	NodeID int32
	// Broker are the configured defaults of topics.
	Broker *config.Broker
	// Deleted is told of every topic that went away. It must not block.
	Deleted func(topic uuid.UUID)
	// Changed, if not nil, is told of every snapshot when it is the current one. It
	// must not block.
	Changed func(*Snapshot)
}

// Watcher keeps the snapshot. Its methods are safe for concurrent use.
type Watcher struct {
	cfg     Config
	source  Source
	log     *slog.Logger
	current atomic.Pointer[Snapshot]

	left atomic.Bool // this agent is left out

	// The last time in which the store could not be asked: how long, and its end.
	// Of the round trip under way.
	outage time.Duration
	back   time.Time

	mu      sync.Mutex
	pending *refresh // the round trip that is under way, or nil
}

// refresh is one shared round trip.
type refresh struct {
	began time.Time
	done  chan struct{}
	err   error
}

// NewWatcher returns a watcher whose snapshot is empty until the first Refresh.
func NewWatcher(cfg Config, source Source, log *slog.Logger) *Watcher {
	w := &Watcher{cfg: cfg, source: source, log: log}
	w.current.Store(&Snapshot{
		Broker:  cfg.Broker,
		group:   cfg.Broker.Group(nil),
		fresh:   cfg.AgentFresh,
		byName:  map[string]*Topic{},
		byID:    map[uuid.UUID]*Topic{},
		configs: map[metadata.Resource]map[string]string{},
		leaders: map[lease.Key]metadata.Leader{},
		shards:  map[lease.Key]bool{},
	})
	return w
}

// Snapshot returns the view as it is. Never nil.
func (w *Watcher) Snapshot() *Snapshot { return w.current.Load() }

// Leave leaves this agent out of the snapshots that are taken from now on, with
// true: its clients are sent to the others, as far as there are any.
func (w *Watcher) Leave(left bool) { w.left.Store(left) }

// Run looks at the store at the steady pace until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	tick := time.NewTicker(w.cfg.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if _, err := w.Refresh(ctx, w.cfg.Interval/2); err != nil && ctx.Err() == nil {
			w.log.Warn("cannot refresh the view of the cluster; the last one stays in use", "error", err)
		}
	}
}

// Refresh returns a snapshot that is not older than maxAge, from the store if
// need be. Concurrent calls share a round trip, if it began late enough for
// them; maxAge 0 asks for one that begins now. On an error the last snapshot
// is returned with it.
func (w *Watcher) Refresh(ctx context.Context, maxAge time.Duration) (*Snapshot, error) {
	notBefore := time.Now().Add(-maxAge)
	for {
		if s := w.Snapshot(); !s.Taken.Before(notBefore) {
			return s, nil
		}
		r := w.join(ctx)
		select {
		case <-r.done:
		case <-ctx.Done():
			return w.Snapshot(), ctx.Err()
		}
		if !r.began.Before(notBefore) && r.err != nil {
			return w.Snapshot(), r.err
		}
	}
}

// Current returns a snapshot from after the call, for whoever must not miss what
// another agent has answered before. However many ask, round trips begin no
// sooner than pause after the one before: who comes earlier waits.
func (w *Watcher) Current(ctx context.Context, pause time.Duration) (*Snapshot, error) {
	called := time.Now()
	if early := pause - called.Sub(w.Snapshot().Taken); early > 0 {
		wait := time.NewTimer(early)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-ctx.Done():
			return w.Snapshot(), ctx.Err()
		}
	}
	return w.Refresh(ctx, time.Since(called))
}

// join returns the round trip under way, or starts one.
func (w *Watcher) join(ctx context.Context) *refresh {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pending != nil {
		return w.pending
	}
	r := &refresh{began: time.Now(), done: make(chan struct{})}
	w.pending = r
	go func() {
		// Whoever came first may leave; the others still wait for the answer.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refreshTimeout)
		defer cancel()
		err := w.load(ctx, r.began)
		w.mu.Lock()
		w.pending = nil
		w.mu.Unlock()
		r.err = err
		close(r.done)
	}()
	return r
}

// refreshTimeout bounds one round trip, so that a store that hangs does not
// hang everyone who waits for the same answer.
const refreshTimeout = 10 * time.Second

func (w *Watcher) load(ctx context.Context, began time.Time) error {
	old := w.Snapshot()
	d, err := w.source.Topology(ctx, old.Version)
	if err != nil {
		return fmt.Errorf("read topology: %w", err)
	}
	if w.left.Load() {
		d.Agents = slices.DeleteFunc(d.Agents, func(a metadata.Agent) bool { return a.NodeID == w.cfg.NodeID })
	}
	current := old.apply(d, began, w.cfg.AgentFresh+w.leniency(old.Taken, began), w.cfg)
	w.current.Store(current)
	for _, id := range d.Deleted {
		w.cfg.Deleted(id)
	}
	if w.cfg.Changed != nil {
		w.cfg.Changed(current)
	}
	return nil
}

// backTime is how long agents may take to be heard of again by a store that was away.
const backTime = 5 * time.Second

// leniency is how much older heartbeats may be than they ought to: while the store
// is away nobody can send one, and who finds back to it first must not take the
// others for dead. last and now are when the store was asked.
func (w *Watcher) leniency(last, now time.Time) time.Duration {
	if away := now.Sub(last); !last.IsZero() && away > 2*w.cfg.Interval {
		w.outage, w.back = away, now
	}
	if now.Sub(w.back) < backTime {
		return w.outage
	}
	return 0
}
