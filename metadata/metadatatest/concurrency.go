package metadatatest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment"
)

// together runs fn n times at once and ends the test if one fails.
func (e *env) together(n int, fn func(n int) error) {
	e.Helper()
	var g errgroup.Group
	for i := range n {
		g.Go(func() error { return fn(i) })
	}
	e.ok(g.Wait())
}

// run is the offsets that a commit got.
type run struct{ base, end int64 }

// tiles reports whether the runs are dense from 0 on and returns their end.
func tiles(runs []run) (int64, error) {
	slices.SortFunc(runs, func(a, b run) int { return int(a.base - b.base) })
	at := int64(0)
	for _, r := range runs {
		if r.base != at {
			return at, fmt.Errorf("offsets [%d, %d) after %d", r.base, r.end, at)
		}
		at = r.end
	}
	return at, nil
}

var concurrencyTests = []test{
	{"commits to the same partitions at once get dense offsets of their own", func(e *env) {
		const writers, commits, partitions = 8, 25, 3
		terms := e.ledTopic(partitions)
		var (
			mu   sync.Mutex
			runs = make(map[lease.Key][]run)
		)
		e.together(writers, func(n int) error {
			rnd := rand.New(rand.NewPCG(1, uint64(n)))
			for range commits {
				var batches []metadata.CommitBatch
				for _, p := range rnd.Perm(partitions) { // locks are taken in one order all the same
					batches = append(batches, batch(terms[p], 1+rnd.Int32N(5)))
				}
				results, err := e.store.Commit(e.ctx, &metadata.Commit{AgentID: e.agent, Objects: []metadata.CommitObject{object(batches...)}})
				if err != nil {
					return err
				}
				mu.Lock()
				for i, r := range results[0] {
					b := &batches[i]
					runs[b.Key] = append(runs[b.Key], run{r.BaseOffset, r.BaseOffset + int64(b.Records)})
				}
				mu.Unlock()
			}
			return nil
		})
		for k, of := range runs {
			end, err := tiles(of)
			e.ok(err)
			e.equal("high watermark", e.high(k), end)
		}
		e.ok(Audit(e.ctx, e.store))
	}},
	{"one object that is committed many times at once is committed once", func(e *env) {
		p := e.ledTopic(1)[0]
		for range 5 {
			o := object(batch(p, 3), batch(p, 2))
			results := make([][]metadata.CommitResult, 6)
			e.together(len(results), func(n int) error {
				r, err := e.store.Commit(e.ctx, &metadata.Commit{AgentID: e.agent, Objects: []metadata.CommitObject{o}})
				if err == nil {
					results[n] = r[0]
				}
				return err
			})
			for _, r := range results[1:] {
				e.equal("results", r, results[0])
			}
		}
		e.equal("high watermark", e.high(p.Key), int64(25))
	}},
	{"of a commit and a claim of its object one wins", func(e *env) {
		p := e.ledTopic(1)[0]
		high := int64(0)
		for range 20 {
			o := object(batch(p, 1))
			var (
				outcome metadata.CommitOutcome
				claimed []segment.ID
			)
			e.together(2, func(n int) (err error) {
				if n == 0 {
					claimed, err = e.store.ClaimOrphans(e.ctx, []segment.ID{o.ID})
					return err
				}
				r, err := e.store.Commit(e.ctx, &metadata.Commit{AgentID: e.agent, Objects: []metadata.CommitObject{o}})
				if err == nil {
					outcome = r[0][0].Outcome
				}
				return err
			})
			switch {
			case outcome == metadata.Committed && len(claimed) == 0:
				high++
			case outcome == metadata.ObjectClaimed && len(claimed) == 1:
			default:
				e.Fatalf("commit's outcome %d, claimed %v", outcome, claimed)
			}
		}
		e.equal("high watermark", e.high(p.Key), high)
	}},
	{"of a commit of several parts and a claim of their names one wins whole", func(e *env) {
		p := e.ledTopic(1)[0]
		high := int64(0)
		for range 20 {
			var (
				c       = metadata.Commit{AgentID: e.agent}
				ids     []segment.ID
				results [][]metadata.CommitResult
				claimed []segment.ID
			)
			for n := range 8 {
				o := object(batch(p, 1))
				o.ID = segment.Part(o.ID, n)
				c.Objects, ids = append(c.Objects, o), append(ids, o.ID)
			}
			slices.Reverse(ids)
			e.together(2, func(n int) (err error) {
				if n == 0 {
					claimed, err = e.store.ClaimOrphans(e.ctx, ids)
				} else {
					results, err = e.store.Commit(e.ctx, &c)
				}
				return err
			})
			want := metadata.ObjectClaimed
			if len(claimed) == 0 {
				want, high = metadata.Committed, high+8
			}
			for _, r := range results {
				if r[0].Outcome != want || len(claimed)%len(ids) != 0 {
					e.Fatalf("outcomes are %v, %d of 8 were claimed", results, len(claimed))
				}
			}
		}
		e.equal("high watermark", e.high(p.Key), high)
	}},
	{"agents that take partitions from each other never write at once", func(e *env) {
		const agents, rounds, partitions = 4, 30, 2
		ks := keys(e.newTopic(partitions))
		var (
			mu        sync.Mutex
			runs      = make(map[lease.Key][]run)
			accepted  atomic.Int64
			leaderOf  = make(map[lease.Term]string)
			agentName = func(n int) string { return fmt.Sprintf("%s-%d", e.agent, n) }
		)
		e.together(agents, func(n int) error {
			agent := agentName(n)
			for range rounds {
				// Leases of no time: whoever asks next may have them.
				acquired, err := e.store.Acquire(e.ctx, agent, 0, ks)
				if err != nil {
					return err
				}
				var batches []metadata.CommitBatch
				for _, a := range acquired {
					if a.Err == nil {
						batches = append(batches, batch(a.Term, 1))
						mu.Lock()
						if other, taken := leaderOf[lease.Term{Key: a.Term.Key, LeaderEpoch: a.Term.LeaderEpoch}]; taken {
							e.Errorf("leader epoch %d was given to %s and %s", a.Term.LeaderEpoch, other, agent)
						}
						leaderOf[lease.Term{Key: a.Term.Key, LeaderEpoch: a.Term.LeaderEpoch}] = agent
						mu.Unlock()
					}
				}
				results, err := e.store.Commit(e.ctx, &metadata.Commit{AgentID: agent, Objects: []metadata.CommitObject{object(batches...)}})
				if err != nil {
					return err
				}
				mu.Lock()
				for i, r := range results[0] {
					if r.Outcome == metadata.Committed {
						accepted.Add(1)
						runs[batches[i].Key] = append(runs[batches[i].Key], run{r.BaseOffset, r.BaseOffset + 1})
					} else if r.Outcome != metadata.Fenced {
						e.Errorf("outcome %d", r.Outcome)
					}
				}
				mu.Unlock()
			}
			return nil
		})
		if accepted.Load() == 0 {
			e.Error("nothing was accepted")
		}
		for k, of := range runs {
			end, err := tiles(of)
			e.ok(err)
			e.equal("high watermark", e.high(k), end)
		}
		e.ok(Audit(e.ctx, e.store))
	}},
	{"deleting a topic waits for commits, and those after it find nothing", func(e *env) {
		for range 5 {
			topic := e.newTopic(2)
			terms := e.lead(e.agent, ttl, keys(topic)...)
			e.together(4, func(n int) error {
				if n == 0 {
					return e.store.DeleteTopic(e.ctx, topic.ID)
				}
				for range 5 {
					r, err := e.store.Commit(e.ctx, &metadata.Commit{AgentID: e.agent, Objects: []metadata.CommitObject{
						object(batch(terms[1], 1), batch(terms[0], 1)),
					}})
					if err != nil {
						return err
					}
					if o := outcomes(r[0]); o[0] != o[1] || (o[0] != metadata.Committed && o[0] != metadata.UnknownPartition) {
						return fmt.Errorf("outcomes %v", o)
					}
				}
				return nil
			})
			e.equal("sizes", len(must(e.store.LogSizes(e.ctx, []segment.ID{topic.ID}))(e)), 0)
		}
	}},
}
