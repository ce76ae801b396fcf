package lease_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
)

// from is what the store says of a lease that an agent has.
func from(agent string, p int32, leaderEpoch int32) *lease.HeldByOtherError {
	return &lease.HeldByOtherError{Key: key(p), Holder: lease.Holder{AgentID: agent, LeaderEpoch: leaderEpoch, ExpiresIn: time.Second}}
}

func TestBorrowedLeaseIsItsHolders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		m, _ := start(t, store, "a")
		own := acquire(t, m, key(1))[0]
		l := m.Borrow(from("b", 0, 7))
		if l.Key() != key(0) || l.Holder() != "b" || l.LeaderEpoch() != 7 || !l.Held() || own.Holder() != "" {
			t.Errorf("borrowed %s in %d from %q", l.Key(), l.LeaderEpoch(), l.Holder())
		}
		if again := m.Borrow(from("b", 0, 7)); again != l {
			t.Error("borrowed twice")
		}
		m.Doubt()
		<-time.After(time.Hour)
		synctest.Wait()
		if !l.Held() || l.Age() != time.Hour {
			t.Errorf("an hour later: held %v, age %v", l.Held(), l.Age())
		}
		store.mu.Lock()
		for _, keys := range store.keys {
			if slices.Contains(keys, key(0)) {
				t.Error("the store was asked about what is borrowed")
			}
		}
		store.mu.Unlock()
		if m.Count() != 1 || len(m.Leases()) != 1 || m.Leases()[0] != own || m.Get(key(0)) != nil {
			t.Errorf("it counts as held: %v", m.Held())
		}
		if err := m.HandOver(t.Context(), lease.ForBalance, []*lease.Lease{l}, to("c"))[0]; !errors.Is(err, lease.ErrTaken) || !l.Held() {
			t.Errorf("hand-over: %v", err)
		}
		if err := m.Release(t.Context(), key(0)); err != nil || !l.Held() {
			t.Errorf("release: %v", err)
		}
	})
}

func TestBorrowedLeaseEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		end   func(m *lease.Manager, l *lease.Lease)
		cause error
	}{
		"lost":              {func(m *lease.Manager, l *lease.Lease) { m.Lose(l, lease.ErrFenced) }, lease.ErrFenced},
		"another leads":     {func(m *lease.Manager, l *lease.Lease) { m.Borrow(from("c", 0, 8)) }, lease.ErrTaken},
		"in another epoch":  {func(m *lease.Manager, l *lease.Lease) { m.Borrow(from("b", 0, 9)) }, lease.ErrTaken},
		"given back":        {func(m *lease.Manager, l *lease.Lease) { m.EndBorrowed(func(o *lease.Lease) bool { return o == l }) }, lease.ErrTaken},
		"topic deleted":     {func(m *lease.Manager, l *lease.Lease) { m.Forget(key(0).TopicID) }, lease.ErrUnknownKey},
		"agent retires":     {func(m *lease.Manager, l *lease.Lease) { m.Retire(context.Background()) }, lease.ErrReleased},
		"agent releases":    {func(m *lease.Manager, l *lease.Lease) { m.ReleaseAll(context.Background()) }, lease.ErrReleased},
		"lost, then retire": {func(m *lease.Manager, l *lease.Lease) { m.Lose(l, lease.ErrFenced); m.Retire(context.Background()) }, lease.ErrFenced},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, _ := start(t, newFakeStore(), "a")
				l := m.Borrow(from("b", 0, 7))
				tc.end(m, l)
				if cause := context.Cause(l.Context()); !errors.Is(cause, tc.cause) || l.Held() {
					t.Errorf("ended with %v, held: %v", cause, l.Held())
				}
				m.Lose(l, lease.ErrExpired) // does nothing
			})
		})
	}
}

// Neither what another agent lends nor what it has lent before ends by what is not
// about it.
func TestBorrowedLeaseStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := start(t, newFakeStore(), "a")
		before := m.Borrow(from("b", 0, 7))
		m.Lose(before, lease.ErrFenced)
		l := m.Borrow(from("b", 0, 8))
		m.Lose(before, lease.ErrFenced)
		m.EndBorrowed(func(o *lease.Lease) bool { return o == before })
		m.Forget(uuid.New())
		if !l.Held() {
			t.Errorf("ended with %v", context.Cause(l.Context()))
		}
	})
}

// The end of a borrowed lease says that what was known of its holder may be wrong: the
// next acquisition asks the store at once.
func TestEndOfABorrowedLeaseHasTheStoreAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		a, _ := start(t, store, "a")
		b, _ := start(t, store, "b")
		acquire(t, b, key(0))
		var held *lease.HeldByOtherError
		if err := a.Acquire(t.Context(), []lease.Key{key(0)})[0].Err; !errors.As(err, &held) {
			t.Fatal(err)
		}
		l := a.Borrow(held)
		if err := b.ReleaseAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		a.Lose(l, lease.ErrFenced)
		acquire(t, a, key(0))
	})
}

func TestNothingIsBorrowedInRetirement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := start(t, newFakeStore(), "a")
		resume := m.Retire(t.Context())
		if l := m.Borrow(from("b", 0, 7)); l != nil {
			t.Error("borrowed")
		}
		resume()
		if l := m.Borrow(from("b", 0, 7)); l == nil {
			t.Error("not borrowed afterwards")
		}
	})
}
