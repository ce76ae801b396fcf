package fetch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment"
	"github.com/streamhouse/streamhouse/segment/objstore"
)

// blocks reads ranges of immutable objects through a cache of aligned blocks,
// into which also go the objects that this agent writes.
type blocks struct {
	size    int64
	timeout time.Duration
	objects objstore.Store
	cache   cache
	gets    chan struct{} // one token for each GET under way
	owners  owners
	metrics *Metrics
	ctx     context.Context // of all loads

	mu     sync.Mutex
	closed bool
	loads  sync.WaitGroup
}

// held are the pieces that a read has asked for ahead of their use, in the order
// in which it will use them. They stay at hand whatever the cache drops.
type held struct {
	pieces []*piece
	at     int // the one used last
	trust  trust
}

// find returns the piece with the block, or nil. It looks where the last one
// was and goes on from there.
func (h *held) find(key blockKey) *piece {
	for range h.pieces {
		if p := h.pieces[h.at]; p.has(key) {
			return p
		}
		h.at = (h.at + 1) % len(h.pieces)
	}
	return nil
}

func newBlocks(ctx context.Context, cfg Config, objects objstore.Store, m *Metrics, log *slog.Logger) *blocks {
	return &blocks{
		size: cfg.BlockBytes, timeout: cfg.LoadTimeout, objects: objects, metrics: m, ctx: ctx,
		cache: cache{limit: cfg.CacheBytes, pieces: map[blockKey]*piece{}},
		gets:  make(chan struct{}, cfg.ConcurrentGets),
		owners: owners{
			zone: cfg.Zone, asks: make(chan struct{}, cfg.ConcurrentGets), log: log, passed: map[string]time.Time{},
		},
	}
}

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
	return span{segment.Object(e.Object), e.ObjectSize, e.Position + from, e.Position + to}
}

// inline says whether the extent carries its bytes itself.
func inline(e *metadata.Extent) bool { return e.Object == uuid.Nil }

// put caches an object that was written here, without copying it.
func (b *blocks) put(id segment.ID, object []byte) {
	p := &piece{object: segment.Object(id), count: b.blocksOf(int64(len(object))), done: make(chan struct{}), data: object}
	close(p.done)
	b.cache.put(p)
}

// blocksOf is how many blocks have the bytes before an offset.
func (b *blocks) blocksOf(to int64) int64 { return (to + b.size - 1) / b.size }

// read appends the span's bytes to dst. The error is ErrStorage or ErrCorrupt,
// or errObjectMissing if there is no such object, or ctx's.
func (b *blocks) read(ctx context.Context, dst []byte, s span, h *held) ([]byte, error) {
	if s.to > s.size {
		return dst, fmt.Errorf("%w: object %s is shorter than the index says", ErrStorage, s.object)
	}
	for s.from < s.to {
		p, err := b.piece(ctx, s, h)
		if err != nil {
			return dst, err
		}
		begin := p.first * b.size
		end := min(s.to, begin+int64(len(p.data)))
		if end <= s.from {
			return dst, fmt.Errorf("%w: object %s has %d bytes, not %d", ErrCorrupt, s.object, end, s.size)
		}
		dst = append(dst, p.data[s.from-begin:end-begin]...)
		s.from = end
	}
	return dst, nil
}

// piece returns the piece with the first block of the span. If it is not here
// it is loaded, with the span's others.
func (b *blocks) piece(ctx context.Context, s span, h *held) (*piece, error) {
	key := blockKey{s.object, s.from / b.size}
	p := h.find(key)
	if p == nil {
		b.load(s, h)
		p = h.find(key)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	switch {
	case p.err == nil:
		return p, nil
	case errors.Is(p.err, objstore.ErrNotFound):
		return nil, fmt.Errorf("%w: %w", errObjectMissing, p.err)
	}
	return nil, fmt.Errorf("%w: %w", ErrStorage, p.err)
}

// errObjectMissing says that an object is not there: the plan is old, or data
// is lost.
var errObjectMissing = errors.New("object is missing")

// errClosed says that the reader has ended.
var errClosed = errors.New("reader has ended")

// load has the span's blocks brought that are not here, and holds all of them in
// h if that is not nil. A block that is on its way already is shared; adjacent
// ones that are not are one GET. load does not wait.
func (b *blocks) load(s span, h *held) {
	var ahead held
	if h == nil {
		h = &ahead
	}
	first, end := s.from/b.size, b.blocksOf(s.to)
	found := end - first
	for first < end {
		until := b.chunkEnd(first, end)
		var claimed []*piece
		h.pieces, claimed = b.cache.claim(h.pieces, s.object, first, until, h.trust, func() string {
			return b.owner(s.object, first, h.trust)
		})
		for _, p := range claimed {
			found -= p.count
			b.start(p, s.size)
		}
		first = until
	}
	if h != &ahead {
		b.metrics.hits.Add(float64(found))
	}
}

// start sends for a claimed piece of an object.
func (b *blocks) start(p *piece, objectSize int64) {
	b.mu.Lock()
	closed := b.closed
	if !closed {
		b.loads.Add(1)
	}
	b.mu.Unlock()
	if closed {
		b.cache.land(p, nil, errClosed)
		return
	}
	go func() {
		defer b.loads.Done()
		data, err := b.bring(p, objectSize)
		b.cache.land(p, data, err)
	}()
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
	b.metrics.misses.Add(float64(b.blocksOf(to - from)))
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
func (b *blocks) idle() bool {
	return len(b.gets) <= cap(b.gets)/2 && len(b.owners.asks) <= cap(b.owners.asks)/2
}

// forget drops what is cached of the span, to have it read from the store again:
// by this agent itself.
func (b *blocks) forget(s span, h *held) {
	for n := s.from / b.size; n < b.blocksOf(s.to); n++ {
		key := blockKey{s.object, n}
		b.cache.forget(key)
		h.pieces = slices.DeleteFunc(h.pieces, func(p *piece) bool { return p.has(key) })
	}
	h.at = 0
	h.trust = trustStore
}
