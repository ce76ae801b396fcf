package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/streamhouse/streamhouse/metadata"
)

// Config sets the pace of an agent's signs of life.
type Config struct {
	// HeartbeatInterval is the time between two heartbeats, jittered by 10 %.
	HeartbeatInterval time.Duration
	// RequestTimeout bounds one request to the store.
	RequestTimeout time.Duration
	// Doubt is told that the agent's leases may be gone: it stood still, or was
	// believed dead. It must not block.
	Doubt func()
}

// Agent is this process's entry in the register. Safe for concurrent use after
// Start.
type Agent struct {
	cfg     Config
	store   metadata.Agents
	self    metadata.Agent
	log     *slog.Logger
	metrics *metrics

	started  time.Time
	lastBeat atomic.Pointer[time.Time] // when the last successful one was sent
	cutOff   atomic.Pointer[time.Time] // since when the sign of life is lost; nil while it is up
	draining atomic.Bool
	place    atomic.Int32 // one of present, away, returning

	beatNow  chan struct{} // has an element if a heartbeat is wanted at once
	rejoined chan struct{} // has an element if the sign of life is that of a buried session
	doubted  chan struct{} // has an element if it was challenged
	isolated chan struct{} // has an element while nobody reaches it
}

// Where an agent is, by its own wish.
const (
	present   int32 = iota
	away            // off the register
	returning       // not on it yet
)

// Start registers the agent, which supersedes an earlier process of the same
// id, and returns when the store knows it.
func Start(ctx context.Context, cfg Config, store metadata.Agents, self metadata.Agent, m *Metrics, log *slog.Logger) (*Agent, error) {
	a := &Agent{
		cfg: cfg, store: store, self: self, log: log, started: time.Now(),
		beatNow: make(chan struct{}, 1), rejoined: make(chan struct{}, 1), doubted: make(chan struct{}, 1),
		isolated: make(chan struct{}, 1),
	}
	node, err := a.register(ctx)
	if err != nil {
		return nil, err
	}
	a.self.NodeID = node
	a.metrics = m.of(a)
	return a, nil
}

func (a *Agent) register(ctx context.Context) (nodeID int32, err error) {
	sent := time.Now()
	if nodeID, err = a.store.Register(ctx, a.self); err != nil {
		return 0, fmt.Errorf("register agent %q: %w", a.self.ID, err)
	}
	a.lastBeat.Store(&sent)
	return nodeID, nil
}

// Self is the agent as it was registered.
func (a *Agent) Self() metadata.Agent { return a.self }

// Run keeps the agent among the living until ctx ends, and returns nil then: it
// sends heartbeats, attends, watches for times in which the process stood still,
// and finds out whether anybody reaches it. An error ends the agent:
// metadata.ErrSuperseded says that another process runs under its id. In a drain
// that is the one that comes after it, and no error: what is left to do is fenced by
// leases, not by the register.
//
// An agent that was buried and lives, since it was frozen or cut off, registers
// again and goes on: it has lost its leases and nothing else.
func (a *Agent) Run(ctx context.Context) error {
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return a.heartbeats(ctx) })
	parts.Go(func() error { return a.attend(ctx) })
	parts.Go(func() error { return a.watchClock(ctx) })
	parts.Go(func() error { return a.watchReach(ctx) })
	return parts.Wait()
}

// heartbeats sends heartbeats at the steady pace, and when one is wanted.
func (a *Agent) heartbeats(ctx context.Context) error {
	timer := time.NewTimer(a.pause())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-a.beatNow:
		}
		err := a.stayListed(ctx)
		ended := errors.Is(err, metadata.ErrSuperseded) || errors.Is(err, metadata.ErrBuried)
		switch {
		case err == nil:
			timer.Reset(a.pause())
		case ended && a.draining.Load(), ctx.Err() != nil:
			return nil
		case errors.Is(err, metadata.ErrSuperseded):
			a.metrics.failures.WithLabelValues("superseded").Inc()
			return fmt.Errorf("agent %q: %w: give every agent an agent_id of its own", a.self.ID, err)
		default:
			a.metrics.failures.WithLabelValues("heartbeat").Inc()
			a.log.Warn("heartbeat failed", "agent", a.self.ID, "last_success", a.age().String(), "error", err)
			timer.Reset(min(a.pause()/4, maxRetry))
		}
	}
}

// maxRetry bounds the time until a failed heartbeat is tried again: a challenge
// may be open.
const maxRetry = time.Second

func (a *Agent) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.RequestTimeout)
	defer cancel()
	sent := time.Now()
	if err := a.store.Heartbeat(ctx, a.self.ID, a.self.Session); err != nil {
		return err
	}
	a.lastBeat.Store(&sent)
	return nil
}

// stayListed sends a heartbeat, and registers the agent again if it has returned,
// or was buried.
func (a *Agent) stayListed(ctx context.Context) error {
	place := a.place.Load()
	if place == away {
		return nil
	}
	err := a.beat(ctx)
	switch {
	case err == nil:
		a.place.CompareAndSwap(returning, present)
		return nil
	case !errors.Is(err, metadata.ErrBuried), a.draining.Load():
		return err
	case a.place.Load() == away: // by now
		return nil
	case place == returning:
		if err := a.registerAgain(ctx); err != nil {
			return err
		}
		a.place.CompareAndSwap(returning, present)
		return nil
	}
	return a.rejoin(ctx)
}

// rejoin registers the agent again after it was buried. Its leases are free, and
// may be others' by now.
func (a *Agent) rejoin(ctx context.Context) error {
	a.metrics.failures.WithLabelValues("buried").Inc()
	a.log.Warn("this agent was believed dead, and has lost its leases; it registers again",
		"agent", a.self.ID, "last_success", a.age().String())
	a.cfg.Doubt()
	return a.registerAgain(ctx)
}

// registerAgain makes a session that has ended one that lives.
func (a *Agent) registerAgain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.RequestTimeout)
	defer cancel()
	if _, err := a.register(ctx); err != nil {
		return err
	}
	signal(a.rejoined)
	return nil
}

// Withdraw takes the agent off the register until Return: it is alive and of no
// use, and others must not count on it. An error means that it may still be
// listed, for AgentListedFor at most.
func (a *Agent) Withdraw(ctx context.Context) error {
	a.place.Store(away)
	return a.Stop(ctx)
}

// Return has an agent that withdrew register again.
func (a *Agent) Return() {
	drain(a.isolated) // until it is found again
	a.place.CompareAndSwap(away, returning)
	signal(a.beatNow)
}

// Mean times between two tries to attend.
const (
	attendRetry    = 100 * time.Millisecond
	maxAttendRetry = time.Second // less than peers wait for the answer to a challenge
)

// attend holds the agent's sign of life, again whenever it is lost.
func (a *Agent) attend(ctx context.Context) error {
	delay := attendRetry
	signals := metadata.Signals{
		Present:    func() { a.cutOff.Store(nil); delay = attendRetry },
		Challenged: func() { signal(a.beatNow); signal(a.doubted) },
	}
	for ctx.Err() == nil {
		life, end := context.WithCancel(ctx)
		lost := make(chan error, 1)
		go func() { lost <- a.store.Attend(life, a.self.ID, a.self.Session, signals) }()
		var err error
		select {
		case err = <-lost:
		case <-a.rejoined:
			end()
			err = <-lost
		}
		end()
		switch {
		case ctx.Err() != nil, a.draining.Load():
			return nil
		case err == nil: // attend again, for the session's new life
			continue
		case errors.Is(err, metadata.ErrSuperseded), errors.Is(err, metadata.ErrBuried):
			signal(a.beatNow) // which finds out, and decides
		default:
			now := time.Now()
			a.cutOff.CompareAndSwap(nil, &now)
			a.metrics.failures.WithLabelValues("attend").Inc()
			a.log.Warn("the sign of life is lost, will attend again", "agent", a.self.ID, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-a.rejoined:
		case <-time.After(delay/2 + rand.N(delay)):
		}
		delay = min(2*delay, maxAttendRetry)
	}
	return nil
}

const (
	clockTick = 500 * time.Millisecond
	// maxStandstill is the longest time between two ticks that is no reason to
	// doubt: peers take longer to bury an agent.
	maxStandstill = 3 * time.Second
)

// watchClock notices that the process stood still (a stopped process, a frozen
// machine): meanwhile it may have been buried.
func (a *Agent) watchClock(ctx context.Context) error {
	tick := time.NewTicker(clockTick)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := time.Now()
		// The monotonic clock stands still too while a machine is suspended. A wall
		// clock that was set costs a renewal.
		if still := max(now.Sub(last), now.Round(0).Sub(last.Round(0))); still > maxStandstill {
			a.cfg.Doubt()
			signal(a.beatNow)
			a.metrics.failures.WithLabelValues("standstill").Inc()
			a.log.Warn("the process stood still, its leases are in doubt", "agent", a.self.ID, "for", still.String())
		}
		last = now
	}
}

// Topology reads the cluster's topology from a store.
type Topology interface {
	// Topology is that of metadata.Topics.
	Topology(ctx context.Context, since int64) (*metadata.Topology, error)
}

// Listed returns a source of topologies that have this agent as one that is
// alive: it is, for it asks. Where the store has not heard of it for too long,
// since the database was away or its clock was set, a heartbeat goes first: an
// agent must not tell clients that there is none.
func (a *Agent) Listed(source Topology) Topology { return &listed{a, source} }

type listed struct {
	agent  *Agent
	source Topology
}

func (l *listed) Topology(ctx context.Context, since int64) (*metadata.Topology, error) {
	t, err := l.source.Topology(ctx, since)
	if err != nil || l.agent.draining.Load() || l.agent.place.Load() != present || l.agent.heard(t.Agents) {
		return t, err
	}
	if err := l.agent.beat(ctx); err != nil {
		l.agent.log.Warn("this agent is not listed, and cannot say that it is alive", "agent", l.agent.self.ID, "error", err)
		signal(l.agent.beatNow) // Run sees to it
		return t, nil
	}
	return l.source.Topology(ctx, since)
}

// heard says whether the agent is listed with a heartbeat that is not overdue.
func (a *Agent) heard(agents []metadata.Agent) bool {
	i := slices.IndexFunc(agents, func(o metadata.Agent) bool { return o.ID == a.self.ID })
	return i >= 0 && agents[i].HeartbeatAge < a.cfg.HeartbeatInterval*5/4
}

// pause is the time to the next heartbeat, spread so that agents that started
// together do not beat together.
func (a *Agent) pause() time.Duration {
	const jitter = 0.1
	return time.Duration(float64(a.cfg.HeartbeatInterval) * (1 - jitter + 2*jitter*rand.Float64()))
}

func (a *Agent) age() time.Duration { return time.Since(*a.lastBeat.Load()) }

// Drain makes the agent not ready: it is on its way out.
func (a *Agent) Drain() { a.draining.Store(true) }

// HealthCheck returns nil while the agent is fit to serve: the others list it,
// and it is not shutting down.
func (a *Agent) HealthCheck() error {
	if a.draining.Load() {
		return errors.New("shutting down")
	}
	if age := a.age(); age > metadata.AgentListedFor {
		return fmt.Errorf("last heartbeat was %s ago: the metadata store can not be reached", age.Round(time.Second))
	}
	return nil
}

// CutOff says whether the agent has lost its sign of life and does not get it
// back: it can't reach the store, and is of no use to clients.
func (a *Agent) CutOff() bool {
	since := a.cutOff.Load()
	return since != nil && time.Since(*since) > cutOffAfter && !a.draining.Load()
}

// cutOffAfter is how long an agent looks for its way back to the store before it
// tells.
const cutOffAfter = time.Second

// Stop deregisters the agent.
func (a *Agent) Stop(ctx context.Context) error {
	if err := a.store.Deregister(ctx, a.self.ID, a.self.Session); err != nil {
		return fmt.Errorf("deregister agent %q: %w", a.self.ID, err)
	}
	return nil
}

// drain makes sure that c has no element.
func drain(c chan struct{}) {
	select {
	case <-c:
	default:
	}
}

// signal makes sure that c has an element.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
