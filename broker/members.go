package broker

import (
	"context"
	"sync"
	"time"
)

// members is which members of groups are likely to ask this agent again: those that
// it has served lately, as their coordinator, on a connection that is still there.
// An agent that ends tells them first that their coordinator is another one: some
// clients show an error to their application if a coordinator is gone that they
// believe to be there. The zero value is ready for use.
type members struct {
	mu    sync.Mutex
	seen  map[memberRef]sighting
	empty chan struct{} // closed when seen is, for the one who waits for it; nil if nobody does
}

// memberRef names a member; without an id it is nobody.
type memberRef struct{ group, id string }

// sighting is when a member was served last.
type sighting struct {
	conn context.Context // the connection's
	at   time.Time
}

// memberReturns is how soon a member asks again: a little later than at the interval
// of its heartbeats, which is 3 s by default, and 5 s in the consumer protocol. One
// that takes longer finds out by itself.
const memberReturns = 6 * time.Second

// served takes in that a member was answered on a connection.
func (m *members) served(conn context.Context, ref memberRef) {
	if ref.id == "" {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.seen == nil {
		m.seen = make(map[memberRef]sighting)
	}
	if m.seen[ref].conn != conn {
		context.AfterFunc(conn, func() { m.left(conn, ref) })
	}
	m.seen[ref] = sighting{conn, time.Now()}
}

// left takes in that a member's connection has ended.
func (m *members) left(conn context.Context, ref memberRef) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.seen[ref].conn == conn {
		m.forget(ref)
	}
}

// sentOn takes in that a member was told that its coordinator is another agent.
func (m *members) sentOn(ref memberRef) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(ref)
}

// forget forgets a member. The caller holds mu.
func (m *members) forget(ref memberRef) {
	delete(m.seen, ref)
	if len(m.seen) == 0 && m.empty != nil {
		close(m.empty)
		m.empty = nil
	}
}

// await returns when no member is likely to ask again, or when ctx ends. It is for
// one caller at a time.
func (m *members) await(ctx context.Context) {
	for {
		left, empty := m.expected()
		if left <= 0 {
			return
		}
		timer := time.NewTimer(left)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-empty:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// expected returns for how long some member is expected, and what is closed if none
// is any more before.
func (m *members) expected() (left time.Duration, empty <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for ref, s := range m.seen {
		until := time.Until(s.at.Add(memberReturns))
		if until <= 0 {
			delete(m.seen, ref)
		}
		left = max(left, until)
	}
	if left > 0 {
		m.empty = make(chan struct{})
	}
	return left, m.empty
}
