package metadata

import (
	"context"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
)

// Topic is a topic as the store has it. Deleting and creating a topic of the
// same name gives a new id (KIP-516), and every key in the store is by id.
type Topic struct {
	ID         uuid.UUID
	Name       string
	Partitions int32
	Configs    map[string]string // what was set on the topic itself; nil if nothing was
}

// Leader says who leads a partition. AgentID is "" if nobody does.
type Leader struct {
	lease.Key
	AgentID     string
	LeaderEpoch int32
}

// Topology is what changed in the cluster since a version, or all of it.
type Topology struct {
	ClusterID string
	Version   int64             // to be given to the next call
	Agents    []Agent           // always all that are listed (AgentListedFor)
	Topics    []Topic           // created or changed since
	Deleted   []uuid.UUID       // or moved to another agent group
	Leaders   []Leader          // leaderships that changed since, without coordinator shards
	Shards    []Leader          // the same for coordinator shards
	Configs   map[string]string // cluster-wide dynamic broker configs; always all
	Resources []ResourceConfigs // what has configs besides topics and the cluster, changed since
	// Sharing is how many agents are listed, of all agent groups. Everything else is of
	// the store's own agent group alone.
	Sharing int
}

// NewTopic asks for a topic. The caller makes the id (uuid v4, Kafka's ids are
// random) so that a retry after an unknown outcome finds its own topic.
type NewTopic struct {
	ID         uuid.UUID
	Name       string
	Partitions int32
	Configs    map[string]string
	// AgentGroup is the group of agents that serves the topic: names are unique within
	// a group, and only its agents see the topic and are granted its leases. nil is the
	// group of the store.
	AgentGroup *string
}

// Topics creates and lists topics.
type Topics interface {
	// Topology returns what changed since the given version; 0 asks for all.
	// It is one round trip when nothing changed.
	Topology(ctx context.Context, since int64) (*Topology, error)
	// CreateTopic is durable and visible to Topology when it returns.
	// ErrTopicExists if another id has the name; nil if this id has it already.
	CreateTopic(ctx context.Context, t NewTopic) error
	// DeleteTopic removes the topic with its partitions. Their extents, producer
	// state, leader epochs and committed offsets can't be read any more from then
	// on; Prune removes them. ErrUnknownTopic if it is not there.
	DeleteTopic(ctx context.Context, id uuid.UUID) error
	// AddPartitions raises the topic's count to total. ErrInvalidPartitions if
	// it is there already or below.
	AddPartitions(ctx context.Context, id uuid.UUID, total int32) error
}

// ConfigChange sets (non-nil) or removes (nil) values. Replace forgets every
// value that Values does not name (the legacy AlterConfigs).
type ConfigChange struct {
	Values  map[string]*string
	Replace bool
	// AgentGroup, if not nil, moves a topic to that agent group, with its records: its
	// leases end at once. ErrTopicExists if the group has a topic of that name.
	// Positions in it that consumer groups of the old agent group have committed are
	// not there any more, and are forgotten with the group's next expired positions
	// (OldOffsets.Gone), unless the topic is back before.
	AgentGroup *string
}

// Resource is something that has configs besides topics and the cluster: one
// agent, a group, a subscription to clients' metrics. What the types are is the
// broker's, as are the names of configs.
type Resource struct {
	Type int8
	Name string
}

// ResourceConfigs are the configs of a resource; nil if nothing is set any more.
type ResourceConfigs struct {
	Resource
	Configs map[string]string
}

// Configs stores dynamic configuration; what the names mean is the broker's.
type Configs interface {
	// AlterTopicConfigs changes the configs of a topic. Without a difference the
	// version of the topology stays: there are tools that set all configs of all
	// topics again and again (MirrorMaker 2).
	AlterTopicConfigs(ctx context.Context, topicID uuid.UUID, c ConfigChange) error
	// AlterClusterConfigs changes the cluster-wide broker defaults.
	AlterClusterConfigs(ctx context.Context, c ConfigChange) error
	// AlterResourceConfigs changes the configs of a resource, which need not
	// exist otherwise.
	AlterResourceConfigs(ctx context.Context, r Resource, c ConfigChange) error
}
