package partition_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/streamhouse/streamhouse/broker/ingest/ingesttest"
	"github.com/streamhouse/streamhouse/broker/partition"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// newBorrower makes an agent that may borrow, and one that leads what it is told to.
func newBorrower(t *testing.T, borrow func(*lease.HeldByOtherError) bool) (a *rig, calls *ingesttest.Commits, leader *node) {
	calls = ingesttest.NewCommits(nil)
	names := &ingestNames{}
	a = newRig(t, func(c *nodeConfig) {
		c.partition.Borrow = borrow
		c.remote, c.names = calls, names
	})
	names.inner = a.store
	cfg := defaults()
	cfg.agentID = "b"
	leader = startNode(a.store, a.store, a.objects, cfg)
	t.Cleanup(leader.stop)
	*calls = *ingesttest.NewCommits(leader.table)
	return a, calls, leader
}

func lead(t *testing.T, n *node, p int32) *lease.Lease {
	t.Helper()
	got := n.leases.Acquire(t.Context(), []lease.Key{key(p)})[0]
	if got.Err != nil {
		t.Fatal(got.Err)
	}
	return got.Lease
}

func always(*lease.HeldByOtherError) bool { return true }

// Appends to what another agent leads are committed by it, those that waited for the
// lease first, beside those to what the agent leads itself.
func TestAppendToWhatAnotherLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, calls, leader := newBorrower(t, always)
		theirs := lead(t, leader, 0)
		first := a.table.Append([]partition.Append{one(t, 0, 1, 0), one(t, 1, 1, 0), one(t, 0, 1, 1)})
		await(t, first)
		for i := range int32(10) {
			if offset := await(t, a.table.Append([]partition.Append{one(t, 0, 1, i+2)}))[0].BaseOffset; offset != int64(i+2) {
				t.Errorf("append %d is at %d", i, offset)
			}
		}
		if a.asks.count() != 1 || a.leases.Count() != 1 || !theirs.Held() {
			t.Errorf("%d acquisitions, %d leases; the leader's own is held: %v", a.asks.count(), a.leases.Count(), theirs.Held())
		}
		for _, c := range calls.Sent() {
			if c.AgentID != "b" {
				t.Errorf("agent %q was asked", c.AgentID)
			}
		}
		// It is no lease to be handed over, and a leader that ends what it has ends it.
		toB(t.Context(), a)
		toNobody := func(lease.Key) (string, bool) { return "", false }
		await(t, a.table.Append([]partition.Append{one(t, 0, 1, 12)}))
		leader.table.HandOver(t.Context(), lease.ForBalance, leader.leases.Leases(), toNobody)
		if err := a.table.Append([]partition.Append{one(t, 0, 1, 13)}).Wait(soon(t))[0].Err; !errors.Is(err, lease.ErrNotLeader) {
			t.Errorf("after the leader's end: %v", err)
		}
		if offset := await(t, a.table.Append([]partition.Append{one(t, 0, 1, 13)}))[0].BaseOffset; offset != 13 || a.leases.Get(key(0)) == nil {
			t.Errorf("at %d, lease %v", offset, a.leases.Get(key(0)))
		}
	})
}

// A leader to which nobody appends but through other agents acquires what was handed
// over to it, in the same leader epoch; and what has ended here and not in the store.
func TestLeaderOfWhatOthersAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _, leader := newBorrower(t, always)
		given := lead(t, &node{leases: a.leases}, 0)
		await(t, a.table.Append([]partition.Append{one(t, 0, 1, 0)}))
		toB(t.Context(), a)
		if leader.leases.Get(key(0)) != nil {
			t.Fatal("it was acquired before anybody appends")
		}
		await(t, a.table.Append([]partition.Append{one(t, 0, 1, 1)}))
		synctest.Wait()
		l := leader.leases.Get(key(0))
		if l == nil || l.LeaderEpoch() != given.LeaderEpoch()+1 {
			t.Fatalf("the leader has %+v", l)
		}
		await(t, a.table.Append([]partition.Append{one(t, 0, 1, 2)}))

		leader.leases.Lose(l, lease.ErrExpired)
		await(t, a.table.Append([]partition.Append{one(t, 0, 1, 3)}))
		synctest.Wait()
		if leader.leases.Get(key(0)) == nil {
			t.Error("the leader does not know that it leads")
		}
	})
}

// Where nothing is to be borrowed, the append is refused with the leader's name: by
// the configuration, and of an agent that leads nothing more.
func TestNothingIsBorrowed(t *testing.T) {
	for name, borrow := range map[string]func(*lease.HeldByOtherError) bool{
		"not to be": func(*lease.HeldByOtherError) bool { return false },
		"retired":   always,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, calls, leader := newBorrower(t, borrow)
				lead(t, leader, 0)
				if name == "retired" {
					// The store is asked no more: it has said so before.
					a.leases.Acquire(t.Context(), []lease.Key{key(0)})
					defer a.leases.Retire(t.Context())()
				}
				wantHeldByB(t, a.table.Append([]partition.Append{one(t, 0, 1, 0)}))
				synctest.Wait()
				if n := a.table.Parts(); n != 0 || len(calls.Sent()) != 0 {
					t.Errorf("%d partitions are remembered, %d calls", n, len(calls.Sent()))
				}
			})
		})
	}
}

// A borrowed lease that ends lets what comes wait for what is under way, and then
// asks the store anew.
func TestBorrowedLeaseEndsUnderAppends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, calls, leader := newBorrower(t, always)
		lead(t, leader, 0)
		await(t, a.table.Append([]partition.Append{one(t, 0, 1, 0)}))
		gate := make(chan struct{})
		leader.pool.Hasten()
		calls.Set(ingesttest.Fault{Nth: 1, Gate: gate, Late: true})
		under := a.table.Append([]partition.Append{one(t, 0, 1, 1), one(t, 1, 1, 0)})
		synctest.Wait()
		a.leases.EndBorrowed(func(*lease.Lease) bool { return true })
		behind := a.table.Append([]partition.Append{one(t, 0, 2, 0)})
		await(t, behind)
		results := under.Wait(soon(t))
		if !errors.Is(results[0].Err, lease.ErrNotLeader) || results[1].Err != nil {
			t.Errorf("under way: %v, %v", results[0].Err, results[1].Err)
		}
		close(gate) // the call arrives, too late
		calls.Wait()
		read, err := a.store.Read(context.Background(), []metadata.ReadRequest{{Key: key(0)}})
		if err != nil || read[0].Watermarks.High != 2 {
			t.Errorf("log ends at %d, %v", read[0].Watermarks.High, err)
		}
	})
}
