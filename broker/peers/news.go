package peers

import (
	"context"
	"sync"
	"time"
)

// news is what is about to be known: suspicions that have just begun. The zero
// value is ready for use.
type news struct {
	mu      sync.Mutex
	watched int // peers; without any there are no news
	open    int
	settled chan struct{} // closed when open is 0 again; nil while it is
}

// newsTime is how long a suspicion is waited for. A process that died is buried
// in some milliseconds, or some hundred where the database is busy; all else takes
// seconds, for which nobody waits.
const newsTime = time.Second

// expect begins a suspicion; the returned function ends it.
func (n *news) expect() (end func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open++; n.open == 1 {
		n.settled = make(chan struct{})
	}
	once := sync.OnceFunc(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.open--; n.open == 0 {
			close(n.settled)
			n.settled = nil
		}
	})
	late := time.AfterFunc(newsTime, once)
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
	select {
	case <-settled:
	case <-ctx.Done():
	}
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
