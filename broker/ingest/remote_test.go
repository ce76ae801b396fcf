package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/broker/ingest"
	"github.com/streamhouse/streamhouse/broker/ingest/ingesttest"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment"
	"github.com/streamhouse/streamhouse/segment/objstore"
	"github.com/streamhouse/streamhouse/segment/objstore/faulty"
)

// refused is what a producer is told of a batch that the leader has not committed.
var refused = lease.ErrNotLeader

// TestRemoteAckTable is TestAckTable for batches whose leader is another agent: each
// step between the two, at the leader and at the store goes wrong in each way.
func TestRemoteAckTable(t *testing.T) {
	lost, down := metadata.ErrUnknownOutcome, metadata.ErrUnavailable
	rpc := func(f ...ingesttest.Fault) func(u, h *rig) { return func(u, _ *rig) { u.rpc.Set(f...) } }
	leader := func(f ...ingesttest.Fault) func(u, h *rig) { return func(_, h *rig) { h.commits.Set(f...) } }
	both := func(faults ...func(u, h *rig)) func(u, h *rig) {
		return func(u, h *rig) {
			for _, f := range faults {
				f(u, h)
			}
		}
	}
	// names keeps a fault of the names for minutes.
	names := func(before, after error) func(u, h *rig) {
		return func(u, _ *rig) {
			u.names.set(before, after)
			time.AfterFunc(5*time.Minute, func() { u.names.set(nil, nil) })
		}
	}
	all := func(err error) [3]error { return [3]error{err, err, err} }
	first := [3]error{refused, refused, nil}
	for name, tc := range map[string]struct {
		fault func(u, h *rig)
		// want are the errors of the first flush, of its successors in the second and
		// third, and of the others.
		want [3]error
	}{
		"put fails": {func(u, _ *rig) {
			u.objects.Set(faulty.Rule{Op: faulty.Put, Nth: 1, Delay: time.Second, Err: objstore.ErrUnavailable})
		}, [3]error{ingest.ErrUpload, ingest.ErrUpload, nil}},

		"call is refused once":            {rpc(ingesttest.Fault{Nth: 1, Delay: time.Second, Before: down}), first},
		"calls are refused":               {rpc(ingesttest.Fault{Delay: time.Second, Before: down}), all(refused)},
		"call is lost":                    {rpc(ingesttest.Fault{Nth: 1, Before: lost}), all(nil)},
		"call fails with what none knows": {rpc(ingesttest.Fault{Nth: 1, After: errors.New("?")}), all(nil)},
		"calls are lost":                  {rpc(ingesttest.Fault{Delay: time.Second, Before: lost}), all(refused)},
		"answer is lost":                  {rpc(ingesttest.Fault{Nth: 1, After: lost}), all(nil)},
		"answers are lost":                {rpc(ingesttest.Fault{After: lost}), all(nil)},
		"call is lost, then refused":      {rpc(ingesttest.Fault{Nth: 1, Delay: time.Second, Before: lost}, ingesttest.Fault{Nth: 2, Before: down}), all(nil)},
		"answer is lost, then refused":    {rpc(ingesttest.Fault{Nth: 1, After: lost}, ingesttest.Fault{Before: down}), [3]error{nil, refused, refused}},
		"call is slow":                    {rpc(ingesttest.Fault{Delay: 4 * time.Second}), all(nil)},
		"call hangs":                      {rpc(ingesttest.Fault{Nth: 1, Delay: time.Hour}), first},
		"call arrives late":               {rpc(ingesttest.Fault{Nth: 1, Delay: 30 * time.Second, Late: true}), first},
		"calls arrive late":               {rpc(ingesttest.Fault{Delay: 30 * time.Second, Late: true}), all(refused)},

		"leader's commit is unavailable":       {leader(ingesttest.Fault{Nth: 1, Before: down}), all(nil)},
		"leader's commit is lost":              {leader(ingesttest.Fault{Nth: 1, Before: lost}), all(nil)},
		"leader's commit loses its answer":     {leader(ingesttest.Fault{Nth: 1, After: lost}), all(nil)},
		"leader's commit is unavailable long":  {leader(ingesttest.Fault{Before: down}), all(refused)},
		"leader's commit loses all answers":    {leader(ingesttest.Fault{After: lost}), [3]error{nil, refused, refused}},
		"leader's commit comes after the call": {leader(ingesttest.Fault{Nth: 1, Delay: 9 * time.Second}), first},

		"claim is unavailable, calls lost":   {both(rpc(ingesttest.Fault{Before: lost}), names(down, nil)), all(refused)},
		"claim loses its answer, calls lost": {both(rpc(ingesttest.Fault{Before: lost}), names(nil, lost)), all(refused)},
		"claim is unavailable, calls made":   {both(rpc(ingesttest.Fault{After: lost}), names(down, nil)), all(nil)},
		"store is lost, calls made": {
			both(rpc(ingesttest.Fault{After: lost}), func(u, _ *rig) { u.commits.Set(ingesttest.Fault{Nth: 1, Before: lost}) }), all(nil),
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u, h := newPair(t, uploadsOnly)
				u.store.Old = true
				for p := range int32(5) {
					u.lease(p)
				}
				tc.fault(u, h)
				flush := u.addAll(placed{1, one(t, 1, 0, 10)}, placed{2, one(t, 2, 0, 10)})
				synctest.Wait() // its upload is the first
				second := u.addAll(placed{1, one(t, 1, 1, 10)}, placed{3, one(t, 3, 0, 10)})
				third := u.addAll(placed{3, one(t, 3, 1, 10)}, placed{4, one(t, 4, 0, 10)})
				expect(t, "first flush", tc.want[0], flush...)
				expect(t, "successor", tc.want[1], second[0])
				expect(t, "others", tc.want[2], second[1], third[0], third[1])

				u.objects.Set()
				<-time.After(10 * time.Minute)
				u.rpc.Set()
				h.commits.Set()
				next := u.add(4, one(t, 4, after(third[1]), 10))
				next = append(next, u.add(2, one(t, 2, after(flush[1]), 10))...)
				await(t, next)
				u.check()
				h.check()
			})
		})
	}
}

// The leader ends, at each step of what others have it commit: it commits and says so,
// or the store knows that it did not.
func TestLeaderEnds(t *testing.T) {
	for after := range 12 {
		synctest.Test(t, func(t *testing.T) {
			u, h := newPair(t, uploadsOnly)
			u.objects.Set(faulty.Rule{Op: faulty.Put, Delay: 2 * time.Millisecond})
			u.rpc.Set(ingesttest.Fault{Delay: 2 * time.Millisecond})
			h.commits.Set(ingesttest.Fault{Delay: 4 * time.Millisecond})
			ended := make(chan struct{})
			time.AfterFunc(time.Duration(after)*time.Millisecond, func() { h.stop(); close(ended) })
			u.addAll(placed{1, one(t, 1, 0, 10)}, placed{2, one(t, 2, 0, 10)})
			sends := u.addAll(placed{1, one(t, 1, 1, 10)}, placed{2, one(t, 2, 1, 10)})
			for _, s := range sends {
				if <-s.done; s.result.Err != nil && !errors.Is(s.result.Err, refused) {
					t.Error(s.result.Err)
				}
			}
			<-ended
			u.check()
		})
	}
}

// The lease of a batch that was not committed has ended, others have not.
func TestRefusedBatchEndsItsBorrowedLease(t *testing.T) {
	for name, tc := range map[string]struct {
		fault func(u, h *rig)
		cause error
	}{
		"refused": {func(u, _ *rig) { u.rpc.Set(ingesttest.Fault{Nth: 1, Before: metadata.ErrUnavailable}) }, lease.ErrNotSequenced},
		"claimed": {func(u, _ *rig) { u.rpc.Set(ingesttest.Fault{Nth: 1, Delay: time.Hour}) }, lease.ErrNotSequenced},
		"fenced":  {func(_, h *rig) { h.store.Take("b", key(1)) }, lease.ErrFenced},
		"deleted": {func(_, h *rig) { h.store.DeletePartition(key(1)) }, lease.ErrUnknownKey},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u, h := newPair(t, uploadsOnly)
				lost, kept, own := u.lease(1), u.lease(2), h.lease(1)
				await(t, u.add(2, one(t, 2, 0, 10), one(t, 2, 1, 10)))
				tc.fault(u, h)
				sends := u.add(1, one(t, 1, 0, 10), one(t, 1, 1, 10))
				for _, s := range sends {
					if <-s.done; s.result.Err == nil {
						t.Error("acknowledged")
					}
				}
				if cause := context.Cause(lost.Context()); !errors.Is(cause, tc.cause) || !kept.Held() {
					t.Errorf("lease ended with %v, the other is held: %v", cause, kept.Held())
				}
				if !own.Held() {
					t.Error("the leader's own lease has ended")
				}
				await(t, u.add(2, one(t, 2, 2, 10), one(t, 2, 3, 10)))
			})
		})
	}
}

// The view shows another leader while the holder is silent: what it was sent is
// resolved, what was not sent yet is not sent, and other partitions go on.
func TestBorrowedLeaseEndsWhileItsHolderIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, h := newPair(t, uploadsOnly)
		moved, other := u.lease(1), u.lease(2)
		u.rpc.Set(ingesttest.Fault{Nth: 1, Delay: time.Hour})
		sent := u.add(1, one(t, 1, 0, 10), one(t, 3, 0, 10))
		synctest.Wait()
		waiting := u.addAll(placed{1, one(t, 4, 0, 10)}, placed{2, one(t, 2, 0, 10)})
		<-time.After(time.Second)
		begun := time.Now()
		u.leases.EndBorrowed(func(l *lease.Lease) bool { return l == moved })
		expect(t, "sent", refused, sent...)
		expect(t, "not sent", lease.ErrTaken, waiting[0])
		await(t, waiting[1:])
		if took := time.Since(begun); took > 0 || !other.Held() {
			t.Errorf("took %v, the other lease is held: %v", took, other.Held())
		}
		u.check()
		h.check()
	})
}

// An agent on its way out gives up what it has borrowed, and has it committed all the
// same: what is under way, and what waits behind.
func TestRetiredAgentHasItsBorrowedCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, h := newPair(t, uploadsOnly)
		l := u.lease(1)
		u.rpc.Set(ingesttest.Fault{Nth: 1, Delay: time.Second})
		sends := u.add(1, one(t, 1, 0, 10), one(t, 1, 1, 10))
		synctest.Wait()
		sends = append(sends, u.add(1, one(t, 1, 2, 10), one(t, 1, 3, 10))...)
		u.leases.Retire(t.Context())
		if l.Held() {
			t.Error("the lease is held")
		}
		await(t, sends)
		u.check()
		h.check()
	})
}

// A flush for several leaders is one object, of which each commits its part, and none
// waits for another.
func TestLanesDoNotWaitForOneAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, h := newPair(t, func(c *ingest.Config) { c.InlineMaxBytes, c.MaxBatches = 0, 4 })
		mine := u.leases.Acquire(t.Context(), []lease.Key{key(9)})[0].Lease
		gate := make(chan struct{})
		u.rpc.Set(ingesttest.Fault{Nth: 1, Gate: gate})
		var own, other []*send
		var items []ingest.Item
		for i := range int32(4) {
			for l, sends := range map[*lease.Lease]*[]*send{mine: &own, u.lease(1): &other} {
				s := &send{rig: u, key: l.Key(), batch: one(t, 7, i, 10), done: make(chan struct{})}
				*sends = append(*sends, s)
				items = append(items, ingest.Item{Lease: l, Batch: s.batch, Receiver: s})
			}
		}
		u.sends = append(own, other...)
		if err := u.pool.Add(items); err != nil {
			t.Fatal(err)
		}
		await(t, own)
		synctest.Wait()
		if u.puts() != 2 {
			t.Errorf("%d puts for 8 batches in flushes of 4", u.puts())
		}
		close(gate)
		await(t, other)
		for lane, commits := range map[int][]metadata.Commit{0: u.commits.Sent(), 1: u.rpc.Sent()} {
			for _, c := range commits {
				for _, o := range c.Objects {
					if segment.PartOf(o.ID) != lane || len(o.Batches) != 2 {
						t.Errorf("lane %d has part %s of %d batches", lane, o.ID, len(o.Batches))
					}
				}
			}
		}
		u.check()
		h.check()
	})
}

// A part whose leader is silent does not keep the object in memory: of a large one it may
// be a small part.
func TestPartThatWaitsKeepsNoObject(t *testing.T) {
	u, h := newPair(t, func(c *ingest.Config) { c.InlineMaxBytes, c.MaxBatches = 0, 2 })
	mine := u.leases.Acquire(t.Context(), []lease.Key{key(9)})[0].Lease
	gate := make(chan struct{})
	u.rpc.Set(ingesttest.Fault{Nth: 1, Gate: gate})
	var items []ingest.Item
	for l, size := range map[*lease.Lease]int{mine: 1 << 20, u.lease(1): 10} {
		s := &send{rig: u, key: l.Key(), batch: one(t, 7, 0, size), done: make(chan struct{})}
		u.sends = append(u.sends, s)
		items = append(items, ingest.Item{Lease: l, Batch: s.batch, Receiver: s})
	}
	if err := u.pool.Add(items); err != nil {
		t.Fatal(err)
	}
	for _, s := range u.sends {
		if s.key == mine.Key() {
			await(t, []*send{s})
		}
	}
	runtime.GC()
	u.mu.Lock()
	if u.last.Value() != nil {
		t.Error("the object is kept")
	}
	u.mu.Unlock()
	close(gate)
	await(t, u.sends)
	u.check()
	h.check()
}

// What another agent commits is never inline: its bytes would cross to it.
func TestBorrowedIsNeverInline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, h := newPair(t, nil)
		u.agents.Store(5) // it does not wait for the pace either
		for i := range int32(20) {
			begun := time.Now()
			await(t, u.add(1, one(t, 1, i, 10)))
			if took := time.Since(begun); took > ingest.DefaultConfig().CommitSpacing {
				t.Errorf("batch %d took %v", i, took)
			}
		}
		if u.puts() != 20 {
			t.Errorf("%d puts for 20 flushes", u.puts())
		}
		u.check()
		h.check()
	})
}

// The pool ends while it is not known what the leader did.
func TestPoolEndsWhileALeaderIsInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, h := newPair(t, uploadsOnly)
		u.rpc.Set(ingesttest.Fault{After: metadata.ErrUnknownOutcome})
		u.names.set(metadata.ErrUnavailable, nil)
		sends := u.add(1, one(t, 1, 0, 10), one(t, 1, 1, 10))
		<-time.After(time.Minute)
		later := u.add(1, one(t, 1, 2, 10))
		u.stop()
		expect(t, "in doubt", metadata.ErrUnknownOutcome, sends...)
		<-later[0].done
		u.check()
		h.check()
	})
}

// object makes an object that another agent has uploaded, of batches without a
// producer.
func object(h *rig, batches int32) metadata.CommitObject {
	o := metadata.CommitObject{ID: segment.NewID(), Size: 1000}
	for i := range batches {
		o.Batches = append(o.Batches, metadata.CommitBatch{
			Key: key(1), LeaderEpoch: h.lease(1).LeaderEpoch(), Position: int64(10 * i), Length: 10, Records: 1, ProducerID: -1,
		})
	}
	return o
}

// commitAs has h commit objects, and reports what it says.
func commitAs(ctx context.Context, h *rig, agent string, objects ...metadata.CommitObject) ([][]metadata.CommitResult, error) {
	return h.pool.Commit(ctx, &metadata.Commit{AgentID: agent, Objects: objects})
}

// What is asked for again while it is under way is committed once, in the same call
// and in another.
func TestGuestsAreCommittedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRig(t, nil)
		h.guests = true
		gate := make(chan struct{})
		o, blocker := object(h, 2), object(h, 1)
		h.commits.Set(ingesttest.Fault{Nth: 1, Gate: gate})
		answers := make(chan string, 4)
		ask := func(ctx context.Context, objects ...metadata.CommitObject) {
			results, err := commitAs(ctx, h, "a", objects...)
			answers <- fmt.Sprint(results, err)
		}
		go ask(t.Context(), blocker)
		synctest.Wait()
		given, cancel := context.WithCancel(t.Context())
		go ask(given, o)
		synctest.Wait()
		cancel()
		if got := <-answers; !errors.Is(given.Err(), context.Canceled) || got == "" {
			t.Errorf("got %s", got)
		}
		go ask(t.Context(), o)
		go ask(t.Context(), o)
		synctest.Wait()
		other := o
		other.Batches = other.Batches[:1]
		if _, err := commitAs(t.Context(), h, "a", other); !errors.Is(err, metadata.ErrUnknownOutcome) {
			t.Errorf("another shape: %v", err)
		}
		close(gate)
		got := []string{<-answers, <-answers, <-answers}
		again, err := commitAs(t.Context(), h, "a", o, o)
		if err != nil || fmt.Sprint(again[0]) != fmt.Sprint(again[1]) {
			t.Errorf("twice in a call: %v, %v", again, err)
		}
		if again[0][0].BaseOffset != 1 || again[0][1].BaseOffset != 2 || h.shown[key(1)] != 3 {
			t.Errorf("committed at %v, %v; shown up to %d", again, got, h.shown[key(1)])
		}
	})
}

// Many agents that have one commit cost the store no more than one commit in
// CommitSpacing, and who comes after a quiet time waits for nothing.
func TestGuestsAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRig(t, nil)
		spacing := ingest.DefaultConfig().CommitSpacing
		begun := time.Now()
		for i := range 200 {
			if _, err := commitAs(t.Context(), h, "a", object(h, 1)); err != nil {
				t.Error(err)
			}
			if i == 0 && time.Since(begun) > 0 {
				t.Errorf("the first took %v", time.Since(begun))
			}
			go commitAs(t.Context(), h, "a", object(h, 1))
			<-time.After(time.Millisecond)
		}
		if n, limit := h.commitCount(), int(time.Since(begun)/spacing)+1; n > limit {
			t.Errorf("%d commits, want %d at most", n, limit)
		}
		<-time.After(time.Second)
		begun = time.Now()
		if _, err := commitAs(t.Context(), h, "a", object(h, 1)); err != nil || time.Since(begun) > 0 {
			t.Errorf("after a quiet time: %v, %v", time.Since(begun), err)
		}
		h.check()
	})
}

func TestGuestsThatAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRig(t, nil)
		sound := object(h, 1)
		change := func(change func(o *metadata.CommitObject, b *metadata.CommitBatch)) metadata.CommitObject {
			o := object(h, 1)
			change(&o, &o.Batches[0])
			return o
		}
		for name, o := range map[string]metadata.CommitObject{
			"inline":          change(func(o *metadata.CommitObject, b *metadata.CommitBatch) { b.Inline = []byte("x") }),
			"no bytes":        change(func(o *metadata.CommitObject, b *metadata.CommitBatch) { o.Size = 0 }),
			"no batches":      change(func(o *metadata.CommitObject, b *metadata.CommitBatch) { o.Batches = nil }),
			"no records":      change(func(o *metadata.CommitObject, b *metadata.CommitBatch) { b.Records = 0 }),
			"negative length": change(func(o *metadata.CommitObject, b *metadata.CommitBatch) { b.Length = -1 }),
			"before it":       change(func(o *metadata.CommitObject, b *metadata.CommitBatch) { b.Position = -1 }),
			"behind it":       change(func(o *metadata.CommitObject, b *metadata.CommitBatch) { b.Position = o.Size - 9 }),
		} {
			if _, err := commitAs(t.Context(), h, "a", sound, o); !errors.Is(err, metadata.ErrUnavailable) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := commitAs(t.Context(), h, "b", sound); !errors.Is(err, metadata.ErrUnavailable) {
			t.Errorf("for another agent: %v", err)
		}
		h.commits.Set(ingesttest.Fault{Before: metadata.ErrUnavailable})
		begun := time.Now()
		_, err := commitAs(t.Context(), h, "a", sound)
		if !errors.Is(err, metadata.ErrUnavailable) || time.Since(begun) < ingest.DefaultConfig().CommitDeadline {
			t.Errorf("no store: %v after %v", err, time.Since(begun))
		}
		h.commits.Set()
		h.check()
		if _, err := commitAs(t.Context(), h, "a", sound); !errors.Is(err, metadata.ErrUnavailable) {
			t.Errorf("closed: %v", err)
		}
		if n := h.shown[key(1)]; n != 0 {
			t.Errorf("%d records were committed", n)
		}
	})
}

// Guests are bounded, all or none of a call are taken, and those that were are
// committed before the pool is closed.
func TestGuestsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRig(t, nil)
		gate := make(chan struct{})
		h.commits.Set(ingesttest.Fault{Gate: gate})
		waiting := make(chan error)
		for range 64 {
			objects := []metadata.CommitObject{object(h, 1), object(h, 1), object(h, 1), object(h, 1)}
			go func() {
				_, err := commitAs(t.Context(), h, "a", objects...)
				waiting <- err
			}()
		}
		synctest.Wait()
		if _, err := commitAs(t.Context(), h, "a", object(h, 1)); !errors.Is(err, metadata.ErrUnavailable) || !errors.Is(err, ingest.ErrFull) {
			t.Errorf("the 257th: %v", err)
		}
		closed := make(chan struct{})
		go func() { defer close(closed); h.check() }()
		synctest.Wait()
		close(gate)
		for range 64 {
			if err := <-waiting; err != nil {
				t.Error(err)
			}
		}
		<-closed
		if _, err := commitAs(t.Context(), h, "a", object(h, 1)); !errors.Is(err, ingest.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
		if h.shown[key(1)] != 256 {
			t.Errorf("%d were committed", h.shown[key(1)])
		}
	})
}

// A guest that expires takes along those behind it, which may follow on it: the store
// comes back in between.
func TestGuestsExpireTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRig(t, nil)
		h.commits.Set(ingesttest.Fault{Before: metadata.ErrUnavailable})
		var objects []metadata.CommitObject
		for range 200 { // more than one commit takes
			objects = append(objects, object(h, 1))
		}
		err := make(chan error)
		go func() {
			_, e := commitAs(t.Context(), h, "a", objects...)
			err <- e
		}()
		deadline := ingest.DefaultConfig().CommitDeadline
		<-time.After(deadline / 2)
		own := h.add(2, one(t, 1, 0, 10))
		late := make(chan error)
		go func() {
			_, e := commitAs(t.Context(), h, "a", object(h, 1))
			late <- e
		}()
		for _, err := range []chan error{err, late} {
			if e := <-err; !errors.Is(e, metadata.ErrUnavailable) {
				t.Error(e)
			}
			h.commits.Set()
		}
		await(t, own)
		h.check()
		if n := h.shown[key(1)]; n != 0 {
			t.Errorf("%d were committed", n)
		}
	})
}

// The end of the pool answers its guests: nothing was done, or it is not known.
func TestPoolEndsWithGuests(t *testing.T) {
	for name, tc := range map[string]struct {
		fault ingesttest.Fault
		want  error
	}{
		"tried":    {ingesttest.Fault{Before: metadata.ErrUnavailable}, metadata.ErrUnavailable},
		"in doubt": {ingesttest.Fault{After: metadata.ErrUnknownOutcome}, metadata.ErrUnknownOutcome},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newRig(t, nil)
				h.commits.Set(tc.fault)
				o, late := object(h, 1), object(h, 1)
				errs, lates := make(chan error), make(chan error)
				ask := func(o metadata.CommitObject, errs chan error) {
					_, err := commitAs(t.Context(), h, "a", o)
					errs <- err
				}
				go ask(o, errs)
				<-time.After(2 * time.Second)
				go ask(late, lates)
				synctest.Wait()
				go h.stop()
				if err := <-errs; !errors.Is(err, tc.want) {
					t.Errorf("got %v, want %v", err, tc.want)
				}
				if err := <-lates; !errors.Is(err, metadata.ErrUnavailable) {
					t.Errorf("what waited: %v", err)
				}
			})
		})
	}
}
