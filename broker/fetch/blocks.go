package fetch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/maypok86/otter/v2"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment"
	"github.com/streamhouse/streamhouse/segment/objstore"
)

// blocks reads ranges of immutable objects through two caches: the objects that
// this agent wrote lately, and aligned blocks that were read from the store. A
// log is read at its end, where age decides what is worth keeping; behind it,
// popularity does.
type blocks struct {
	size    int64
	timeout time.Duration
	objects objstore.Store
	recent  recent
	cache   *otter.Cache[blockKey, []byte]
	gets    chan struct{} // one token for each GET under way
	metrics *Metrics
	ctx     context.Context // of all loads

	mu      sync.Mutex
	closed  bool
	flights map[blockKey]*flight
	loads   sync.WaitGroup
}

// blockKey names a block: block n of an object covers [n*size, (n+1)*size).
type blockKey struct {
	object segment.ID
	n      int64
}

// flight is one block on its way from the store. data and err are set before
// done is closed.
type flight struct {
	key  blockKey
	done chan struct{}
	data []byte
	err  error
}

// held are the blocks that a read has asked for ahead of their use. They stay
// at hand whatever the cache decides to keep.
type held map[blockKey]*flight

func newBlocks(ctx context.Context, cfg Config, objects objstore.Store, m *Metrics) *blocks {
	b := &blocks{
		size: cfg.BlockBytes, timeout: cfg.LoadTimeout, objects: objects, metrics: m, ctx: ctx,
		recent:  recent{limit: cfg.CacheBytes / 2, objects: map[segment.ID][]byte{}},
		gets:    make(chan struct{}, cfg.ConcurrentGets),
		flights: map[blockKey]*flight{},
	}
	b.cache = otter.Must(&otter.Options[blockKey, []byte]{
		MaximumWeight: uint64(cfg.CacheBytes - b.recent.limit),
		Weigher:       func(_ blockKey, v []byte) uint32 { return uint32(len(v)) + blockOverhead },
	})
	return b
}

// blockOverhead is about what a cached block costs besides its bytes.
const blockOverhead = 256

// close waits for the loads under way, whose context has ended. Later ones fail.
func (b *blocks) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.loads.Wait()
}

// span is a range of an object.
type span struct {
	object   segment.ID
	size     int64 // of the object
	from, to int64
}

func spanOf(e *metadata.Extent, from, to int64) span {
	return span{e.Object, e.ObjectSize, e.Position + from, e.Position + to}
}

// inline says whether the extent carries its bytes itself.
func inline(e *metadata.Extent) bool { return e.Object == uuid.Nil }

// read appends the span's bytes to dst. The error is ErrStorage, or
// errObjectMissing if there is no such object, or ctx's.
func (b *blocks) read(ctx context.Context, dst []byte, s span, h *held) ([]byte, error) {
	if object := b.recent.get(s.object); int64(len(object)) >= s.to {
		b.metrics.hits.Inc()
		return append(dst, object[s.from:s.to]...), nil
	}
	if s.to > s.size {
		return dst, fmt.Errorf("%w: object %s is shorter than the index says", ErrStorage, s.object)
	}
	for n := s.from / b.size; n*b.size < s.to; n++ {
		block, err := b.block(ctx, s, n, h)
		if err != nil {
			return dst, err
		}
		from, to := max(s.from-n*b.size, 0), min(s.to-n*b.size, b.size)
		dst = append(dst, block[from:to]...)
	}
	return dst, nil
}

// block returns block n of the span. One that is not here is loaded, with those
// behind it.
func (b *blocks) block(ctx context.Context, s span, n int64, h *held) ([]byte, error) {
	key := blockKey{s.object, n}
	f := (*h)[key]
	for f == nil {
		if v, ok := b.cache.GetIfPresent(key); ok {
			b.metrics.hits.Inc()
			return v, nil
		}
		s.from = max(s.from, n*b.size)
		b.load(s, h)
		f = (*h)[key]
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	switch {
	case f.err == nil:
		return f.data, nil
	case errors.Is(f.err, objstore.ErrNotFound):
		return nil, fmt.Errorf("%w: %w", errObjectMissing, f.err)
	}
	return nil, fmt.Errorf("%w: %w", ErrStorage, f.err)
}

// errObjectMissing says that an object is not there: the plan is old, or data
// is lost.
var errObjectMissing = errors.New("object is missing")

// errClosed says that the reader has ended.
var errClosed = errors.New("reader has ended")

// load has the span's blocks brought that are not here, and holds them in h if
// that is not nil. A block that is on its way already is shared; adjacent ones
// that are not are one GET. load does not wait.
func (b *blocks) load(s span, h *held) {
	if int64(len(b.recent.get(s.object))) >= s.to {
		return
	}
	var run []*flight
	for n := s.from / b.size; n*b.size < s.to; n++ {
		f, own := b.flight(blockKey{s.object, n})
		if !own {
			b.start(run, s.size)
			run = nil
		} else {
			run = append(run, f)
		}
		if f != nil && h != nil {
			h.add(f)
		}
	}
	b.start(run, s.size)
}

// add holds a block, but for one that is held already.
func (h *held) add(f *flight) {
	if *h == nil {
		*h = held{}
	}
	if (*h)[f.key] == nil {
		(*h)[f.key] = f
	}
}

// flight returns the block's flight, or nil if it is here; own says that the
// caller has to start it.
func (b *blocks) flight(key blockKey) (f *flight, own bool) {
	if _, ok := b.cache.GetIfPresent(key); ok {
		return nil, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if f = b.flights[key]; f != nil {
		return f, false
	}
	// A block that lands is cached before its flight is over.
	if _, ok := b.cache.GetIfPresent(key); ok {
		return nil, false
	}
	f = &flight{key: key, done: make(chan struct{})}
	b.flights[key] = f
	return f, true
}

// start sends for adjacent blocks of one object.
func (b *blocks) start(run []*flight, objectSize int64) {
	if len(run) == 0 {
		return
	}
	b.mu.Lock()
	closed := b.closed
	if !closed {
		b.loads.Add(1)
	}
	b.mu.Unlock()
	if closed {
		b.land(run, nil, errClosed)
		return
	}
	go func() {
		defer b.loads.Done()
		b.fly(run, objectSize)
	}()
}

// fly brings adjacent blocks of one object with one GET.
func (b *blocks) fly(run []*flight, objectSize int64) {
	data, err := b.get(run[0].key.object, run[0].key.n*b.size, min((run[len(run)-1].key.n+1)*b.size, objectSize))
	b.land(run, data, err)
}

// land ends flights: data are their blocks in one piece.
func (b *blocks) land(run []*flight, data []byte, err error) {
	for i, f := range run {
		if f.err = err; err != nil {
			continue
		}
		f.data = data[int64(i)*b.size : min(int64(i+1)*b.size, int64(len(data)))]
		if len(run) > 1 {
			f.data = slices.Clone(f.data) // else one cached block would keep them all in memory
		}
		b.cache.Set(f.key, f.data)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range run {
		delete(b.flights, f.key)
		close(f.done)
	}
}

// get is one ranged GET.
func (b *blocks) get(object segment.ID, from, to int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(b.ctx, b.timeout)
	defer cancel()
	select {
	case b.gets <- struct{}{}:
		defer func() { <-b.gets }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	b.metrics.gets.Inc()
	b.metrics.misses.Add(float64((to - from + b.size - 1) / b.size))
	data, err := b.objects.Get(ctx, segment.ObjectKey(object), from, to-from)
	if err != nil {
		return nil, err
	}
	if int64(len(data)) != to-from {
		return nil, fmt.Errorf("object %s: got %d bytes of %d", object, len(data), to-from)
	}
	b.metrics.loaded.Add(float64(len(data)))
	return data, nil
}

// idle says whether GETs may be made that nobody waits for.
func (b *blocks) idle() bool { return len(b.gets) <= cap(b.gets)/2 }

// forget drops the span's blocks, to have them read from the store again.
func (b *blocks) forget(s span, h *held) {
	b.recent.remove(s.object)
	for n := s.from / b.size; n*b.size < s.to; n++ {
		key := blockKey{s.object, n}
		b.cache.Invalidate(key)
		delete(*h, key)
	}
}
