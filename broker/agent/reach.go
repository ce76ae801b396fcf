package agent

import (
	"context"
	"time"
)

// How an agent that was challenged finds out whether it is isolated.
const (
	reachInterval = 200 * time.Millisecond
	// reachPatience is how long it looks for reports: those who challenge it report at
	// the same moment, and one that watches it too may notice a little later.
	reachPatience = 4 * time.Second
	// reachSure is how many looks in a row must find the same. Where the network fails
	// between all agents, all report all others, and none is isolated; but their
	// reports come within half a second, and not at the same instant. More would be
	// longer than peers send clients elsewhere that ask who leads.
	reachSure = 6
)

// watchReach finds out, whenever the agent was challenged, whether others reach it,
// until ctx ends.
func (a *Agent) watchReach(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.doubted:
			a.lookForReports(ctx)
		}
	}
}

// lookForReports looks for a while after a challenge, and for as long as it finds
// that nobody reaches the agent.
func (a *Agent) lookForReports(ctx context.Context) {
	until := time.Now().Add(reachPatience)
	tick := time.NewTicker(reachInterval)
	defer tick.Stop()
	for sure := 0; sure > 0 || time.Now().Before(until); {
		select {
		case <-ctx.Done():
			return
		case <-a.doubted:
			until = time.Now().Add(reachPatience)
			continue
		case <-tick.C:
		}
		if a.place.Load() != present {
			return
		}
		if !a.unreached(ctx) {
			sure = 0
			drain(a.isolated)
		} else if sure++; sure >= reachSure {
			signal(a.isolated)
		}
	}
}

// unreached looks at the reports once.
func (a *Agent) unreached(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.RequestTimeout)
	defer cancel()
	isolated, err := a.store.Isolated(ctx, a.self.ID, a.self.Session)
	if err != nil && ctx.Err() == nil {
		a.log.Debug("cannot look whether others reach this agent", "agent", a.self.ID, "error", err)
	}
	return err == nil && isolated
}

// Isolated has an element while the agent lives and nobody reaches it: the others
// say so, and the store agrees.
func (a *Agent) Isolated() <-chan struct{} { return a.isolated }
