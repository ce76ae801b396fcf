package partition

import (
	"context"

	"github.com/streamhouse/streamhouse/lease"
)

// HandOver hands the partitions of the leases over, in as few requests as the
// commits in front allow. What is appended from now on waits; what is in the pool
// is decided first; then the lease goes to its successor, and what waits is failed
// with a *lease.HeldByOtherError that names it, so that clients are sent to an
// agent that leads already. Leases of other keys than partitions in the table are
// handed over as they are. When ctx ends, the partitions that are not quiet by
// then stay.
func (t *Table) HandOver(ctx context.Context, reason lease.HandoverReason, leases []*lease.Lease, to lease.Successor) {
	moves := make([]*move, len(leases))
	for i, l := range leases {
		moves[i] = t.leave(l)
	}
	t.pool.Hasten()
	for len(moves) > 0 {
		// One is waited for, and takes those along that are ready too.
		select {
		case <-moves[0].quiet:
		case <-ctx.Done():
		}
		var ready, busy []*move
		for _, m := range moves {
			select {
			case <-m.quiet:
				ready = append(ready, m)
			default:
				busy = append(busy, m)
			}
		}
		if ctx.Err() != nil {
			for _, m := range busy {
				m.part.stay()
			}
			busy = nil
		}
		t.pass(ctx, reason, ready, to)
		moves = busy
	}
}

// move is a lease on its way to another agent.
type move struct {
	lease *lease.Lease
	part  *part         // nil if the table does not know the partition
	quiet chan struct{} // closed when nothing is under way under the lease
}

// hushed is the quiet of what has nothing under way.
var hushed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// leave has the part of a lease leave.
func (t *Table) leave(l *lease.Lease) *move {
	t.mu.RLock()
	pt := t.parts[l.Key()]
	t.mu.RUnlock()
	if pt != nil {
		if quiet := pt.leave(l); quiet != nil {
			return &move{l, pt, quiet}
		}
	}
	return &move{l, nil, hushed}
}

// pass hands leases over that nothing is done under.
func (t *Table) pass(ctx context.Context, reason lease.HandoverReason, moves []*move, to lease.Successor) {
	if len(moves) == 0 {
		return
	}
	leases := make([]*lease.Lease, len(moves))
	for i, m := range moves {
		leases[i] = m.lease
	}
	// A context that ends now would leave it open who leads.
	outcomes := t.leases.HandOver(context.WithoutCancel(ctx), reason, leases, to)
	for i, m := range moves {
		if m.part != nil {
			m.part.left(outcomes[i])
		}
	}
	t.ask()
}

// leave lets the lease have no more appends. It returns what is closed when those
// in the pool are decided, or nil if the part has nothing to do with the lease.
func (pt *part) leave(l *lease.Lease) (quiet chan struct{}) {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	if pt.gone || pt.lease != l || pt.phase != steady {
		return nil
	}
	pt.phase, pt.quiet = leaving, make(chan struct{})
	quiet = pt.quiet
	if pt.inPool == 0 {
		pt.hush()
	}
	return quiet
}

// hush says that nothing of a leaving part is in the pool. The caller holds mu.
func (pt *part) hush() {
	if pt.quiet != nil {
		close(pt.quiet)
		pt.quiet = nil
	}
}

// left takes the outcome of the hand-over, of which lease.Manager.HandOver says
// what it means. Where that leaves open who leads, what waits has the store asked.
func (pt *part) left(outcome error) {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	if lease.HandedOver(outcome) {
		pt.refuse(outcome)
		return
	}
	pt.reacquire()
}

// stay ends a leave that took too long.
func (pt *part) stay() {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	pt.quiet = nil
	pt.reacquire()
}

// reacquire brings a leaving part back: what waits goes behind what is in the pool,
// under the lease that the agent has by then. The caller holds mu.
func (pt *part) reacquire() {
	if len(pt.waiting) > 0 {
		pt.phase = draining
	} else {
		pt.phase = steady
	}
	pt.settleAndAsk()
}
