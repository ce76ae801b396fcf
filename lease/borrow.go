package lease

import (
	"context"

	"github.com/google/uuid"
)

// Borrow returns a lease of a key that another agent has, in that agent's leader
// epoch: what is accepted under it, its holder commits. Nothing of it is known to
// the store, and it is neither counted nor renewed, released or handed over. It ends
// by Lose, Forget, EndBorrowed or Retire, and when the key is borrowed anew from
// somebody else. While acquisitions are refused, nothing is borrowed: nil.
func (m *Manager) Borrow(from *HeldByOtherError) *Lease {
	m.mu.Lock()
	if m.retired > 0 {
		m.mu.Unlock()
		return nil
	}
	old := m.borrowed[from.Key]
	if old != nil && old.holder == from.Holder.AgentID && old.leaderEpoch == from.Holder.LeaderEpoch {
		m.mu.Unlock()
		return old
	}
	l := &Lease{
		key: from.Key, holder: from.Holder.AgentID, leaderEpoch: from.Holder.LeaderEpoch,
		since: m.clock(), clock: m.clock,
	}
	l.deadline.Store(int64(never))
	l.ctx, l.end = context.WithCancelCause(context.Background())
	m.borrowed[l.key] = l
	m.metrics.borrowed.Set(float64(len(m.borrowed)))
	m.mu.Unlock()
	if old != nil {
		old.end(ErrTaken)
	}
	return l
}

// EndBorrowed ends the borrowed leases that are chosen with ErrTaken, since another
// agent than their holder should be written to now. choose must not call the manager.
func (m *Manager) EndBorrowed(choose func(*Lease) bool) { m.endBorrowed(choose, ErrTaken) }

func (m *Manager) endBorrowed(choose func(*Lease) bool, cause error) {
	var ended []*Lease
	m.mu.Lock()
	for _, l := range m.borrowed {
		if choose(l) {
			ended = append(ended, l)
		}
	}
	for _, l := range ended {
		m.giveBack(l)
	}
	m.mu.Unlock()
	for _, l := range ended {
		l.end(cause)
	}
}

// giveBack takes a borrowed lease out, unless it is gone already. What was known of its
// holder may be wrong by now. The caller holds mu.
func (m *Manager) giveBack(l *Lease) bool {
	if m.borrowed[l.key] != l {
		return false
	}
	delete(m.borrowed, l.key)
	m.machine.disbelieve(l.key)
	m.metrics.borrowed.Set(float64(len(m.borrowed)))
	return true
}

// all and ofTopic choose borrowed leases.
func all(*Lease) bool { return true }

func ofTopic(topic uuid.UUID) func(*Lease) bool {
	return func(l *Lease) bool { return l.key.TopicID == topic }
}
