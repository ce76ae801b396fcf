package group

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamhouse/streamhouse/lease"
)

// benchAgent runs a coordinator over a store that answers at once.
func benchAgent(b *testing.B) *Coordinator {
	f, log := newFakeStore(), slog.New(slog.NewTextHandler(io.Discard, nil))
	leases := lease.NewManager(f, "a", lease.DefaultConfig(), lease.NewMetrics(prometheus.NewRegistry()), log)
	cfg := DefaultConfig()
	cfg.InitialRebalanceDelay = 0
	c := NewCoordinator(f, leases, noTopics, "a", cfg, NewMetrics(prometheus.NewRegistry()), log)
	ctx, end := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	parts.Go(func() { _ = leases.Run(ctx) })
	parts.Go(func() { _ = c.Run(ctx) })
	b.Cleanup(func() {
		end()
		parts.Wait()
	})
	return c
}

func benchMember(b *testing.B, c *Coordinator) Membership {
	j, err := c.Join(joinRequest("g", "")).Wait(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	m := Membership{Group: "g", MemberID: j.MemberID, Generation: j.Generation}
	if _, err := c.Sync(SyncRequest{Membership: m}).Wait(b.Context()); err != nil {
		b.Fatal(err)
	}
	return m
}

func BenchmarkHeartbeat(b *testing.B) {
	c := benchAgent(b)
	r := HeartbeatRequest{benchMember(b, c)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Heartbeat(r).Wait(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCommit commits ten partitions at a time, with 64 commits under way.
func BenchmarkCommit(b *testing.B) {
	c := benchAgent(b)
	r := commitRequest(benchMember(b, c), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
	pending := make([]Pending[[]error], 64)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		p := &pending[n%len(pending)]
		if p.call != nil {
			if _, err := p.Wait(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		*p = c.Commit(r)
	}
}
