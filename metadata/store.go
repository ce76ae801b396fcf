package metadata

import (
	"context"
	"errors"

	"github.com/streamhouse/streamhouse/lease"
)

// Store is all of the metadata, for the one place that builds the agent.
// Everything else takes the small interface that it needs.
//
// A store is opened for one agent group, and is that group's: others share the
// database, and what is theirs is not there. A topic id, a key or a session of theirs is
// an unknown one; topics, consumer groups and resources of the same names are others.
// Only the names of objects, the ids of producers and agents, the cluster's id and
// secret, and what Prune removes, are everybody's.
type Store interface {
	Agents
	Topics
	Configs
	Committer
	Log
	Producers
	Groups
	Objects
	Pruner
	Inspector
	Peering
	lease.Store

	// Ping asks the database for a sign of life.
	Ping(ctx context.Context) error
	// Close ends all connections. No method may be called afterwards.
	Close() error
}

// Errors that the stores return, wrapped. What is not one of these is an
// unexpected fault of the store.
var (
	// ErrUnavailable says that the store could not be asked and that nothing
	// was changed: try again later.
	ErrUnavailable = errors.New("metadata store is unavailable")
	// ErrUnknownOutcome says that a change may or may not have been made.
	ErrUnknownOutcome = errors.New("outcome of the change is unknown")
	// ErrUnknownTopic says that there is no topic of that name or id.
	ErrUnknownTopic = errors.New("unknown topic")
	// ErrTopicExists says that a topic of that name is there already.
	ErrTopicExists = errors.New("topic already exists")
	// ErrInvalidPartitions says that the count asked for is not above today's.
	ErrInvalidPartitions = errors.New("invalid number of partitions")
	// ErrAgentGroup says that an agent group can't be called that, or that the agent
	// is of another one.
	ErrAgentGroup = errors.New("wrong agent group")
	// ErrSuperseded says that another process registered under the same agent id.
	ErrSuperseded = errors.New("another agent has registered under the same agent id")
	// ErrBuried says that the agent's session has ended and its leases are free:
	// it was believed dead, or was deregistered.
	ErrBuried = errors.New("the agent's session has ended: it was believed dead, or deregistered")
	// ErrFenced says that the agent does not lead the key under which it wrote.
	ErrFenced = errors.New("fenced: the leadership has moved on")
	// ErrOffsetOutOfRange says that an offset lies outside the log.
	ErrOffsetOutOfRange = errors.New("offset out of range")
)
