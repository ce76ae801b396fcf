package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Move is a leadership that is handed over.
type Move struct {
	Term
	To string // the agent that leads then
}

// HandoverReason says why leases are handed over. It is a metric's label.
type HandoverReason string

// The reasons.
const (
	ForShutdown HandoverReason = "shutdown"    // the agent is on its way out
	ForBalance  HandoverReason = "balance"     // another agent has the better claim
	ForBucket   HandoverReason = "bucket"      // the agent can't reach the object store
	ForReach    HandoverReason = "unreachable" // nobody reaches the agent
	ForWriters  HandoverReason = "writers"     // it is written from another zone
)

// Successor names the agent that is to lead a key instead of this one; ok is
// false if there is none.
type Successor func(Key) (agentID string, ok bool)

// Retire ends what is borrowed, and has every acquisition refused from now on with
// an error that wraps ErrReleased, until the returned function is called once. It
// waits until what was asked for before is decided, or ctx ends.
func (m *Manager) Retire(ctx context.Context) (resume func()) {
	m.mu.Lock()
	m.retired++
	flights := slices.Collect(maps.Values(m.flights))
	m.mu.Unlock()
	m.endBorrowed(all, ErrReleased)
	for _, f := range flights {
		select {
		case <-f.done:
		case <-ctx.Done():
		}
	}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.retired--
	}
}

// HandOver ends leases and makes them over to their successors in one request,
// and frees those that have none in another; each is given Config.RequestTimeout. It
// waits for nothing that is done under them: callers drain first. The errors are in
// the order of the leases, and say what became of each: a *HeldByOtherError names the successor that leads now;
// ErrReleased: the lease is free; ErrTaken: it was another's already, or its
// successor has ended; any other leaves it open. After these, asking for the lease
// again finds out.
func (m *Manager) HandOver(ctx context.Context, reason HandoverReason, leases []*Lease, to Successor) []error {
	var (
		moves   []Move
		places  []int // of moves in leases
		unheirs []*Lease
		ended   []*Lease
	)
	outcomes := make([]error, len(leases))
	m.mu.Lock()
	for i, l := range leases {
		if !m.machine.remove(l) {
			outcomes[i] = ErrTaken
			continue
		}
		ended = append(ended, l)
		if agent, ok := to(l.key); ok {
			moves, places = append(moves, Move{l.Term(), agent}), append(places, i)
		} else {
			outcomes[i] = ErrReleased
			unheirs = append(unheirs, l)
		}
	}
	m.mu.Unlock()
	m.end(ended, ErrReleased)
	if len(moves) > 0 {
		m.pass(ctx, reason, moves, places, outcomes)
	}
	bounded, cancel := context.WithTimeout(ctx, m.cfg.RequestTimeout)
	defer cancel()
	if err := m.free(bounded, unheirs); err != nil {
		m.log.Warn("leases without a successor end by themselves", "error", err)
	}
	return outcomes
}

// pass hands leases over that were taken out, and fills in the outcomes.
func (m *Manager) pass(ctx context.Context, reason HandoverReason, moves []Move, places []int, outcomes []error) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.RequestTimeout)
	defer cancel()
	given, err := m.store.HandOver(ctx, m.agentID, m.cfg.Duration, moves)
	if err != nil {
		m.log.Warn("leases could not be handed over, or it is not known", "leases", len(moves), "error", err)
		for _, i := range places {
			outcomes[i] = fmt.Errorf("hand over lease: %w", err)
		}
		return
	}
	leads := make(map[Key]Term, len(given))
	for _, t := range given {
		leads[t.Key] = t
	}
	m.mu.Lock()
	now := m.clock()
	for n, i := range places {
		t, ok := leads[moves[n].Key]
		if !ok {
			outcomes[i] = ErrTaken
			continue
		}
		held := &HeldByOtherError{t.Key, Holder{moves[n].To, t.LeaderEpoch, m.cfg.Duration}}
		m.machine.refused(now, held)
		outcomes[i] = held
	}
	m.mu.Unlock()
	m.metrics.handovers.WithLabelValues(string(reason)).Add(float64(len(given)))
	m.log.Info("leases handed over", "leases", len(given), "reason", string(reason))
}

// Leases lists the leases that are held, in no order.
func (m *Manager) Leases() []*Lease {
	m.mu.Lock()
	defer m.mu.Unlock()
	var held []*Lease
	for _, l := range m.machine.leases() {
		if l.Held() {
			held = append(held, l)
		}
	}
	return held
}

// HandedOver says whether an outcome of HandOver is that the lease has gone, so
// that whoever waits for it is to be sent on.
func HandedOver(err error) bool {
	return errors.Is(err, ErrLeaseHeldByOther) || errors.Is(err, ErrReleased)
}
