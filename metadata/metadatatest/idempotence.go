package metadatatest

import (
	"math"
	"slices"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// producer is an idempotent producer of the tests.
type producer struct {
	id    int64
	epoch int16
}

// newProducer allocates a producer id.
func (e *env) newProducer() producer {
	e.Helper()
	return producer{id: must(e.store.AllocateProducerIDs(e.ctx, 1))(e)}
}

// batch is one of the producer's batches.
func (p producer) batch(of lease.Term, sequence, records int32) metadata.CommitBatch {
	b := batch(of, records)
	b.ProducerID, b.ProducerEpoch, b.BaseSequence = p.id, p.epoch, sequence
	return b
}

var idempotenceTests = []test{
	{"sequences that follow on one another are accepted, in one commit or several", func(e *env) {
		p, pr := e.ledTopic(1)[0], e.newProducer()
		r := e.commit(pr.batch(p, 0, 3), pr.batch(p, 3, 2))
		e.equal("offsets", offsets(r), []int64{0, 3})
		r2 := e.commitAs(e.agent, object(pr.batch(p, 5, 1)), object(pr.batch(p, 6, 1)))
		e.wantOutcome(r2[0][0], metadata.Committed, 5)
		e.wantOutcome(r2[1][0], metadata.Committed, 6)
	}},
	{"each of the last five batches is a duplicate, with its first offset", func(e *env) {
		p, pr := e.ledTopic(1)[0], e.newProducer()
		for n := range int32(7) {
			e.wantOutcome(e.commit(pr.batch(p, 2*n, 2))[0], metadata.Committed, int64(2*n))
		}
		for n := range int32(5) {
			n += 2
			e.wantOutcome(e.commit(pr.batch(p, 2*n, 2))[0], metadata.Duplicate, int64(2*n))
		}
		for n := range int32(2) {
			e.wantOutcome(e.commit(pr.batch(p, 2*n, 2))[0], metadata.OutOfOrderSequence, -1)
		}
		e.equal("high watermark", e.high(p.Key), int64(14))
	}},
	{"a duplicate within one commit is one", func(e *env) {
		p, pr := e.ledTopic(1)[0], e.newProducer()
		r := e.commit(pr.batch(p, 0, 2), pr.batch(p, 0, 2), pr.batch(p, 2, 1))
		e.equal("outcomes", outcomes(r), []metadata.CommitOutcome{metadata.Committed, metadata.Duplicate, metadata.Committed})
		e.equal("offsets", offsets(r), []int64{0, 0, 2})
	}},
	{"a duplicate has the append time of the original", func(e *env) {
		p, pr := e.ledTopic(1)[0], e.newProducer()
		b := pr.batch(p, 0, 1)
		b.LogAppendTime = true
		first := e.commit(b)[0]
		again := e.commit(b)[0]
		e.wantOutcome(again, metadata.Duplicate, 0)
		e.equal("append time", again.AppendTime, first.AppendTime)
	}},
	{"a batch that covers other sequences than the remembered ones is no duplicate", func(e *env) {
		p, pr := e.ledTopic(1)[0], e.newProducer()
		e.commit(pr.batch(p, 0, 4))
		e.wantOutcome(e.commit(pr.batch(p, 0, 3))[0], metadata.OutOfOrderSequence, -1)
		e.wantOutcome(e.commit(pr.batch(p, 2, 4))[0], metadata.OutOfOrderSequence, -1)
	}},
	{"a gap is refused, and so is what follows on it", func(e *env) {
		p, pr := e.ledTopic(1)[0], e.newProducer()
		r := e.commit(pr.batch(p, 0, 1), pr.batch(p, 2, 1), pr.batch(p, 3, 1), pr.batch(p, 1, 1))
		e.equal("outcomes", outcomes(r), []metadata.CommitOutcome{
			metadata.Committed, metadata.OutOfOrderSequence, metadata.OutOfOrderSequence, metadata.Committed,
		})
	}},
	{"sequences go on at 0 after 2^31-1", func(e *env) {
		topic, pr := e.newTopic(1), e.newProducer()
		p := e.lead(e.agent, ttl, keys(topic)...)[0]
		e.commit(pr.batch(p, 0, math.MaxInt32)) // 0 … 2^31-2
		e.wantOutcome(e.commit(pr.batch(p, math.MaxInt32, 3))[0], metadata.Committed, math.MaxInt32)
		e.wantOutcome(e.commit(pr.batch(p, math.MaxInt32, 3))[0], metadata.Duplicate, math.MaxInt32)
		e.wantOutcome(e.commit(pr.batch(p, 2, 1))[0], metadata.Committed, math.MaxInt32+3)
	}},
	{"a higher epoch begins at sequence 0 and fences the lower", func(e *env) {
		p, pr := e.ledTopic(1)[0], e.newProducer()
		e.commit(pr.batch(p, 0, 5))
		next := producer{pr.id, pr.epoch + 1}
		e.wantOutcome(e.commit(next.batch(p, 5, 1))[0], metadata.OutOfOrderSequence, -1)
		e.wantOutcome(e.commit(next.batch(p, 0, 1))[0], metadata.Committed, 5)
		e.wantOutcome(e.commit(pr.batch(p, 5, 1))[0], metadata.InvalidProducerEpoch, -1)
		e.wantOutcome(e.commit(pr.batch(p, 0, 5))[0], metadata.InvalidProducerEpoch, -1)
		e.wantOutcome(e.commit(next.batch(p, 1, 1))[0], metadata.Committed, 6)
	}},
	{"producers and partitions do not share sequences", func(e *env) {
		terms := e.ledTopic(2)
		one, two := e.newProducer(), e.newProducer()
		r := e.commitAs(e.agent,
			object(one.batch(terms[0], 0, 1), two.batch(terms[0], 0, 1), one.batch(terms[1], 0, 1)),
			object(two.batch(terms[0], 1, 1), one.batch(terms[0], 1, 1)))
		e.equal("offsets", offsets(slices.Concat(r...)), []int64{0, 1, 0, 2, 3})
	}},
	{"the state survives a change of leaders", func(e *env) {
		p, pr := e.ledTopic(1)[0], e.newProducer()
		e.commit(pr.batch(p, 0, 2), pr.batch(p, 2, 2))
		other := "other-" + e.agent
		q := e.takeOver(p, e.agent, other)
		r := e.commitAs(other, object(pr.batch(q, 2, 2), pr.batch(q, 4, 1), pr.batch(q, 6, 1)))[0]
		e.equal("outcomes", outcomes(r), []metadata.CommitOutcome{metadata.Duplicate, metadata.Committed, metadata.OutOfOrderSequence})
		e.equal("offsets", offsets(r), []int64{2, 4, -1})
	}},
	{"a fenced batch leaves no trace in the state", func(e *env) {
		p, pr := e.ledTopic(1)[0], e.newProducer()
		q := e.lead(e.agent, ttl, p.Key)[0]
		e.wantOutcome(e.commit(pr.batch(p, 0, 1))[0], metadata.Fenced, -1)
		e.wantOutcome(e.commit(pr.batch(q, 0, 1))[0], metadata.Committed, 0)
	}},
	{"an unknown producer that does not begin at 0 has lost its predecessor", func(e *env) {
		p, pr := e.ledTopic(1)[0], e.newProducer()
		e.wantOutcome(e.commit(pr.batch(p, 1, 1))[0], metadata.OutOfOrderSequence, -1)
		e.wantOutcome(e.commit(pr.batch(p, 2, 1))[0], metadata.OutOfOrderSequence, -1)
		e.wantOutcome(e.commit(pr.batch(p, 0, 1))[0], metadata.Committed, 0)
	}},
	{"an id that was never given out has no past to be believed", func(e *env) {
		p := e.ledTopic(1)[0]
		e.wantOutcome(e.commit(producer{id: math.MaxInt64}.batch(p, 1, 1))[0], metadata.OutOfOrderSequence, -1)
		e.wantOutcome(e.commit(producer{id: math.MaxInt64}.batch(p, 0, 1))[0], metadata.Committed, 0)
	}},
	{"an unknown producer that is older than the topic goes on where it was", func(e *env) {
		pr := e.newProducer()
		for { // until the store's clock has moved on since the allocation
			p := e.ledTopic(1)[0]
			r := e.commit(pr.batch(p, 7, 2), pr.batch(p, 9, 1))
			if r[0].Outcome == metadata.OutOfOrderSequence && e.ctx.Err() == nil {
				continue
			}
			e.equal("offsets", offsets(r), []int64{0, 2})
			e.wantOutcome(e.commit(pr.batch(p, 11, 1))[0], metadata.OutOfOrderSequence, -1)
			return
		}
	}},
}

var producerTests = []test{
	{"blocks of producer ids do not overlap", func(e *env) {
		first := must(e.store.AllocateProducerIDs(e.ctx, 1000))(e)
		second := must(e.store.AllocateProducerIDs(e.ctx, 1))(e)
		third := must(e.store.AllocateProducerIDs(e.ctx, 10))(e)
		if first < 0 || second < first+1000 || third < second+1 {
			e.Errorf("blocks begin at %d, %d, %d", first, second, third)
		}
	}},
	{"agents that allocate at once get blocks of their own", func(e *env) {
		const agents, blocks, size = 8, 10, 7
		firsts := make([][]int64, agents)
		e.together(agents, func(n int) error {
			for range blocks {
				first, err := e.store.AllocateProducerIDs(e.ctx, size)
				if err != nil {
					return err
				}
				firsts[n] = append(firsts[n], first)
			}
			return nil
		})
		given := make(map[int64]bool)
		for _, of := range firsts {
			for _, first := range of {
				for id := first; id < first+size; id++ {
					if given[id] {
						e.Fatalf("producer id %d was given out twice", id)
					}
					given[id] = true
				}
			}
		}
	}},
}

var objectTests = []test{
	{"a claim takes free names, and those that it took before", func(e *env) {
		free, taken := uuid.New(), uuid.New()
		e.equal("claimed", len(must(e.store.ClaimOrphans(e.ctx, []uuid.UUID{taken}))(e)), 1)
		got := must(e.store.ClaimOrphans(e.ctx, []uuid.UUID{free, taken, free}))(e)
		claimed := map[uuid.UUID]bool{}
		for _, id := range got {
			claimed[id] = true
		}
		e.equal("claimed", claimed, map[uuid.UUID]bool{free: true, taken: true})
	}},
	{"a claim leaves committed objects alone, accepted or refused", func(e *env) {
		p := e.ledTopic(1)[0]
		stale := batch(p, 1)
		stale.LeaderEpoch--
		live, dead := object(batch(p, 1)), object(stale)
		e.commitAs(e.agent, live, dead)
		e.equal("claimed", len(must(e.store.ClaimOrphans(e.ctx, []uuid.UUID{live.ID, dead.ID}))(e)), 0)
		e.wantOutcome(e.commitAs(e.agent, live)[0][0], metadata.Committed, 0)
	}},
	{"a claim of nothing is nothing", func(e *env) {
		e.equal("claimed", len(must(e.store.ClaimOrphans(e.ctx, nil))(e)), 0)
	}},
}
