package ingesttest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment"
)

// Store is the fenced commit, leases and reading of extents in memory, by the
// rules of package metadata. Every partition that is asked for exists, but for
// those of negative numbers. It holds no lock while it waits for anything, so
// that it works in a synctest bubble.
type Store struct {
	// Old says that every partition is older than all producers, so that one
	// that is not known there begins at sequence 0. Otherwise it is believed, as
	// one that was forgotten. To be set before the store is used.
	Old bool

	mu      sync.Mutex
	parts   map[lease.Key]*partition
	results map[segment.ID][]metadata.CommitResult
	claimed map[segment.ID]bool
	deleted map[lease.Key]bool
}

type partition struct {
	term      lease.Term
	agent     string
	expiry    time.Time
	given     bool // handed over, and not acquired since: that goes on in the same leader epoch
	high      int64
	extents   []metadata.Extent
	producers map[int64]*metadata.ProducerState
}

// NewStore returns an empty store.
func NewStore() *Store {
	return &Store{
		parts:   make(map[lease.Key]*partition),
		results: make(map[segment.ID][]metadata.CommitResult),
		claimed: make(map[segment.ID]bool),
		deleted: make(map[lease.Key]bool),
	}
}

func (s *Store) part(k lease.Key) *partition {
	p := s.parts[k]
	if p == nil && !s.deleted[k] {
		p = &partition{term: lease.Term{Key: k}, producers: make(map[int64]*metadata.ProducerState)}
		s.parts[k] = p
	}
	return p
}

// DeletePartition deletes a partition.
func (s *Store) DeletePartition(k lease.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.parts, k)
	s.deleted[k] = true
}

// Claim claims an object's name, as a collector does. It reports false if the
// object was committed.
func (s *Store) Claim(id segment.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.claim(id)
}

func (s *Store) claim(id segment.ID) bool {
	if _, ok := s.results[id]; ok {
		return false
	}
	s.claimed[id] = true
	return true
}

// ClaimOrphans implements metadata.Objects.
func (s *Store) ClaimOrphans(_ context.Context, ids []segment.ID) (claimed []segment.ID, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if s.claim(id) {
			claimed = append(claimed, id)
		}
	}
	return claimed, nil
}

// Commit implements metadata.Committer.
func (s *Store) Commit(ctx context.Context, c *metadata.Commit) ([][]metadata.CommitResult, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", metadata.ErrUnavailable, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([][]metadata.CommitResult, len(c.Objects))
	for i := range c.Objects {
		out[i] = s.commitObject(c.AgentID, &c.Objects[i])
	}
	return out, nil
}

func (s *Store) commitObject(agent string, o *metadata.CommitObject) []metadata.CommitResult {
	if r, ok := s.results[o.ID]; ok {
		return r
	}
	results := make([]metadata.CommitResult, len(o.Batches))
	for i := range o.Batches {
		results[i] = s.commitBatch(agent, o, &o.Batches[i])
	}
	if s.claimed[o.ID] {
		return results
	}
	for _, e := range metadata.ExtentsOf(o, results) {
		p := s.part(e.Key)
		p.extents = append(p.extents, e.Extent)
	}
	s.results[o.ID] = results
	return results
}

func (s *Store) commitBatch(agent string, o *metadata.CommitObject, b *metadata.CommitBatch) metadata.CommitResult {
	refused := func(o metadata.CommitOutcome) metadata.CommitResult {
		return metadata.CommitResult{Outcome: o, BaseOffset: -1, AppendTime: -1, LogStartOffset: -1}
	}
	p := s.part(b.Key)
	switch {
	case s.claimed[o.ID]:
		return refused(metadata.ObjectClaimed)
	case p == nil:
		return refused(metadata.UnknownPartition)
	case p.agent != agent || p.term.LeaderEpoch != b.LeaderEpoch:
		return refused(metadata.Fenced)
	}
	r := metadata.CommitResult{BaseOffset: p.high, AppendTime: -1}
	if b.LogAppendTime {
		r.AppendTime = time.Now().UnixMilli()
	}
	if b.ProducerID >= 0 {
		state := p.producers[b.ProducerID]
		if state == nil {
			state = &metadata.ProducerState{}
			p.producers[b.ProducerID] = state
		}
		switch outcome, first := state.Check(b.ProducerEpoch, b.BaseSequence, b.Records, !s.Old); outcome {
		case metadata.Committed:
		case metadata.Duplicate:
			return metadata.CommitResult{Outcome: outcome, BaseOffset: first.BaseOffset, AppendTime: first.AppendTime}
		default:
			return refused(outcome)
		}
		state.Append(b.ProducerEpoch, metadata.ProducerEntry{
			BaseSequence: b.BaseSequence, LastSequence: metadata.LastSequence(b.BaseSequence, b.Records),
			BaseOffset: p.high, AppendTime: r.AppendTime,
		})
	}
	p.high += int64(b.Records)
	return r
}

// Acquire implements lease.Store.
func (s *Store) Acquire(_ context.Context, agent string, ttl time.Duration, keys []lease.Key) ([]lease.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	results := make([]lease.Result, len(keys))
	for i, k := range keys {
		p := s.part(k)
		switch {
		case p == nil:
			results[i].Err = lease.ErrUnknownKey
			continue
		case p.agent != "" && p.agent != agent && time.Now().Before(p.expiry):
			holder := lease.Holder{AgentID: p.agent, LeaderEpoch: p.term.LeaderEpoch, ExpiresIn: time.Until(p.expiry)}
			results[i].Err = &lease.HeldByOtherError{Key: k, Holder: holder}
			continue
		}
		p.term.Epoch++
		if !p.given || p.agent != agent {
			p.term.LeaderEpoch++
		}
		p.agent, p.expiry, p.given = agent, time.Now().Add(ttl), false
		results[i].Term = p.term
	}
	return results, nil
}

// Renew implements lease.Store.
func (s *Store) Renew(_ context.Context, agent string, ttl time.Duration, terms []lease.Term) (renewed []lease.Term, _ error) {
	s.eachLed(agent, terms, func(p *partition) {
		p.expiry = time.Now().Add(ttl)
		p.term.Epoch++
		renewed = append(renewed, p.term)
	})
	return renewed, nil
}

// Release implements lease.Store.
func (s *Store) Release(_ context.Context, agent string, terms []lease.Term) error {
	s.eachLed(agent, terms, func(p *partition) { p.agent = "" })
	return nil
}

// HandOver implements lease.Store.
func (s *Store) HandOver(_ context.Context, agent string, ttl time.Duration, moves []lease.Move) (given []lease.Term, _ error) {
	for _, m := range moves {
		s.eachLed(agent, []lease.Term{m.Term}, func(p *partition) {
			p.agent, p.expiry, p.given = m.To, time.Now().Add(ttl), true
			p.term.Epoch++
			p.term.LeaderEpoch++
			given = append(given, p.term)
		})
	}
	return given, nil
}

func (s *Store) eachLed(agent string, terms []lease.Term, do func(p *partition)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range terms {
		if p := s.parts[t.Key]; p != nil && p.agent == agent && p.term.LeaderEpoch == t.LeaderEpoch {
			do(p)
		}
	}
}

// Take gives the leadership of a partition to another agent at once.
func (s *Store) Take(agent string, k lease.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.part(k)
	p.agent, p.expiry, p.given = agent, time.Now().Add(time.Hour), false
	p.term.Epoch++
	p.term.LeaderEpoch++
}

// Read is metadata.Log's, without regard to MaxBytes.
func (s *Store) Read(_ context.Context, reqs []metadata.ReadRequest) ([]metadata.ReadResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	results := make([]metadata.ReadResult, len(reqs))
	for i, r := range reqs {
		p := s.part(r.Key)
		from, _ := slices.BinarySearchFunc(p.extents, r.Offset, func(e metadata.Extent, offset int64) int { return int(e.EndOffset - 1 - offset) })
		results[i].Watermarks = metadata.Watermarks{High: p.high, LastStable: p.high, LeaderEpoch: p.term.LeaderEpoch, LeaderID: p.agent}
		results[i].Extents = slices.Clone(p.extents[from:])
	}
	return results, nil
}
