package group

import (
	"container/heap"
	"time"
)

// timer fires once when it is due. Its zero value, with fire set, is off.
//
// To put a timer off costs nothing: it keeps its place in the heap, and is moved
// when it comes to the top. A steady heartbeat does no more than set due.
type timer struct {
	fire   func(now time.Duration)
	due    time.Duration
	at     time.Duration // its place in the heap; not after due
	index  int
	queued bool
}

// timers is a heap of timers by at.
type timers []*timer

// schedule makes t fire at due, and not when it was due before.
func (h *timers) schedule(t *timer, due time.Duration) {
	t.due = due
	switch {
	case !t.queued:
		t.at = due
		heap.Push(h, t)
	case due < t.at:
		t.at = due
		heap.Fix(h, t.index)
	}
}

func (h *timers) cancel(t *timer) {
	if t.queued {
		heap.Remove(h, t.index)
	}
}

// next is when expire is to be called again.
func (h timers) next() (at time.Duration, ok bool) {
	if len(h) == 0 {
		return 0, false
	}
	return h[0].at, true
}

// expire fires what is due.
func (h *timers) expire(now time.Duration) {
	for len(*h) > 0 && (*h)[0].at <= now {
		t := (*h)[0]
		if t.due > now {
			t.at = t.due
			heap.Fix(h, 0)
			continue
		}
		heap.Pop(h)
		t.fire(now)
	}
}

func (h timers) Len() int           { return len(h) }
func (h timers) Less(i, j int) bool { return h[i].at < h[j].at }

func (h timers) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *timers) Push(x any) {
	t := x.(*timer)
	t.index, t.queued = len(*h), true
	*h = append(*h, t)
}

// Pop implements heap.Interface.
func (h *timers) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	t.queued = false
	return t
}
