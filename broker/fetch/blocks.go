package fetch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/errgroup"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment"
	"github.com/streamhouse/streamhouse/segment/objstore"
)

// blocks reads ranges of immutable objects through a cache of aligned blocks.
type blocks struct {
	size    int64
	cfg     Config
	objects objstore.Store
	cache   *otter.Cache[blockKey, []byte]
	gets    chan struct{} // one token for each GET under way
	metrics *Metrics
}

// blockKey names a block: block n of an object covers [n*size, (n+1)*size).
type blockKey struct {
	object segment.ID
	n      int64
}

func newBlocks(cfg Config, objects objstore.Store, m *Metrics) *blocks {
	b := &blocks{
		size: cfg.BlockBytes, cfg: cfg, objects: objects, metrics: m,
		gets: make(chan struct{}, cfg.ConcurrentGets),
	}
	b.cache = otter.Must(&otter.Options[blockKey, []byte]{
		MaximumWeight: uint64(cfg.CacheBytes),
		Weigher:       func(_ blockKey, v []byte) uint32 { return uint32(len(v)) + blockOverhead },
	})
	return b
}

// blockOverhead is about what a cached block costs besides its bytes.
const blockOverhead = 256

// put caches a whole object that this agent has just uploaded, without copying.
func (b *blocks) put(object segment.ID, data []byte) {
	for n := int64(0); n*b.size < int64(len(data)); n++ {
		from, to := n*b.size, min((n+1)*b.size, int64(len(data)))
		b.cache.Set(blockKey{object, n}, data[from:to:to])
	}
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

// keys appends the blocks that the span touches.
func (b *blocks) keys(dst []blockKey, s span) []blockKey {
	for n := s.from / b.size; n*b.size < s.to; n++ {
		dst = append(dst, blockKey{s.object, n})
	}
	return dst
}

// read appends the span's bytes to dst. The error is ErrStorage, or
// errObjectMissing if there is no such object.
func (b *blocks) read(ctx context.Context, dst []byte, s span) ([]byte, error) {
	for n := s.from / b.size; n*b.size < s.to; n++ {
		block, err := b.block(ctx, s, n)
		if err != nil {
			return dst, err
		}
		from, to := max(s.from-n*b.size, 0), min(s.to-n*b.size, int64(len(block)))
		if from > to || to < min(s.to-n*b.size, b.size) {
			return dst, fmt.Errorf("%w: object %s is shorter than the index says", ErrStorage, s.object)
		}
		dst = append(dst, block[from:to]...)
	}
	return dst, nil
}

// block returns one block, together with the rest of the span's blocks that
// are missing, which the same GETs bring.
func (b *blocks) block(ctx context.Context, s span, n int64) ([]byte, error) {
	key := blockKey{s.object, n}
	if v, ok := b.cache.GetIfPresent(key); ok {
		b.metrics.hits.Inc()
		return v, nil
	}
	s.from = n * b.size
	got, err := b.load(ctx, s)
	if err != nil {
		return nil, err
	}
	return got[key], nil
}

// load brings the span's blocks into the cache and returns them. Loads of one
// block are shared; whoever asked first may leave, the others get their answer.
func (b *blocks) load(ctx context.Context, s span) (map[blockKey][]byte, error) {
	got, err := b.cache.BulkGet(ctx, b.keys(nil, s), otter.BulkLoaderFunc[blockKey, []byte](
		func(ctx context.Context, missing []blockKey) (map[blockKey][]byte, error) {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.cfg.LoadTimeout)
			defer cancel()
			return b.get(ctx, missing, s.size)
		}))
	switch {
	case err == nil:
		return got, nil
	case errors.Is(err, objstore.ErrNotFound):
		return nil, fmt.Errorf("%w: %w", errObjectMissing, err)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, fmt.Errorf("%w: %w", ErrStorage, err)
}

// errObjectMissing says that an object is not there: the plan is old, or data
// is lost.
var errObjectMissing = errors.New("object is missing")

// get reads missing blocks of one object: adjacent ones with one GET.
func (b *blocks) get(ctx context.Context, missing []blockKey, size int64) (map[blockKey][]byte, error) {
	got := make(map[blockKey][]byte, len(missing))
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range runs(missing) {
		group.Go(func() error {
			select {
			case b.gets <- struct{}{}:
				defer func() { <-b.gets }()
			case <-ctx.Done():
				return ctx.Err()
			}
			from := run[0].n * b.size
			to := min((run[len(run)-1].n+1)*b.size, size)
			b.metrics.misses.Add(float64(len(run)))
			b.metrics.gets.Inc()
			data, err := b.objects.Get(ctx, segment.ObjectKey(run[0].object), from, to-from)
			if err != nil {
				return err
			}
			b.metrics.loaded.Add(float64(len(data)))
			mu.Lock()
			defer mu.Unlock()
			for i, k := range run {
				end := min(int64(i+1)*b.size, int64(len(data)))
				got[k] = data[int64(i)*b.size : end : end]
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return got, nil
}

// forget drops the span's blocks, to have them read again.
func (b *blocks) forget(s span) {
	for _, k := range b.keys(nil, s) {
		b.cache.Invalidate(k)
	}
}

// runs cuts keys of one object into runs of adjacent blocks.
func runs(keys []blockKey) [][]blockKey {
	slices.SortFunc(keys, func(a, b blockKey) int { return cmp.Compare(a.n, b.n) })
	var all [][]blockKey
	for from, i := 0, 1; i <= len(keys); i++ {
		if i == len(keys) || keys[i].n != keys[i-1].n+1 {
			all = append(all, keys[from:i])
			from = i
		}
	}
	return all
}
