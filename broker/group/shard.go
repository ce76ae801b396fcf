package group

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/internal/invariant"
	"github.com/streamhouse/streamhouse/lease"
)

// shard runs the machine of one of the coordinator's shards while the agent
// holds its lease.
type shard struct {
	*Coordinator
	key  lease.Key
	work chan struct{} // has an element if run may have something to do

	mu     sync.Mutex
	closed bool
	// lease is nil while there is none. machine is nil then too, but for the
	// time in which the shard acquires a new term for itself.
	lease   *lease.Lease
	unwatch func() bool // ends the watch over lease
	leaving *departure  // nil if the shard is not being handed over
	machine *machine
	waiting []request // that came without a lease, in their order
	queue   []effect  // what the store is to be asked, in order
	counted counts    // what the metrics say of the machine
	armed   bool      // the coordinator knows of a timer
	armedAt time.Duration
}

// request is a call that was not stepped yet.
type request struct {
	call *call
	body any
}

func newShard(c *Coordinator, key lease.Key) *shard {
	return &shard{Coordinator: c, key: key, work: make(chan struct{}, 1)}
}

// begin takes a request.
func (s *shard) begin(body any) *call {
	c := newCall()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease != nil && !s.lease.Held() {
		s.drop(kerr.NotCoordinator)
	}
	switch {
	case s.closed, s.away() && len(s.waiting) >= s.cfg.MaxWaiting, s.full(body):
		c.complete(nil, kerr.CoordinatorNotAvailable)
	case s.away():
		s.waiting = append(s.waiting, request{c, body})
		signal(s.work)
	default:
		s.step(c, body)
	}
	return c
}

// away says that requests have to wait: there is no lease, or it is being handed
// over.
func (s *shard) away() bool { return s.lease == nil || s.leaving != nil }

// full says that the store is too far behind for a request to be taken. A
// heartbeat asks it for nothing, or, of the consumer protocol, hardly ever.
func (s *shard) full(body any) bool {
	switch body.(type) {
	case *HeartbeatRequest, *ConsumerHeartbeatRequest:
		return false
	}
	return len(s.queue) >= s.cfg.MaxWaiting
}

// step steps the machine under mu.
func (s *shard) step(c *call, body any) {
	s.apply(s.machine.step(s.now(), c, body))
	if at, ok := s.machine.timers.next(); ok && (!s.armed || at < s.armedAt) {
		signal(s.rearm)
	}
}

// tick fires what is due, and says when it is to be called again. The timers
// stand still while the shard acquires a new term: the heartbeats wait then.
func (s *shard) tick(now time.Duration) (at time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = false
	if s.lease == nil || !s.lease.Held() {
		return 0, false
	}
	s.apply(s.machine.expire(now))
	s.armedAt, s.armed = s.machine.timers.next()
	return s.armedAt, s.armed
}

// apply does what a step wants.
func (s *shard) apply(effects []effect) {
	if invariant.Enabled {
		err := s.machine.check()
		invariant.Assert(err == nil, "%v", err)
	}
	for _, e := range effects {
		switch e := e.(type) {
		case reply:
			if !e.held {
				e.call.complete(e.answer, e.err)
				continue
			}
		case note:
			s.tell(e)
			if e.what == stable {
				s.metrics.rebalances.Inc()
			}
			continue
		}
		s.queue = append(s.queue, e)
		signal(s.work)
	}
	s.count(s.machine.counts)
}

// tell logs a change.
func (s *shard) tell(n note) {
	log := s.log
	if n.reason != "" {
		log = log.With("reason", n.reason)
	}
	log.Info(n.what, "group", n.group, "generation", n.generation, "members", n.members)
}

// count brings the metrics up to date.
func (s *shard) count(now counts) {
	if s.counted != now {
		s.metrics.move(&s.counted, &now)
		s.counted = now
	}
}

// run does the shard's I/O until ctx ends.
func (s *shard) run(ctx context.Context) {
	defer s.close()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.work:
		}
		if s.wanted() {
			s.acquire(ctx, -1)
		}
		s.flush(ctx)
		s.detach()
	}
}

// wanted says whether requests wait for the lease.
func (s *shard) wanted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lease == nil && s.leaving == nil && len(s.waiting) > 0
}

// acquire acquires the lease and steps what waits for it. The machine is kept
// if it is that of the term before, which after names; else it is made of what
// is stored. That includes all that earlier terms have written: whatever had not
// arrived when the lease was granted is fenced.
func (s *shard) acquire(ctx context.Context, after int32) {
	var got lease.Acquired
	_ = s.ask(ctx, s.cfg.AcquireTimeout, func(ctx context.Context) error {
		got = s.leases.Acquire(ctx, []lease.Key{s.key})[0]
		return got.Err
	})
	if got.Err != nil {
		s.refuse(got.Err)
		return
	}
	l := got.Lease
	s.forgetUnless(l.LeaderEpoch() == after+1)
	m, err := s.machine, error(nil) // nobody else changes it without a lease
	if m == nil {
		if m, err = s.load(ctx); err != nil {
			s.leases.Lose(l, fmt.Errorf("%w: %w", errNotLoaded, err))
			s.refuse(err)
			return
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := s.waiting
	s.waiting = nil
	s.lease, s.machine = l, m
	s.unwatch = context.AfterFunc(l.Context(), func() { s.lost(l) })
	s.count(m.counts)
	for _, r := range waiting {
		s.step(r.call, r.body)
	}
	signal(s.rearm)
}

// errNotLoaded is why a term ends before anything was done in it.
var errNotLoaded = errors.New("the groups can't be loaded")

// forgetUnless forgets the groups of the last term, unless no other agent was the
// leader in between.
func (s *shard) forgetUnless(successive bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.machine != nil && !successive {
		s.abandon(kerr.NotCoordinator)
	}
}

// load makes a machine of what is stored.
func (s *shard) load(ctx context.Context) (m *machine, err error) {
	start := s.now()
	err = s.ask(ctx, s.cfg.AcquireTimeout, func(ctx context.Context) error {
		stored, err := s.groups.LoadGroups(ctx, s.key)
		if err != nil {
			return err
		}
		m, err = newMachine(&s.cfg, s.view, s.now(), stored)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.metrics.load.Observe((s.now() - start).Seconds())
	level := slog.LevelInfo
	if len(m.groups) == 0 {
		level = slog.LevelDebug
	}
	s.log.Log(ctx, level, "loaded a group coordinator's shard", "shard", s.key.Partition, "groups", len(m.groups), "members", m.counts.members)
	return m, nil
}

// refuse answers what waits for a lease that was not granted, or of no use.
func (s *shard) refuse(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := error(kerr.NotCoordinator)
	if !lease.HandedOver(reason) {
		err = kerr.CoordinatorNotAvailable
		s.log.Warn("cannot lead a group coordinator's shard", "shard", s.key.Partition, "error", reason)
	}
	s.drop(err)
}

// lost is called when a lease has ended.
func (s *shard) lost(l *lease.Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == l {
		s.log.Info("group coordinator's shard is lost", "shard", s.key.Partition, "cause", context.Cause(l.Context()))
		s.drop(kerr.NotCoordinator)
	}
}

// drop forgets the shard's groups and answers everything that waits, under mu.
func (s *shard) drop(err error) {
	if s.unwatch != nil {
		s.unwatch()
	}
	for _, r := range s.waiting {
		r.call.complete(nil, err)
	}
	s.abandon(err)
	s.lease, s.unwatch, s.waiting = nil, nil, nil
}

// abandon forgets the machine and answers what waits for it or for the store,
// under mu.
func (s *shard) abandon(err error) {
	if s.machine != nil {
		for _, c := range s.machine.abandon() {
			c.complete(nil, err)
		}
	}
	fail(s.queue, err)
	s.machine, s.queue = nil, nil
	s.count(counts{})
}

// close ends the shard for good.
func (s *shard) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.drop(kerr.CoordinatorNotAvailable)
}

// leads says whether the agent holds the shard's lease.
func (s *shard) leads() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lease != nil && s.lease.Held()
}

// errUncertain is why a term ends in which a change was not made, or may be made
// late.
var errUncertain = errors.New("a change of groups has failed or may still be made")

// succeed ends the term of l, in which a statement may still be under way, and
// acquires the next one, which fences it. It returns nil if the shard is lost, or
// another agent was the leader in between: what was to be changed is then no
// continuation of what is stored.
func (s *shard) succeed(ctx context.Context, l *lease.Lease, cause error) *lease.Lease {
	s.mu.Lock()
	m := s.machine
	if s.lease != l {
		s.mu.Unlock()
		return nil
	}
	s.unwatch()
	s.lease, s.unwatch = nil, nil
	s.mu.Unlock()
	s.leases.Lose(l, fmt.Errorf("%w: %w", errUncertain, cause))
	s.acquire(ctx, l.LeaderEpoch())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.machine != m {
		return nil
	}
	return s.lease
}

// signal makes sure that c has an element.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
