package ingest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment"
)

// remoteTries is how often a holder is asked before the store is.
const remoteTries = 3

// commitRemote has the holder of borrowed leases commit the parts at the head of its
// lane, once and in one shape. What it answers is as the store's answer. If it says
// that nothing was done, the batches are in no log. If it is not known whether it did
// anything, that is found out at the store (resolve).
//
// Batches whose borrowed leases have been lost by now are not sent to the holder at all.
func (p *Pool) commitRemote(ctx context.Context, l *lane, group []*part) {
	p.refuseLost(l, group)
	a := newAttempt(l.holder, group)
	if len(a.parts) == 0 {
		p.finish(l, group, nil)
		return
	}
	begun := time.Now()
	defer func() { since(p.env.Metrics.remote, begun) }()
	results, doubt, err := p.ask(ctx, &a)
	switch {
	case err == nil:
		p.env.Metrics.remoteParts[remoteCommitted].Add(float64(len(a.parts)))
	case !doubt:
		p.env.Metrics.remoteParts[remoteRefused].Add(float64(len(a.parts)))
		p.env.Log.Warn("another agent could not commit", "agent", l.holder, "flushes", len(a.parts), "error", err)
		for i := range a.parts {
			a.undone[i] = err
		}
		results = make([][]metadata.CommitResult, len(a.parts))
	default:
		p.env.Log.Warn("it is not known whether another agent has committed, asking the store", "agent", l.holder, "flushes", len(a.parts), "error", err)
		if results, err = p.resolve(ctx, &a); err != nil {
			p.abandon(l, group, true, err)
			return
		}
	}
	p.settle(l, group, &a, results)
}

// lost says whether there is nothing to be hoped for from the holder of a borrowed
// lease. One that this agent has given up, since it ends, is none of these.
func lost(l *lease.Lease) bool {
	return !l.Held() && !errors.Is(context.Cause(l.Context()), lease.ErrReleased)
}

// refuseLost fails the batches of parts at the head of a lane whose leases are lost.
func (p *Pool) refuseLost(l *lane, group []*part) {
	var answers []answer
	now := time.Now()
	p.mu.Lock()
	for _, pt := range group {
		for i := range pt.flush.entries {
			if e := &pt.flush.entries[i]; pt.has(e) && e.err == nil && lost(e.Lease) {
				err := fmt.Errorf("%w: %w", lease.ErrNotLeader, context.Cause(e.Lease.Context()))
				answers = append(answers, p.failEntry(e, err, now))
			}
		}
	}
	if len(answers) > 0 {
		answers = append(answers, p.failSuccessors(l.line, now)...)
	}
	p.mu.Unlock()
	p.deliver(answers)
}

// whileLeased returns a context that ends when all leases of the attempt are lost.
func (a *attempt) whileLeased(ctx context.Context) (_ context.Context, release func()) {
	ctx, cancel := context.WithCancel(ctx)
	stops := make(map[*lease.Lease]func() bool)
	var held atomic.Int64
	held.Store(1) // until all are counted
	end := func() {
		if held.Add(-1) == 0 {
			cancel()
		}
	}
	for _, entries := range a.entries {
		for _, e := range entries {
			if stops[e.Lease] == nil {
				held.Add(1)
				stops[e.Lease] = context.AfterFunc(e.Lease.Context(), func() {
					if lost(e.Lease) {
						end()
					}
				})
			}
		}
	}
	end()
	return ctx, func() {
		cancel()
		for _, stop := range stops {
			stop()
		}
	}
}

// ask asks the holder, and again while that is quick and the outcome is not known.
// With an error, doubt says that the holder may have committed, or may yet.
func (p *Pool) ask(ctx context.Context, a *attempt) (results [][]metadata.CommitResult, doubt bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.RemoteTimeout)
	defer cancel()
	ctx, release := a.whileLeased(ctx)
	defer release()
	for try, delay := 1, commitRetry; ; try, delay = try+1, 2*delay {
		results, err = p.env.Remote.Commit(ctx, &a.commit)
		if err == nil {
			err = a.checkShape(results)
		}
		if err == nil {
			return results, false, nil
		}
		doubt = doubt || !errors.Is(err, metadata.ErrUnavailable)
		if !doubt || try == remoteTries {
			return nil, doubt, err
		}
		select {
		case <-ctx.Done():
			return nil, true, err
		case <-time.After(delay/2 + rand.N(delay)):
		}
	}
}

// resolve finds out what became of parts that the holder may have committed, or may
// yet: until the store answers, or ctx ends.
func (p *Pool) resolve(ctx context.Context, a *attempt) ([][]metadata.CommitResult, error) {
	p.env.Metrics.unknown.Inc()
	for delay := commitRetry; ; delay = min(2*delay, maxCommitRetry) {
		results, err := p.findOut(ctx, a)
		if err == nil {
			return results, nil
		}
		p.env.Log.Warn("outcome of another agent's commit could not be found, will try again", "flushes", len(a.parts), "error", err)
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(delay/2 + rand.N(delay)):
			p.env.Metrics.retries.Inc()
		}
	}
}

// errNotCommitted says that a part was not committed by its holder, and will not be.
var errNotCommitted = errors.New("the holder did not commit before its commit was forestalled")

// findOut claims the parts' names. One that it gets can't be committed any more, by
// whomever and however late. One that it does not get has been committed, and to
// commit it again returns the results of the first time.
func (p *Pool) findOut(ctx context.Context, a *attempt) ([][]metadata.CommitResult, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.CommitTimeout)
	defer cancel()
	ids := make([]segment.ID, len(a.parts))
	for i, pt := range a.parts {
		ids[i] = pt.id
	}
	claimed, err := p.env.Names.ClaimOrphans(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("claim names: %w", err)
	}
	named := attempt{commit: metadata.Commit{AgentID: a.commit.AgentID}}
	var places []int // of named in a
	for i, id := range ids {
		if slices.Contains(claimed, id) {
			a.undone[i] = errNotCommitted
			continue
		}
		named.commit.Objects = append(named.commit.Objects, a.commit.Objects[i])
		places = append(places, i)
	}
	results := make([][]metadata.CommitResult, len(ids))
	if len(places) > 0 {
		first, err := p.try(ctx, &named)
		if err != nil {
			return nil, err
		}
		for n, i := range places {
			results[i] = first[n]
		}
	}
	p.env.Metrics.remoteParts[remoteFoundCommitted].Add(float64(len(places)))
	p.env.Metrics.remoteParts[remoteForestalled].Add(float64(len(ids) - len(places)))
	return results, nil
}

// undone is the answer to a batch that the holder of its lease has not committed. The
// next append asks anew who leads.
func (p *Pool) undone(e *entry, cause error) Result {
	p.env.Leases.Lose(e.Lease, lease.ErrNotSequenced)
	return Failed(fmt.Errorf("%w: %w: %w", lease.ErrNotLeader, lease.ErrNotSequenced, cause))
}
