package node

import (
	"context"

	"github.com/streamhouse/streamhouse/broker/fetch"
	"github.com/streamhouse/streamhouse/broker/rpc"
	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment"
)

// What this agent asks of the others of its agent group, and does for them, over the
// RPC between agents. Without it nothing is borrowed, the metadata store is polled, and
// each agent reads objects by itself.

// reachable says whether another agent takes what this one asks of it directly.
func (n *Node) reachable(agentID string) bool { return n.Calls != nil && n.Calls.Reachable(agentID) }

// borrow says whether this agent takes appends for the holder of a lease: it does so
// for one in another zone, since it stands in for that one in its own. In one zone
// clients are sent to the holder.
func (n *Node) borrow(held *lease.HeldByOtherError) bool {
	view := n.Topology.Snapshot()
	holder, listed := view.Agent(held.Holder.AgentID)
	zone := n.cfg.Self.Zone
	return listed && view.Heard(holder) && view.StandIns() && zone != "" && holder.Zone != "" && holder.Zone != zone && n.reachable(holder.ID)
}

// viewed ends the borrowed leases whose keys another agent leads by now, or nobody
// that is heard of; and all if nothing may be borrowed any more.
func (n *Node) viewed(view *topology.Snapshot) {
	n.Leases.EndBorrowed(func(l *lease.Lease) bool {
		if !view.StandIns() {
			return true
		}
		holder, leaderEpoch, held := view.Holder(l.Key())
		if leaderEpoch < l.LeaderEpoch() {
			return false // the view is older than the lease
		}
		return !held || holder.ID != l.Holder() || leaderEpoch > l.LeaderEpoch()
	})
}

// feeds are the other agents for who follows what they commit.
type feeds struct{ *Node }

// Holder implements fetch.Peers.
func (f feeds) Holder(k lease.Key) (agentID string, ok bool) {
	holder, _, held := f.Topology.Snapshot().Holder(k)
	return holder.ID, held && holder.ID != f.cfg.Self.ID && f.reachable(holder.ID)
}

// Follow implements fetch.Peers.
func (f feeds) Follow(ctx context.Context, agentID string, to fetch.Follower) error {
	return f.Calls.Follow(ctx, agentID, to)
}

// zoneCache are the agents of this agent's zone for who reads objects.
type zoneCache struct{ *Node }

// Owner implements fetch.Zone.
func (z zoneCache) Owner(object segment.ID, chunk int64) (agentID string, ok bool) {
	key := lease.Key{TopicID: object, Partition: int32(chunk)} // hashed as keys are
	agentID, ok = z.Topology.Snapshot().StandIn(z.cfg.Self.Zone, key)
	return agentID, ok && agentID != z.cfg.Self.ID && z.reachable(agentID)
}

// A chunk fits one call.
const _ = uint(rpc.MaxBlockBytes - fetch.ChunkBytes)

// Block implements fetch.Zone.
func (z zoneCache) Block(ctx context.Context, agentID string, object segment.ID, size, from, to int64) ([]byte, error) {
	return z.Calls.Block(ctx, agentID, object, size, from, to)
}

// handlers are what this agent does for others, with parts that are made after them.
func (n *Node) handlers() rpc.Handlers {
	return rpc.Handlers{
		Commit: n.commitFor,
		Feed:   func(metadata.Agent) rpc.Feed { return n.reader.Feed() },
		Block: func(ctx context.Context, object segment.ID, size, from, to int64) ([]byte, error) {
			return n.reader.Block(ctx, object, size, from, to)
		},
	}
}

// commitFor commits what another agent has taken in for this one.
func (n *Node) commitFor(ctx context.Context, from metadata.Agent, c *metadata.Commit) ([][]metadata.CommitResult, error) {
	n.Writers.Relayed(from.Zone, c)
	return n.table.Commit(ctx, c)
}
