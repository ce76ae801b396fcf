package metadata

import (
	"context"
	"time"

	"github.com/streamhouse/streamhouse/lease"
)

// InspectRows is how many rows an Inspector returns at most.
const InspectRows = 100_000

// Inspector shows people who is there and who leads what, now, by the store's
// clock: in the agent group of a Store, or in all of them (Inspect of the packages
// of the databases). It changes and locks nothing. Each call is one statement and returns at
// most InspectRows.
type Inspector interface {
	// Sessions returns the agents whose sessions have not ended, by node id, however
	// long ago they were last heard of: Topology stops listing them before. One that
	// was drained, buried or deregistered is not among them.
	Sessions(ctx context.Context) ([]AgentSession, error)
	// Leases returns the leases that are held, by topic and partition.
	Leases(ctx context.Context, f LeaseFilter) ([]HeldLease, error)
}

// AgentSession is an agent whose session has not ended.
type AgentSession struct {
	Agent
	Uptime time.Duration // since it registered
}

// LeaseFilter selects leases. The zero value selects all.
type LeaseFilter struct {
	Topic   string // only partitions of this topic, if not empty
	AgentID string // only those that this agent holds, if not empty
}

// HeldLease is a lease of a partition or a coordinator's shard.
type HeldLease struct {
	lease.Term
	Topic     string        // "" for a coordinator's shard, of which Partition is the number
	Group     string        // the agent group, of the topic or the coordinator
	AgentID   string        // who holds it
	Age       time.Duration // of the leadership, over all renewals
	ExpiresIn time.Duration // negative: it is over, and nobody has taken it yet
}
