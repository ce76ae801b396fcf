// Package clients drives different Kafka clients through one interface, so that one scenario runs on all of them.
//
// Clients in Go are called directly, and kcat is run. Each of the others lives in a small program of its language
// (java/Driver.java, python/drive_*.py, node/driver.js) which reads one request a line from its standard input and
// writes one answer a line to its standard output, both JSON; Request and Response describe them.
package clients

import (
	"context"
	"errors"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/scenario"
)

// Client is one Kafka client, connected to one target. Its methods are called one after the other.
type Client interface {
	// Name is the client's name, fit for topic and group names.
	Name() string
	// Version is the version of the client's package.
	Version() string
	// Profile says what the client can express when it produces.
	Profile() scenario.Profile
	// Produce writes the records to their partitions, in order, with one codec and with acks=all, and returns when all
	// are acknowledged. It returns the offset of each record, or nil if the client does not tell.
	Produce(ctx context.Context, topic, codec string, records []scenario.Record) ([]int64, error)
	Reader
	// Join makes a new member of the group, which subscribes to the topic and begins where the group stands, or at the
	// beginning. It need not have its assignment yet. ErrUnsupported if the client has no groups.
	Join(ctx context.Context, topic, group string) (Member, error)
	TopicAdmin
	GroupAdmin
	// Close ends the client.
	Close() error
}

// IDVariable is the environment variable that has kcat, librdkafka and the Java clients use another client id than their
// defaults.
const IDVariable = "COMPAT_CLIENT_ID"

// ErrUnsupported says that a client has no such feature. It never stands for what a broker refuses.
var ErrUnsupported = errors.New("the client has no such feature")

// Reader is how a client reads, in calls that are complete in themselves.
type Reader interface {
	// Offsets asks ListOffsets for all partitions: scenario.Earliest, scenario.Latest or a timestamp. The answer is
	// scenario.NoOffset where the partition has no such record.
	Offsets(ctx context.Context, topic string, timestamp int64) ([scenario.Partitions]int64, error)
	// Read seeks every partition to the first record whose timestamp is not less than the given one, or to the beginning
	// for scenario.Earliest, and reads to the end. Partitions without such a record are left out.
	Read(ctx context.Context, topic string, timestamp int64) ([]scenario.Record, error)
	// ReadGroup joins the group, takes exactly n records from where the group stands (the beginning, at first), commits
	// what it took, and leaves.
	ReadGroup(ctx context.Context, topic, group string, n int) ([]scenario.Record, error)
}

// TopicAdmin is how a client administrates topics. Each method may return ErrUnsupported.
type TopicAdmin interface {
	// CreateTopic creates a topic with scenario.Partitions partitions.
	CreateTopic(ctx context.Context, topic string, configs map[string]string) error
	// PartitionCount returns how many partitions a topic has.
	PartitionCount(ctx context.Context, topic string) (int, error)
	// CreatePartitions gives a topic more partitions, total in all.
	CreatePartitions(ctx context.Context, topic string, total int) error
	// TopicConfigs returns the effective configs of a topic.
	TopicConfigs(ctx context.Context, topic string) (map[string]string, error)
	// AlterTopicConfig sets one config of a topic and leaves the others alone; clients that can only replace all configs
	// of a topic set this one and retention.ms=-1.
	AlterTopicConfig(ctx context.Context, topic, name, value string) error
	DeleteTopic(ctx context.Context, topic string) error
}

// GroupAdmin is how a client administrates groups. Each method may return ErrUnsupported.
type GroupAdmin interface {
	// Groups lists the names of all groups.
	Groups(ctx context.Context) ([]string, error)
	// DescribeGroup returns a group's state, as Kafka names it, and the number of its members.
	DescribeGroup(ctx context.Context, group string) (state string, members int, err error)
	DeleteGroup(ctx context.Context, group string) error
}

// Member is a member of a consumer group. Its methods are called one after the other, and in turns with those of the
// group's other members of the same client. Each but Poll and Leave may return ErrUnsupported.
type Member interface {
	// Poll returns records that the member was assigned, at most limit, waiting for the first no longer than wait; none
	// is no error. It takes part in rebalances. What it returned before a rebalance is committed by Commit only.
	Poll(ctx context.Context, limit int, wait time.Duration) ([]scenario.Record, error)
	// Assignment returns the partitions that the member has now, sorted.
	Assignment(ctx context.Context) ([]int32, error)
	// Commit commits the position after everything that Poll returned, and returns when it is stored.
	Commit(ctx context.Context) error
	// Seek makes Poll go on at the offset of an assigned partition.
	Seek(ctx context.Context, partition int32, offset int64) error
	// Pause makes Poll return nothing of the partition until it is resumed; the member keeps it.
	Pause(ctx context.Context, partition int32) error
	Resume(ctx context.Context, partition int32) error
	// Leave leaves the group without committing, as a member that is shut down in order.
	Leave(ctx context.Context) error
}

// maxBufferedBytes bounds what a client's consumer fetches at once, above the largest record.
const maxBufferedBytes = 8 << 20
