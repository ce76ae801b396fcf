package ingest_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamhouse/streamhouse/broker/ingest"
	"github.com/streamhouse/streamhouse/broker/ingest/ingesttest"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// instant answers every commit at once and keeps nothing, and so is every
// store that the benchmark is not about.
type instant struct{ high atomic.Int64 }

func (i *instant) Commit(_ context.Context, c *metadata.Commit) ([][]metadata.CommitResult, error) {
	out := make([][]metadata.CommitResult, len(c.Objects))
	for o := range c.Objects {
		out[o] = make([]metadata.CommitResult, len(c.Objects[o].Batches))
		for b := range out[o] {
			out[o][b] = metadata.CommitResult{BaseOffset: i.high.Add(1), AppendTime: -1}
		}
	}
	return out, nil
}

func (i *instant) Put(context.Context, string, []byte) error             { return nil }
func (i *instant) Committed([]byte, []metadata.PartitionExtent, []int64) {}
func (i *instant) Lose(*lease.Lease, error)                              {}

// countdown is a receiver of any number of answers.
type countdown struct {
	left atomic.Int64
	done chan struct{}
}

func (c *countdown) Answer(ingest.Result) {
	if c.left.Add(-1) == 0 {
		close(c.done)
	}
}

// BenchmarkPool is the cost of a batch from Add to its answer without any store,
// many producers at once.
func BenchmarkPool(b *testing.B) {
	for _, size := range []int{100, 16 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			store := ingesttest.NewStore()
			log, reg := slog.New(slog.DiscardHandler), prometheus.NewRegistry()
			leases := lease.NewManager(store, "a", lease.DefaultConfig(), lease.NewMetrics(reg), log)
			b.Cleanup(run(leases.Run))
			l := leases.Acquire(b.Context(), []lease.Key{key(0)})[0].Lease
			s := &instant{}
			cfg := ingest.DefaultConfig()
			cfg.PutsPerSecond, cfg.PutBurst = 1e6, 1e6
			pool := ingest.NewPool(cfg, ingest.Environment{
				AgentID: "a", Session: uuid.New(), Leases: s, Objects: s, Committer: s, Observer: s,
				Metrics: ingest.NewMetrics(reg), Log: log,
			})
			b.Cleanup(run(pool.Run))
			batch := one(b, ingesttest.NoProducer, 0, size)
			b.SetBytes(int64(len(batch.Batch)))
			b.ReportAllocs()
			b.SetParallelism(16)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					c := &countdown{done: make(chan struct{})}
					c.left.Store(1)
					if err := pool.Add([]ingest.Item{{Lease: l, Batch: batch, Receiver: c}}); err != nil {
						b.Error(err)
						return
					}
					<-c.done
				}
			})
		})
	}
}

// BenchmarkHolders is a request for 20 partitions from Add to its last answer, where
// so many agents lead them.
func BenchmarkHolders(b *testing.B) {
	for _, holders := range []int{1, 5} {
		b.Run(fmt.Sprint(holders), func(b *testing.B) {
			log, reg := slog.New(slog.DiscardHandler), prometheus.NewRegistry()
			leases := lease.NewManager(ingesttest.NewStore(), "a", lease.DefaultConfig(), lease.NewMetrics(reg), log)
			b.Cleanup(run(leases.Run))
			s := &instant{}
			cfg := ingest.DefaultConfig()
			cfg.PutsPerSecond, cfg.PutBurst, cfg.InlineMaxBytes = 1e6, 1e6, 0
			pool := ingest.NewPool(cfg, ingest.Environment{
				AgentID: "a", Session: uuid.New(), Leases: s, Objects: s, Committer: s, Remote: s, Observer: s,
				Metrics: ingest.NewMetrics(reg), Log: log,
			})
			b.Cleanup(run(pool.Run))
			items := make([]ingest.Item, 20)
			for p := range items {
				k := key(int32(p))
				l := leases.Acquire(b.Context(), []lease.Key{k})[0].Lease
				if n := p % holders; n > 0 {
					l = leases.Borrow(&lease.HeldByOtherError{Key: k, Holder: lease.Holder{AgentID: fmt.Sprint(n), LeaderEpoch: 1}})
				}
				items[p] = ingest.Item{Lease: l, Batch: one(b, ingesttest.NoProducer, 0, 1000)}
			}
			b.ReportAllocs()
			b.SetParallelism(16)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					c := &countdown{done: make(chan struct{})}
					c.left.Store(int64(len(items)))
					request := slices.Clone(items)
					for i := range request {
						request[i].Receiver = c
					}
					if err := pool.Add(request); err != nil {
						b.Error(err)
						return
					}
					<-c.done
				}
			})
		})
	}
}
