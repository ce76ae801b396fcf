package fetch

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/segment"
)

// Zone is the cache that the agents of one zone share: each chunk of an object is
// read from the object store by one of them, which the others ask for it.
type Zone interface {
	// Owner names the agent that has a chunk of an object, if that is another one than
	// this: chunk n covers the bytes from n*ChunkBytes on. It must not wait, nor call
	// the Reader: the cache is locked.
	Owner(object segment.ID, chunk int64) (agentID string, ok bool)
	// Block has an agent's Reader.Block return the bytes [from, to) of an object.
	Block(ctx context.Context, agentID string, object segment.ID, size, from, to int64) ([]byte, error)
}

// ChunkBytes is the unit in which objects are spread over the agents of a zone. No
// load goes beyond one.
const ChunkBytes = 8 << 20

const (
	// maxServedBytes bounds what another agent may ask for at once.
	maxServedBytes = 2 * ChunkBytes
	// ownerTimeout is how long an owner may take, and ownerPause for how long it is
	// passed over after it took longer, or failed.
	ownerTimeout = 2 * time.Second
	ownerPause   = 5 * time.Second
)

// owners are the agents that are asked for chunks.
type owners struct {
	zone Zone // nil: there are none
	asks chan struct{}
	log  *slog.Logger

	mu     sync.Mutex
	passed map[string]time.Time // until when they are passed over
}

// chunkEnd is the end of the chunk with a block, or the end, whatever comes first.
func (b *blocks) chunkEnd(block, end int64) int64 {
	if b.owners.zone == nil {
		return end
	}
	per := max(ChunkBytes/b.size, 1)
	return min(end, (block/per+1)*per)
}

// owner names the agent that is to be asked for a block; "": nobody.
func (b *blocks) owner(object segment.ID, block int64, t trust) string {
	o := &b.owners
	if o.zone == nil || t != trustAll {
		return ""
	}
	id, ok := o.zone.Owner(object, block*b.size/ChunkBytes)
	if !ok || o.passesOver(id) {
		return ""
	}
	return id
}

func (o *owners) passesOver(agentID string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	until, ok := o.passed[agentID]
	if ok && time.Now().After(until) {
		delete(o.passed, agentID)
		return false
	}
	return ok
}

// pass has an agent passed over for a while.
func (o *owners) pass(agentID string, err error) {
	o.mu.Lock()
	_, known := o.passed[agentID]
	o.passed[agentID] = time.Now().Add(ownerPause)
	o.mu.Unlock()
	if !known {
		o.log.Warn("an agent of this zone does not give what it should have cached: it is read from the object store instead",
			"agent", agentID, "for", ownerPause, "error", err)
	}
}

// bring gets a piece from the owner of its chunk, or else from the object store.
func (b *blocks) bring(p *piece, objectSize int64) ([]byte, error) {
	from, to := p.first*b.size, min((p.first+p.count)*b.size, objectSize)
	if owner := p.owner; owner != "" {
		if data := b.ask(owner, p.object, objectSize, from, to); data != nil {
			b.metrics.peerLoads.Add(float64(p.count))
			return data, nil
		}
		b.metrics.peerFails.Inc()
		b.cache.disown(p)
	}
	return b.get(p.object, from, to)
}

// ask asks an owner. It returns nil if that was in vain.
func (b *blocks) ask(owner string, object segment.ID, size, from, to int64) []byte {
	o := &b.owners
	ctx, cancel := context.WithTimeout(b.ctx, ownerTimeout)
	defer cancel()
	select {
	case o.asks <- struct{}{}:
		defer func() { <-o.asks }()
	case <-ctx.Done():
		return nil
	}
	data, err := o.zone.Block(ctx, owner, object, size, from, to)
	if err == nil && int64(len(data)) != to-from {
		err = fmt.Errorf("object %s: got %d bytes of %d", object, len(data), to-from)
	}
	if err != nil {
		if b.ctx.Err() == nil {
			o.pass(owner, err)
		}
		return nil
	}
	return data
}

// Block returns bytes of an object to another agent of the zone, from the cache or
// from the object store, and asks no other agent. They must not be changed.
func (r *Reader) Block(ctx context.Context, object segment.ID, size, from, to int64) ([]byte, error) {
	if from < 0 || from >= to || to > size || to-from > maxServedBytes {
		return nil, fmt.Errorf("bytes %d to %d of object %s with %d bytes: no such block", from, to, object, size)
	}
	b, s, h := r.blocks, span{object: object, size: size, from: from, to: to}, held{trust: trustCame}
	b.load(s, &h)
	p, err := b.piece(ctx, s, &h)
	if err != nil {
		return nil, err
	}
	if begin := p.first * b.size; to <= begin+int64(len(p.data)) {
		return p.data[from-begin : to-begin : to-begin], nil
	}
	return b.read(ctx, make([]byte, 0, to-from), s, &h)
}
