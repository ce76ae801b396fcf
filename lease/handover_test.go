package lease_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamhouse/streamhouse/lease"
)

func to(agent string) lease.Successor {
	return func(lease.Key) (string, bool) { return agent, agent != "" }
}

func TestHandOverNamesTheSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		a, _ := start(t, store, "a")
		b, _ := start(t, store, "b")
		leases := acquire(t, a, key(0), key(1))
		a.Lose(leases[1], lease.ErrFenced)
		outcomes := a.HandOver(t.Context(), lease.ForBalance, leases, to("b"))
		var held *lease.HeldByOtherError
		if !errors.As(outcomes[0], &held) || held.Holder.AgentID != "b" || held.Holder.LeaderEpoch != leases[0].LeaderEpoch()+1 {
			t.Errorf("got %v", outcomes[0])
		}
		if !errors.Is(outcomes[1], lease.ErrTaken) {
			t.Errorf("what was lost before: %v", outcomes[1])
		}
		if cause := context.Cause(leases[0].Context()); !errors.Is(cause, lease.ErrReleased) || a.Count() != 0 {
			t.Errorf("cause is %v, %d are left", cause, a.Count())
		}
		if err := a.Acquire(t.Context(), []lease.Key{key(0)})[0].Err; !errors.As(err, &held) || held.Holder.AgentID != "b" {
			t.Errorf("acquire afterwards: %v", err)
		}
		acquire(t, b, key(0))
	})
}

func TestHandOverWithoutASuccessorReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		a, _ := start(t, store, "a")
		b, _ := start(t, store, "b")
		leases := acquire(t, a, key(0))
		if err := a.HandOver(t.Context(), lease.ForShutdown, leases, to(""))[0]; !errors.Is(err, lease.ErrReleased) {
			t.Errorf("got %v", err)
		}
		acquire(t, b, key(0))
	})
}

// A store that answers nothing holds nobody up, with and without a successor.
func TestHandOverIsBounded(t *testing.T) {
	for _, successor := range []string{"b", ""} {
		synctest.Test(t, func(t *testing.T) {
			store := newFakeStore()
			a, _ := start(t, store, "a")
			leases := acquire(t, a, key(0))
			store.fail(func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }, nil)
			a.HandOver(context.Background(), lease.ForShutdown, leases, to(successor))
			if a.Count() != 0 {
				t.Error("the lease is held")
			}
		})
	}
}

// The answer to a hand-over is lost. Whether it was made is found out by asking.
func TestHandOverOfUnknownOutcome(t *testing.T) {
	for name, applied := range map[string]bool{"applied": true, "not applied": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newFakeStore()
				a, _ := start(t, store, "a")
				leases := acquire(t, a, key(0))
				lost := func(_ context.Context, op string) error {
					if op == "hand over" {
						return errors.New("connection lost")
					}
					return nil
				}
				if applied {
					store.fail(nil, lost)
				} else {
					store.fail(lost, nil)
				}
				if err := a.HandOver(t.Context(), lease.ForBalance, leases, to("b"))[0]; err == nil || lease.HandedOver(err) {
					t.Errorf("got %v", err)
				}
				got := a.Acquire(t.Context(), []lease.Key{key(0)})[0]
				if errors.Is(got.Err, lease.ErrLeaseHeldByOther) != applied || (got.Lease != nil) == applied {
					t.Errorf("asked: %+v", got)
				}
			})
		})
	}
}

func TestRetireRefusesUntilItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := start(t, newFakeStore(), "a")
		resume := a.Retire(t.Context())
		if err := a.Acquire(t.Context(), []lease.Key{key(0)})[0].Err; !errors.Is(err, lease.ErrReleased) {
			t.Errorf("got %v", err)
		}
		resume()
		acquire(t, a, key(0))
	})
}

// What nobody will ask the store for any more is refused, and waited for by nobody.
func TestReleaseAfterTheManagerHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancel(t.Context())
		m := lease.NewManager(newFakeStore(), "a", lease.DefaultConfig(), lease.NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
		asked := make(chan []lease.Acquired, 1)
		go func() { asked <- m.Acquire(context.Background(), []lease.Key{key(0)}) }()
		synctest.Wait() // it waits for Run
		end()
		if err := m.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if err := m.ReleaseAll(context.Background()); err != nil {
			t.Fatal(err)
		}
		if got := <-asked; got[0].Lease == nil && !errors.Is(got[0].Err, lease.ErrReleased) {
			t.Errorf("got %v", got[0].Err)
		}
		if got := m.Acquire(context.Background(), []lease.Key{key(1)}); !errors.Is(got[0].Err, lease.ErrReleased) {
			t.Errorf("afterwards: %v", got[0].Err)
		}
	})
}
