package node

import (
	"context"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// drainGrace is how long requests may finish by themselves in a drain.
const drainGrace = time.Second

// Clients that are sent on have found their way when nothing was asked of this
// agent for movedQuiet: they wait for some 250 ms before they ask again. One that
// asks on, for it knows no better, is waited for no longer than movedAtMost, which
// is also enough for heartbeats of members: of those that sit idle an agent hears
// nothing else.
const (
	movedQuiet  = time.Second
	movedAtMost = 8 * time.Second
)

// drainStep is a step of a drain.
type drainStep struct {
	name string
	by   float64 // share of the timeout after which it is given up
	do   func(context.Context) error
}

// drain takes the agent out of service. Where there are others, its clients are
// sent to these while it still answers: what it leads is handed over, then it is
// named no more, then it refuses with the names of others until its clients have
// gone. What remains, and all of it if the agent is alone, goes in the order in
// which its parts feed each other: no new requests, then nothing buffered, then no
// leases, then no entry in the register.
//
// endWaits answers long polls and joining members, which may wait for others for
// minutes; what is only slow has drainGrace before that. A step that takes too long
// leaves the later ones their share of the time, and they are made all the same:
// what is left is fenced.
func (n *Node) drain(ctx context.Context, endWaits func()) {
	begun, timeout := time.Now(), n.cfg.ShutdownTimeout
	n.log.Info("draining: a second signal ends at once", "timeout", timeout.String())
	n.Agent.Drain()
	n.leave(ctx, begun)
	defer time.AfterFunc(drainGrace, endWaits).Stop()
	n.take(ctx, begun, []drainStep{
		{"answer what was asked", 0.5, n.server.Shutdown},
		{"commit what is buffered", 0.8, n.table.Close},
		{"release the leases", 0.9, n.Leases.ReleaseAll},
		{"deregister", 1, n.Agent.Stop},
	})
	n.log.Info("drained", "took", time.Since(begun).String())
}

// take takes steps of a drain that has begun.
func (n *Node) take(ctx context.Context, begun time.Time, steps []drainStep) {
	for _, step := range steps {
		ctx, cancel := context.WithDeadline(ctx, begun.Add(time.Duration(step.by*float64(n.cfg.ShutdownTimeout))))
		if err := step.do(ctx); err != nil {
			n.log.Warn("shutdown step failed", "step", step.name, "error", err)
		}
		cancel()
	}
}

// leave hands over to the other agents, if there are any.
//
// The leases go before the entry: whoever is sent on by another agent's older view
// comes here, and is sent to a successor that leads. The other way round, clients
// would ask successors that do not lead yet.
func (n *Node) leave(ctx context.Context, begun time.Time) {
	others := false
	n.take(ctx, begun, []drainStep{{"look for other agents", 0.1, func(ctx context.Context) (err error) {
		others, err = n.others(ctx)
		return err
	}}})
	if !others {
		return
	}
	n.take(ctx, begun, []drainStep{
		{"hand over what it leads", 0.3, n.handOverAll},
		{"deregister", 0.35, func(ctx context.Context) error {
			n.Topology.Leave(true)
			err := n.Agent.Stop(ctx)
			if _, failed := n.Topology.Refresh(ctx, 0); err == nil {
				err = failed
			}
			n.Broker.Leave()
			return err
		}},
		{"send clients on", 0.5, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, movedAtMost)
			defer cancel()
			n.Broker.AwaitMoved(ctx, movedQuiet)
			return nil
		}},
	})
}

// others says whether another agent is alive.
func (n *Node) others(ctx context.Context) (bool, error) {
	view, err := n.Topology.Refresh(ctx, 0)
	if err != nil {
		return false, err
	}
	for _, a := range view.Agents() {
		if a.ID != n.cfg.Self.ID && view.Heard(a) {
			return true, nil
		}
	}
	return false, nil
}

// handOverAll hands over all that the agent leads, for good.
func (n *Node) handOverAll(ctx context.Context) error {
	n.Leases.Retire(ctx)
	n.handOver(ctx, lease.ForShutdown, n.Leases.Leases(), nil)
	return ctx.Err()
}

// handOver hands leases over to the agents that to names; if it is nil, to those that
// would lead without this one.
func (n *Node) handOver(ctx context.Context, reason lease.HandoverReason, leases []*lease.Lease, to lease.Successor) {
	if to == nil {
		view := n.Topology.Snapshot()
		to = func(k lease.Key) (string, bool) { return view.Successor(k, n.cfg.Self) }
	}
	var partitions, shards []*lease.Lease
	for _, l := range leases {
		if metadata.IsShard(l.Key()) {
			shards = append(shards, l)
		} else {
			partitions = append(partitions, l)
		}
	}
	var both sync.WaitGroup
	both.Go(func() { n.table.HandOver(ctx, reason, partitions, to) })
	both.Go(func() { n.groups.HandOver(ctx, reason, shards, to) })
	both.Wait()
}
