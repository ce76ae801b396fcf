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

// attempt is a group of flushes in the shape in which it is committed.
type attempt struct {
	commit  metadata.Commit
	flushes []*flush   // of commit.Objects
	entries [][]*entry // by object and batch
}

// newAttempt leaves out the batches that have been answered, and flushes that
// have no others. Nobody else answers batches of flushes that are at the head
// of the line, so that it needs no lock.
func (p *Pool) newAttempt(group []*flush) attempt {
	a := attempt{commit: metadata.Commit{AgentID: p.env.AgentID}}
	for _, f := range group {
		o, entries := f.commitObject()
		if len(entries) == 0 {
			continue
		}
		a.commit.Objects = append(a.commit.Objects, o)
		a.flushes = append(a.flushes, f)
		a.entries = append(a.entries, entries)
	}
	return a
}

// commit commits the flushes at the head of the line.
//
// As long as every attempt left nothing changed, batches whose deadline passes
// are failed and the rest is tried again. Once the outcome of an attempt is
// unknown, the very same objects are sent until the store answers: it gives the
// results of the first time.
func (p *Pool) commit(ctx context.Context, group []*flush) {
	begun := time.Now()
	defer func() { since(p.env.Metrics.commit, begun) }()
	p.env.Metrics.group.Observe(float64(len(group)))
	for _, f := range group {
		if f.kind == inline {
			f.encodeInline()
		}
	}
	a, doubt := p.newAttempt(group), false
	for delay := commitRetry; len(a.flushes) > 0; delay = min(2*delay, maxCommitRetry) {
		results, err := p.try(ctx, &a)
		if err == nil {
			p.settle(group, &a, results)
			return
		}
		if !errors.Is(err, metadata.ErrUnavailable) {
			doubt = true
			p.env.Metrics.unknown.Inc()
		}
		p.env.Log.Warn("commit failed, will try again", "flushes", len(a.flushes), "outcome_unknown", doubt, "error", err)
		if !doubt {
			if group = p.expire(group, err); len(group) == 0 {
				break
			}
			a = p.newAttempt(group)
		}
		select {
		case <-ctx.Done():
			p.abandon(group, doubt, err)
			return
		case <-time.After(delay/2 + rand.N(delay)):
			p.env.Metrics.retries.Inc()
		}
	}
	p.finish(group, nil)
}

// try makes one attempt.
func (p *Pool) try(ctx context.Context, a *attempt) ([][]metadata.CommitResult, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.CommitTimeout)
	defer cancel()
	results, err := p.env.Committer.Commit(ctx, &a.commit)
	if err != nil {
		return nil, err
	}
	sameShape := slices.EqualFunc(results, a.entries, func(r []metadata.CommitResult, e []*entry) bool { return len(r) == len(e) })
	if !sameShape {
		return nil, errors.New("the store's answer has another shape than the commit")
	}
	return results, nil
}

// expire fails the flushes whose oldest batch is past its deadline, with cause,
// and returns the others.
func (p *Pool) expire(group []*flush, cause error) (rest []*flush) {
	limit := time.Now().Add(-p.cfg.CommitDeadline)
	var answers []answer
	p.mu.Lock()
	for _, f := range group {
		if f.opened().After(limit) {
			rest = append(rest, f)
		} else {
			answers = append(answers, p.fail(f, fmt.Errorf("%w: %w", ErrCommitUnavailable, cause))...)
		}
	}
	p.mu.Unlock()
	if len(answers) > 0 {
		p.env.Log.Error("metadata store is unavailable, batches are failed", "batches", len(answers), "error", cause)
		p.deliver(answers)
	}
	return rest
}

// abandon answers what was being committed when the pool ended.
func (p *Pool) abandon(group []*flush, doubt bool, cause error) {
	err := ErrClosed
	if doubt {
		err = fmt.Errorf("%w: the pool ended: %w", metadata.ErrUnknownOutcome, cause)
	}
	var answers []answer
	p.mu.Lock()
	for _, f := range group {
		answers = append(answers, p.fail(f, err)...)
	}
	p.mu.Unlock()
	p.finish(nil, answers)
}

// settle answers the batches of a commit that the store has answered.
func (p *Pool) settle(group []*flush, a *attempt, results [][]metadata.CommitResult) {
	for i, f := range a.flushes {
		p.observe(f, &a.commit.Objects[i], results[i])
	}
	var answers []answer
	failed := false
	for i, entries := range a.entries {
		for j, e := range entries {
			result := p.outcome(e, results[i][j])
			failed = failed || result.Err != nil
			answers = append(answers, answer{e, result})
		}
	}
	if failed {
		answers = p.settleFailed(answers, len(group))
	}
	p.finish(group, answers)
}

// observe shows the observer what became of a flush.
func (p *Pool) observe(f *flush, o *metadata.CommitObject, results []metadata.CommitResult) {
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
	p.env.Observer.Committed(f.object(), extents, logStarts)
}

// outcome translates the store's result of a batch.
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

// settleFailed looks after the streams of the batches that a commit of the
// first flushes of the line has refused, and returns its answers with those to
// later batches of these streams.
func (p *Pool) settleFailed(answers []answer, flushes int) []answer {
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
	return append(answers, p.failSuccessors(p.line[flushes:], now)...)
}

// finish takes the settled flushes, which are at the head of the line, out of
// it and lets the next commit begin.
func (p *Pool) finish(settled []*flush, answers []answer) {
	p.mu.Lock()
	p.line = slices.Delete(p.line, 0, len(settled))
	p.committing = false
	p.mu.Unlock()
	p.signal()
	p.deliver(answers)
}
