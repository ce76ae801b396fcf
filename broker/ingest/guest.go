package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/streamhouse/streamhouse/metadata"
)

const (
	// maxGuests is how many objects of other agents may wait to be committed, and
	// maxGuestBatches how many batches are in them.
	maxGuests       = 256
	maxGuestBatches = 64 << 10
)

// guest is an object that another agent has uploaded, and that this one commits.
type guest struct {
	object   metadata.CommitObject
	accepted time.Time

	done    chan struct{} // closed when one of these is set
	results []metadata.CommitResult
	err     error
}

// Commit implements metadata.Committer for other agents, which have uploaded the
// objects and hold this agent for the leader of their partitions. The objects go
// through the agent's own lane, behind what is in it, and are committed whole: each
// batch is fenced by the leader epoch that it names. No lease of this agent is lost
// by it, and no batch fails for one before it: whoever uploaded looks after that.
//
// metadata.ErrUnavailable says that nothing was and will be done: the commit is for
// another agent or makes no sense, too much waits already, the pool is closed, or
// the store could not be asked in time. What is asked again while it is under way is
// not done twice. If ctx ends, the commit goes on.
func (p *Pool) Commit(ctx context.Context, c *metadata.Commit) ([][]metadata.CommitResult, error) {
	guests, err := p.receive(c)
	if err != nil {
		return nil, err
	}
	p.signal()
	results := make([][]metadata.CommitResult, len(guests))
	undone := 0
	for i, g := range guests {
		select {
		case <-g.done:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", metadata.ErrUnknownOutcome, context.Cause(ctx))
		}
		if g.err != nil {
			err = g.err
		}
		if errors.Is(g.err, metadata.ErrUnavailable) {
			undone++
		}
		results[i] = g.results
	}
	switch {
	case err == nil:
		return results, nil
	case undone == len(guests):
		return nil, err
	}
	// Some may have been committed: the answers are there for who asks again.
	return nil, fmt.Errorf("%w: %v", metadata.ErrUnknownOutcome, err)
}

// receive puts all objects of a commit into the own lane that are not there, or none.
func (p *Pool) receive(c *metadata.Commit) ([]*guest, error) {
	if c.AgentID != p.env.AgentID {
		return nil, fmt.Errorf("%w: the commit is for agent %q, this is %q", metadata.ErrUnavailable, c.AgentID, p.env.AgentID)
	}
	objects, batches := 0, 0
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range c.Objects {
		o := &c.Objects[i]
		if err := checkObject(o); err != nil {
			return nil, fmt.Errorf("%w: object %s: %w", metadata.ErrUnavailable, o.ID, err)
		}
		if g := p.guests[o.ID]; g == nil {
			objects, batches = objects+1, batches+len(o.Batches)
		} else if len(g.object.Batches) != len(o.Batches) {
			return nil, fmt.Errorf("%w: object %s is under way in another shape", metadata.ErrUnknownOutcome, o.ID)
		}
	}
	refusal := metadata.ErrUnavailable
	if objects < len(c.Objects) {
		refusal = metadata.ErrUnknownOutcome
	}
	switch {
	case p.closed:
		return nil, fmt.Errorf("%w: %w", refusal, ErrClosed)
	case len(p.guests)+objects > maxGuests || p.guestBatches+batches > maxGuestBatches:
		return nil, fmt.Errorf("%w: %w", refusal, ErrFull)
	}
	guests := make([]*guest, len(c.Objects))
	for i := range c.Objects {
		guests[i] = p.welcome(&c.Objects[i])
	}
	return guests, nil
}

// welcome returns the guest of an object, which is in the own lane then. The caller
// holds mu.
func (p *Pool) welcome(o *metadata.CommitObject) *guest {
	if g := p.guests[o.ID]; g != nil {
		return g
	}
	g := &guest{object: *o, accepted: time.Now(), done: make(chan struct{})}
	p.guests[o.ID] = g
	p.guestBatches += len(o.Batches)
	p.outstanding += len(o.Batches)
	l := p.own
	l.line = append(l.line, &part{id: o.ID, lane: l, guest: g, size: len(o.Batches)})
	return g
}

// dismiss answers a guest that is in the lane no more. The caller holds mu.
func (p *Pool) dismiss(g *guest, results []metadata.CommitResult, err error) {
	if err != nil && !errors.Is(err, metadata.ErrUnknownOutcome) {
		err = fmt.Errorf("%w: %w", metadata.ErrUnavailable, err)
	}
	g.results, g.err = results, err
	delete(p.guests, g.object.ID)
	p.guestBatches -= len(g.object.Batches)
	p.outstanding -= len(g.object.Batches)
	close(g.done)
}

// checkObject says what is wrong with an object that another agent names, if anything:
// the store believes what it is told.
func checkObject(o *metadata.CommitObject) error {
	if o.Size <= 0 || len(o.Batches) == 0 {
		return errors.New("it has no bytes or no batches")
	}
	for i := range o.Batches {
		b := &o.Batches[i]
		if b.Inline != nil || b.Records <= 0 || b.Length <= 0 || b.Position < 0 || b.Position > o.Size-int64(b.Length) {
			return fmt.Errorf("batch %d of %s makes no sense", i, b.Key)
		}
	}
	return nil
}

// gather is how long the parts at the head of a lane wait for others. That is only so
// for guests that are alone: each of the other agents would have this one make a
// commit of its own for each of its flushes. The caller holds mu.
func (p *Pool) gather(l *lane, group []*part, now time.Time) time.Duration {
	if l != p.own || p.closed || slices.ContainsFunc(group, func(pt *part) bool { return pt.guest == nil }) {
		return 0
	}
	return l.begun.Add(p.cfg.CommitSpacing).Sub(now)
}
