package fetch

import (
	"container/list"
	"sync"

	"github.com/streamhouse/streamhouse/segment"
)

// blockKey names a block: block n of an object covers [n*size, (n+1)*size).
type blockKey struct {
	object segment.ID
	n      int64
}

// piece is a run of adjacent blocks of one object that came together: by one
// GET, or as an object that this agent wrote. It is cached and dropped as a
// whole, so that its bytes need not be copied apart to be accounted for.
type piece struct {
	object segment.ID
	first  int64 // block
	count  int64 // of blocks

	owner string // the agent that is, or was, asked for it; "": the object store. Guarded by cache.mu

	done chan struct{} // closed when data and err are final
	data []byte        // from the first block's start on
	err  error

	place *list.Element // in the cache's order, if it is there; guarded by cache.mu
}

// pieceOverhead and blockOverhead are about what a cached piece costs besides
// its bytes, by itself and for each block.
const (
	pieceOverhead = 256
	blockOverhead = 64
)

func (p *piece) has(key blockKey) bool {
	return p.object == key.object && p.first <= key.n && key.n < p.first+p.count
}

func (p *piece) weight() int64 {
	return int64(len(p.data)) + pieceOverhead + p.count*blockOverhead
}

// cache has the pieces that are on their way, whatever they weigh, and of those
// that came the ones that were used last, up to a limit of their weights.
type cache struct {
	limit int64

	mu     sync.Mutex
	pieces map[blockKey]*piece
	order  list.List // of *piece: those that came, the one used last in front
	weight int64     // of these
}

// trust is which pieces of the cache do.
type trust int

const (
	// trustAll takes any, and asks the owner of the chunk for those that are not here.
	trustAll trust = iota
	// trustCame takes none that was asked of another agent and has not come: that
	// agent may wait for this one.
	trustCame
	// trustStore takes none but those from the object store.
	trustStore
)

// takes says whether a piece that is in the cache does. The caller has cache.mu.
func (t trust) takes(p *piece) bool {
	return p != nil && (p.owner == "" || t == trustAll || t == trustCame && p.place != nil)
}

// claim appends the pieces with the blocks [from, to) of the object to pieces.
// Blocks that have none which does get new ones, one for adjacent blocks: these are
// also claimed, for the owner to be asked for, and the caller has to land them.
// owner is called with the cache locked.
func (c *cache) claim(pieces []*piece, object segment.ID, from, to int64, t trust, owner func() string) (all, claimed []*piece) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := from; n < to; {
		p := c.pieces[blockKey{object, n}]
		switch {
		case !t.takes(p):
			p = &piece{object: object, first: n, owner: owner(), done: make(chan struct{})}
			for ; n < to && !t.takes(c.pieces[blockKey{object, n}]); n++ {
				if old := c.pieces[blockKey{object, n}]; old != nil && old.place != nil {
					c.drop(old)
				}
				c.pieces[blockKey{object, n}] = p
				p.count++
			}
			claimed = append(claimed, p)
		case p.place != nil:
			c.order.MoveToFront(p.place)
		}
		pieces = append(pieces, p)
		n = p.first + p.count
	}
	return pieces, claimed
}

// disown notes that a piece comes from the object store after all.
func (c *cache) disown(p *piece) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.owner = ""
}

// land ends the way of a claimed piece.
func (c *cache) land(p *piece, data []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.data, p.err = data, err
	if err != nil {
		c.unname(p)
	} else {
		c.admit(p)
	}
	close(p.done)
}

// put caches a piece that nobody claimed, instead of what its blocks have.
func (c *cache) put(p *piece) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := p.first; n < p.first+p.count; n++ {
		c.pieces[blockKey{p.object, n}] = p
	}
	c.admit(p)
}

// admit makes room for a piece, or drops it if there is no such room.
func (c *cache) admit(p *piece) {
	if p.weight() > c.limit {
		c.unname(p)
		return
	}
	p.place = c.order.PushFront(p)
	c.weight += p.weight()
	for c.weight > c.limit {
		c.drop(c.order.Back().Value.(*piece))
	}
}

// forget drops the piece with the block, if it came.
func (c *cache) forget(key blockKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.pieces[key]; p != nil && p.place != nil {
		c.drop(p)
	}
}

func (c *cache) drop(p *piece) {
	c.order.Remove(p.place)
	p.place = nil
	c.weight -= p.weight()
	c.unname(p)
}

// unname takes the blocks' names from a piece, but for those that another has
// by now.
func (c *cache) unname(p *piece) {
	for n := p.first; n < p.first+p.count; n++ {
		key := blockKey{p.object, n}
		if c.pieces[key] == p {
			delete(c.pieces, key)
		}
	}
}
