package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamhouse/streamhouse/internal/testdb"
	"github.com/streamhouse/streamhouse/lease"
)

// countingLeases counts the statements of an agent about leases: a call is one.
type countingLeases struct {
	lease.Store
	calls *atomic.Int64
}

func (c countingLeases) Acquire(ctx context.Context, agentID string, ttl time.Duration, keys []lease.Key) ([]lease.Result, error) {
	c.calls.Add(1)
	return c.Store.Acquire(ctx, agentID, ttl, keys)
}

// Fifty agents want one partition at the same moment, each over connections of its
// own. One is granted it, and all others learn who that is, without asking twice.
func TestFiftyAgentsWantOnePartition(t *testing.T) {
	const agents = 50
	url := testdb.StartPostgres(t, "max_connections=300").Database()
	keys := createTopic(t, open(t, url), 1)
	ctx, stop := context.WithCancel(t.Context())
	var (
		managers [agents]*lease.Manager
		calls    atomic.Int64
		running  sync.WaitGroup
	)
	for i := range managers {
		managers[i] = lease.NewManager(countingLeases{open(t, url), &calls}, fmt.Sprint("agent-", i), lease.DefaultConfig(),
			lease.NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
		running.Go(func() {
			if err := managers[i].Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	defer running.Wait()
	defer stop()

	var results [agents]lease.Acquired
	var asking sync.WaitGroup
	begun := time.Now()
	for i, m := range managers {
		asking.Go(func() { results[i] = m.Acquire(ctx, keys)[0] })
	}
	asking.Wait()
	t.Logf("settled after %s with %d statements", time.Since(begun), calls.Load())

	winner := ""
	for i, r := range results {
		if r.Lease == nil {
			continue
		}
		if winner != "" {
			t.Errorf("granted to %s and to agent-%d", winner, i)
		}
		winner = fmt.Sprint("agent-", i)
	}
	for i, r := range results {
		var held *lease.HeldByOtherError
		if r.Lease == nil && !(errors.As(r.Err, &held) && held.Holder.AgentID == winner) {
			t.Errorf("agent-%d got %v, want that %q holds the lease", i, r.Err, winner)
		}
	}
	if n := calls.Load(); n >= 150 {
		t.Errorf("%d statements", n)
	}
}
