package fetch

import (
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment"
)

// cursor is a place in an extent: where a batch begins, and its first offset.
type cursor struct {
	position int64 // relative to the extent's start
	offset   int64
}

func startOf(e *metadata.Extent) cursor { return cursor{0, e.BaseOffset} }

// hint remembers where in an extent a reader stopped, so that the next fetch
// of a sequential reader does not walk the extent's batches from its start.
type hint struct {
	object segment.ID // with start and base: which extent
	start  int64
	base   int64
	at     cursor
}

// hints are the last few of a partition, one for each reader or so.
type hints struct {
	ring [8]hint
	next int
}

// remember takes note of where in the extent a reader stopped.
func (v *view) remember(e *metadata.Extent, at cursor) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.hints.ring[v.hints.next] = hint{object: e.Object, start: e.Position, base: e.BaseOffset, at: at}
	v.hints.next = (v.hints.next + 1) % len(v.hints.ring)
}

// recall returns a place in the extent that is not behind the offset, and
// whether some reader stopped at the offset lately.
func (v *view) recall(e *metadata.Extent, offset int64) (at cursor, sequential bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	at = startOf(e)
	for i := range v.hints.ring {
		h := &v.hints.ring[i]
		if h.at.offset != offset || h.at.position == 0 {
			continue
		}
		sequential = true
		if h.object == e.Object && h.start == e.Position && h.base == e.BaseOffset {
			return h.at, true
		}
	}
	return at, sequential
}
