package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/google/go-cmp/cmp"

	"github.com/streamhouse/streamhouse/broker/fetch"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol/batch"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
	"github.com/streamhouse/streamhouse/segment"
	"github.com/streamhouse/streamhouse/segment/objstore"
	"github.com/streamhouse/streamhouse/segment/objstore/faulty"
)

// gets returns the ranges that were read from the bucket since the last call.
func (w *world) gets() []faulty.Call {
	var gets []faulty.Call
	for _, c := range w.objects.Calls()[w.seen:] {
		w.seen++
		if c.Op == faulty.Get {
			gets = append(gets, c)
		}
	}
	return gets
}

// sized is a chunk with batches of about these sizes.
func sized(partition int32, sizes ...int) chunk {
	var values []string
	for _, n := range sizes {
		values = append(values, strings.Repeat("x", n))
	}
	return of(key(partition), values...)
}

func TestOwnObjectsAreServedFromMemory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{})
	w.lead(key(0))
	w.here(sized(0, 100, 1<<20, 10), sized(1, 10))
	w.inlineHere(sized(0, 50))
	w.want(key(0), 0)
	w.want(key(0), 3)
	if gets := w.gets(); len(gets) > 0 {
		t.Errorf("the bucket was read: %v", gets)
	}
	if n := w.index.statements(); n > 0 {
		t.Errorf("the index was asked %d times", n)
	}
}

func TestOldestOwnObjectsLeaveTheCacheFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{CacheBytes: 40 << 10, BlockBytes: 64 << 10})
	w.lead(key(0))
	for range 4 {
		w.here(sized(0, 10<<10))
	}
	w.want(key(0), 1)
	if gets := w.gets(); len(gets) > 0 {
		t.Errorf("of the newest three objects, %d were read from the bucket", len(gets))
	}
	w.want(key(0), 0)
	if gets := w.gets(); len(gets) != 1 {
		t.Errorf("of the oldest object, %d ranges were read from the bucket", len(gets))
	}
}

func TestAdjacentBlocksAreOneGet(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{BlockBytes: 1 << 10, ReadAheadBlocks: -1})
	done := w.elsewhere(sized(0, 5000, 5000, 5000))
	size := int64(len(done.object))
	w.want(key(0), 0)
	first := w.gets()
	if len(first) != 1 || first[0].Offset != 0 || first[0].Length != size {
		t.Errorf("a cold read of %d bytes: %v", size, first)
	}
	w.want(key(0), 0)
	if again := w.gets(); len(again) > 0 {
		t.Errorf("read again: %v", again)
	}
}

// A cache that can't keep what one fetch reads must not make it read it twice.
func TestSmallCacheReadsEachBlockOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{CacheBytes: 2 << 10, BlockBytes: 1 << 10, ReadAheadBlocks: -1})
	done := w.elsewhere(sized(0, 50_000))
	w.want(key(0), 0)
	if gets := w.gets(); len(gets) != 1 || gets[0].Length != int64(len(done.object)) {
		t.Errorf("GETs: %v", gets)
	}
}

// Each object is read once by those who read its partitions side by side, though
// the cache holds but a small part of the log: what GETs cost.
func TestReadersOfOneLogReadItOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const partitions, objects = 8, 40
		w := newWorld(t, fetch.Config{CacheBytes: 128 << 10, BlockBytes: 1 << 10})
		var stored int64
		for range objects {
			var chunks []chunk
			for p := range int32(partitions) {
				chunks = append(chunks, sized(p, 1200, 1200))
			}
			stored += int64(len(w.elsewhere(chunks...).object))
		}
		next := make([]int64, partitions)
		for next[0] < 2*objects {
			for p := range int32(partitions) {
				res := w.poll(t.Context(), fetch.Options{MaxBytes: 4 << 10}, at(key(p), next[p])).results[0]
				if res.Err != nil {
					t.Fatal(res.Err)
				}
				next[p] = w.index.check(t, key(p), next[p], res.Records)
			}
		}
		if loaded := w.metric("fetch_loaded_bytes_total"); loaded > 1.05*float64(stored) {
			t.Errorf("%v bytes were read of a log of %d", loaded, stored)
		}
	})
}

func TestBlockInTheMidstIsNotReadAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{BlockBytes: 1 << 10, ReadAheadBlocks: -1})
	w.elsewhere(sized(0, 1500, 10), sized(1, 5000, 5000))
	w.want(key(0), 0)
	w.gets()
	w.want(key(1), 0)
	gets := w.gets()
	if len(gets) != 1 || gets[0].Offset != 2<<10 {
		t.Errorf("GETs behind the two blocks that are known: %v", gets)
	}
}

func TestConcurrentReadersShareOneGet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fetch.Config{})
		w.elsewhere(sized(0, 1000), sized(1, 1000))
		gate := faulty.NewGate()
		w.objects.Set(faulty.Rule{Op: faulty.Get, Gate: gate})
		var polls []*poll
		for i := range int32(6) {
			polls = append(polls, w.poll(t.Context(), ample, at(key(i%2), 0)))
		}
		gate.Open()
		synctest.Wait()
		for i, p := range polls {
			if !p.done() || w.index.check(t, key(int32(i%2)), 0, p.results[0].Records) != 1 {
				t.Errorf("reader %d: %+v", i, p)
			}
		}
		if n := w.objects.Count(faulty.Get); n != 1 {
			t.Errorf("%d GETs", n)
		}
	})
}

// Whoever asked for a block first may leave; the others get their answer.
func TestReaderThatLeavesHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fetch.Config{})
		w.elsewhere(sized(0, 1000))
		gate := faulty.NewGate()
		w.objects.Set(faulty.Rule{Op: faulty.Get, Gate: gate})
		ctx, cancel := context.WithCancel(t.Context())
		first := w.poll(ctx, ample, at(key(0), 0))
		second := w.poll(t.Context(), ample, at(key(0), 0))
		cancel()
		synctest.Wait()
		if !first.done() || !errors.Is(first.results[0].Err, context.Canceled) || second.done() {
			t.Fatalf("after the first one left: %+v, %+v", first, second)
		}
		gate.Open()
		synctest.Wait()
		if !second.done() || w.index.check(t, key(0), 0, second.results[0].Records) != 1 {
			t.Errorf("the second reader: %+v", second)
		}
	})
}

func TestObjectsOfAFetchAreReadAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fetch.Config{})
		for range 10 {
			w.elsewhere(sized(0, 1000), sized(1, 1000))
		}
		gate := faulty.NewGate()
		w.objects.Set(faulty.Rule{Op: faulty.Get, Gate: gate})
		p := w.poll(t.Context(), ample, at(key(0), 0), at(key(1), 0))
		if n := w.objects.Count(faulty.Get); n != 10 || p.done() {
			t.Errorf("%d GETs of 10 objects are under way", n)
		}
		gate.Open()
		synctest.Wait()
		if !p.done() || w.index.check(t, key(0), 0, p.results[0].Records) != 10 {
			t.Errorf("%+v", p)
		}
	})
}

func TestConcurrentGetsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fetch.Config{ConcurrentGets: 3})
		for range 10 {
			w.elsewhere(sized(0, 1000))
		}
		gate := faulty.NewGate()
		w.objects.Set(faulty.Rule{Op: faulty.Get, Gate: gate})
		p := w.poll(t.Context(), ample, at(key(0), 0))
		if n := w.objects.Count(faulty.Get); n != 3 {
			t.Errorf("%d GETs are under way", n)
		}
		gate.Open()
		synctest.Wait()
		if !p.done() || w.objects.Count(faulty.Get) != 10 {
			t.Errorf("%+v, %d GETs", p, w.objects.Count(faulty.Get))
		}
	})
}

func TestGetThatHangsEndsInAStorageError(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.elsewhere(sized(0, 1000))
		w.objects.Set(faulty.Rule{Op: faulty.Get, Gate: faulty.NewGate()})
		res := w.fetch(key(0), 0, ample)
		if !errors.Is(res.Err, fetch.ErrStorage) || !errors.Is(res.Err, context.DeadlineExceeded) {
			t.Errorf("got %v", res.Err)
		}
	})
}

func TestSequentialReaderFindsBlocksThatWereReadAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fetch.Config{BlockBytes: 1 << 10, ReadAheadBlocks: 4})
		w.elsewhere(sized(0, 900, 900, 900, 900))
		w.elsewhere(sized(0, 900, 900, 900, 900)) // the reading ahead goes on in the next object
		one := fetch.Options{MaxBytes: 1100}
		for next := range int64(8) {
			if next == 2 {
				w.objects.Set(faulty.Rule{Op: faulty.Get, Err: objstore.ErrUnavailable})
			}
			p := w.poll(t.Context(), one, at(key(0), next))
			switch res := p.results[0]; {
			case next < 7 && w.index.check(t, key(0), next, res.Records) != next+1:
				t.Fatalf("fetch at %d: %v", next, res.Err)
			case next == 7 && !errors.Is(res.Err, fetch.ErrStorage):
				t.Errorf("more was read ahead than configured: %v", res.Err)
			}
		}
	})
}

func TestRandomReaderReadsNothingAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fetch.Config{BlockBytes: 1 << 10, ReadAheadBlocks: 4})
		w.elsewhere(sized(0, 900, 900, 900, 900, 900, 900, 900, 900))
		w.poll(t.Context(), fetch.Options{MaxBytes: 1000}, at(key(0), 0))
		w.poll(t.Context(), fetch.Options{MaxBytes: 1000}, at(key(0), 0))
		if n := w.metric("fetch_loaded_bytes_total"); n > 2<<10 {
			t.Errorf("%v bytes were read", n)
		}
	})
}

func TestCorruptBytesAreReadOnceMore(t *testing.T) {
	t.Parallel()
	for name, mangle := range map[string]func([]byte) []byte{
		"record": faulty.FlipBit,
		"length": func(b []byte) []byte { b[6+9] ^= 0xff; return b },
		"magic":  func(b []byte) []byte { b[6+16] = 9; return b },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fetch.Config{})
			w.elsewhere(sized(0, 100, 100))
			w.objects.Set(faulty.Rule{Op: faulty.Get, Nth: 1, Phase: faulty.After, Mangle: mangle})
			w.want(key(0), 0)
			w.want(key(0), 1)
			if n := w.objects.Count(faulty.Get); n != 2 {
				t.Errorf("%d GETs", n)
			}
			if n := w.metric("fetch_corrupt_reads_total"); n != 0 {
				t.Errorf("%v corrupt reads", n)
			}
		})
	}
}

func TestCorruptPartitionFailsAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{BlockBytes: 1 << 10})
	w.elsewhere(sized(0, 3000), sized(1, 100))
	w.elsewhere(sized(0, 100))
	flip := func(b []byte) []byte {
		if len(b) >= 1<<10 {
			b[200] ^= 1 // in a record of partition 0
		}
		return b
	}
	w.objects.Set(faulty.Rule{Op: faulty.Get, Phase: faulty.After, Mangle: flip})
	reqs := []fetch.Request{at(key(0), 0), at(key(1), 0)}
	res := w.reader.Fetch(t.Context(), reqs, ample)
	if !errors.Is(res[0].Err, fetch.ErrCorrupt) || len(res[0].Records) > 0 {
		t.Errorf("the corrupt partition: %d bytes, %v", len(res[0].Records), res[0].Err)
	}
	if res[1].Err != nil || w.index.check(t, key(1), 0, res[1].Records) != 1 {
		t.Errorf("the other partition: %v", res[1].Err)
	}
	if n := w.metric("fetch_corrupt_reads_total"); n != 1 {
		t.Errorf("%v corrupt reads", n)
	}
	w.objects.Set()
	w.want(key(0), 0)
}

// What lies before a fault is served; the next fetch meets the fault. Nothing
// is skipped.
func TestReadEndsBeforeWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{})
	w.elsewhere(sized(0, 100))
	second := w.elsewhere(sized(0, 200))
	w.elsewhere(sized(0, 300))
	w.objects.Set(faulty.Rule{Op: faulty.Get, Key: segment.ObjectKey(second.extents[0].Object), Err: objstore.ErrUnavailable})
	res := w.fetch(key(0), 0, ample)
	if end := w.index.check(t, key(0), 0, res.Records); res.Err != nil || end != 1 {
		t.Errorf("read to %d, %v", end, res.Err)
	}
	if res = w.fetch(key(0), 1, ample); !errors.Is(res.Err, fetch.ErrStorage) || len(res.Records) > 0 {
		t.Errorf("%d bytes, %v", len(res.Records), res.Err)
	}
	w.objects.Set()
	w.want(key(0), 1)
}

func TestUnreadableFirstPartitionDoesNotStarveTheOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{})
	bad := w.elsewhere(sized(0, 100))
	w.elsewhere(sized(1, 5000))
	w.objects.Set(faulty.Rule{Op: faulty.Get, Key: segment.ObjectKey(bad.extents[0].Object), Err: objstore.ErrUnavailable})
	reqs := []fetch.Request{at(key(0), 0), at(key(1), 0)}
	reqs[1].MaxBytes = 1000 // less than its batch
	res := w.reader.Fetch(t.Context(), reqs, ample)
	if !errors.Is(res[0].Err, fetch.ErrStorage) || w.index.check(t, key(1), 0, res[1].Records) != 1 {
		t.Errorf("%v; %d bytes, %v", res[0].Err, len(res[1].Records), res[1].Err)
	}
}

func TestMissingObjectIsPlannedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{CacheBytes: 1})
	w.lead(key(0))
	w.here(sized(0, 100))
	w.here(sized(0, 100))
	w.merge(key(0)) // removes the objects that the view names
	w.want(key(0), 0)
	w.want(key(0), 1)
	if n := w.index.statements(); n != 1 {
		t.Errorf("%d statements: the tail is not what the index answered", n)
	}
	if n := w.metric("partition_data_loss_events_total"); n != 0 {
		t.Errorf("%v data losses", n)
	}
}

func TestMissingObjectBelowTheLogStartIsOutOfRange(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{CacheBytes: 1})
	w.lead(key(0))
	done := w.here(sized(0, 100))
	w.here(sized(0, 100))
	w.index.deleteRecords(key(0), 1)
	w.remove(done.extents[0].Object)
	res := w.fetch(key(0), 0, ample)
	if !errors.Is(res.Err, fetch.ErrOffsetOutOfRange) || res.Watermarks.LogStart != 1 {
		t.Errorf("got %+v", res)
	}
}

func TestLostObjectIsAnAlarm(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{})
	done := w.elsewhere(sized(0, 100))
	w.elsewhere(sized(1, 100))
	w.remove(done.extents[0].Object)
	res := w.reader.Fetch(t.Context(), []fetch.Request{at(key(0), 0), at(key(1), 0)}, ample)
	if !errors.Is(res[0].Err, fetch.ErrStorage) || w.index.check(t, key(1), 0, res[1].Records) != 1 {
		t.Errorf("%v; %v", res[0].Err, res[1].Err)
	}
	if n := w.metric("partition_data_loss_events_total"); n != 1 {
		t.Errorf("%v data losses", n)
	}
}

// Of a thousand partitions, the index is not asked for a thousand times what the
// answer may have.
func TestManyPartitionsShareWhatIsAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{BlockBytes: 1 << 10, ReadAheadBlocks: 1})
	var reqs []fetch.Request
	for p := range int32(100) {
		w.inlineElsewhere(sized(p, 500, 500))
		w.inlineElsewhere(sized(p, 500, 500))
		reqs = append(reqs, fetch.Request{Key: key(p), MaxBytes: 1 << 20, LeaderEpoch: -1})
	}
	const limit = 16 << 10
	records := 0
	for _, res := range w.reader.Fetch(t.Context(), reqs, fetch.Options{MaxBytes: limit}) {
		if res.Err != nil {
			t.Error(res.Err)
		}
		records += len(res.Records)
	}
	if asked := w.index.asked; asked > limit+1<<10 {
		t.Errorf("%d bytes were asked for, the answer may have %d", asked, limit)
	}
	if records < limit/2 || records > limit {
		t.Errorf("%d bytes of %d", records, limit)
	}
}

func TestOutOfRangeIsSaidOnlyAfterTheIndexWasAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{})
	w.lead(key(0))
	w.here(sized(0, 10, 10))
	w.elsewhere(sized(0, 10, 10)) // acknowledged elsewhere; this agent has not heard of it
	if res := w.fetch(key(0), 3, ample); res.Err != nil || w.index.check(t, key(0), 3, res.Records) != 4 {
		t.Errorf("beyond what this agent knows: %v", res.Err)
	}
	w.index.deleteRecords(key(0), 2)
	for _, offset := range []int64{-1, 5} {
		if res := w.fetch(key(0), offset, ample); !errors.Is(res.Err, fetch.ErrOffsetOutOfRange) {
			t.Errorf("at %d: %v", offset, res.Err)
		}
	}
	w.reader.LogStart(key(0), 2)
	if res := w.fetch(key(0), 1, ample); !errors.Is(res.Err, fetch.ErrOffsetOutOfRange) || res.Watermarks.LogStart != 2 {
		t.Errorf("below the log start: %+v", res)
	}
	if res := w.fetch(key(0), 4, ample); res.Err != nil || len(res.Records) > 0 {
		t.Errorf("at the end: %+v", res)
	}
}

func TestViewNeverGoesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{})
	w.lead(key(0))
	first := w.here(of(key(0), "a"))
	w.here(of(key(0), "b"))
	w.committed(first) // late
	w.want(key(0), 0)
	third := w.elsewhere(of(key(0), "c"))
	w.here(of(key(0), "d")) // overtakes it: a gap
	w.want(key(0), 2)
	w.want(key(0), 0)
	w.committed(third)
	if res := w.fetch(key(0), 3, ample); res.Watermarks.High != 4 {
		t.Errorf("high watermark %d", res.Watermarks.High)
	}
}

// An answer of the index that commits have overtaken.
func TestLateAnswerOfTheIndex(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.lead(key(0))
		w.elsewhere(of(key(0), "a"))
		late := make(chan struct{})
		w.index.late = late
		p := w.poll(t.Context(), ample, at(key(0), 0))
		w.here(of(key(0), "b"))
		w.index.late = nil
		close(late)
		synctest.Wait()
		if !p.done() || w.index.check(t, key(0), 0, p.results[0].Records) != 1 {
			t.Fatalf("%+v", p)
		}
		if res := w.fetch(key(0), 2, ample); res.Err != nil || res.Watermarks.High != 2 {
			t.Errorf("%+v", res)
		}
		statements := w.index.statements()
		w.want(key(0), 1)
		if n := w.index.statements() - statements; n != 0 {
			t.Errorf("%d statements: the view went back", n)
		}
	})
}

// A client that knows of a later leader epoch than this agent.
func TestClientThatIsAheadInLeaderEpoch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{})
	w.lead(key(0))
	w.here(of(key(0), "a", "b"))
	w.lose(key(0))
	q := at(key(0), 0)
	q.LeaderEpoch = 2
	if res := w.reader.Fetch(t.Context(), []fetch.Request{q}, ample)[0]; res.Err != nil || res.Watermarks.LeaderEpoch != 2 {
		t.Errorf("%+v", res)
	}
}

func TestMaxBytesIsSharedByThePartitions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{})
	var reqs []fetch.Request
	for p := range int32(4) {
		w.elsewhere(sized(p, 100, 100, 100, 100, 100))
		reqs = append(reqs, at(key(p), 0))
	}
	reqs[0].MaxBytes = 400
	var sizes []int
	for i, res := range w.reader.Fetch(t.Context(), reqs, fetch.Options{MaxBytes: 1500}) {
		sizes = append(sizes, int(w.index.check(t, key(int32(i)), 0, res.Records)))
	}
	if diff := cmp.Diff([]int{2, 5, 1, 0}, sizes); diff != "" {
		t.Errorf("batches by partition (-want +got):\n%s", diff)
	}
}

// A rewrite, as compaction makes it, moves the batches within an extent that
// begins at the same offset.
func TestReaderGoesOnInAnExtentThatWasRewritten(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{CacheBytes: 1})
	w.elsewhere(sized(0, 1000, 1000, 1000))
	o := fetch.Options{MaxBytes: 2500}
	if res := w.fetch(key(0), 0, o); w.index.check(t, key(0), 0, res.Records) != 2 {
		t.Fatalf("%+v", res)
	}
	old := w.index.part(key(0))
	w.index.parts[key(0)] = &part{}
	w.elsewhere(sized(0, 10, 10, 1000))
	w.index.part(key(0)).marks.LeaderEpoch = old.marks.LeaderEpoch
	w.remove(old.extents[0].Object)
	w.want(key(0), 2)
	if n := w.objects.Count(faulty.Get); n != 3 {
		t.Errorf("%d GETs, want one before and, behind the missing object, one after", n)
	}
}

// A commit that does not tell the log start makes no view from nothing.
func TestCommitWithoutLogStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{})
	w.lead(key(0))
	w.elsewhere(of(key(0), "a", "b"))
	w.index.deleteRecords(key(0), 1)
	done := w.elsewhere(of(key(0), "c"))
	done.logStarts[0] = -1
	w.committed(done)
	for _, offset := range []int64{2, 3} {
		if res := w.fetch(key(0), offset, ample); res.Watermarks.LogStart != 1 {
			t.Errorf("at %d: log start %d", offset, res.Watermarks.LogStart)
		}
	}
}

func TestInlineExtentsDoNotKeepTheirFlush(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{})
	flush := make([]byte, 16<<10)
	kept := weak.Make(&flush[0])
	e := metadata.Extent{EndOffset: 1, AppendTime: -1, Length: 100, Inline: flush[:100:100]}
	w.reader.Committed(nil, []metadata.PartitionExtent{{Key: key(0), Extent: e}}, []int64{0})
	e.Inline, flush = nil, nil
	runtime.GC()
	if kept.Value() != nil {
		t.Errorf("an extent of 100 bytes keeps the %d bytes of its flush in memory", 16<<10)
	}
	runtime.KeepAlive(w)
}

func TestLogAppendTimeIsStamped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{})
	c := of(key(0), "a", "b")
	e := w.index.append(c, inlineExtent(c, 12345))
	w.want(key(0), 0)
	b, _, err := batch.Next(w.fetch(key(0), 1, ample).Records)
	if err != nil || b.CheckCRC() != nil || b.TimestampType() != batch.LogAppendTime || b.MaxTimestamp() != 12345 || e.MaxTimestamp != 12345 {
		t.Errorf("batch %v, %v", b, err)
	}
}

func TestReadCommittedStopsAtTheLastStableOffset(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{})
	w.elsewhere(of(key(0), "a", "b", "c"))
	w.index.part(key(0)).marks.LastStable = 2
	o := ample
	o.ReadCommitted = true
	for offset, want := range map[int64]int64{0: 2, 1: 2, 2: 2, 3: 3} {
		res := w.fetch(key(0), offset, o)
		if end := w.index.check(t, key(0), offset, res.Records); res.Err != nil || end != want {
			t.Errorf("from %d to %d, want %d: %v", offset, end, want, res.Err)
		}
	}
}

func TestReadCommittedWaitsAtTheLastStableOffset(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.elsewhere(of(key(0), "a", "b", "c"))
		w.index.part(key(0)).marks.LastStable = 2
		o := patient
		o.ReadCommitted = true
		p := w.poll(t.Context(), o, at(key(0), 2))
		if p.done() {
			t.Fatalf("answered with nothing: %+v", p.results)
		}
		w.elsewhere(of(key(0), "d"))
		time.Sleep(time.Second)
		synctest.Wait()
		if !p.done() || w.index.check(t, key(0), 2, p.results[0].Records) != 4 {
			t.Errorf("%+v", p)
		}
	})
}

func TestExtentThatIsNotWhatTheIndexSays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{})
	for p := range int32(4) {
		w.elsewhere(of(key(p), "a", "b"))
	}
	long, short, cut, far := w.index.part(key(0)), w.index.part(key(1)), w.index.part(key(2)), w.index.part(key(3))
	long.extents[0].EndOffset++
	long.marks.High++
	short.extents[0].EndOffset--
	short.marks.High--
	cut.extents[0].Length -= 5
	far.extents[0].Position += 1000
	for p, want := range map[int32]error{0: fetch.ErrCorrupt, 1: fetch.ErrCorrupt, 2: fetch.ErrCorrupt, 3: fetch.ErrStorage} {
		if res := w.fetch(key(p), 0, ample); !errors.Is(res.Err, want) || len(res.Records) > 0 {
			t.Errorf("partition %d: %d bytes, %v", p, len(res.Records), res.Err)
		}
	}
	if res := w.fetch(key(0), 2, ample); !errors.Is(res.Err, fetch.ErrCorrupt) {
		t.Errorf("an offset that is in no batch: %v", res.Err)
	}
}

func TestRecordsAreTheCallersOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{})
	w.lead(key(0))
	done := w.here(sized(0, 100))
	before := bytes.Clone(done.object)
	clear(w.fetch(key(0), 0, ample).Records)
	if !bytes.Equal(before, done.object) {
		t.Error("a response shares the cached object")
	}
	w.want(key(0), 0)
}

// Readers follow the log while it is written here, and elsewhere.
func TestConcurrentCommitsAndReads(t *testing.T) {
	t.Parallel()
	const commits, readers = 300, 4
	w := newWorld(t, fetch.Config{CacheBytes: 16 << 10, BlockBytes: 512, PollInterval: 1e6})
	w.lead(key(0))
	w.lose(key(1))
	ctx, cancel := context.WithTimeout(t.Context(), seconds)
	defer cancel()
	var group sync.WaitGroup
	group.Go(func() {
		for i := range commits {
			c := sized(0, i, 10)
			if i%3 == 0 {
				w.inlineHere(c)
			} else {
				w.here(c)
			}
		}
	})
	group.Go(func() {
		for i := range commits {
			w.elsewhere(sized(1, i, 10))
		}
	})
	for range readers {
		group.Go(func() {
			next := []int64{0, 0}
			for next[0]+next[1] < 4*commits && ctx.Err() == nil {
				reqs := []fetch.Request{at(key(0), next[0]), at(key(1), next[1])}
				reqs[0].MaxBytes, reqs[1].MaxBytes = 1000, 1000
				for i, res := range w.reader.Fetch(ctx, reqs, patient) {
					if res.Err != nil {
						t.Errorf("partition %d at %d: %v", i, next[i], res.Err)
						return
					}
					next[i] = w.index.check(noFatal{t}, key(int32(i)), next[i], res.Records)
				}
			}
			if diff := cmp.Diff([]int64{2 * commits, 2 * commits}, next); diff != "" {
				t.Errorf("where the reader ended (-want +got):\n%s", diff)
			}
		})
	}
	group.Wait()
}

// noFatal makes failures of the model known from other goroutines.
type noFatal struct{ *testing.T }

func (t noFatal) Fatalf(format string, args ...any) { t.Errorf(format, args...) }

func TestListOffsetsFromALogThatStartsInTheMidstOfABatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{})
	stamped := func(times ...int64) batch.Batch {
		var o batchtest.Options
		for _, ts := range times {
			o.Records = append(o.Records, batchtest.Record{Timestamp: ts})
		}
		return batchtest.Build(o)
	}
	w.elsewhere(chunk{key(0), []batch.Batch{stamped(5, 900, 10, 40, 20)}})
	w.elsewhere(chunk{key(0), []batch.Batch{stamped(15), stamped(30, 31)}})
	w.index.deleteRecords(key(0), 2) // 10, 40, 20, 15, 30, 31 are left
	for want, found := range map[int64][2]int64{
		1: {2, 10}, 11: {3, 40}, 41: {-1, -1}, 900: {-1, -1}, fetch.MaxTimestamp: {3, 40},
	} {
		res := w.reader.ListOffsets(t.Context(), []fetch.ListRequest{{Key: key(0), Timestamp: want}}, false)[0]
		if res.Err != nil || [2]int64{res.Offset, res.Timestamp} != found {
			t.Errorf("timestamp %d: %+v, want %v", want, res, found)
		}
	}
	w.index.deleteRecords(key(0), 4) // 20, 15, 30, 31
	for want, found := range map[int64][2]int64{1: {4, 20}, 25: {6, 30}, fetch.MaxTimestamp: {7, 31}} {
		res := w.reader.ListOffsets(t.Context(), []fetch.ListRequest{{Key: key(0), Timestamp: want}}, false)[0]
		if res.Err != nil || [2]int64{res.Offset, res.Timestamp} != found {
			t.Errorf("timestamp %d: %+v, want %v", want, res, found)
		}
	}
}

func TestListOffsetsErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetch.Config{})
	w.elsewhere(of(key(0), "a"))
	w.objects.Set(faulty.Rule{Op: faulty.Get, Err: objstore.ErrUnavailable})
	res := w.reader.ListOffsets(t.Context(), []fetch.ListRequest{
		{Key: key(0), Timestamp: 1},
		{Key: key(0), Timestamp: fetch.Latest},
		{Key: key(9), Timestamp: 1},
		{Key: key(9), Timestamp: fetch.Latest},
	}, false)
	if !errors.Is(res[0].Err, fetch.ErrStorage) || res[1].Err != nil || res[1].Offset != 1 || res[2].Err == nil || res[3].Err == nil {
		t.Errorf("got %+v", res)
	}
	w.index.part(key(0)).marks.LastStable = 0
	w.objects.Set()
	res = w.reader.ListOffsets(t.Context(), []fetch.ListRequest{{Key: key(0), Timestamp: 1}, {Key: key(0), Timestamp: fetch.Latest}}, true)
	if res[0].Offset != -1 || res[1].Offset != 0 {
		t.Errorf("beyond the last stable offset: %+v", res)
	}
}
