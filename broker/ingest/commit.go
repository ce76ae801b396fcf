package ingest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// The mean times between two attempts of a commit.
const (
	commitRetry    = 20 * time.Millisecond
	maxCommitRetry = time.Second
)

// attempt is a group of parts in the shape in which it is committed.
type attempt struct {
	commit  metadata.Commit
	parts   []*part    // of commit.Objects
	entries [][]*entry // by object and batch; none of guests
	undone  []error    // by object: why it is in no log and never will be, else nil
}

// newAttempt leaves out the batches that have been answered, and parts that have
// no others. Nobody else answers batches of parts that are at the head of their
// lane, so that it needs no lock.
func newAttempt(agentID string, group []*part) attempt {
	a := attempt{commit: metadata.Commit{AgentID: agentID}}
	for _, pt := range group {
		o, entries := pt.commitObject()
		if len(o.Batches) == 0 {
			continue
		}
		a.commit.Objects = append(a.commit.Objects, o)
		a.parts = append(a.parts, pt)
		a.entries = append(a.entries, entries)
	}
	a.undone = make([]error, len(a.parts))
	return a
}

// checkShape holds an answer against what was asked.
func (a *attempt) checkShape(results [][]metadata.CommitResult) error {
	same := slices.EqualFunc(results, a.commit.Objects, func(r []metadata.CommitResult, o metadata.CommitObject) bool {
		return len(r) == len(o.Batches)
	})
	if !same {
		return errors.New("the answer has another shape than the commit")
	}
	return nil
}

// commit commits the parts at the head of the own lane.
//
// As long as every attempt left nothing changed, batches whose deadline passes
// are failed and the rest is tried again. Once the outcome of an attempt is
// unknown, the very same objects are sent until the store answers: it gives the
// results of the first time.
func (p *Pool) commit(ctx context.Context, group []*part) {
	begun := time.Now()
	defer func() { since(p.env.Metrics.commit, begun) }()
	p.env.Metrics.group.Observe(float64(len(group)))
	for _, pt := range group {
		if pt.flush != nil && pt.flush.kind == inline {
			pt.flush.encodeInline()
		}
	}
	l, doubt := p.own, false
	a := newAttempt(p.env.AgentID, group)
	for delay := commitRetry; len(a.parts) > 0; delay = min(2*delay, maxCommitRetry) {
		results, err := p.try(ctx, &a)
		if err == nil {
			p.settle(l, group, &a, results)
			return
		}
		if !errors.Is(err, metadata.ErrUnavailable) {
			doubt = true
			p.env.Metrics.unknown.Inc()
		}
		p.env.Log.Warn("commit failed, will try again", "flushes", len(a.parts), "outcome_unknown", doubt, "error", err)
		if !doubt {
			if group = p.expire(group, err); len(group) == 0 {
				break
			}
			a = newAttempt(p.env.AgentID, group)
		}
		select {
		case <-ctx.Done():
			p.abandon(l, group, doubt, err)
			return
		case <-time.After(delay/2 + rand.N(delay)):
			p.env.Metrics.retries.Inc()
		}
	}
	p.finish(l, group, nil)
}

// try makes one attempt at the store.
func (p *Pool) try(ctx context.Context, a *attempt) ([][]metadata.CommitResult, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.CommitTimeout)
	defer cancel()
	results, err := p.env.Committer.Commit(ctx, &a.commit)
	if err == nil {
		err = a.checkShape(results)
	}
	return results, err
}

// expire fails the parts whose oldest batch is past its deadline, with cause,
// and returns the others. With a guest fail all guests behind it: what they have may
// follow on it in its stream, which only the agents that sent them know.
func (p *Pool) expire(group []*part, cause error) (rest []*part) {
	limit := time.Now().Add(-p.cfg.CommitDeadline)
	err := fmt.Errorf("%w: %w", ErrCommitUnavailable, cause)
	var answers []answer
	guests := false // have failed
	p.mu.Lock()
	for _, pt := range group {
		if pt.opened().After(limit) && (pt.guest == nil || !guests) {
			rest = append(rest, pt)
			continue
		}
		guests = guests || pt.guest != nil
		answers = append(answers, p.fail(pt, err)...)
	}
	if guests {
		for _, pt := range slices.Clone(p.own.line) {
			if pt.guest != nil {
				p.fail(pt, err)
			}
		}
	}
	p.mu.Unlock()
	if len(rest) < len(group) {
		p.env.Log.Error("metadata store is unavailable, batches are failed", "flushes", len(group)-len(rest), "batches", len(answers), "error", cause)
		p.deliver(answers)
	}
	return rest
}

// abandon answers what was being committed when the pool ended.
func (p *Pool) abandon(l *lane, group []*part, doubt bool, cause error) {
	err := ErrClosed
	if doubt {
		err = fmt.Errorf("%w: the pool ended: %w", metadata.ErrUnknownOutcome, cause)
	}
	var answers []answer
	p.mu.Lock()
	for _, pt := range group {
		answers = append(answers, p.fail(pt, err)...)
	}
	p.mu.Unlock()
	p.finish(l, nil, answers)
}

// settle answers the batches of parts of which it is known what became of them.
func (p *Pool) settle(l *lane, group []*part, a *attempt, results [][]metadata.CommitResult) {
	var answers []answer
	failed := false
	for i, pt := range a.parts {
		if a.undone[i] == nil {
			p.observe(pt, &a.commit.Objects[i], results[i])
		}
		if pt.guest != nil {
			pt.guest.results = results[i]
			p.env.Metrics.sequenced.Inc()
		}
	}
	for i, entries := range a.entries {
		for j, e := range entries {
			var result Result
			if a.undone[i] != nil {
				result = p.undone(e, a.undone[i])
			} else {
				result = p.outcome(e, results[i][j])
			}
			failed = failed || result.Err != nil
			answers = append(answers, answer{e, result})
		}
	}
	if failed {
		answers = p.settleFailed(l, answers, len(group))
	}
	p.finish(l, group, answers)
	for i, pt := range a.parts {
		pt.release(a.entries[i])
	}
}

// observe shows the observer what became of a part.
func (p *Pool) observe(pt *part, o *metadata.CommitObject, results []metadata.CommitResult) {
	extents := metadata.ExtentsOf(o, results)
	if len(extents) == 0 {
		return
	}
	byKey := make(map[lease.Key]int64, len(extents))
	for i := range results {
		byKey[o.Batches[i].Key] = results[i].LogStartOffset
	}
	logStarts := make([]int64, len(extents))
	for i := range extents {
		logStarts[i] = byKey[extents[i].Key]
	}
	p.showing.Lock()
	defer p.showing.Unlock()
	p.env.Observer.Committed(pt.unshown(), extents, logStarts)
}

// outcome translates the answer to a batch.
func (p *Pool) outcome(e *entry, r metadata.CommitResult) Result {
	switch r.Outcome {
	case metadata.Committed, metadata.Duplicate:
		since(p.env.Metrics.latency, e.accepted)
		return Result{BaseOffset: r.BaseOffset, AppendTime: r.AppendTime, LogStartOffset: r.LogStartOffset}
	case metadata.Fenced:
		p.env.Leases.Lose(e.Lease, lease.ErrFenced)
		return Failed(fmt.Errorf("%w: %w", lease.ErrNotLeader, lease.ErrFenced))
	case metadata.UnknownPartition:
		p.env.Leases.Lose(e.Lease, lease.ErrUnknownKey)
		return Failed(metadata.ErrUnknownTopic)
	case metadata.ObjectClaimed:
		p.env.Metrics.claimed.Inc()
		p.env.Log.Error("the name of an object is refused: a collector has claimed it, or this agent's clock is far behind", "partition", e.Lease.Key())
		return Failed(fmt.Errorf("%w: its name is refused", ErrUpload))
	case metadata.OutOfOrderSequence:
		return Result{Err: ErrOutOfOrderSequence, BaseOffset: -1, AppendTime: -1, LogStartOffset: r.LogStartOffset}
	default: // InvalidProducerEpoch
		return Result{Err: ErrInvalidProducerEpoch, BaseOffset: -1, AppendTime: -1, LogStartOffset: r.LogStartOffset}
	}
}

// settleFailed looks after the streams of the batches that a commit of the first
// parts of the lane has refused, and returns its answers with those to later batches
// of these streams.
func (p *Pool) settleFailed(l *lane, answers []answer, parts int) []answer {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for i := range answers {
		a := &answers[i]
		switch {
		case a.result.Err == nil, errors.Is(a.result.Err, ErrInvalidProducerEpoch):
		case !errors.Is(a.result.Err, ErrOutOfOrderSequence):
			*a = p.failEntry(a.e, a.result.Err, now)
		default: // the gap may be a batch that failed
			if err := p.gaps.admit(a.e.Lease.Key(), &a.e.Batch, now); err != nil {
				a.result = Failed(err)
			}
		}
	}
	return append(answers, p.failSuccessors(l.line[parts:], now)...)
}

// finish takes the settled parts, which are at the head of the lane, out of it and
// lets the next commit begin.
func (p *Pool) finish(l *lane, settled []*part, answers []answer) {
	p.mu.Lock()
	l.line = slices.Delete(l.line, 0, len(settled))
	l.committing = false
	for _, pt := range settled {
		if pt.guest != nil {
			p.dismiss(pt.guest, pt.guest.results, nil)
		}
	}
	p.leave(l)
	p.mu.Unlock()
	p.signal()
	p.deliver(answers)
}
