package metadatatest

import (
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// aged returns an object's id as it would be, had it been made so much earlier.
func aged(o metadata.CommitObject, by time.Duration) uuid.UUID {
	id := metadata.FirstObjectID(o.CreatedAt() - by.Milliseconds())
	copy(id[6:], o.ID[6:])
	return id
}

// age makes an object that was committed so much older.
func (e *env) age(o *metadata.CommitObject, by time.Duration) {
	e.Helper()
	older := aged(*o, by)
	for _, table := range []string{"objects", "extents"} {
		e.ok(e.exec(e.ctx, `UPDATE `+table+` SET object_id = $1 WHERE object_id = $2`, older[:], o.ID[:]))
	}
	o.ID = older
}

// ageProducer makes a producer's last write so much older.
func (e *env) ageProducer(pr producer, by time.Duration) {
	e.Helper()
	e.ok(e.exec(e.ctx, `UPDATE producers SET updated_at = updated_at - $1 WHERE producer_id = $2`, by.Milliseconds(), pr.id))
}

// prunes prunes and checks how many rows that changed.
func (e *env) prunes(want int64) {
	e.Helper()
	e.equal("rows pruned", must(e.store.Prune(e.ctx))(e), want)
}

// drain prunes until nothing is left to do.
func (e *env) drain() {
	e.Helper()
	for must(e.store.Prune(e.ctx))(e) > 0 {
	}
}

// little is enough to be on one side of a limit.
const little = time.Minute

var pruneTests = []test{
	{"nothing is left to do after enough calls", func(e *env) {
		e.drain() // what other tests have deleted
		e.prunes(0)
	}},
	{"an object whose id is too old is refused whole, and stays refused", func(e *env) {
		p := e.ledTopic(1)[0]
		o, young := object(batch(p, 1), batch(p, 1)), object(batch(p, 1))
		o.ID = aged(o, metadata.CommitMaxAge+little)
		for range 2 {
			r := e.commitAs(e.agent, o, young)
			e.equal("outcomes", outcomes(r[0]), []metadata.CommitOutcome{metadata.ObjectClaimed, metadata.ObjectClaimed})
			e.equal("offsets", offsets(r[0]), []int64{-1, -1})
			e.wantOutcome(r[1][0], metadata.Committed, 0)
		}
		e.equal("high watermark", e.high(p.Key), int64(1))
	}},
	{"an agent's clock may be behind by less than that, and ahead by any time", func(e *env) {
		p := e.ledTopic(1)[0]
		for i, by := range []time.Duration{metadata.CommitMaxAge - little, -10 * metadata.CommitRetention} {
			o := object(batch(p, 1))
			o.ID = aged(o, by)
			for range 2 {
				e.wantOutcome(e.commitAs(e.agent, o)[0][0], metadata.Committed, int64(i))
			}
		}
		e.prunes(0)
	}},
	{"an answer is kept for the time of its retention", func(e *env) {
		p := e.ledTopic(1)[0]
		one, two := object(batch(p, 1)), inline(batch(p, 1))
		first := e.commitAs(e.agent, one, two)
		e.age(&one, metadata.CommitRetention-little)
		e.age(&two, metadata.CommitRetention-little)
		e.prunes(0)
		e.equal("results", e.commitAs(e.agent, one, two), first)
	}},
	{"an inline commit that was pruned is not made again", func(e *env) {
		p := e.ledTopic(1)[0]
		o := inline(batch(p, 2))
		e.commitAs(e.agent, o)
		e.age(&o, metadata.CommitRetention+little)
		e.prunes(1)
		e.wantOutcome(e.commitAs(e.agent, o)[0][0], metadata.ObjectClaimed, -1)
		e.equal("high watermark", e.high(p.Key), int64(2))
		e.equal("extents", len(e.readFrom(p.Key, 0, 1e9).Extents), 1)
		e.prunes(1) // the refusal
		e.prunes(0)
	}},
	{"an uploaded object stays live when its answer is pruned, and is not committed again", func(e *env) {
		p := e.ledTopic(1)[0]
		o := object(batch(p, 2))
		e.commitAs(e.agent, o)
		e.age(&o, metadata.CommitRetention+little)
		e.prunes(1)
		e.prunes(0)
		e.equal("claimed", len(must(e.store.ClaimOrphans(e.ctx, []uuid.UUID{o.ID}))(e)), 0)
		e.wantOutcome(e.commitAs(e.agent, o)[0][0], metadata.ObjectClaimed, -1)
		extents := e.readFrom(p.Key, 0, 1e9).Extents
		e.equal("extents", len(extents), 1)
		e.equal("its object", []any{extents[0].Object, extents[0].ObjectSize, extents[0].EndOffset}, []any{o.ID, o.Size, int64(2)})
		must(e.store.Prune(e.ctx))(e)
	}},
	{"a claimed name stays claimed", func(e *env) {
		o := object()
		o.ID = aged(o, 100*metadata.CommitRetention)
		claim := func() int { return len(must(e.store.ClaimOrphans(e.ctx, []uuid.UUID{o.ID}))(e)) }
		e.equal("claimed", claim(), 1)
		e.prunes(0)
		e.equal("claimed", claim(), 1)
	}},
	{"a producer is forgotten after its expiry, and then believed if its id is as old", func(e *env) {
		p, pr := e.ledTopic(1)[0], e.newProducer()
		e.commit(pr.batch(p, 0, 3))
		e.ageProducer(pr, metadata.ProducerExpiry-little)
		e.prunes(0)
		e.wantOutcome(e.commit(pr.batch(p, 0, 3))[0], metadata.Duplicate, 0)
		e.ageProducer(pr, 2*little)
		e.prunes(1)
		e.wantOutcome(e.commit(pr.batch(p, 3, 1))[0], metadata.OutOfOrderSequence, -1)
		e.ok(e.exec(e.ctx, `UPDATE producer_id_blocks SET allocated_at = allocated_at - $1 WHERE first_id = $2`,
			(metadata.ProducerExpiry + little).Milliseconds(), pr.id))
		e.wantOutcome(e.commit(pr.batch(p, 3, 1))[0], metadata.Committed, 3)
	}},
	{"a producer that writes again is not forgotten", func(e *env) {
		p, pr := e.ledTopic(1)[0], e.newProducer()
		e.commit(pr.batch(p, 0, 3))
		e.ageProducer(pr, metadata.ProducerExpiry+little)
		e.commit(pr.batch(p, 3, 1))
		e.prunes(0)
		e.wantOutcome(e.commit(pr.batch(p, 0, 3))[0], metadata.Duplicate, 0)
	}},
	{"agents that prune at once remove each row once", func(e *env) {
		const agents, commits = 4, 40
		p := e.ledTopic(1)[0]
		for range commits {
			o := inline(batch(p, 1))
			e.commitAs(e.agent, o)
			e.age(&o, metadata.CommitRetention+little)
		}
		var pruned atomic.Int64
		e.together(agents, func(int) error {
			rows, err := e.store.Prune(e.ctx)
			pruned.Add(rows)
			return err
		})
		e.equal("rows pruned", pruned.Load(), int64(commits))
		e.equal("watermarks", must(e.store.Watermarks(e.ctx, []lease.Key{p.Key}))(e)[0].High, int64(commits))
	}},
	{"a retry that meets its pruning gets its first answer or none, and is not made again", func(e *env) {
		p := e.ledTopic(1)[0]
		for n := range int64(40) {
			o := inline(batch(p, 1))
			first := e.commitAs(e.agent, o)[0]
			e.age(&o, metadata.CommitRetention+little)
			e.together(2, func(agent int) error {
				if agent == 0 {
					_, err := e.store.Prune(e.ctx)
					return err
				}
				r, err := e.store.Commit(e.ctx, &metadata.Commit{AgentID: e.agent, Objects: []metadata.CommitObject{o}})
				if err == nil && r[0][0] != first[0] {
					e.wantOutcome(r[0][0], metadata.ObjectClaimed, -1)
				}
				return err
			})
			e.equal("high watermark", e.high(p.Key), n+1)
		}
		must(e.store.Prune(e.ctx))(e)
	}},
}
