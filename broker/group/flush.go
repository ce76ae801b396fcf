package group

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// fail answers effects that ask for something of the store.
func fail(effects []effect, err error) {
	for _, e := range effects {
		switch e := e.(type) {
		case storeCommit:
			e.call.complete(nil, err)
		case storeDelete:
			e.call.complete(nil, err)
		case storeFetch:
			e.call.complete(nil, err)
		}
	}
}

// flush asks the store for all that is queued: the changes in their order, and
// then the fetches, which see them.
func (s *shard) flush(ctx context.Context) {
	s.mu.Lock()
	l, queue := s.lease, s.queue
	s.queue = nil
	s.mu.Unlock()
	if l == nil {
		return // what is queued without a lease was answered
	}
	var fetches []storeFetch
	for len(queue) > 0 {
		var commits []storeCommit
		for len(queue) > 0 {
			if f, ok := queue[0].(storeFetch); ok {
				fetches = append(fetches, f)
			} else if c, ok := queue[0].(storeCommit); ok {
				commits = append(commits, c)
			} else {
				break
			}
			queue = queue[1:]
		}
		if len(commits) > 0 {
			l = s.commit(ctx, l, commits)
		}
		if len(queue) > 0 {
			d := queue[0].(storeDelete)
			queue = queue[1:]
			l = s.delete(ctx, l, d)
		}
	}
	if len(fetches) > 0 {
		s.fetch(ctx, l, fetches)
	}
}

// commit stores the commits of all groups that wait, in one statement. It
// returns the lease with which to go on, nil if it is lost.
func (s *shard) commit(ctx context.Context, l *lease.Lease, commits []storeCommit) *lease.Lease {
	list := make([]metadata.OffsetCommit, len(commits))
	for i, c := range commits {
		list[i] = c.commit
	}
	start := s.now()
	l, err := s.change(ctx, l, func(ctx context.Context, t lease.Term) error {
		return s.offsets.CommitOffsets(ctx, s.agentID, t, list)
	})
	s.metrics.commitTook(s.now() - start)
	if err != nil {
		s.metrics.failures.Add(float64(len(commits)))
	} else {
		s.metrics.committed.Add(float64(len(commits)))
	}
	for _, c := range commits {
		if err != nil {
			c.call.complete(nil, err)
		} else {
			c.call.complete(c.answer, nil)
		}
	}
	return l
}

// delete forgets offsets.
func (s *shard) delete(ctx context.Context, l *lease.Lease, d storeDelete) *lease.Lease {
	l, err := s.change(ctx, l, func(ctx context.Context, t lease.Term) error {
		if !d.known {
			stored, err := s.offsets.FetchOffsets(ctx, []string{d.group})
			switch {
			case err != nil:
				return err
			case len(stored[0]) == 0:
				return kerr.GroupIDNotFound
			}
		}
		return s.offsets.DeleteOffsets(ctx, s.agentID, t, d.group, d.keys)
	})
	switch {
	case err != nil:
		d.call.complete(nil, err)
	case d.keys == nil:
		d.call.complete(nil, nil)
	default:
		d.call.complete(d.answer, nil)
	}
	return l
}

// changeAttempts is how often a change is sent whose outcome stays unknown.
const changeAttempts = 3

// change makes a change under the lease, in a new term each time that its
// outcome is unknown. It returns the lease with which to go on, nil if it is
// lost. Errors are *kerr.Error.
func (s *shard) change(ctx context.Context, l *lease.Lease, do func(context.Context, lease.Term) error) (*lease.Lease, error) {
	for attempt := 1; l != nil; attempt++ {
		err := s.ask(ctx, func(ctx context.Context) error { return do(ctx, l.Term()) })
		var refusal *kerr.Error
		switch {
		case err == nil:
			return l, nil
		case errors.As(err, &refusal):
			return l, refusal
		case ctx.Err() != nil:
			return l, kerr.CoordinatorNotAvailable // the agent ends
		case errors.Is(err, metadata.ErrFenced):
			s.leases.Lose(l, lease.ErrFenced)
			s.lost(l)
			return nil, kerr.NotCoordinator
		case !errors.Is(err, metadata.ErrUnknownOutcome) && !errors.Is(err, context.DeadlineExceeded):
			s.log.Warn("cannot change the offsets of a group coordinator's shard", "shard", s.key.Partition, "error", err)
			return l, kerr.CoordinatorNotAvailable
		case attempt == changeAttempts:
			s.log.Warn("giving up a group coordinator's shard", "shard", s.key.Partition, "error", err)
			s.leases.Lose(l, errUncertain)
			s.lost(l)
			return nil, kerr.NotCoordinator
		}
		l = s.succeed(ctx, l, err)
	}
	return nil, kerr.NotCoordinator
}

// fetch reads the offsets of all groups that wait, in one statement. If the
// lease was lost meanwhile, clients are sent on: its next holder may have
// accepted commits that were not in the store yet.
func (s *shard) fetch(ctx context.Context, l *lease.Lease, fetches []storeFetch) {
	groups := make([]string, len(fetches))
	for i, f := range fetches {
		groups[i] = f.group
	}
	var stored [][]metadata.CommittedOffset
	err := s.ask(ctx, func(ctx context.Context) (err error) {
		stored, err = s.offsets.FetchOffsets(ctx, groups)
		return err
	})
	for i, f := range fetches {
		switch {
		case l == nil || !l.Held():
			f.call.complete(nil, kerr.NotCoordinator)
		case err != nil:
			f.call.complete(nil, kerr.CoordinatorNotAvailable)
		default:
			f.call.complete(f.answer(stored[i]))
		}
	}
	if err != nil && ctx.Err() == nil {
		s.log.Warn("cannot read the offsets of groups", "groups", len(groups), "error", err)
	}
}

// ask bounds a request to the store.
func (s *shard) ask(ctx context.Context, request func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.StoreTimeout)
	defer cancel()
	return request(ctx)
}
