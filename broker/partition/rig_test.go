package partition_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamhouse/streamhouse/broker/ingest"
	"github.com/streamhouse/streamhouse/broker/ingest/ingesttest"
	"github.com/streamhouse/streamhouse/broker/partition"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol/batch"
)

var topic = uuid.MustParse("00000000-0000-4000-8000-000000000007")

func key(p int32) lease.Key { return lease.Key{TopicID: topic, Partition: p} }

// backend is what agents share.
type backend interface {
	lease.Store
	metadata.Committer
	metadata.Objects
	ingesttest.Reader
}

// node is the write path of one agent.
type node struct {
	leases *lease.Manager
	pool   *ingest.Pool
	table  *partition.Table
	// stop ends all loops at once, as the end of the process does.
	stop func()
}

type nodeConfig struct {
	agentID   string
	lease     lease.Config
	ingest    ingest.Config
	partition partition.Config
	remote    metadata.Committer // to other agents
	names     metadata.Objects
}

func defaults() nodeConfig {
	return nodeConfig{agentID: "a", lease: lease.DefaultConfig(), ingest: ingest.DefaultConfig(), partition: partition.DefaultConfig()}
}

// nobody observes nothing.
type nobody struct{}

func (nobody) Committed([]byte, []metadata.PartitionExtent, []int64) {}

func startNode(leases lease.Store, commits metadata.Committer, objects ingest.Objects, cfg nodeConfig) *node {
	log, reg := slog.New(slog.DiscardHandler), prometheus.NewRegistry()
	n := &node{leases: lease.NewManager(leases, cfg.agentID, cfg.lease, lease.NewMetrics(reg), log)}
	n.pool = ingest.NewPool(cfg.ingest, ingest.Environment{
		AgentID: cfg.agentID, Session: uuid.New(), Leases: n.leases, Objects: objects, Committer: commits,
		Remote: cfg.remote, Names: cfg.names, Observer: nobody{}, Metrics: ingest.NewMetrics(reg), Log: log,
	})
	n.table = partition.NewTable(cfg.partition, n.leases, n.pool)
	ctx, cancel := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	for _, run := range []func(context.Context) error{n.leases.Run, n.pool.Run, n.table.Run} {
		loops.Go(func() { run(ctx) })
	}
	n.stop = func() { cancel(); loops.Wait() }
	return n
}

// one is an append of a batch of one record.
func one(t testing.TB, p int32, producer int64, sequence int32) partition.Append {
	name := fmt.Sprintf("partition %d producer %d sequence %d", p, producer, sequence)
	return partition.Append{Key: key(p), Batch: ingesttest.Batch(t, name, producer, 0, sequence, 1)}
}

// soon is a context for what must happen, in fake time or soon enough in real.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// await waits for appends that must be in the log, and returns their results.
func await(t testing.TB, p *partition.Pending) []partition.Result {
	t.Helper()
	results := p.Wait(soon(t))
	for i, r := range results {
		if r.Err != nil {
			t.Errorf("append %d: %v", i, r.Err)
		}
	}
	return results
}

// counted is a lease store that counts acquisitions, and can hold or fail them.
type counted struct {
	lease.Store
	mu    sync.Mutex
	asked [][]lease.Key
	hold  func(ctx context.Context) error // nil: nothing
}

func (c *counted) Acquire(ctx context.Context, agent string, ttl time.Duration, keys []lease.Key) ([]lease.Result, error) {
	c.mu.Lock()
	c.asked = append(c.asked, keys)
	hold := c.hold
	c.mu.Unlock()
	if hold != nil {
		if err := hold(ctx); err != nil {
			return nil, err
		}
	}
	return c.Store.Acquire(ctx, agent, ttl, keys)
}

func (c *counted) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.asked)
}

func (c *counted) set(hold func(ctx context.Context) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold = hold
}

// sent is an append as the checker wants it.
func sent(b batch.Validated, k lease.Key, fate ingesttest.Fate, offset int64) ingesttest.Sent {
	return ingesttest.Sent{Key: k, Batch: b, Fate: fate, Offset: offset}
}
