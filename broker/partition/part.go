package partition

import (
	"slices"
	"sync"

	"github.com/streamhouse/streamhouse/broker/ingest"
	"github.com/streamhouse/streamhouse/lease"
)

// phase is what a part is about.
type phase uint8

const (
	steady   phase = iota // appends go into the pool as long as the lease is held
	draining              // appends wait for those of a lost lease to leave the pool
	asking                // appends wait for a lease that is being asked for
	leaving               // appends wait for the lease to be handed over, when the pool has none left
)

// part is what the table knows of a partition. Its mutex is taken before the
// table's and before the pool's.
type part struct {
	key   lease.Key
	table *Table

	mu sync.Mutex
	// lease is the last one, held or not; nil before the first.
	lease *lease.Lease
	// inPool counts the appends in the pool, which are all under lease.
	inPool  int // 0 when asking
	phase   phase
	quiet   chan struct{} // closed when a leaving part has nothing in the pool; nil in other phases
	waiting []*slot       // in the order of acceptance; none when steady
	// gone: the table has forgotten this part, or is about to. Nothing is added.
	gone bool
}

// accept takes an append: it either goes into the pool, as an item that was
// appended to items, or waits, or is decided.
func (pt *part) accept(s *slot, items []ingest.Item) (_ []ingest.Item, accepted bool) {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	if pt.gone {
		return items, false
	}
	s.part = pt
	switch {
	case pt.phase == steady && pt.lease != nil && pt.lease.Held():
		pt.inPool++
		return append(items, s.item()), true
	case len(pt.waiting) >= pt.table.cfg.MaxWaiting:
		pt.fail(ingest.ErrFull, s)
		return items, true
	}
	pt.waiting = append(pt.waiting, s)
	if pt.phase == steady {
		pt.phase = draining
		pt.settle()
	}
	return items, true
}

// claim has the lease asked for that this agent should have, with no append that waits
// for it.
func (pt *part) claim() {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	if !pt.gone && pt.phase == steady && (pt.lease == nil || !pt.lease.Held()) {
		pt.phase = draining
		pt.settleAndAsk()
	}
}

// settle goes on when the last append of a lost lease has left the pool. The
// caller holds mu, and calls Table.ask if the lease is to be asked for.
func (pt *part) settle() {
	switch {
	case pt.inPool > 0:
	case pt.phase == leaving:
		pt.hush()
	case pt.phase == draining:
		pt.phase = asking
		if !pt.table.want(pt) {
			pt.refuse(ErrClosed)
		}
	case pt.phase == steady && pt.lease != nil && !pt.lease.Held():
		pt.forget()
	}
}

// settleAndAsk settles a part by itself. The caller holds mu.
func (pt *part) settleAndAsk() {
	pt.settle()
	if pt.phase == asking {
		pt.table.ask()
	}
}

// acquired takes the outcome of the acquisition.
func (pt *part) acquired(a lease.Acquired) {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	if a.Err != nil {
		pt.refuse(a.Err)
		return
	}
	pt.phase = steady
	pt.lease = a.Lease
	pt.table.watch(pt, a.Lease)
	waiting := pt.waiting
	pt.waiting = nil
	if len(waiting) == 0 {
		return // all were withdrawn, or it was claimed
	}
	items := make([]ingest.Item, len(waiting))
	for i, s := range waiting {
		items[i] = s.item()
	}
	pt.inPool += len(items)
	if err := pt.table.pool.Add(items); err != nil {
		pt.inPool -= len(items)
		for _, s := range waiting {
			s.decide(ingest.Failed(err))
		}
	}
}

// refuse fails all that waits and forgets the partition. The caller holds mu,
// and nothing is in the pool.
func (pt *part) refuse(err error) {
	waiting := pt.waiting
	pt.waiting, pt.phase = nil, steady
	pt.forget()
	pt.fail(err, waiting...)
}

// fail decides slots that the pool will not be asked to add. The caller holds mu, so
// that those behind them come to the pool after it knows.
func (pt *part) fail(err error, slots ...*slot) {
	for _, s := range slots {
		pt.table.pool.Miss(pt.key, &s.Batch, err)
		s.decide(ingest.Failed(err))
	}
}

// returned takes note that n appends are in the pool no more, or were not taken.
func (pt *part) returned(n int) {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	pt.inPool -= n
	pt.settleAndAsk()
}

// close fails what waits. What was asked for is granted to nobody.
func (pt *part) close() {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	waiting := pt.waiting
	pt.waiting = nil
	pt.fail(ErrClosed, waiting...)
}

// lost takes note that the lease has ended.
func (pt *part) lost(l *lease.Lease) {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	if pt.lease == l {
		pt.settleAndAsk()
	}
}

// withdraw decides a slot that waits.
func (pt *part) withdraw(s *slot) {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	if at := slices.Index(pt.waiting, s); at >= 0 {
		pt.waiting = slices.Delete(pt.waiting, at, at+1)
		pt.fail(ErrNotAppended, s)
	}
}

// forget drops the partition's memory. The caller holds mu.
func (pt *part) forget() {
	if !pt.gone {
		pt.gone = true
		pt.table.remove(pt)
	}
}
