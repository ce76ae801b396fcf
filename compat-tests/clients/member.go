package clients

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/scenario"
)

// The timeouts of group members, where a client lets them be set: short, since tests wait for rebalances.
const (
	sessionTimeout    = 6 * time.Second // the least that Kafka's brokers allow by default
	rebalanceTimeout  = 5 * time.Second
	heartbeatInterval = 500 * time.Millisecond
)

// readAsMember is ReadGroup by means of a Member.
func readAsMember(ctx context.Context, client Client, topic, group string, n int) ([]scenario.Record, error) {
	member, err := client.Join(ctx, topic, group)
	if err != nil {
		return nil, err
	}
	var records []scenario.Record
	for len(records) < n && err == nil {
		var polled []scenario.Record
		polled, err = member.Poll(ctx, n-len(records), time.Second)
		records = append(records, polled...)
	}
	if err == nil {
		err = member.Commit(ctx)
	}
	if err := errors.Join(err, member.Leave(ctx)); err != nil {
		return nil, fmt.Errorf("after %d of %d records: %w", len(records), n, err)
	}
	return records, nil
}
