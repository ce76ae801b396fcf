package peers

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/streamhouse/streamhouse/metadata"
)

// maxDoubts bounds the doubts that wait to be looked into.
const maxDoubts = 16

// errDoubted is why a peer is looked at that this agent need not watch.
var errDoubted = errors.New("it could not be reached for a call")

// Doubt has it looked into whether a peer is dead, which could not be reached for
// something else than a watcher's question. It does not block, and it is right to call
// it for any agent and at any rate. Who waits for Settle and Suspected waits for what
// comes of it.
//
// Only the end of the peer's session counts: to find out whether one that keeps its
// session stands still is for those who watch it.
func (w *Watcher) Doubt(agentID string) {
	select {
	case w.doubted <- agentID:
	default: // those that wait are of the same death, as likely as not
	}
}

// lookAtDoubted looks at those who are doubted, one after the other, until ctx ends.
func (w *Watcher) lookAtDoubted(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case agentID := <-w.doubted:
			w.look(ctx, agentID)
		}
	}
}

// look asks the store for the burial of a peer, as often as it takes for a process that
// has just died to be gone there.
func (w *Watcher) look(ctx context.Context, agentID string) {
	agents := w.cluster.Agents()
	i := slices.IndexFunc(agents, func(a metadata.Agent) bool { return a.ID == agentID })
	if i < 0 || agentID == w.self.ID {
		return
	}
	h := &watch{peer: agents[i], lastSign: time.Now()}
	defer w.news.expect(h.peer.Session, verdictTime)()
	for delay := firstLook; delay < lastLook && ctx.Err() == nil; delay *= 2 {
		burial, err := w.store.Bury(ctx, h.peer.ID, h.peer.Session, never)
		switch {
		case err != nil:
			w.log.Debug("the store could not be asked about a peer", "peer", h.peer.ID, "error", err)
			return
		case burial == metadata.EndedBefore || burial.Buried():
			w.buried(ctx, h, burial, errDoubted)
			return
		}
		pause(ctx, delay)
	}
}
