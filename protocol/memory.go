package protocol

import (
	"container/list"
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// memory is what the requests of all connections may take until they are answered.
// It is given for what has arrived, not for what a peer only says: a request takes
// its first bytes when they are there, and more as it grows. Who waits, waits in
// order; requests that have begun to arrive go before new ones.
//
// Requests that each hold a part and wait for the rest would wait for each other.
// So one at a time may exceed the size, and is then given all that it asks for: it
// gets on whatever the others hold, and when it ends, the next one may.
//
// Nobody waits for long for peers that neither send the rest of their requests nor
// take their replies: these are cut off.
type memory struct {
	size int64
	used func(bytes float64) // is told of every change

	mu       sync.Mutex
	left     int64                 // below 0 by what exceeding holds
	holders  map[*holding]struct{} // those with bytes
	exceeds  *holding              // the one that may exceed, nil if none does
	growing  *list.List            // of *waiting, for holdings that have some already
	starting *list.List            // of *waiting, for others
}

// holding is a request's part of the memory, nothing at first. It is used by one
// goroutine at a time.
type holding struct {
	of    *memory
	peer  *peer // whose request it is
	bytes int64 // guarded by memory.mu while the holding waits
}

// peer is what a connection's other end makes others wait for.
type peer struct {
	sending, taking stall
	cut             func() // ends the connection
}

// stall is how long something has been awaited: the ns since 1970 at which it was
// last seen to get on, 0 if it is not awaited.
type stall struct{ since atomic.Int64 }

func (s *stall) begin() { s.since.Store(time.Now().UnixNano()) }
func (s *stall) end()   { s.since.Store(0) }

func (s *stall) before(ns int64) bool {
	since := s.since.Load()
	return since != 0 && since <= ns
}

// stallLimit is how long a peer may hold memory that others wait for, without
// sending or taking progressBytes.
const stallLimit = 2 * time.Second

type waiting struct {
	holding *holding
	bytes   int64
	granted chan struct{} // closed when bytes are held
}

func newMemory(size int64, used func(bytes float64)) *memory {
	return &memory{
		size: size, used: used, left: size,
		holders: map[*holding]struct{}{}, growing: list.New(), starting: list.New(),
	}
}

// tryGrow takes bytes if more than half of the memory is left to others then, and
// nobody waits.
func (h *holding) tryGrow(bytes int64) bool {
	m := h.of
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.growing.Len() > 0 || m.starting.Len() > 0 || m.left-bytes < m.size/2 {
		return false
	}
	m.grant(h, bytes)
	return true
}

// grow takes bytes, and waits for them until ctx ends, whose error it returns. A
// holding of nothing may ask for no more than there is of memory.
func (h *holding) grow(ctx context.Context, bytes int64) error {
	m := h.of
	m.mu.Lock()
	if m.exceeds == h {
		m.grant(h, bytes)
		m.mu.Unlock()
		return nil
	}
	queue := m.starting
	if h.bytes > 0 {
		queue = m.growing
	}
	w := &waiting{h, bytes, make(chan struct{})}
	place := queue.PushBack(w)
	m.dispatch()
	m.mu.Unlock()
	stalled := time.NewTicker(stallLimit)
	defer stalled.Stop()
	for waits := true; waits; {
		select {
		case <-w.granted:
			return nil
		case <-stalled.C:
			m.cutStalled()
		case <-ctx.Done():
			waits = false
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-w.granted: // meanwhile
		return nil
	default:
	}
	queue.Remove(place)
	m.dispatch() // for those who waited behind it
	return ctx.Err()
}

// cutStalled ends the connections of peers that hold memory and do not get on.
func (m *memory) cutStalled() {
	before := time.Now().Add(-stallLimit).UnixNano()
	stalled := map[*peer]struct{}{}
	m.mu.Lock()
	for h := range m.holders {
		if h.peer.sending.before(before) || h.peer.taking.before(before) {
			stalled[h.peer] = struct{}{}
		}
	}
	m.mu.Unlock()
	for p := range stalled {
		p.cut()
	}
}

// release gives all back. The holding may be used again.
func (h *holding) release() {
	m := h.of
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left += h.bytes
	m.used(-float64(h.bytes))
	h.bytes = 0
	delete(m.holders, h)
	if m.exceeds == h {
		m.exceeds = nil
	}
	m.dispatch()
}

// dispatch grants what can be granted, in order. The caller holds mu.
func (m *memory) dispatch() {
	for e := m.growing.Front(); e != nil; e = m.growing.Front() {
		w := e.Value.(*waiting)
		if w.bytes > m.left {
			if m.exceeds != nil {
				break
			}
			m.exceeds = w.holding
		}
		m.growing.Remove(e)
		m.grant(w.holding, w.bytes)
		close(w.granted)
	}
	for e := m.starting.Front(); e != nil && m.growing.Len() == 0; e = m.starting.Front() {
		w := e.Value.(*waiting)
		if w.bytes > m.left {
			break
		}
		m.starting.Remove(e)
		m.grant(w.holding, w.bytes)
		close(w.granted)
	}
}

// grant gives bytes to h. The caller holds mu.
func (m *memory) grant(h *holding, bytes int64) {
	m.left -= bytes
	h.bytes += bytes
	m.holders[h] = struct{}{}
	m.used(float64(bytes))
}
