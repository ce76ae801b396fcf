package fetch

import (
	"slices"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// view is what this agent knows of one partition.
//
// Invariants: tail is contiguous and, unless it is empty, ends at marks.High.
// marks.High and marks.LogStart never fall.
type view struct {
	mu      sync.Mutex
	known   bool
	marks   metadata.Watermarks
	readAt  time.Time // when the index was last asked for marks; from before the question
	tail    []metadata.Extent
	inline  int // bytes of inline extents in tail
	waiters map[*waiter]struct{}
	hints   hints
}

// lookup is what a view can say about an offset.
type lookup struct {
	marks   metadata.Watermarks
	extents []metadata.Extent // from the one that contains the offset; shared, not to be changed
	covered bool              // extents and marks answer the question
	atEnd   bool              // offset is the high watermark
}

// look answers from memory. asOf is the oldest view that counts as complete,
// complete says that the view is so whatever its age.
func (v *view) look(offset int64, maxBytes int64, asOf time.Time, ledEpoch int32) lookup {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.known {
		return lookup{}
	}
	l := lookup{marks: v.marks}
	switch {
	case offset == v.marks.High:
		l.atEnd = true
		l.covered = v.marks.LeaderEpoch == ledEpoch || !v.readAt.Before(asOf)
	case offset < v.marks.LogStart || offset > v.marks.High || len(v.tail) == 0 || offset < v.tail[0].BaseOffset:
	default:
		i, _ := slices.BinarySearchFunc(v.tail, offset, func(e metadata.Extent, o int64) int {
			if e.EndOffset <= o {
				return -1
			}
			return 1
		})
		l.extents, l.covered = cut(v.tail[i:], maxBytes), true
	}
	return l
}

// cut returns the extents whose bytes reach maxBytes, at least one.
func cut(extents []metadata.Extent, maxBytes int64) []metadata.Extent {
	var n int64
	for i := range extents {
		if n += extents[i].Length; n >= maxBytes {
			return extents[: i+1 : i+1]
		}
	}
	return extents[:len(extents):len(extents)]
}

// committed grows the view by an extent that this agent has just committed,
// and wakes who waits.
func (v *view) committed(e metadata.Extent, logStart int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if e.EndOffset <= v.marks.High && v.known {
		return // an index read was faster
	}
	if !v.known || e.BaseOffset != v.marks.High {
		v.tail, v.inline = nil, 0
	}
	v.known = true
	v.marks.High, v.marks.LastStable = e.EndOffset, e.EndOffset
	v.marks.LogStart = max(v.marks.LogStart, logStart)
	v.marks.LeaderEpoch = max(v.marks.LeaderEpoch, e.LeaderEpoch)
	v.push(e)
	v.wake()
}

// push appends to the tail and drops what is too much from its front.
func (v *view) push(e metadata.Extent) {
	v.tail = append(v.tail, e)
	v.inline += len(e.Inline)
	drop := 0
	for len(v.tail)-drop > tailExtents || v.inline > tailInlineBytes && drop < len(v.tail)-1 {
		v.inline -= len(v.tail[drop].Inline)
		drop++
	}
	if drop > 0 {
		// A new array: the old one may still be read by plans.
		v.tail = slices.Clone(v.tail[drop:])
	}
}

// read applies what the index answered. It wakes waiters if the end moved.
func (v *view) read(marks metadata.Watermarks, extents []metadata.Extent, asked time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.known && (marks.High < v.marks.High || marks.LeaderEpoch < v.marks.LeaderEpoch) {
		v.marks.LogStart = max(v.marks.LogStart, min(marks.LogStart, v.marks.High))
		return
	}
	moved := !v.known || marks.High > v.marks.High
	if v.known {
		marks.LogStart = max(marks.LogStart, v.marks.LogStart)
	}
	v.known, v.marks = true, marks
	if asked.After(v.readAt) {
		v.readAt = asked
	}
	if moved {
		v.tail, v.inline = nil, 0
		if n := len(extents); n > 0 && extents[n-1].EndOffset == marks.High {
			for _, e := range extents[max(0, n-tailExtents):] {
				v.push(e)
			}
		}
		v.wake()
	}
}

// logStart raises the log start after DeleteRecords.
func (v *view) logStart(offset int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.known {
		v.marks.LogStart = max(v.marks.LogStart, min(offset, v.marks.High))
	}
}

func (v *view) wake() {
	for w := range v.waiters {
		w.wake()
	}
}

func (v *view) join(w *waiter) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.waiters == nil {
		v.waiters = map[*waiter]struct{}{}
	}
	v.waiters[w] = struct{}{}
}

func (v *view) leave(w *waiter) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.waiters, w)
}

func (v *view) waitedFor() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.waiters) > 0
}

// waiter is one long poll.
type waiter struct{ woken chan struct{} }

func newWaiter() *waiter { return &waiter{woken: make(chan struct{}, 1)} }

func (w *waiter) wake() {
	select {
	case w.woken <- struct{}{}:
	default:
	}
}

// hint remembers where in an extent a reader stopped, so that the next fetch
// of a sequential reader does not walk the extent's batches from its start.
type hint struct {
	offset   int64 // first offset behind what was read
	base     int64 // BaseOffset of the extent
	position int64 // of that offset's batch, relative to the extent's start
}

// hints are the last few of a partition, one for each reader or so.
type hints struct {
	ring [4]hint
	next int
}

func (v *view) remember(h hint) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.hints.ring[v.hints.next] = h
	v.hints.next = (v.hints.next + 1) % len(v.hints.ring)
}

// recall returns where the batch of the offset begins in the extent with that
// base, 0 and the base itself if it is not known.
func (v *view) recall(base, offset int64) (position, at int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, h := range v.hints.ring {
		if h.base == base && h.offset == offset && h.position > 0 {
			return h.position, offset
		}
	}
	return 0, base
}

// sequential says whether some reader stopped at the offset lately.
func (v *view) sequential(offset int64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, h := range v.hints.ring {
		if h.position > 0 && h.offset == offset {
			return true
		}
	}
	return false
}

// views are the partitions that anybody reads or that this agent writes.
type views struct {
	mu sync.RWMutex
	m  map[lease.Key]*view
}

func (s *views) get(k lease.Key) *view {
	s.mu.RLock()
	v := s.m[k]
	s.mu.RUnlock()
	if v != nil {
		return v
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v = s.m[k]; v == nil {
		v = &view{}
		s.m[k] = v
	}
	return v
}

// drop forgets the partitions for which gone says so, and wakes who waits.
func (s *views) drop(gone func(lease.Key) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, v := range s.m {
		if gone(k) {
			delete(s.m, k)
			v.mu.Lock()
			v.wake()
			v.mu.Unlock()
		}
	}
}

// waited returns the partitions that somebody waits for.
func (s *views) waited(dst []lease.Key) []lease.Key {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for k, v := range s.m {
		if v.waitedFor() {
			dst = append(dst, k)
		}
	}
	return dst
}
