package lease_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/lease"
)

// In doubt, a lease that the store does not know any more ends at once, and one
// that it confirms goes on.
func TestDoubtAsksTheStoreAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		m, _ := start(t, store, "a")
		leases := acquire(t, m, key(0), key(1))
		if err := store.Release(t.Context(), "a", []lease.Term{leases[0].Term()}); err != nil { // by others, behind the manager's back
			t.Fatal(err)
		}
		m.Doubt()
		synctest.Wait()
		if got := context.Cause(leases[0].Context()); !errors.Is(got, lease.ErrTaken) {
			t.Errorf("the freed lease: %v", got)
		}
		time.Sleep(10 * time.Second)
		if !leases[1].Held() || m.Get(key(1)) != leases[1] {
			t.Error("the confirmed lease has ended")
		}
	})
}

// In doubt, and without an answer of the store, leases end within a second.
func TestDoubtWithoutAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		m, _ := start(t, store, "a")
		l := acquire(t, m, key(0))[0]
		store.fail(down, nil)
		m.Doubt()
		synctest.Wait()
		if !l.Held() {
			t.Error("ended before the store was given time")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := context.Cause(l.Context()); !errors.Is(got, lease.ErrExpired) || l.Held() || m.Get(key(0)) != nil {
			t.Errorf("held: %t, %v", l.Held(), got)
		}
	})
}

// An acquisition that was on its way when doubt came, and landed after it, is in
// doubt too: the agent may have stood still in between.
func TestAnAcquisitionFromBeforeTheDoubtIsDoubted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		m, _ := start(t, store, "a")
		store.fail(nil, func(_ context.Context, op string) error {
			if op == "acquire" {
				time.Sleep(1500 * time.Millisecond)
			}
			return nil
		})
		time.AfterFunc(time.Second, m.Doubt)
		acquired := m.Acquire(t.Context(), []lease.Key{key(0)})
		synctest.Wait()
		if acquired[0].Err != nil {
			t.Fatal(acquired[0].Err)
		}
		if got := store.count("renew"); got != 1 {
			t.Errorf("renewed %d times", got)
		}
	})
}
