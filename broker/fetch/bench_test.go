package fetch_test

import (
	"context"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/broker/fetch"
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
