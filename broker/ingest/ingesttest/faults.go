package ingesttest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/metadata"
)

// Fault is what happens to a commit.
type Fault struct {
	// Nth is which commit from the setting of the faults on it happens to, from
	// 1. 0 is each.
	Nth int
	// Gate holds the commit, before it is applied, until something can be
	// received from it.
	Gate <-chan struct{}
	// Delay is how long the commit waits before it is applied.
	Delay time.Duration
	// Before fails the commit unapplied, After fails it applied.
	Before, After error
	// Late says that a commit is applied even if whoever sent it has given up
	// waiting.
	Late bool
}

// Commits is a committer that fails on purpose.
type Commits struct {
	inner metadata.Committer

	mu     sync.Mutex
	faults []Fault
	nth    int
	sent   []metadata.Commit
	late   sync.WaitGroup
}

// NewCommits returns inner with faults.
func NewCommits(inner metadata.Committer, faults ...Fault) *Commits {
	return &Commits{inner: inner, faults: faults}
}

// Set replaces all faults and counts from 1 again. Without arguments the
// committer is sound.
func (c *Commits) Set(faults ...Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults, c.nth = faults, 0
}

// Sent returns what was sent so far, each attempt of its own.
func (c *Commits) Sent() []metadata.Commit {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]metadata.Commit(nil), c.sent...)
}

// Commit implements metadata.Committer.
func (c *Commits) Commit(ctx context.Context, commit *metadata.Commit) ([][]metadata.CommitResult, error) {
	f := c.next(commit)
	if f.Late {
		return c.commitLate(ctx, &f, commit)
	}
	if err := f.wait(ctx); err != nil {
		return nil, err
	}
	return c.apply(ctx, &f, commit)
}

// Wait waits for late commits.
func (c *Commits) Wait() { c.late.Wait() }

func (c *Commits) commitLate(ctx context.Context, f *Fault, commit *metadata.Commit) ([][]metadata.CommitResult, error) {
	type answer struct {
		results [][]metadata.CommitResult
		err     error
	}
	done := make(chan answer, 1)
	c.late.Go(func() {
		err := f.wait(context.Background())
		var results [][]metadata.CommitResult
		if err == nil {
			results, err = c.apply(context.Background(), f, commit)
		}
		done <- answer{results, err}
	})
	select {
	case a := <-done:
		return a.results, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", metadata.ErrUnknownOutcome, ctx.Err())
	}
}

func (c *Commits) apply(ctx context.Context, f *Fault, commit *metadata.Commit) ([][]metadata.CommitResult, error) {
	if f.Before != nil {
		return nil, fmt.Errorf("injected: %w", f.Before)
	}
	results, err := c.inner.Commit(ctx, commit)
	if err == nil && f.After != nil {
		return nil, fmt.Errorf("injected: %w", f.After)
	}
	return results, err
}

func (c *Commits) next(commit *metadata.Commit) (met Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = append(c.sent, *commit)
	c.nth++
	for _, f := range c.faults {
		if f.Nth == 0 || f.Nth == c.nth {
			return f
		}
	}
	return Fault{}
}

// wait is over with an unknown outcome when ctx ends: the server may have the
// statement by then.
func (f *Fault) wait(ctx context.Context) error {
	gate := f.Gate
	var delay <-chan time.Time
	if f.Delay > 0 {
		delay = time.After(f.Delay)
	}
	for gate != nil || delay != nil {
		select {
		case <-gate:
			gate = nil
		case <-delay:
			delay = nil
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", metadata.ErrUnknownOutcome, ctx.Err())
		}
	}
	return nil
}
