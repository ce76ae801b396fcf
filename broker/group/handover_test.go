package group

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/lease"
)

// A shard is handed over while a commit is with the store and a member waits for a
// rebalance. The commit is answered, all else is sent on, and at the successor the
// members go on in their generation.
func TestHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a, b := startAgent(t, f, "a", nil), startAgent(t, f, "b", nil)
		groups := sameShard(2)
		m := consumer(t, a, groups[0])
		joining := a.Join(joinRequest(groups[0], ""))
		synctest.Wait()
		open := make(chan struct{})
		f.setFault(func(context.Context, string) fault { <-open; return fault{} })
		commit := a.Commit(commitRequest(simple(groups[1]), 7))
		synctest.Wait()
		done := make(chan struct{})
		go func() {
			defer close(done)
			a.HandOver(t.Context(), lease.ForShutdown, a.manager.Leases(), func(lease.Key) (string, bool) { return "b", true })
		}()
		synctest.Wait()
		during := a.Heartbeat(HeartbeatRequest{m})
		synctest.Wait()
		close(open)
		<-done
		wait(t, commit)
		refusal(t, joining, kerr.NotCoordinator)
		refusal(t, during, kerr.NotCoordinator)
		refusal(t, a.Heartbeat(HeartbeatRequest{m}), kerr.NotCoordinator)
		if d := wait(t, b.Describe(groups[0])); len(d.Members) == 0 {
			t.Errorf("described as %+v", d)
		}
	})
}

// A shard that waits for the store for too long stays.
func TestHandOverThatTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a := startAgent(t, f, "a", nil)
		m := consumer(t, a, "g")
		open := make(chan struct{})
		f.setFault(func(context.Context, string) fault { <-open; return fault{} })
		commit := a.Commit(commitRequest(m, 7))
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			a.HandOver(ctx, lease.ForBalance, a.manager.Leases(), func(lease.Key) (string, bool) { return "b", true })
		}()
		synctest.Wait()
		cancel()
		<-done
		close(open)
		wait(t, commit)
		wait(t, a.Heartbeat(HeartbeatRequest{m}))
	})
}
