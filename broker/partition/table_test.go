package partition_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/broker/ingest"
	"github.com/streamhouse/streamhouse/broker/ingest/ingesttest"
	"github.com/streamhouse/streamhouse/broker/partition"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment/objstore/objstoretest"
)

// rig is one agent on stores in memory.
type rig struct {
	*node
	store   *ingesttest.Store
	asks    *counted
	commits *ingesttest.Commits
	objects *objstoretest.Memory
}

func newRig(t testing.TB, change func(*nodeConfig)) *rig {
	store := ingesttest.NewStore()
	r := &rig{
		store: store, asks: &counted{Store: store}, commits: ingesttest.NewCommits(store),
		objects: objstoretest.NewMemory(),
	}
	cfg := defaults()
	if change != nil {
		change(&cfg)
	}
	r.node = startNode(r.asks, r.commits, r.objects, cfg)
	t.Cleanup(r.stop)
	return r
}

var errDown = errors.New("store is down")

func down(context.Context) error { return errDown }

func TestFirstAppendAcquiresForAllPartitionsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		await(t, r.table.Append([]partition.Append{one(t, 0, 1, 0), one(t, 1, 1, 0), one(t, 2, 1, 0)}))
		await(t, r.table.Append([]partition.Append{one(t, 2, 1, 1), one(t, 0, 1, 1)}))
		if n := r.asks.count(); n != 1 {
			t.Errorf("%d acquisitions, want 1", n)
		}
		if results := r.table.Append(nil).Wait(soon(t)); len(results) != 0 {
			t.Errorf("nothing was appended, %d results", len(results))
		}
	})
}

func TestAppendsWaitForTheLeaseInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		granted := make(chan struct{})
		r.asks.set(func(context.Context) error { <-granted; return nil })
		var pending []*partition.Pending
		for i := range int32(20) {
			pending = append(pending, r.table.Append([]partition.Append{one(t, 0, 1, 2*i), one(t, 0, 1, 2*i+1)}))
			synctest.Wait()
		}
		close(granted)
		for i, p := range pending {
			for j, res := range await(t, p) {
				if want := int64(2*i + j); res.BaseOffset != want {
					t.Errorf("offset %d, want %d", res.BaseOffset, want)
				}
			}
		}
		if n := r.asks.count(); n != 1 {
			t.Errorf("%d acquisitions, want 1", n)
		}
	})
}

// The lease of an agent that seems dead is asked for when that is known, and those of
// others at once.
func TestLeaseInDoubtIsAskedForWhenItIsDecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		decided := make(chan struct{})
		r := newRig(t, func(c *nodeConfig) {
			c.partition.Doubt = func(k lease.Key) <-chan struct{} {
				if k == key(0) {
					return decided
				}
				return nil
			}
		})
		both := r.table.Append([]partition.Append{one(t, 0, 1, 0), one(t, 1, 1, 0)})
		await(t, r.table.Append([]partition.Append{one(t, 1, 1, 1)}))
		if n := r.leases.Count(); n != 1 {
			t.Errorf("%d leases are held, want that of the partition that nobody doubts", n)
		}
		close(decided)
		await(t, both)
	})
}

// What waits for a decision when the agent ends is failed.
func TestLeaseInDoubtAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *nodeConfig) {
			c.partition.Doubt = func(lease.Key) <-chan struct{} { return make(chan struct{}) }
		})
		waiting := r.table.Append([]partition.Append{one(t, 0, 1, 0)})
		synctest.Wait()
		r.stop()
		if err := waiting.Wait(soon(t))[0].Err; !errors.Is(err, partition.ErrClosed) {
			t.Errorf("got %v, want %v", err, partition.ErrClosed)
		}
	})
}

func TestRefusedLeaseFailsAllThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.store.Take("b", key(0))
		for range 100 { // a storm within the time for which a refusal is believed
			results := r.table.Append([]partition.Append{one(t, 0, 1, 0), one(t, 1, 1, 0)}).Wait(soon(t))
			var held *lease.HeldByOtherError
			if !errors.As(results[0].Err, &held) || held.Holder.AgentID != "b" || results[0].BaseOffset != -1 {
				t.Fatalf("got %+v, want held by b", results[0])
			}
			if results[1].Err != nil {
				t.Fatalf("the other partition: %v", results[1].Err)
			}
		}
		if n := r.asks.count(); n > 2 {
			t.Errorf("%d acquisitions", n)
		}
		synctest.Wait()
		if n := r.table.Parts(); n != 1 {
			t.Errorf("%d partitions are remembered, 1 is led", n)
		}
	})
}

func TestUnknownPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.store.DeletePartition(key(0))
		if err := r.table.Append([]partition.Append{one(t, 0, 1, 0)}).Wait(soon(t))[0].Err; !errors.Is(err, lease.ErrUnknownKey) {
			t.Errorf("got %v", err)
		}
	})
}

func TestUnreachableStoreFailsAppendsInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.asks.set(down)
		err := r.table.Append([]partition.Append{one(t, 0, 1, 0)}).Wait(soon(t))[0].Err
		if !errors.Is(err, partition.ErrNotAppended) || !errors.Is(err, errDown) {
			t.Errorf("got %v", err)
		}
		r.asks.set(nil)
		await(t, r.table.Append([]partition.Append{one(t, 0, 1, 0)}))
	})
}

// The lease ends while a commit is under way. What comes then waits for that
// commit, and only then asks for a lease: asking earlier would fence it.
func TestLostLeaseIsAskedForWhenThePoolIsDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		await(t, r.table.Append([]partition.Append{one(t, 0, 1, 0)}))
		gate := make(chan struct{})
		r.commits.Set(ingesttest.Fault{Nth: 1, Gate: gate})
		first := r.table.Append([]partition.Append{one(t, 0, 1, 1)})
		synctest.Wait()
		r.leases.Lose(r.leases.Get(key(0)), lease.ErrExpired)
		synctest.Wait()
		second := r.table.Append([]partition.Append{one(t, 0, 1, 2)})
		synctest.Wait()
		if n := r.asks.count(); n != 1 {
			t.Fatalf("%d acquisitions while the old lease's commit is under way", n)
		}
		close(gate)
		if offset := await(t, first)[0].BaseOffset; offset != 1 {
			t.Errorf("first is at %d", offset)
		}
		if offset := await(t, second)[0].BaseOffset; offset != 2 {
			t.Errorf("second is at %d", offset)
		}
		if l := r.leases.Get(key(0)); l == nil || l.LeaderEpoch() != 2 {
			t.Errorf("lease is %+v", l)
		}
	})
}

// release frees a partition that the store has given to agent b, of the second
// leadership.
func (r *rig) release(t testing.TB, k lease.Key) {
	if err := r.store.Release(context.Background(), "b", []lease.Term{{Key: k, LeaderEpoch: 2}}); err != nil {
		t.Error(err)
	}
}

func TestFailedBatchTakesItsWaitingSuccessorsAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		await(t, r.table.Append([]partition.Append{one(t, 0, 1, 0)}))
		gate := make(chan struct{})
		r.commits.Set(ingesttest.Fault{Nth: 1, Gate: gate})
		first := r.table.Append([]partition.Append{one(t, 0, 3, 0)})
		synctest.Wait()
		r.leases.Lose(r.leases.Get(key(0)), lease.ErrExpired)
		successor := r.table.Append([]partition.Append{one(t, 0, 3, 1)})
		other := r.table.Append([]partition.Append{one(t, 0, 2, 0)})
		r.store.Take("b", key(0))
		r.asks.set(func(context.Context) error { r.release(t, key(0)); return nil })
		close(gate)
		for name, p := range map[string]*partition.Pending{"first": first, "successor": successor} {
			if err := p.Wait(soon(t))[0].Err; !errors.Is(err, lease.ErrNotLeader) {
				t.Errorf("%s: %v", name, err)
			}
		}
		await(t, other)
		await(t, r.table.Append([]partition.Append{one(t, 0, 3, 0)}))
		await(t, r.table.Append([]partition.Append{one(t, 0, 3, 1)}))
	})
}

// A batch fails before it is in the pool, its producer is told, and only then
// those arrive that the producer had sent behind it.
func TestSuccessorsThatArriveAfterTheFailure(t *testing.T) {
	for name, tc := range map[string]struct {
		// fail lets batch 0 of producer 1 fail, and makes way for what follows.
		fail func(t *testing.T, r *rig)
		want error
	}{
		"withdrawn": {func(t *testing.T, r *rig) {
			granted := make(chan struct{})
			r.asks.set(func(context.Context) error { <-granted; return nil })
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			r.table.Append([]partition.Append{one(t, 0, 1, 0)}).Wait(ctx)
			close(granted)
		}, partition.ErrNotAppended},
		"too many wait": {func(t *testing.T, r *rig) {
			granted := make(chan struct{})
			r.asks.set(func(context.Context) error { <-granted; return nil })
			p := r.table.Append([]partition.Append{one(t, 0, 2, 0), one(t, 0, 2, 1), one(t, 0, 1, 0)})
			close(granted)
			p.Wait(soon(t))
		}, ingest.ErrFull},
		"no lease": {func(t *testing.T, r *rig) {
			r.store.Take("a", key(0))
			r.store.Take("b", key(0))
			r.table.Append([]partition.Append{one(t, 0, 1, 0)}).Wait(soon(t))
			r.release(t, key(0))
			<-time.After(time.Minute / 2) // the refusal is believed no more
		}, lease.ErrLeaseHeldByOther},
		"no store": {func(t *testing.T, r *rig) {
			r.asks.set(down)
			r.table.Append([]partition.Append{one(t, 0, 1, 0)}).Wait(soon(t))
			r.asks.set(nil)
		}, partition.ErrNotAppended},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, func(c *nodeConfig) { c.partition.MaxWaiting = 2 })
				tc.fail(t, r)
				for i := range int32(2) {
					if err := r.table.Append([]partition.Append{one(t, 0, 1, 1+i)}).Wait(soon(t))[0].Err; !errors.Is(err, tc.want) {
						t.Errorf("successor %d: got %v, want %v", i+1, err, tc.want)
					}
				}
				for i := range int32(4) {
					await(t, r.table.Append([]partition.Append{one(t, 0, 1, i)}))
				}
			})
		})
	}
}

// What the caller refuses by itself fails its successors too, until it comes again.
func TestSuccessorsOfABatchThatTheCallerRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		first, second := one(t, 0, 1, 0), one(t, 0, 1, 1)
		refusal := errors.New("not here")
		r.table.Miss(first.Key, &first.Batch, refusal)
		if res := r.table.Append([]partition.Append{second}).Wait(soon(t))[0]; !errors.Is(res.Err, refusal) {
			t.Errorf("the successor: %+v", res)
		}
		await(t, r.table.Append([]partition.Append{first, second}))
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		await(t, r.table.Append([]partition.Append{one(t, 0, 1, 0)}))
		gate, granted := make(chan struct{}), make(chan struct{})
		r.commits.Set(ingesttest.Fault{Nth: 1, Gate: gate})
		r.asks.set(func(context.Context) error { <-granted; return nil })
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		appended := r.table.Append([]partition.Append{one(t, 0, 1, 1)})
		waiting := r.table.Append([]partition.Append{one(t, 1, 1, 0)})
		successor := r.table.Append([]partition.Append{one(t, 1, 1, 1)})
		other := r.table.Append([]partition.Append{one(t, 1, 2, 0)})
		if err := appended.Wait(short)[0].Err; !errors.Is(err, partition.ErrTimeout) {
			t.Errorf("appended: %v", err)
		}
		if err := waiting.Wait(short)[0].Err; !errors.Is(err, partition.ErrNotAppended) {
			t.Errorf("waiting: %v", err)
		}
		close(gate)
		close(granted)
		if err := successor.Wait(soon(t))[0].Err; !errors.Is(err, partition.ErrNotAppended) {
			t.Errorf("successor: %v", err)
		}
		if offset := await(t, other)[0].BaseOffset; offset != 0 {
			t.Errorf("what was withdrawn is in the log: next offset is %d", offset)
		}
		if offset := await(t, appended)[0].BaseOffset; offset != 1 {
			t.Errorf("appended is at %d", offset)
		}
	})
}

func TestWaitingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *nodeConfig) { c.partition.MaxWaiting = 2 })
		granted := make(chan struct{})
		r.asks.set(func(context.Context) error { <-granted; return nil })
		p := r.table.Append([]partition.Append{one(t, 0, 1, 0), one(t, 0, 1, 1), one(t, 0, 1, 2), one(t, 1, 1, 0)})
		close(granted)
		results := p.Wait(soon(t))
		if results[0].Err != nil || results[1].Err != nil || results[3].Err != nil || !errors.Is(results[2].Err, ingest.ErrFull) {
			t.Errorf("got %+v", results)
		}
	})
}

func TestPoolThatIsFullRefusesAppends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *nodeConfig) { c.ingest.MaxBufferedBytes, c.ingest.MaxBytes = 250, 250 })
		await(t, r.table.Append([]partition.Append{one(t, 0, 1, 0)}))
		gate := make(chan struct{})
		r.commits.Set(ingesttest.Fault{Nth: 1, Gate: gate})
		first := r.table.Append([]partition.Append{one(t, 0, 1, 1), one(t, 1, 1, 0)}) // one in the pool, one waits and then finds no room
		synctest.Wait()
		second := r.table.Append([]partition.Append{one(t, 0, 1, 2), one(t, 0, 1, 3)})
		for i, res := range second.Wait(soon(t)) {
			if !errors.Is(res.Err, ingest.ErrFull) {
				t.Errorf("append %d: %v", i, res.Err)
			}
		}
		close(gate)
		first.Wait(soon(t))
		await(t, r.table.Append([]partition.Append{one(t, 0, 1, 2)}))
	})
}

func TestCloseFinishesWhatIsInThePool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		await(t, r.table.Append([]partition.Append{one(t, 0, 1, 0)}))
		r.commits.Set(ingesttest.Fault{Delay: time.Second})
		r.asks.set(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		appended := r.table.Append([]partition.Append{one(t, 0, 1, 1)})
		waiting := r.table.Append([]partition.Append{one(t, 1, 1, 0)})
		synctest.Wait()
		if err := r.table.Close(soon(t)); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithCancel(t.Context())
		cancel() // all is decided by now
		if err := appended.Wait(short)[0].Err; err != nil {
			t.Errorf("appended: %v", err)
		}
		if err := waiting.Wait(short)[0].Err; !errors.Is(err, partition.ErrClosed) {
			t.Errorf("waiting: %v", err)
		}
		if err := r.table.Append([]partition.Append{one(t, 0, 1, 2)}).Wait(short)[0].Err; !errors.Is(err, partition.ErrClosed) {
			t.Errorf("append after the end: %v", err)
		}
		if l := r.leases.Get(key(0)); l == nil {
			t.Error("the lease was given up before its agent did")
		}
	})
}

func TestEndOfRunAnswersEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		await(t, r.table.Append([]partition.Append{one(t, 0, 1, 0)}))
		r.commits.Set(ingesttest.Fault{Before: metadata.ErrUnknownOutcome})
		r.asks.set(down)
		appended := r.table.Append([]partition.Append{one(t, 0, 1, 1)})
		synctest.Wait()
		r.leases.Lose(r.leases.Get(key(0)), lease.ErrExpired)
		draining := r.table.Append([]partition.Append{one(t, 0, 2, 0)})
		asking := r.table.Append([]partition.Append{one(t, 1, 1, 0)})
		r.stop()
		late := r.table.Append([]partition.Append{one(t, 1, 1, 0)})
		for name, tc := range map[string]struct {
			pending *partition.Pending
			want    error
		}{
			"appended": {appended, metadata.ErrUnknownOutcome},
			"draining": {draining, partition.ErrClosed},
			"asking":   {asking, partition.ErrClosed},
			"late":     {late, partition.ErrClosed},
		} {
			if err := tc.pending.Wait(soon(t))[0].Err; !errors.Is(err, tc.want) {
				t.Errorf("%s: got %v, want %v", name, err, tc.want)
			}
		}
	})
}

func TestLostPartitionsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		await(t, r.table.Append([]partition.Append{one(t, 0, 1, 0), one(t, 1, 1, 0), one(t, 2, 1, 0)}))
		if err := r.leases.Release(t.Context(), key(1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := r.table.Parts(); n != 2 {
			t.Errorf("%d partitions are remembered, want 2", n)
		}
		r.store.Take("b", key(0))
		<-r.leases.Get(key(0)).Context().Done()
		synctest.Wait()
		if n := r.table.Parts(); n != 1 {
			t.Errorf("%d partitions are remembered, want 1", n)
		}
		await(t, r.table.Append([]partition.Append{one(t, 1, 1, 1)}))
	})
}
