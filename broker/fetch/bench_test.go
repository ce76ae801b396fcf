package fetch_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/broker/fetch"
	"github.com/streamhouse/streamhouse/lease"
)

// mebibyte is a world with 1 MiB of one partition in an object, 64 batches.
func mebibyte(b *testing.B, cfg fetch.Config, commit func(*world, ...chunk) commit) *world {
	w := newWorld(b, cfg)
	w.lead(key(0))
	sizes := make([]int, 64)
	for i := range sizes {
		sizes[i] = 16 << 10
	}
	commit(w, sized(0, sizes...))
	return w
}

func benchmarkFetch(b *testing.B, w *world) {
	b.Helper()
	reqs := []fetch.Request{at(key(0), 0)}
	o := fetch.Options{MinBytes: 1, MaxBytes: 2 << 20, MaxWait: time.Second}
	b.ReportAllocs()
	var n int64
	for b.Loop() {
		n = int64(len(w.reader.Fetch(context.Background(), reqs, o)[0].Records))
	}
	b.SetBytes(n)
	if n < 1<<20 {
		b.Fatalf("%d bytes", n)
	}
}

// 1 MiB that this agent has written.
func BenchmarkFetchOwn(b *testing.B) {
	benchmarkFetch(b, mebibyte(b, fetch.Config{}, (*world).here))
}

// 1 MiB in cached blocks.
func BenchmarkFetchHot(b *testing.B) {
	benchmarkFetch(b, mebibyte(b, fetch.Config{}, (*world).elsewhere))
}

// 1 MiB from a store in memory: blocks are too large for the cache.
func BenchmarkFetchCold(b *testing.B) {
	benchmarkFetch(b, mebibyte(b, fetch.Config{CacheBytes: 1, ReadAheadBlocks: -1}, (*world).elsewhere))
}

// A small batch at the log's end that this agent has written.
func BenchmarkFetchTail(b *testing.B) {
	w := newWorld(b, fetch.Config{})
	w.lead(key(0))
	w.here(sized(0, 100))
	reqs := []fetch.Request{at(key(0), 0)}
	b.ReportAllocs()
	for b.Loop() {
		w.reader.Fetch(context.Background(), reqs, patient)
	}
}

// A fetch at the end that waits, and a commit that wakes it.
func BenchmarkFetchWait(b *testing.B) {
	w := newWorld(b, fetch.Config{})
	w.lead(key(0))
	w.here(sized(0, 100))
	ended := fetch.Options{MinBytes: 1, MaxBytes: 1 << 20, MaxWait: time.Nanosecond}
	reqs := []fetch.Request{at(key(0), 1)}
	b.ReportAllocs()
	for b.Loop() {
		w.reader.Fetch(context.Background(), reqs, ended)
	}
}

// A fetch of 1000 partitions at their ends that ends at once.
func BenchmarkFetchThousandPartitions(b *testing.B) {
	w := newWorld(b, fetch.Config{})
	var reqs []fetch.Request
	var chunks []chunk
	for p := range int32(1000) {
		w.lead(key(p))
		chunks = append(chunks, sized(p, 100))
		reqs = append(reqs, at(key(p), 1))
	}
	w.here(chunks...)
	b.ReportAllocs()
	for b.Loop() {
		w.reader.Fetch(context.Background(), reqs, ample)
	}
}

// A commit of 1000 partitions.
func BenchmarkCommitted(b *testing.B) {
	w := newWorld(b, fetch.Config{})
	var chunks []chunk
	for p := range int32(1000) {
		w.lead(key(p))
		chunks = append(chunks, sized(p, 100))
	}
	done := w.elsewhere(chunks...)
	b.ReportAllocs()
	for b.Loop() {
		w.committed(done)
		for i := range done.extents {
			done.extents[i].BaseOffset++
			done.extents[i].EndOffset++
		}
	}
}

// A commit of 1000 partitions that an agent follows.
func BenchmarkCommittedFollowed(b *testing.B) {
	w := newWorld(b, fetch.Config{})
	var chunks []chunk
	var keys []lease.Key
	for p := range int32(1000) {
		w.lead(key(p))
		keys = append(keys, key(p))
		chunks = append(chunks, sized(p, 100))
	}
	done := w.elsewhere(chunks...)
	feed := w.reader.Feed()
	defer feed.Close()
	feed.Want(keys, nil)
	b.ReportAllocs()
	for b.Loop() {
		w.committed(done)
		if _, err := feed.Next(b.Context()); err != nil {
			b.Fatal(err)
		}
		for i := range done.extents {
			done.extents[i].BaseOffset++
			done.extents[i].EndOffset++
		}
	}
}

// From a commit of one agent to the answer of a long poll of another, which follows
// it over a connection that costs nothing.
func BenchmarkFollow(b *testing.B) {
	p := newPair(b, fetch.Config{})
	p.lead(key(0))
	p.leader.here(sized(0, 100))
	fetched := make(chan int64)
	ctx, stop := context.WithCancel(b.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer stop()
	group.Go(func() {
		for next := int64(1); ctx.Err() == nil; {
			res := p.other.reader.Fetch(ctx, []fetch.Request{at(key(0), next)}, patient)[0]
			if len(res.Records) > 0 {
				next = res.Watermarks.High
				fetched <- next
			}
		}
	})
	for p.other.metric("fetch_followed_partitions") == 0 { // until the next look for partitions to follow
		p.leader.here(sized(0, 100))
		<-fetched
	}
	statements := p.leader.index.statements()
	for b.Loop() {
		p.leader.here(sized(0, 100))
		<-fetched
	}
	b.ReportMetric(float64(p.leader.index.statements()-statements)/float64(b.N), "statements/op")
}
