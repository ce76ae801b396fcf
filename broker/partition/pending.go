package partition

import (
	"context"
	"sync/atomic"

	"github.com/streamhouse/streamhouse/broker/ingest"
)

// Result is what became of an append. Err is nil, an error of package ingest,
// lease.ErrNotLeader, lease.ErrUnknownKey, metadata.ErrUnknownTopic,
// metadata.ErrUnknownOutcome, a *lease.HeldByOtherError, or one of this
// package's.
type Result = ingest.Result

// Pending is a call of Table.Append on its way.
type Pending struct {
	slots []slot
	left  atomic.Int32
	done  chan struct{} // closed when no slot is left undecided
}

// slot is the place of one append in its call. It is decided once.
type slot struct {
	Append
	pending *Pending
	part    *part // nil if it was refused at once
	result  Result
	decided atomic.Bool // result may be read
}

func newPending(appends []Append) *Pending {
	p := &Pending{slots: make([]slot, len(appends)), done: make(chan struct{})}
	p.left.Store(int32(len(appends)))
	if len(appends) == 0 {
		close(p.done)
	}
	for i := range appends {
		p.slots[i].Append = appends[i]
		p.slots[i].pending = p
	}
	return p
}

// Wait returns the results in the order of the appends. When ctx ends, what is
// undecided is answered with ErrTimeout if it may still be committed; what
// waits for a lease is withdrawn and answered with ErrNotAppended.
func (p *Pending) Wait(ctx context.Context) []Result {
	select {
	case <-p.done:
	case <-ctx.Done():
	}
	results := make([]Result, len(p.slots))
	for i := range p.slots {
		results[i] = p.slots[i].now()
	}
	return results
}

// now is the slot's result if it must be known now.
func (s *slot) now() Result {
	if !s.decided.Load() && s.part != nil {
		s.part.withdraw(s)
	}
	if s.decided.Load() {
		return s.result
	}
	return ingest.Failed(ErrTimeout)
}

// Answer takes the pool's answer.
func (s *slot) Answer(r ingest.Result) {
	s.part.returned(1)
	s.decide(r)
}

// decide sets the result.
func (s *slot) decide(r Result) {
	s.result = r
	s.decided.Store(true)
	if s.pending.left.Add(-1) == 0 {
		close(s.pending.done)
	}
}

// item is the slot as the pool takes it, under the part's lease.
func (s *slot) item() ingest.Item {
	return ingest.Item{Lease: s.part.lease, Batch: s.Batch, LogAppendTime: s.LogAppendTime, Receiver: s}
}
