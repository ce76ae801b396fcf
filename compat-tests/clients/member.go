package clients

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/scenario"
)

// The timeouts of group members, where a client lets them be set: short, since tests wait for rebalances.
const (
	sessionTimeout    = 6 * time.Second // the least that Kafka's brokers allow by default
	rebalanceTimeout  = 5 * time.Second
	heartbeatInterval = 500 * time.Millisecond
	fetchWait         = 100 * time.Millisecond // what a fetch waits for records, and closing a client for a fetch
)

// eachPartition reads [start, end) of all partitions at once, but of those without a start or without records.
func eachPartition(start, end [scenario.Partitions]int64, read func(partition int32, start, end int64) ([]scenario.Record, error)) ([]scenario.Record, error) {
	var partitions [scenario.Partitions][]scenario.Record
	var errs [scenario.Partitions]error
	var wg sync.WaitGroup
	for p := range partitions {
		if start[p] == scenario.NoOffset || start[p] == end[p] {
			continue
		}
		wg.Go(func() {
			if partitions[p], errs[p] = read(int32(p), start[p], end[p]); errs[p] != nil {
				errs[p] = fmt.Errorf("read partition %d: %w", p, errs[p])
			}
		})
	}
	wg.Wait()
	return slices.Concat(partitions[:]...), errors.Join(errs[:]...)
}

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
