// Package clients drives different Kafka clients through one interface, so that one scenario runs on all of them.
//
// franz-go is called directly and kcat is run once an operation. The Java client and librdkafka live in a small program
// of their language (java/Driver.java, python/driver.py) which reads one request a line from its standard input and
// writes one answer a line to its standard output, both JSON; Request and Response describe them.
package clients

import (
	"context"

	"github.com/streamhouse/streamhouse/compat-tests/scenario"
)

// Client is one Kafka client, connected to one target. Its methods are called one after the other.
type Client interface {
	// Name is the client's name, fit for topic and group names.
	Name() string
	// Profile says what the client can express when it produces.
	Profile() scenario.Profile
	// CreateTopic creates a topic with scenario.Partitions partitions.
	CreateTopic(ctx context.Context, topic string, configs map[string]string) error
	// Produce writes the records to their partitions, in order, with one codec and with acks=all, and returns when all
	// are acknowledged. It returns the offset of each record, or nil if the client does not tell.
	Produce(ctx context.Context, topic, codec string, records []scenario.Record) ([]int64, error)
	// Offsets asks ListOffsets for all partitions: scenario.Earliest, scenario.Latest or a timestamp. The answer is
	// scenario.NoOffset where the partition has no such record.
	Offsets(ctx context.Context, topic string, timestamp int64) ([scenario.Partitions]int64, error)
	// Read seeks every partition to the first record whose timestamp is not less than the given one, or to the beginning
	// for scenario.Earliest, and reads to the end. Partitions without such a record are left out.
	Read(ctx context.Context, topic string, timestamp int64) ([]scenario.Record, error)
	// ReadGroup joins the group, takes exactly n records from where the group stands (the beginning, at first), commits
	// what it took, and leaves.
	ReadGroup(ctx context.Context, topic, group string, n int) ([]scenario.Record, error)
	// Close ends the client.
	Close() error
}

// maxBufferedBytes bounds what a client's consumer fetches at once, above the largest record.
const maxBufferedBytes = 8 << 20
