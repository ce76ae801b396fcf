package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/broker/ingest"
	"github.com/streamhouse/streamhouse/broker/ingest/ingesttest"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol/batch"
	"github.com/streamhouse/streamhouse/segment"
	"github.com/streamhouse/streamhouse/segment/objstore"
	"github.com/streamhouse/streamhouse/segment/objstore/faulty"
)

// uploadsOnly makes two batches an object.
func uploadsOnly(c *ingest.Config) {
	c.InlineMaxBytes = 0
	c.MaxBatches = 2
}

// TestAckTable lets each remote step of a flush go wrong in each way, and looks
// at what its producers are told, what becomes of those behind them, whether
// the pool goes on when the fault has ended, and at the whole log.
//
// Three flushes are in the pool when the fault has done its work: the first has
// producers 1 and 2, the second 1 and 3, the third 3 and 4. So the fault of the
// first meets producer 1's second batch (class Q) and must not meet 3 and 4.
func TestAckTable(t *testing.T) {
	put := func(r faulty.Rule) func(*rig) {
		r.Op, r.Nth, r.Delay = faulty.Put, 1, max(r.Delay, time.Second)
		return func(rig *rig) { rig.objects.Set(r) }
	}
	commit := func(f ...ingesttest.Fault) func(*rig) {
		return func(rig *rig) { rig.commits.Set(f...) }
	}
	// until keeps a fault for a time.
	until := func(d time.Duration, fault func(*rig)) func(*rig) {
		return func(r *rig) { fault(r); time.AfterFunc(d, func() { r.commits.Set() }) }
	}
	all := func(err error) [3]error { return [3]error{err, err, err} }
	for name, tc := range map[string]struct {
		fault func(*rig)
		// want are the errors of the first flush, of its successors in the
		// second and third, and of the others.
		want [3]error
	}{
		"put fails":               {put(faulty.Rule{Err: objstore.ErrUnavailable}), [3]error{ingest.ErrUpload, ingest.ErrUpload, nil}},
		"put fails, but arrived":  {put(faulty.Rule{Phase: faulty.After, Err: objstore.ErrUnavailable}), [3]error{ingest.ErrUpload, ingest.ErrUpload, nil}},
		"put is slow":             {put(faulty.Rule{Delay: 15 * time.Second}), all(nil)},
		"put hangs":               {put(faulty.Rule{Delay: time.Hour}), [3]error{ingest.ErrUpload, ingest.ErrUpload, nil}},
		"put hangs after arrival": {put(faulty.Rule{Phase: faulty.After, Delay: time.Hour}), [3]error{ingest.ErrUpload, ingest.ErrUpload, nil}},

		"commit is unavailable once": {commit(ingesttest.Fault{Nth: 1, Before: metadata.ErrUnavailable}), all(nil)},
		"commit is unavailable for 10 s": {
			until(10*time.Second, commit(ingesttest.Fault{Before: metadata.ErrUnavailable})), all(nil),
		},
		"commit is unavailable for too long": {
			until(time.Minute, commit(ingesttest.Fault{Before: metadata.ErrUnavailable})), all(ingest.ErrCommitUnavailable),
		},
		"commit is lost":                 {commit(ingesttest.Fault{Nth: 1, Before: metadata.ErrUnknownOutcome}), all(nil)},
		"commit is applied, answer lost": {commit(ingesttest.Fault{Nth: 1, After: metadata.ErrUnknownOutcome}), all(nil)},
		"commit is lost for minutes": {
			until(5*time.Minute, commit(ingesttest.Fault{Before: metadata.ErrUnknownOutcome})), all(nil),
		},
		"commit is applied, answers lost for minutes": {
			until(5*time.Minute, commit(ingesttest.Fault{After: metadata.ErrUnknownOutcome})), all(nil),
		},
		"commit is applied, then unavailable for minutes": {
			until(5*time.Minute, commit(ingesttest.Fault{Nth: 1, After: metadata.ErrUnknownOutcome}, ingesttest.Fault{Before: metadata.ErrUnavailable})), all(nil),
		},
		"commit fails with what nobody knows": {commit(ingesttest.Fault{Nth: 1, After: errors.New("?")}), all(nil)},
		"commit is slow":                      {commit(ingesttest.Fault{Delay: 9 * time.Second}), all(nil)},
		"commit hangs":                        {commit(ingesttest.Fault{Nth: 1, Delay: time.Hour}), all(nil)},

		"object is claimed by a collector": {
			func(r *rig) { r.store.Old = true; r.claimNextPut() }, [3]error{ingest.ErrUpload, ingest.ErrUpload, nil},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, uploadsOnly)
				for p := range int32(5) {
					r.lease(p)
				}
				tc.fault(r)
				first := r.addAll(placed{1, one(t, 1, 0, 10)}, placed{2, one(t, 2, 0, 10)})
				synctest.Wait() // its upload is the first
				second := r.addAll(placed{1, one(t, 1, 1, 10)}, placed{3, one(t, 3, 0, 10)})
				third := r.addAll(placed{3, one(t, 3, 1, 10)}, placed{4, one(t, 4, 0, 10)})
				expect(t, "first flush", tc.want[0], first...)
				expect(t, "successor", tc.want[1], second[0])
				expect(t, "others", tc.want[2], second[1], third[0], third[1])

				r.objects.Set()
				<-time.After(time.Minute)
				r.commits.Set()
				next := r.add(4, one(t, 4, after(third[1]), 10))
				next = append(next, r.add(2, one(t, 2, after(first[1]), 10))...)
				await(t, next)
				r.check()
			})
		})
	}
}

// A batch fails, its producer is told, and only then those arrive that the
// producer had sent behind it: they fail too, and the retries of all of them are
// taken. The store would have believed them without the first.
func TestSuccessorsThatArriveAfterTheFailure(t *testing.T) {
	full := func(c *ingest.Config) { c.MaxBufferedBytes, c.MaxBytes = 10<<10, 10<<10 }
	for name, tc := range map[string]struct {
		change func(*ingest.Config)
		// fail lets batch 0 of producer 1 fail.
		fail func(r *rig)
		want error
	}{
		"upload": {uploadsOnly, func(r *rig) {
			r.objects.Set(faulty.Rule{Op: faulty.Put, Err: objstore.ErrUnavailable})
			<-r.add(1, one(t, 1, 0, 10))[0].done
			r.objects.Set()
		}, ingest.ErrUpload},
		"commit": {nil, func(r *rig) {
			r.commits.Set(ingesttest.Fault{Before: metadata.ErrUnavailable})
			<-r.add(1, one(t, 1, 0, 10))[0].done
			r.commits.Set()
		}, ingest.ErrCommitUnavailable},
		"fence": {nil, func(r *rig) {
			r.lease(1)
			r.store.Take("b", key(1))
			<-r.add(1, one(t, 1, 0, 10))[0].done
			if err := r.store.Release(t.Context(), "b", []lease.Term{{Key: key(1), LeaderEpoch: 2}}); err != nil {
				r.t.Error(err)
			}
		}, lease.ErrNotLeader},
		"full pool": {full, func(r *rig) {
			r.commits.Set(ingesttest.Fault{Delay: time.Second})
			other := r.add(2, one(t, 2, 0, 9<<10))
			if _, err := r.tryAdd(placed{1, one(t, 1, 0, 2<<10)}); !errors.Is(err, ingest.ErrFull) {
				r.t.Errorf("got %v, want %v", err, ingest.ErrFull)
			}
			await(r.t, other)
		}, ingest.ErrFull},
		"missed": {nil, func(r *rig) {
			b := one(t, 1, 0, 10)
			r.pool.Miss(key(1), &b, lease.ErrNotLeader)
		}, lease.ErrNotLeader},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, tc.change)
				tc.fail(r)
				late := r.add(1, one(t, 1, 1, 10), one(t, ingesttest.NoProducer, 0, 10), one(t, 1, 2, 10))
				expect(t, "successor", tc.want, late[0], late[2])
				expect(t, "not idempotent", nil, late[1])
				await(t, r.add(1, one(t, 1, 0, 20)))
				await(t, r.add(1, late[0].batch, late[2].batch, one(t, 1, 3, 10)))
				r.check()
			})
		})
	}
}

// A producer whose batch failed here, and then went into the log through
// another agent, comes back: that costs each batch one attempt.
func TestProducerThatWentOnElsewhereIsHeldUpOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		elsewhere := []batch.Validated{one(t, 1, 0, 10), one(t, 1, 1, 10)}
		await(t, r.add(1, elsewhere...))
		r.pool.Miss(key(1), &elsewhere[0], lease.ErrNotLeader)
		back := []batch.Validated{one(t, 1, 2, 10), one(t, 1, 3, 10)}
		expect(t, "first attempt", lease.ErrNotLeader, r.add(1, back...)...)
		await(t, r.add(1, back...))
		r.check()
	})
}

// A timed out batch that its producer sends again while it is in the pool is
// its own successor, and takes its place when it fails.
func TestDuplicateInThePoolTakesThePlaceOfTheFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, uploadsOnly)
		r.objects.Set(faulty.Rule{Op: faulty.Put, Nth: 1, Delay: time.Second, Err: objstore.ErrUnavailable})
		sends := r.add(1, one(t, 1, 0, 10), one(t, 1, 1, 10))
		synctest.Wait()
		again := r.add(1, one(t, 1, 2, 10), sends[0].batch, sends[1].batch, one(t, 1, 2, 10))
		expect(t, "the first time", ingest.ErrUpload, sends[0], sends[1], again[0])
		await(t, again[1:])
		r.check()
	})
}

// claimNextPut has a collector claim the object of the next upload while it is
// under way.
func (r *rig) claimNextPut() {
	gate := faulty.NewGate()
	r.objects.Set(faulty.Rule{Op: faulty.Put, Nth: 1, Gate: gate})
	go func() {
		if err := gate.Await(context.Background()); err != nil {
			r.t.Error(err)
		}
		<-time.After(time.Second)
		id, err := segment.ParseKey(r.objects.Calls()[0].Key)
		if err != nil || !r.store.Claim(id) {
			r.t.Errorf("object was not claimed: %v", err)
		}
		gate.Open()
	}()
}

// expect checks answers, waiting for them.
func expect(t *testing.T, who string, want error, sends ...*send) {
	t.Helper()
	for _, s := range sends {
		if <-s.done; !errors.Is(s.result.Err, want) {
			t.Errorf("%s: got %v, want %v", who, s.result.Err, want)
		}
	}
}

// after is the sequence with which a producer goes on.
func after(s *send) int32 {
	if s.result.Err != nil {
		return s.batch.BaseSequence
	}
	return s.batch.BaseSequence + 1
}

// TestPoolEnds ends the pool at each step, and looks at what is said about
// batches that nobody will look after any more.
func TestPoolEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		fault func(*rig)
		want  error
	}{
		"while an object is uploaded": {func(r *rig) { r.objects.Set(faulty.Rule{Op: faulty.Put, Delay: time.Hour}) }, ingest.ErrUpload},
		"while a commit is under way": {func(r *rig) { r.commits.Set(ingesttest.Fault{Delay: 5 * time.Second}) }, metadata.ErrUnknownOutcome},
		"while a commit is tried":     {func(r *rig) { r.commits.Set(ingesttest.Fault{Before: metadata.ErrUnavailable}) }, ingest.ErrClosed},
		"while an outcome is unknown": {func(r *rig) { r.commits.Set(ingesttest.Fault{After: metadata.ErrUnknownOutcome}) }, metadata.ErrUnknownOutcome},
		"while an outcome was unknown": {func(r *rig) {
			r.commits.Set(ingesttest.Fault{Nth: 1, After: metadata.ErrUnknownOutcome}, ingesttest.Fault{Before: metadata.ErrUnavailable})
		}, metadata.ErrUnknownOutcome},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, uploadsOnly)
				tc.fault(r)
				sends := r.addAll(placed{1, one(t, 1, 0, 10)}, placed{2, one(t, 2, 0, 10)})
				<-time.After(2 * time.Second)
				later := r.add(3, one(t, 3, 0, 10))
				synctest.Wait()
				r.stop()
				expect(t, "in the fault", tc.want, sends...)
				if f := fate(later[0].result); f != ingesttest.Failed {
					t.Errorf("later: %v", later[0].result.Err)
				}
				if _, err := r.tryAdd(placed{1, one(t, 1, 1, 10)}); !errors.Is(err, ingest.ErrClosed) {
					t.Errorf("add after the end: %v", err)
				}
				r.check()
			})
		})
	}
}

func TestFencedBatchLosesItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		gate := make(chan struct{})
		r.commits.Set(ingesttest.Fault{Nth: 1, Gate: gate})
		lost, kept := r.lease(1), r.lease(2)
		fenced := append(r.add(1, one(t, 1, 0, 10)), r.add(1, one(t, 1, 1, 10), one(t, ingesttest.NoProducer, 0, 10))...)
		other := r.add(2, one(t, 1, 0, 10))
		synctest.Wait()
		r.store.Take("b", key(1))
		close(gate)
		expect(t, "fenced", lease.ErrNotLeader, fenced...)
		await(t, other)
		if cause := context.Cause(lost.Context()); !errors.Is(cause, lease.ErrFenced) || !kept.Held() {
			t.Errorf("lease ended with %v, the other is held: %v", cause, kept.Held())
		}
		r.check()
	})
}

func TestRefusalsOfTheProducersOwnPassThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		first := r.add(1, one(t, 1, 0, 10))
		await(t, first)
		again := r.add(1, first[0].batch)
		await(t, again)
		if again[0].result.BaseOffset != first[0].result.BaseOffset {
			t.Errorf("duplicate is at %d, the original at %d", again[0].result.BaseOffset, first[0].result.BaseOffset)
		}
		expect(t, "gap", ingest.ErrOutOfOrderSequence, r.add(1, one(t, 1, 5, 10))...)
		await(t, r.add(1, ingesttest.Batch(t, "next epoch", 1, 1, 0, 1)))
		expect(t, "old epoch", ingest.ErrInvalidProducerEpoch, r.add(1, one(t, 1, 1, 10))...)
		if !r.lease(1).Held() {
			t.Error("a producer's fault has cost the lease")
		}
		r.check()
	})
}

func TestUnknownPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		await(t, r.add(1, one(t, 1, 0, 10)))
		l := r.lease(1)
		r.store.DeletePartition(key(1))
		s := r.add(1, one(t, 1, 1, 10))
		expect(t, "deleted", metadata.ErrUnknownTopic, s...)
		if l.Held() {
			t.Error("the lease of a deleted partition is kept")
		}
	})
}

func TestFullPoolRefusesAndChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *ingest.Config) { c.MaxBufferedBytes, c.MaxBytes = 100<<10, 100<<10 })
		gate := make(chan struct{})
		r.commits.Set(ingesttest.Fault{Gate: gate})
		sends := r.add(1, one(t, 1, 0, 60<<10))
		if _, err := r.tryAdd(placed{2, one(t, 2, 0, 20<<10)}, placed{2, one(t, 2, 1, 30<<10)}); !errors.Is(err, ingest.ErrFull) {
			t.Errorf("got %v, want %v", err, ingest.ErrFull)
		}
		sends = append(sends, r.add(2, one(t, 2, 0, 20<<10))...)
		close(gate)
		await(t, sends)
		await(t, r.add(1, one(t, 1, 1, 60<<10), one(t, 1, 2, 30<<10)))
		r.check()
	})
}

func TestCloseCommitsWhatIsBuffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := slow(newRig(t, func(c *ingest.Config) { c.PutsPerSecond, c.PutBurst, c.MaxLinger = 0.01, 1, time.Hour }))
		await(t, r.add(1, one(t, 1, 0, 20<<10)))
		sends := r.add(1, one(t, 1, 1, 20<<10)) // waits for the budget
		<-time.After(time.Second)
		begun := time.Now()
		r.check()
		await(t, sends)
		if took := time.Since(begun); took > putTime+commitTime {
			t.Errorf("closed after %v", took)
		}
	})
}

func TestCloseIsBoundedByItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.commits.Set(ingesttest.Fault{Before: metadata.ErrUnknownOutcome})
		sends := r.add(1, one(t, 1, 0, 10))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := r.pool.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		r.stop()
		expect(t, "left", metadata.ErrUnknownOutcome, sends...)
	})
}

// An unknown outcome is resolved with the very same objects, whatever has come
// meanwhile.
func TestUnknownOutcomeIsAskedWithTheSameObjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.commits.Set(ingesttest.Fault{Nth: 1, After: metadata.ErrUnknownOutcome}, ingesttest.Fault{Nth: 2, Before: metadata.ErrUnavailable})
		sends := r.add(1, one(t, 1, 0, 10))
		for i := range int32(10) {
			<-time.After(5 * time.Millisecond)
			sends = append(sends, r.add(2, one(t, 2, i, 10))...)
		}
		await(t, sends)
		sent := r.commits.Sent()
		for i := 1; i < 3; i++ {
			if got, want := fmt.Sprint(sent[i]), fmt.Sprint(sent[0]); got != want {
				t.Errorf("attempt %d sent %s, want %s", i+1, got, want)
			}
		}
		r.check()
	})
}
