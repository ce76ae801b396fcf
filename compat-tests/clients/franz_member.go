package clients

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/compat-tests/scenario"
)

// franzMember is one franz-go client in a group.
type franzMember struct {
	client *kgo.Client
	topic  string

	mu       sync.Mutex
	assigned map[int32]bool
}

func (f *Franz) Join(_ context.Context, topic, group string) (Member, error) {
	m := &franzMember{topic: topic, assigned: make(map[int32]bool)}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(f.bootstrap...),
		kgo.AlwaysRetryEOF(),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.SessionTimeout(6*time.Second),
		kgo.RebalanceTimeout(10*time.Second),
		kgo.HeartbeatInterval(500*time.Millisecond),
		kgo.FetchMaxWait(500*time.Millisecond), // a fetch under way delays a pause
		kgo.OnPartitionsAssigned(m.onChange(true)),
		kgo.OnPartitionsRevoked(m.onChange(false)),
		kgo.OnPartitionsLost(m.onChange(false)),
	)
	if err != nil {
		return nil, fmt.Errorf("make a franz-go client: %w", err)
	}
	m.client = client
	return m, nil
}

// onChange follows which partitions are assigned.
func (m *franzMember) onChange(assigned bool) func(context.Context, *kgo.Client, map[string][]int32) {
	return func(_ context.Context, _ *kgo.Client, changed map[string][]int32) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, p := range changed[m.topic] {
			if assigned {
				m.assigned[p] = true
			} else {
				delete(m.assigned, p)
			}
		}
	}
}

func (m *franzMember) Poll(ctx context.Context, limit int, wait time.Duration) ([]scenario.Record, error) {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	fetches := m.client.PollRecords(waiting, limit)
	var records []scenario.Record
	fetches.EachRecord(func(r *kgo.Record) { records = append(records, FromFranz(r)) })
	if err := fetches.Err(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return records, fmt.Errorf("poll: %w", err) // which partitions without errors have records beside
	}
	return records, ctx.Err()
}

func (m *franzMember) Assignment(context.Context) ([]int32, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.assigned)), nil
}

func (m *franzMember) Commit(ctx context.Context) error {
	return m.client.CommitUncommittedOffsets(ctx)
}

func (m *franzMember) Seek(_ context.Context, partition int32, offset int64) error {
	m.client.SetOffsets(map[string]map[int32]kgo.EpochOffset{m.topic: {partition: {Epoch: -1, Offset: offset}}})
	return nil
}

func (m *franzMember) Pause(_ context.Context, partition int32) error {
	m.client.PauseFetchPartitions(map[string][]int32{m.topic: {partition}})
	return nil
}

func (m *franzMember) Resume(_ context.Context, partition int32) error {
	m.client.ResumeFetchPartitions(map[string][]int32{m.topic: {partition}})
	return nil
}

func (m *franzMember) Leave(ctx context.Context) error {
	err := m.client.LeaveGroupContext(ctx)
	m.client.Close()
	return err
}
