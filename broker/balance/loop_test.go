package balance

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamhouse/streamhouse/lease"
)

// grantor grants every lease.
type grantor struct{ lease.Store }

func (grantor) Acquire(_ context.Context, _ string, _ time.Duration, keys []lease.Key) ([]lease.Result, error) {
	results := make([]lease.Result, len(keys))
	for i, k := range keys {
		results[i].Term = lease.Term{Key: k}
	}
	return results, nil
}

func (grantor) Renew(_ context.Context, _ string, _ time.Duration, terms []lease.Term) ([]lease.Term, error) {
	return terms, nil
}

// loopRig is a loop that runs, with three leases and a bucket that fails.
type loopRig struct {
	*Loop
	alone bool        // no other agent leads, once this one has withdrawn
	busy  int         // hand-overs in which leases stay, since uploads are under way
	back  atomic.Bool // probes succeed

	mu  sync.Mutex
	did []string // what the loop asked for, in order
}

func (r *loopRig) note(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.did = append(r.did, what)
}

func (r *loopRig) done() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.did)
}

func (r *loopRig) view() View {
	if r.alone && slices.Contains(r.done(), "withdraw") {
		return world{[]string{"self/1"}}
	}
	return two
}

// runLoop runs a loop until the test ends, while somebody uploads all the time.
func runLoop(t *testing.T, r *loopRig) {
	t.Helper()
	manager := lease.NewManager(grantor{}, "self", lease.DefaultConfig(), lease.NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	bucket := NewBucket(&objects{err: errors.New("down")})
	r.Loop = New(Agent{
		ID: "self", View: r.view, Leases: manager, Bucket: bucket, Writers: NewWriters(),
		Probe: func(context.Context) error {
			if !r.back.Load() {
				return errors.New("down")
			}
			return nil
		},
		HandOver: func(_ context.Context, reason lease.HandoverReason, leases []*lease.Lease, _ lease.Successor) {
			if reason != lease.ForBucket {
				return
			}
			r.note("hand over")
			if r.busy--; r.busy >= 0 {
				leases = leases[1:]
			}
			for _, l := range leases {
				manager.Lose(l, lease.ErrReleased)
			}
		},
		Withdraw: func(context.Context) { r.note("withdraw") },
		Return:   func() { r.note("return") },
		Log:      slog.New(slog.DiscardHandler),
	}, prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 3)
	go func() { ended <- manager.Run(ctx) }()
	go func() { ended <- r.Run(ctx) }()
	go func() {
		for ; ctx.Err() == nil; time.Sleep(time.Second) {
			_ = bucket.Put(ctx, "key", nil)
		}
		ended <- nil
	}()
	t.Cleanup(func() {
		cancel()
		for range cap(ended) {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	for _, a := range manager.Acquire(t.Context(), []lease.Key{{Partition: 0}, {Partition: 1}, {Partition: 2}}) {
		if a.Err != nil {
			t.Fatal(a.Err)
		}
	}
}

// until waits until the loop has done as much, and checks what that was.
func (r *loopRig) until(t *testing.T, want ...string) {
	t.Helper()
	for range 5 * time.Minute / time.Second {
		if len(r.done()) >= len(want) {
			break
		}
		time.Sleep(time.Second)
		synctest.Wait()
	}
	if got := r.done(); !slices.Equal(got, want) {
		t.Fatalf("did %q, want %q", got, want)
	}
}

// Leases under which uploads are still under way follow when these have ended, and
// the agent stays away until the bucket is back.
func TestAnAgentWithoutItsBucketGivesUpAllOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &loopRig{busy: 2}
		runLoop(t, r)
		r.until(t, "withdraw", "hand over", "hand over", "hand over")
		if n := r.Leases.Count(); n != 0 || r.HealthCheck() == nil {
			t.Errorf("%d leases are left, healthy: %v", n, r.HealthCheck())
		}
		if err := r.Leases.Acquire(t.Context(), []lease.Key{{Partition: 7}})[0].Err; !errors.Is(err, lease.ErrReleased) {
			t.Errorf("acquiring: %v", err)
		}
		r.back.Store(true)
		r.until(t, "withdraw", "hand over", "hand over", "hand over", "return")
		if err := r.Leases.Acquire(t.Context(), []lease.Key{{Partition: 7}})[0].Err; err != nil || r.HealthCheck() != nil {
			t.Errorf("acquiring: %v, healthy: %v", err, r.HealthCheck())
		}
	})
}

// Of two agents that lose their bucket at once, each sees the other lead: until it
// has withdrawn, and finds that the other has too.
func TestTheLastAgentKeepsWhatItLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &loopRig{alone: true}
		runLoop(t, r)
		r.until(t, "withdraw", "return")
		if n := r.Leases.Count(); n != 3 || r.HealthCheck() != nil {
			t.Errorf("%d leases are left, healthy: %v", n, r.HealthCheck())
		}
	})
}
