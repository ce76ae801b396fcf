package fetch

import (
	"bytes"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// What a view keeps of a partition's newest extents.
const (
	tailExtents     = 32
	tailInlineBytes = 128 << 10
)

// view is what this agent knows of one partition.
//
// Invariants: tail is contiguous and, unless it is empty, ends at marks.High.
// marks.High and marks.LogStart never fall.
type view struct {
	mu        sync.Mutex
	known     bool
	gone      bool // the topic was deleted
	marks     metadata.Watermarks
	readAt    time.Time // when the index was last asked: from before the question
	confirmed time.Time // when a read or a commit last told of the log start
	tail      []metadata.Extent
	inline    int64        // bytes of inline extents in tail
	budget    *inlineBytes // of all views
	waiters   map[waiter]struct{}
	hints     hints
	used      time.Time // when a fetch last looked, or waited
	fed       fed       // what another agent tells of the partition
	outlets   []*outlet // where this agent tells others of it
}

// inlineBytes bounds what all views together hold of inline extents, but for
// the newest one of each.
type inlineBytes struct {
	held  atomic.Int64
	limit int64
}

// ages are the oldest knowledge that answers a fetch without asking the index.
type ages struct {
	now  time.Time
	end  time.Time // of where the log ends
	tail time.Time // of where the log begins
}

// lookup is what a view can say about an offset.
type lookup struct {
	marks   metadata.Watermarks
	extents []metadata.Extent // from the one that contains the offset; shared, not to be changed
	covered bool              // extents and marks answer the question
}

// look answers from memory. ledEpoch is the leader epoch in which this agent
// leads: a view of that epoch knows the log's end whatever its age, as does one that
// is fed.
func (v *view) look(offset, maxBytes int64, oldest ages, ledEpoch int32) lookup {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.used = oldest.now
	if !v.known || v.gone {
		return lookup{}
	}
	l := lookup{marks: v.marks}
	switch {
	case offset == v.marks.High:
		l.covered = v.marks.LeaderEpoch == ledEpoch || !v.readAt.Before(oldest.end) || v.told(oldest)
	case offset < v.marks.LogStart || offset > v.marks.High || len(v.tail) == 0 || offset < v.tail[0].BaseOffset:
	case v.confirmed.Before(oldest.tail):
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
// and wakes who waits. logStart is -1 if the commit did not tell.
func (v *view) committed(e metadata.Extent, logStart int64, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	defer v.wake()
	if v.gone || !v.known && logStart < 0 {
		v.tell(metadata.Watermarks{LogStart: -1, LastStable: e.EndOffset, High: e.EndOffset, LeaderEpoch: e.LeaderEpoch}, &e)
		return // who waits asks the index
	}
	if logStart >= 0 {
		v.marks.LogStart, v.confirmed = max(v.marks.LogStart, logStart), now
	}
	if v.known && e.EndOffset <= v.marks.High {
		return // an index read was faster, and has told of it
	}
	if !v.known || e.BaseOffset != v.marks.High {
		v.dropTail()
	}
	v.known = true
	v.marks.High, v.marks.LastStable = e.EndOffset, e.EndOffset
	v.marks.LeaderEpoch = max(v.marks.LeaderEpoch, e.LeaderEpoch)
	e.Inline = bytes.Clone(e.Inline) // else a few bytes would keep the whole flush in memory
	v.push(e)
	told := v.marks
	told.LogStart = logStart
	v.tell(told, &e)
}

// read applies what the index answered. It wakes who waits if that is news.
func (v *view) read(marks metadata.Watermarks, extents []metadata.Extent, asked time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.gone {
		return
	}
	v.fed.asked(asked)
	if v.known && (marks.High < v.marks.High || marks.LeaderEpoch < v.marks.LeaderEpoch) {
		v.raiseLogStart(marks.LogStart)
		return
	}
	moved := !v.known || marks.High > v.marks.High
	news := moved || marks.LeaderEpoch > v.marks.LeaderEpoch
	if v.known {
		marks.LogStart = max(marks.LogStart, v.marks.LogStart)
	}
	end := v.marks.High
	v.known, v.marks = true, marks
	if asked.After(v.readAt) {
		v.readAt = asked
	}
	if asked.After(v.confirmed) {
		v.confirmed = asked
	}
	v.adopt(extents, end, moved)
	if news {
		v.wake()
		for _, o := range slices.Backward(v.outlets) { // ends leave the list
			o.present()
		}
	}
}

// adopt makes extents the tail if they reach the end, or adds them to it if
// they follow on where it ended. A tail that does not reach the end is dropped.
func (v *view) adopt(extents []metadata.Extent, end int64, moved bool) {
	n := len(extents)
	switch {
	case n == 0 || extents[n-1].EndOffset != v.marks.High:
		if moved {
			v.dropTail()
		}
		return
	case moved && extents[0].BaseOffset == end:
	case moved, len(v.tail) == 0, len(v.tail) < tailExtents && extents[0].BaseOffset < v.tail[0].BaseOffset:
		v.dropTail()
	default:
		return
	}
	for _, e := range extents[max(0, n-tailExtents):] {
		v.push(e)
	}
}

// push appends to the tail and drops what is too much from its front. Plans
// may go on reading the front: elements are never written to.
func (v *view) push(e metadata.Extent) {
	v.tail = append(v.tail, e)
	v.hold(int64(len(e.Inline)))
	for len(v.tail) > 1 && (len(v.tail) > tailExtents || v.inline > 0 && v.tooMuchInline()) {
		v.hold(-int64(len(v.tail[0].Inline)))
		v.tail = v.tail[1:]
	}
}

func (v *view) tooMuchInline() bool {
	return v.inline > tailInlineBytes || v.budget.held.Load() > v.budget.limit
}

func (v *view) hold(n int64) {
	if n != 0 {
		v.inline += n
		v.budget.held.Add(n)
	}
}

func (v *view) dropTail() {
	v.hold(-v.inline)
	v.tail = nil
}

// stale drops the tail, which names an object that is not there any more.
func (v *view) stale() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dropTail()
}

// forget ends the view of a partition that was deleted.
func (v *view) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.gone = true
	v.dropTail()
	v.wake()
	for _, o := range slices.Backward(v.outlets) {
		o.end()
	}
}

// logStart raises the log start after DeleteRecords.
func (v *view) logStart(offset int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.known {
		v.raiseLogStart(offset)
		v.tell(v.marks, nil)
	}
}

func (v *view) raiseLogStart(offset int64) {
	v.marks.LogStart = max(v.marks.LogStart, min(offset, v.marks.High))
}

// waiter is one long poll.
type waiter chan struct{}

func newWaiter() waiter { return make(waiter, 1) }

func (w waiter) wake() {
	select {
	case w <- struct{}{}:
	default:
	}
}

func (v *view) wake() {
	for w := range v.waiters {
		w.wake()
	}
}

func (v *view) join(w waiter) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.waiters == nil {
		v.waiters = map[waiter]struct{}{}
	}
	v.waiters[w] = struct{}{}
	if v.marks.High < v.fed.until {
		v.fed.by.r.pollSoon()
	}
}

func (v *view) leave(w waiter, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.waiters, w)
	v.used = now
}

// polled says whether somebody waits for the partition whom neither this agent's
// own commits nor a feed might wake, and from which offset on the index is to be
// asked; it is -1 if nothing is known yet. If soon, only what a feed has told of
// without its extents counts.
func (v *view) polled(now time.Time, soon bool, ledEpoch func() int32) (from int64, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case len(v.waiters) == 0 || v.gone:
		return 0, false
	case soon && v.marks.High >= v.fed.until:
		return 0, false
	case !v.known:
		return -1, true
	case v.fresh(now):
		return 0, false
	}
	return v.marks.High, v.marks.LeaderEpoch != ledEpoch()
}

// wanted says whether the partition is waited for, or was looked at since a time.
func (v *view) wanted(since time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return !v.gone && (len(v.waiters) > 0 || v.used.After(since))
}

// views are the partitions that anybody reads or that this agent writes.
type views struct {
	mu     sync.RWMutex
	m      map[lease.Key]*view
	inline inlineBytes
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
		v = &view{budget: &s.inline}
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
			v.forget()
		}
	}
}

// remove forgets one partition.
func (s *views) remove(k lease.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.m[k]; v != nil {
		delete(s.m, k)
		v.forget()
	}
}

// polled returns the partitions that the index is to be asked about, and their
// views.
func (s *views) polled(now time.Time, soon bool, ledEpoch func(lease.Key) int32) (ask []metadata.ReadRequest, of []*view) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for k, v := range s.m {
		if from, ok := v.polled(now, soon, func() int32 { return ledEpoch(k) }); ok {
			ask = append(ask, metadata.ReadRequest{Key: k, Offset: from, MaxBytes: pollBytes})
			of = append(of, v)
		}
	}
	return ask, of
}

// wish is a partition that is to be followed.
type wish struct {
	key  lease.Key
	view *view
}

// wanted returns the partitions that are waited for, or were fetched since a time.
func (s *views) wanted(since time.Time) (wishes []wish) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for k, v := range s.m {
		if v.wanted(since) {
			wishes = append(wishes, wish{k, v})
		}
	}
	return wishes
}
