package peers

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// news is what is about to be known: suspicions that have just begun. The zero
// value is ready for use.
type news struct {
	mu      sync.Mutex
	watched int               // peers; without any there are no news
	open    map[uuid.UUID]int // how many suspect a session
	settled chan struct{}     // closed when open is empty again; nil while it is
}

// verdictTime is what the store may take for its part in a suspicion. A process that
// died is buried in some milliseconds, or some hundred where the database is busy.
const verdictTime = 500 * time.Millisecond

// expect begins a suspicion, which is news no longer than limit: what takes longer
// may last. The returned function ends it.
func (n *news) expect(session uuid.UUID, limit time.Duration) (end func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.open) == 0 {
		n.open, n.settled = make(map[uuid.UUID]int), make(chan struct{})
	}
	n.open[session]++
	once := sync.OnceFunc(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.open[session]--; n.open[session] == 0 {
			delete(n.open, session)
		}
		if len(n.open) == 0 {
			close(n.settled)
			n.settled = nil
		}
	})
	late := time.AfterFunc(limit, once)
	return func() { late.Stop(); once() }
}

// sameMoment is how far apart two connections to a process that dies may be seen
// to end, on a busy machine.
const sameMoment = 10 * time.Millisecond

// Settle waits, for a moment at most, while a peer is suspected that has just
// stopped answering. Clients of a dead agent ask at the same moment who leads
// now, and would be sent back to it; some ask again only after seconds.
func (w *Watcher) Settle(ctx context.Context) {
	if w.news.watching() == 0 {
		return
	}
	settled := w.news.pending()
	if settled == nil {
		pause(ctx, sameMoment)
		settled = w.news.pending()
	}
	if settled == nil {
		return
	}
	moment := time.NewTimer(verdictTime)
	defer moment.Stop()
	select {
	case <-settled:
	case <-moment.C:
	case <-ctx.Done():
	}
}

// Suspected returns the sessions of peers that have just stopped answering, and
// what is closed when it is known of all of them what became of them, or takes too
// long to be waited for; nil if there are none. A process that stands still takes
// seconds to be buried, and clients that ask meanwhile are better sent to others,
// which wait for the leases.
func (w *Watcher) Suspected() (sessions []uuid.UUID, decided <-chan struct{}) {
	n := &w.news
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Collect(maps.Keys(n.open)), n.settled
}

// pending is closed when no suspicion is open; nil if none is.
func (n *news) pending() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.settled
}

// watching is how many peers are watched.
func (n *news) watching() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.watched
}

// watch sets how many peers are watched.
func (n *news) watch(peers int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.watched = peers
}
