package partition_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/streamhouse/streamhouse/broker/ingest/ingesttest"
	"github.com/streamhouse/streamhouse/broker/partition"
	"github.com/streamhouse/streamhouse/lease"
)

// toB is a hand-over of all that the table's agent leads.
func toB(ctx context.Context, r *rig) {
	r.table.HandOver(ctx, lease.ForBalance, r.leases.Leases(), func(lease.Key) (string, bool) { return "b", true })
}

// wantHeldByB demands that an append was refused with b's name.
func wantHeldByB(t *testing.T, p *partition.Pending) {
	t.Helper()
	var held *lease.HeldByOtherError
	if err := p.Wait(soon(t))[0].Err; !errors.As(err, &held) || held.Holder.AgentID != "b" {
		t.Errorf("got %v, want held by b", err)
	}
}

// A commit is under way when its partition is handed over. It is answered, what
// comes meanwhile waits until the successor leads, and a partition that is quiet
// does not wait for one that is not.
func TestHandOverFinishesWhatIsInThePool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		await(t, r.table.Append([]partition.Append{one(t, 0, 1, 0), one(t, 1, 1, 0)}))
		gate := make(chan struct{})
		r.commits.Set(ingesttest.Fault{Nth: 1, Gate: gate})
		before := r.table.Append([]partition.Append{one(t, 0, 1, 1)})
		synctest.Wait()
		done := make(chan struct{})
		go func() {
			defer close(done)
			toB(t.Context(), r)
		}()
		synctest.Wait()
		during := r.table.Append([]partition.Append{one(t, 0, 1, 2)})
		synctest.Wait()
		close(gate)
		<-done
		if offset := await(t, before)[0].BaseOffset; offset != 1 {
			t.Errorf("committed at %d", offset)
		}
		wantHeldByB(t, during)
		wantHeldByB(t, r.table.Append([]partition.Append{one(t, 1, 1, 1)}))
		if n := r.leases.Count(); n != 0 {
			t.Errorf("%d leases are held", n)
		}
		synctest.Wait()
		if n := r.table.Parts(); n != 0 {
			t.Errorf("%d partitions are remembered", n)
		}
	})
}

// A partition whose commit takes too long stays, with what waits.
func TestHandOverThatTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		await(t, r.table.Append([]partition.Append{one(t, 0, 1, 0)}))
		gate := make(chan struct{})
		r.commits.Set(ingesttest.Fault{Nth: 1, Gate: gate})
		before := r.table.Append([]partition.Append{one(t, 0, 1, 1)})
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			toB(ctx, r)
		}()
		synctest.Wait()
		during := r.table.Append([]partition.Append{one(t, 0, 1, 2)})
		synctest.Wait()
		cancel()
		<-done
		close(gate)
		await(t, before)
		if offset := await(t, during)[0].BaseOffset; offset != 2 {
			t.Errorf("committed at %d", offset)
		}
		if l := r.leases.Get(key(0)); l == nil || l.LeaderEpoch() != 1 {
			t.Errorf("lease is %+v", l)
		}
	})
}

// The lease is lost while its partition leaves: what waits asks anew.
func TestHandOverOfALostLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		await(t, r.table.Append([]partition.Append{one(t, 0, 1, 0)}))
		gate := make(chan struct{})
		r.commits.Set(ingesttest.Fault{Nth: 1, Gate: gate})
		before := r.table.Append([]partition.Append{one(t, 0, 1, 1)})
		synctest.Wait()
		done := make(chan struct{})
		go func() {
			defer close(done)
			toB(t.Context(), r)
		}()
		synctest.Wait()
		r.leases.Lose(r.leases.Get(key(0)), lease.ErrExpired)
		during := r.table.Append([]partition.Append{one(t, 0, 1, 2)})
		synctest.Wait()
		close(gate)
		<-done
		await(t, before)
		if offset := await(t, during)[0].BaseOffset; offset != 2 {
			t.Errorf("committed at %d", offset)
		}
	})
}

// Without a successor the lease is free for whoever asks first.
func TestHandOverToNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		await(t, r.table.Append([]partition.Append{one(t, 0, 1, 0)}))
		r.table.HandOver(t.Context(), lease.ForShutdown, r.leases.Leases(), func(lease.Key) (string, bool) { return "", false })
		granted, err := r.store.Acquire(t.Context(), "b", lease.DefaultConfig().Duration, []lease.Key{key(0)})
		if err != nil || granted[0].Err != nil {
			t.Errorf("got %v, %v", granted, err)
		}
	})
}
