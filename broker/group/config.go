package group

import "time"

// Config sets the limits and times of a Coordinator.
type Config struct {
	// MinSessionTimeout and MaxSessionTimeout bound what members may ask for
	// (group.min.session.timeout.ms, group.max.session.timeout.ms).
	MinSessionTimeout time.Duration
	MaxSessionTimeout time.Duration
	// InitialRebalanceDelay is how long the first rebalance of an empty group
	// waits for more members (group.initial.rebalance.delay.ms). Each newcomer
	// extends it by as much, up to the rebalance timeout.
	InitialRebalanceDelay time.Duration
	// NewMemberJoinTimeout is how long a new member may wait for its first
	// rebalance. Its client may be gone, and can't be told from one that waits.
	NewMemberJoinTimeout time.Duration
	// MaxSize is the largest number of members of a group, and of member ids
	// that were given out and not used yet (group.max.size).
	MaxSize int
	// MaxMetadataBytes bounds the metadata of a committed offset
	// (offset.metadata.max.bytes).
	MaxMetadataBytes int
	// OffsetsRetention is how long positions are kept that nobody commits any
	// more, in a group that has no members or in a topic to which its members are
	// not subscribed (KIP-211; offsets.retention.minutes).
	OffsetsRetention time.Duration
	// RetentionCheckInterval is how often expired positions are looked for
	// (offsets.retention.check.interval.ms).
	RetentionCheckInterval time.Duration

	// ConsumerHeartbeatInterval is how often members of the consumer protocol are
	// told to be heard of (KIP-848; group.consumer.heartbeat.interval.ms).
	ConsumerHeartbeatInterval time.Duration
	// ConsumerSessionTimeout is after how long without a heartbeat they are taken
	// for gone (group.consumer.session.timeout.ms).
	ConsumerSessionTimeout time.Duration
	// ConsumerMaxSize is the largest number of members of a group of the consumer
	// protocol (group.consumer.max.size).
	ConsumerMaxSize int
	// ConsumerAssignors are the names of the assignors that members may ask for,
	// of which the first is the default; at least one
	// (group.consumer.assignors).
	ConsumerAssignors []string
	// ConsumerMigrationPolicy says in which directions groups with members may
	// change their protocol (group.consumer.migration.policy).
	ConsumerMigrationPolicy MigrationPolicy

	// StoreTimeout bounds one request to the metadata store
	// (offsets.commit.timeout.ms).
	StoreTimeout time.Duration
	// AcquireTimeout bounds the acquisition of a shard's lease, and then the
	// loading of its groups.
	AcquireTimeout time.Duration
	// MaxWaiting is how many requests of one shard may wait for its lease, and
	// how many for the store.
	MaxWaiting int
}

// DefaultConfig returns what suits every agent. Where Kafka has a setting it is
// Kafka's default, but for the delay of the first rebalance, which makes short
// programs slow and saves long ones little.
func DefaultConfig() Config {
	return Config{
		MinSessionTimeout:      6 * time.Second,
		MaxSessionTimeout:      30 * time.Minute,
		InitialRebalanceDelay:  100 * time.Millisecond,
		NewMemberJoinTimeout:   5 * time.Minute,
		MaxSize:                10_000,
		MaxMetadataBytes:       4096,
		OffsetsRetention:       7 * 24 * time.Hour,
		RetentionCheckInterval: 10 * time.Minute,

		ConsumerHeartbeatInterval: 5 * time.Second,
		ConsumerSessionTimeout:    45 * time.Second,
		ConsumerMaxSize:           10_000,
		ConsumerAssignors:         []string{"uniform", "range"},
		ConsumerMigrationPolicy:   MigrateBoth,

		StoreTimeout:   5 * time.Second,
		AcquireTimeout: 10 * time.Second,
		MaxWaiting:     10_000,
	}
}
