package group

import (
	"strings"
	"time"

	"github.com/streamhouse/streamhouse/broker/config"
)

// Config sets the limits and times of a Coordinator. Those that a group may have
// of its own are in a View.
type Config struct {
	// AgentGroup is that of the agent, whose consumer groups are coordinated.
	AgentGroup string
	// MinSessionTimeout and MaxSessionTimeout bound what members of the classic
	// protocol may ask for.
	MinSessionTimeout time.Duration
	MaxSessionTimeout time.Duration
	// InitialRebalanceDelay is how long the first rebalance of an empty group
	// waits for more members. Each newcomer extends it by as much, up to the
	// rebalance timeout.
	InitialRebalanceDelay time.Duration
	// NewMemberJoinTimeout is how long a new member may wait for its first
	// rebalance. Its client may be gone, and can't be told from one that waits.
	NewMemberJoinTimeout time.Duration
	// MaxSize is the largest number of members of a group of the classic protocol,
	// and of member ids that were given out and not used yet.
	MaxSize int
	// MaxMetadataBytes bounds the metadata of a committed offset.
	MaxMetadataBytes int
	// OffsetsRetention is how long positions are kept that nobody commits any
	// more, in a group that has no members or in a topic to which its members are
	// not subscribed (KIP-211).
	OffsetsRetention time.Duration
	// RetentionCheckInterval is how often expired positions are looked for.
	RetentionCheckInterval time.Duration

	// ConsumerMaxSize is the largest number of members of a group of the consumer
	// protocol.
	ConsumerMaxSize int
	// ConsumerAssignors are the names of the assignors that members may ask for,
	// of which the first is the default; at least one.
	ConsumerAssignors []string
	// ConsumerMigrationPolicy says in which directions groups with members may
	// change their protocol.
	ConsumerMigrationPolicy MigrationPolicy

	// StoreTimeout bounds one request to the metadata store.
	StoreTimeout time.Duration
	// AcquireTimeout bounds the acquisition of a shard's lease, and then the
	// loading of its groups.
	AcquireTimeout time.Duration
	// MaxWaiting is how many requests of one shard may wait for its lease, and
	// how many for the store.
	MaxWaiting int
}

// DefaultConfig returns what suits every agent.
func DefaultConfig() Config { return NewConfig(new(config.Broker)) }

// NewConfig returns what the configs of a broker say of its groups. What they say
// nothing of is the same for every agent.
func NewConfig(b *config.Broker) Config {
	return Config{
		MinSessionTimeout:      b.Duration("group.min.session.timeout.ms"),
		MaxSessionTimeout:      b.Duration("group.max.session.timeout.ms"),
		InitialRebalanceDelay:  b.Duration("group.initial.rebalance.delay.ms"),
		NewMemberJoinTimeout:   5 * time.Minute,
		MaxSize:                int(b.Int("group.max.size")),
		MaxMetadataBytes:       int(b.Int("offset.metadata.max.bytes")),
		OffsetsRetention:       b.Duration("offsets.retention.minutes"),
		RetentionCheckInterval: b.Duration("offsets.retention.check.interval.ms"),

		ConsumerMaxSize:         int(b.Int("group.consumer.max.size")),
		ConsumerAssignors:       b.List("group.consumer.assignors"),
		ConsumerMigrationPolicy: MigrationPolicy(strings.ToLower(b.Text("group.consumer.migration.policy"))),

		StoreTimeout:   5 * time.Second,
		AcquireTimeout: 10 * time.Second,
		MaxWaiting:     10_000,
	}
}
