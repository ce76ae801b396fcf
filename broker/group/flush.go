package group

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// fail answers effects that wait for the store.
func fail(effects []effect, err error) {
	for _, e := range effects {
		switch e := e.(type) {
		case reply:
			e.call.complete(nil, err)
		case storeCommit:
			e.call.complete(nil, err)
		case storeForget:
			if e.call != nil {
				e.call.complete(nil, err)
			}
		case storeFetch:
			e.call.complete(nil, err)
		}
	}
}

// batch is what one write brings to the store, with what is answered then.
type batch struct {
	write   metadata.GroupWrite // but for the records
	records map[string]any      // to be stored, the last one of each group
	stored  []string            // the groups of all storeGroup effects
	waiting []effect            // that are answered
	expired int                 // positions that nobody asked to forget
}

// add takes an effect, but for one that must not come before what the batch has
// already: a write forgets before it stores.
func (b *batch) add(e effect) bool {
	committed := len(b.write.Commit) > 0
	switch e := e.(type) {
	case storeGroup:
		if e.deleted && committed {
			return false
		}
		if e.deleted {
			delete(b.records, e.group)
			b.write.Delete = append(b.write.Delete, e.group)
		} else {
			if b.records == nil {
				b.records = make(map[string]any)
			}
			b.records[e.group] = e.record
		}
		b.stored = append(b.stored, e.group)
		return true
	case storeForget:
		if committed {
			return false
		}
		b.write.DeleteOffsets = append(b.write.DeleteOffsets, e.forget)
		if e.call == nil {
			b.expired += len(e.forget.Keys)
			return true
		}
	case storeCommit:
		b.write.Commit = append(b.write.Commit, e.commit)
	}
	b.waiting = append(b.waiting, e)
	return true
}

// empty says that there is nothing to write.
func (b *batch) empty() bool {
	return len(b.stored) == 0 && len(b.write.Commit) == 0 && len(b.write.DeleteOffsets) == 0
}

// answer answers what waits for the write, which was made.
func (b *batch) answer() {
	for _, e := range b.waiting {
		switch e := e.(type) {
		case reply:
			e.call.complete(e.answer, e.err)
		case storeCommit:
			e.call.complete(e.answer, nil)
		case storeForget:
			e.call.complete(e.answer, nil)
		}
	}
}

// flush asks the store for all that is queued: the changes in their order, in as
// few writes as this allows, and then the fetches, which see them.
func (s *shard) flush(ctx context.Context) {
	s.mu.Lock()
	l, queue := s.lease, s.queue
	s.queue = nil
	s.mu.Unlock()
	if l == nil {
		return // what is queued without a lease was answered
	}
	var (
		b       batch
		fetches []storeFetch
		old     []storeOld
	)
	for _, e := range queue {
		switch e := e.(type) {
		case storeFetch:
			fetches = append(fetches, e)
			continue
		case storeOld:
			old = append(old, e)
			continue
		}
		if !b.add(e) {
			l = s.write(ctx, l, &b)
			b = batch{}
			b.add(e)
		}
	}
	l = s.write(ctx, l, &b)
	if len(fetches) > 0 {
		s.fetch(ctx, l, fetches)
	}
	for _, o := range old {
		s.expire(ctx, l, o.groups)
	}
}

// write makes one write. It returns the lease with which to go on, nil if it is
// lost.
//
// A record that can't be stored, for as long as a request may take, ends the shard:
// its machine is ahead of the store, of which nobody was told yet. What the store
// has is what the next coordinator goes on with.
func (s *shard) write(ctx context.Context, l *lease.Lease, b *batch) *lease.Lease {
	switch {
	case l == nil:
		fail(b.waiting, kerr.NotCoordinator)
		return nil
	case b.empty(): // what waited is there already
		b.answer()
		return l
	}
	for _, id := range slices.Sorted(maps.Keys(b.records)) {
		b.write.Save = append(b.write.Save, metadata.GroupRecord{Group: id, Record: encodeRecord(b.records[id])})
	}
	start := s.now()
	l, err := s.change(ctx, l, &b.write, len(b.stored) > 0)
	s.metrics.wrote(b, s.now()-start, err)
	if err != nil {
		if l != nil && len(b.stored) > 0 && ctx.Err() == nil {
			s.giveUp(l)
			l = nil
		}
		fail(b.waiting, err)
		return l
	}
	s.mu.Lock()
	if s.lease == l && s.machine != nil {
		s.machine.stored(b.stored)
	}
	s.mu.Unlock()
	b.answer()
	return l
}

// changeAttempts is how often a change is sent whose outcome stays unknown.
const changeAttempts = 3

// unavailableDelay is the time between two attempts while the store is away.
const unavailableDelay = 100 * time.Millisecond

// change makes a change under the lease, in a new term each time that its
// outcome is unknown. With persist it is tried again while the store is away, for
// as long as a request to it may take. It returns the lease with which to go on,
// nil if it is lost. Errors are *kerr.Error.
func (s *shard) change(ctx context.Context, l *lease.Lease, w *metadata.GroupWrite, persist bool) (*lease.Lease, error) {
	end := s.now() + s.cfg.StoreTimeout
	for attempt := 1; l != nil; attempt++ {
		err := s.ask(ctx, s.cfg.StoreTimeout, func(ctx context.Context) error {
			return s.groups.WriteGroups(ctx, s.agentID, l.Term(), w)
		})
		switch {
		case err == nil:
			return l, nil
		case ctx.Err() != nil:
			return l, kerr.CoordinatorNotAvailable // the agent ends
		case errors.Is(err, metadata.ErrFenced):
			s.leases.Lose(l, lease.ErrFenced)
			s.lost(l)
			return nil, kerr.NotCoordinator
		case persist && errors.Is(err, metadata.ErrUnavailable) && l.Held() && s.now() < end:
			attempt--
			pause(ctx, unavailableDelay)
			continue
		case !errors.Is(err, metadata.ErrUnknownOutcome) && !errors.Is(err, context.DeadlineExceeded):
			s.log.Warn("cannot change the groups of a coordinator's shard", "shard", s.key.Partition, "error", err)
			return l, kerr.CoordinatorNotAvailable
		case attempt == changeAttempts:
			s.log.Warn("the outcome of a change of groups stays unknown", "shard", s.key.Partition, "error", err)
			s.giveUp(l)
			return nil, kerr.NotCoordinator
		}
		l = s.succeed(ctx, l, err)
	}
	return nil, kerr.NotCoordinator
}

// giveUp ends a shard whose groups can't be stored.
func (s *shard) giveUp(l *lease.Lease) {
	s.leases.Lose(l, errUncertain)
	s.lost(l)
}

// fetch reads the offsets of all groups that wait, in one statement, and those of
// a group once: its members ask all at the same time. If the lease was lost
// meanwhile, clients are sent on: its next holder may have accepted commits that
// were not in the store yet.
func (s *shard) fetch(ctx context.Context, l *lease.Lease, fetches []storeFetch) {
	var groups []string
	place := make(map[string]int)
	for _, f := range fetches {
		if _, known := place[f.group]; !known {
			place[f.group] = len(groups)
			groups = append(groups, f.group)
		}
	}
	var stored [][]metadata.CommittedOffset
	err := s.ask(ctx, s.cfg.StoreTimeout, func(ctx context.Context) (err error) {
		stored, err = s.groups.FetchOffsets(ctx, groups)
		return err
	})
	for _, f := range fetches {
		switch {
		case l == nil || !l.Held():
			f.call.complete(nil, kerr.NotCoordinator)
		case err != nil:
			f.call.complete(nil, kerr.CoordinatorNotAvailable)
		default:
			f.call.complete(stored[place[f.group]], nil)
		}
	}
	if err != nil && ctx.Err() == nil {
		s.log.Warn("cannot read the offsets of groups", "groups", len(groups), "error", err)
	}
}

// expire asks for the positions of groups that may have expired, and lets the
// machine decide.
func (s *shard) expire(ctx context.Context, l *lease.Lease, groups []string) {
	if l == nil {
		return
	}
	var old []metadata.OldOffsets
	err := s.ask(ctx, s.cfg.StoreTimeout, func(ctx context.Context) (err error) {
		old, err = s.groups.OldOffsets(ctx, groups, s.cfg.OffsetsRetention)
		return err
	})
	if err != nil {
		if ctx.Err() == nil {
			s.log.Warn("cannot look for expired offsets", "groups", len(groups), "error", err)
		}
		return // there is a next time
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == l && l.Held() {
		s.apply(s.machine.expireOffsets(s.now(), groups, old))
	}
}

// ask bounds a request to the store.
func (s *shard) ask(ctx context.Context, timeout time.Duration, request func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return request(ctx)
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
