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

	"github.com/streamhouse/streamhouse/metadata"
)

// Config sets the pace of an agent's signs of life.
type Config struct {
	// HeartbeatInterval is the time between two heartbeats, jittered by 10 %.
	HeartbeatInterval time.Duration
	// RequestTimeout bounds one request to the store.
	RequestTimeout time.Duration
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
	draining atomic.Bool
}

// Start registers the agent, which supersedes an earlier process of the same
// id, and returns when the store knows it.
func Start(ctx context.Context, cfg Config, store metadata.Agents, self metadata.Agent, m *Metrics, log *slog.Logger) (*Agent, error) {
	a := &Agent{cfg: cfg, store: store, self: self, log: log, started: time.Now()}
	sent := time.Now()
	node, err := store.Register(ctx, self)
	if err != nil {
		return nil, fmt.Errorf("register agent %q: %w", self.ID, err)
	}
	a.self.NodeID = node
	a.lastBeat.Store(&sent)
	a.metrics = m.of(a)
	return a, nil
}

// Self is the agent as it was registered.
func (a *Agent) Self() metadata.Agent { return a.self }

// Run sends heartbeats until ctx ends, and returns nil then. An error ends the
// agent: metadata.ErrSuperseded says that another process runs under its id. In
// a drain that is the one that comes after it, or its own Stop, and Run returns
// nil: what is left to do is fenced by leases, not by the register.
func (a *Agent) Run(ctx context.Context) error {
	timer := time.NewTimer(a.pause())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		err := a.beat(ctx)
		switch {
		case err == nil:
			timer.Reset(a.pause())
		case errors.Is(err, metadata.ErrSuperseded) && a.draining.Load():
			return nil
		case errors.Is(err, metadata.ErrSuperseded):
			a.metrics.failures.WithLabelValues("superseded").Inc()
			return fmt.Errorf("agent %q: %w: give every agent an agent_id of its own", a.self.ID, err)
		case ctx.Err() != nil:
			return nil
		default:
			a.metrics.failures.WithLabelValues("heartbeat").Inc()
			a.log.Warn("heartbeat failed", "agent", a.self.ID, "last_success", a.age().String(), "error", err)
			timer.Reset(a.pause() / 4)
		}
	}
}

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
	if err != nil || l.agent.heard(t.Agents) {
		return t, err
	}
	if err := l.agent.beat(ctx); err != nil {
		l.agent.log.Warn("this agent is not listed, and cannot say that it is alive", "agent", l.agent.self.ID, "error", err)
		return t, nil // Run sees to it
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

// Stop deregisters the agent.
func (a *Agent) Stop(ctx context.Context) error {
	if err := a.store.Deregister(ctx, a.self.ID, a.self.Session); err != nil {
		return fmt.Errorf("deregister agent %q: %w", a.self.ID, err)
	}
	return nil
}
