package group

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/lease"
)

// HandOver hands the shards of the leases over, all in one request. What members
// wait for is answered with NOT_COORDINATOR, once what was asked of the store
// before is done; what comes from then on waits until the successors lead, and is
// told the same. Members go on there in their generation. When ctx ends, shards
// that still wait for the store stay.
func (c *Coordinator) HandOver(ctx context.Context, reason lease.HandoverReason, leases []*lease.Lease, to lease.Successor) {
	var (
		left []*shard
		idle []*lease.Lease // that nothing is done under any more
	)
	for _, l := range leases {
		s := c.shards[l.Key().Partition]
		if s.leave(l) {
			left = append(left, s)
		}
	}
	for _, s := range left {
		if l := s.detached(ctx); l != nil {
			idle = append(idle, l)
		}
	}
	if len(idle) > 0 {
		// A context that ends now would leave it open who leads.
		c.leases.HandOver(context.WithoutCancel(ctx), reason, idle, to)
	}
	for _, s := range left {
		s.arrive()
	}
}

// departure is a shard's way out of a lease.
type departure struct {
	lease *lease.Lease
	done  chan struct{} // closed when nothing is done under the lease, or it is not the shard's any more
}

// leave has run detach the shard from the lease. It returns false if the shard
// does not have the lease, or leaves already.
func (s *shard) leave(l *lease.Lease) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.lease != l || s.leaving != nil {
		return false
	}
	s.leaving = &departure{l, make(chan struct{})}
	signal(s.work)
	return true
}

// detach is a step of run: the groups are forgotten when all that was queued for
// the store is there.
func (s *shard) detach() {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.leaving
	if d == nil || isClosed(d.done) {
		return
	}
	if s.lease == d.lease {
		if len(s.queue) > 0 {
			return // it was signalled for
		}
		waiting := s.waiting
		s.waiting = nil
		s.drop(kerr.NotCoordinator)
		s.waiting = waiting
	}
	close(d.done)
}

// detached returns the lease when nothing is done under it any more; nil if ctx
// ended before.
func (s *shard) detached(ctx context.Context) *lease.Lease {
	s.mu.Lock()
	d := s.leaving
	s.mu.Unlock()
	select {
	case <-d.done:
		return d.lease
	case <-ctx.Done():
		return nil
	}
}

// arrive ends the departure: the shard may acquire again for what waits.
func (s *shard) arrive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving = nil
	signal(s.work)
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
