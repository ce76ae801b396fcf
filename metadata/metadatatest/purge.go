package metadatatest

import (
	"errors"
	"sync/atomic"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// scattered commits so many extents to a partition, of a record each, all in one
// object.
func (e *env) scattered(p lease.Term, extents int) {
	e.Helper()
	batches := make([]metadata.CommitBatch, extents)
	for i := range batches {
		batches[i] = batch(p, 1)
	}
	o := object(batches...)
	for i := range o.Batches {
		o.Batches[i].Position += int64(i) // a gap in the bytes divides
	}
	o.Size += int64(extents)
	for _, r := range e.commitAs(e.agent, o)[0] {
		if r.Outcome != metadata.Committed {
			e.Fatalf("outcome %d", r.Outcome)
		}
	}
}

// wantPurged checks that nothing is left to be removed of partitions, also where
// nobody remembers that there may be.
func (e *env) wantPurged(of ...lease.Key) {
	e.Helper()
	e.drain()
	for _, k := range of {
		e.ok(e.exec(e.ctx, `INSERT INTO purges (topic_id, partition) VALUES ($1, $2)`, k.TopicID[:], k.Partition))
	}
	e.prunes(int64(len(of))) // those rows alone
}

// purgeTests count rows: the one in purges is one more for each partition.
var purgeTests = []test{
	{"a deleted topic leaves nothing behind when it was pruned", func(e *env) {
		e.drain()
		topic, other, pr, group := e.newTopic(3), e.newTopic(1), e.newProducer(), e.newGroup()
		terms := e.lead(e.agent, ttl, keys(topic)...)
		kept := e.lead(e.agent, ttl, keys(other)...)[0]
		e.commit(pr.batch(terms[0], 0, 5), pr.batch(terms[1], 0, 5), pr.batch(kept, 0, 5))
		for _, k := range []lease.Key{terms[0].Key, kept.Key} {
			e.commitAt(group, k, 3)
		}
		e.ok(e.store.DeleteTopic(e.ctx, topic.ID))
		e.prunes(2 + 2 + 3 + 1 + 3) // extents, producers, leader epochs, a position
		e.wantPurged(keys(topic)...)

		e.wantOutcome(e.commit(pr.batch(kept, 0, 5))[0], metadata.Duplicate, 0)
		e.equal("extents", bases(e.readFrom(kept.Key, 0, 1e9).Extents), []int64{0})
		e.equal("positions", e.positions(group), []metadata.CommittedOffset{{Key: kept.Key, Offset: 3, LeaderEpoch: -1}})
		e.equal("epoch", must(e.store.EpochEnds(e.ctx, []metadata.EpochRequest{{Key: kept.Key}}))(e)[0].EndOffset, int64(5))
	}},
	{"a large topic is removed in steps", func(e *env) {
		e.drain()
		topic := e.newTopic(1)
		p := e.lead(e.agent, ttl, keys(topic)...)[0]
		e.scattered(p, 2*metadata.PruneRows+1)
		e.ok(e.store.DeleteTopic(e.ctx, topic.ID))
		e.prunes(metadata.PruneRows + 1) // and the leader epoch
		e.prunes(metadata.PruneRows)
		e.prunes(1 + 1)
		e.wantPurged(p.Key)
	}},
	{"a topic of many partitions is removed", func(e *env) {
		e.drain()
		const partitions = 250
		topic := e.newTopic(partitions)
		e.ok(e.store.DeleteTopic(e.ctx, topic.ID))
		e.prunes(partitions)
		e.prunes(0)
	}},
	{"deleted records are removed in steps, and seen by nobody meanwhile", func(e *env) {
		e.drain()
		const extents, start = metadata.PruneRows + 10, metadata.PruneRows + 5
		p := e.ledTopic(1)[0]
		e.scattered(p, extents)
		must(e.store.DeleteRecords(e.ctx, p.Key, start))(e)
		look := func() {
			e.Helper()
			e.equal("extents", len(e.readFrom(p.Key, start, 1e9).Extents), extents-start)
			e.equal("extents below", len(e.readFrom(p.Key, start-1, 1e9).Extents), 0)
			e.equal("size", must(e.store.LogSizes(e.ctx, []uuid.UUID{p.TopicID}))(e)[p.Key], int64(extents-start)*batchLength)
			for _, stamp := range []int64{metadata.MaxTimestamp, 0} {
				r := must(e.store.FindTimestamp(e.ctx, []metadata.TimestampRequest{{Key: p.Key, Timestamp: stamp}}))(e)[0]
				e.equal("first extent", r.Extent.BaseOffset, int64(start))
			}
		}
		look()
		e.prunes(metadata.PruneRows)
		look()
		e.prunes(start - metadata.PruneRows + 1)
		look()
		e.wantPurged(p.Key)
		e.ok(Audit(e.ctx, e.store))
	}},
	{"an extent that the log start divides stays", func(e *env) {
		e.drain()
		p := e.ledTopic(1)[0]
		for range 3 {
			e.commit(batch(p, 10))
		}
		must(e.store.DeleteRecords(e.ctx, p.Key, 15))(e)
		e.prunes(1 + 1)
		e.equal("extents", bases(e.readFrom(p.Key, 15, 1e9).Extents), []int64{10, 20})
		must(e.store.DeleteRecords(e.ctx, p.Key, -1))(e)
		e.equal("size", must(e.store.LogSizes(e.ctx, []uuid.UUID{p.TopicID}))(e)[p.Key], int64(0))
		e.prunes(2 + 1)
		e.wantOutcome(e.commit(batch(p, 1))[0], metadata.Committed, 30)
		e.wantPurged(p.Key)
		e.equal("extents", bases(e.readFrom(p.Key, 30, 1e9).Extents), []int64{30})
	}},
	{"a topic that is deleted after its records is removed with them", func(e *env) {
		e.drain()
		p := e.ledTopic(1)[0]
		e.commit(batch(p, 10))
		e.commit(batch(p, 10))
		must(e.store.DeleteRecords(e.ctx, p.Key, 10))(e)
		e.ok(e.store.DeleteTopic(e.ctx, p.TopicID))
		e.prunes(2 + 1 + 1)
		e.wantPurged(p.Key)
	}},
	{"agents that prune at once remove each row of a deleted topic once", func(e *env) {
		e.drain()
		const agents, partitions, extents = 4, 20, 30
		topic := e.newTopic(partitions)
		for _, p := range e.lead(e.agent, ttl, keys(topic)...) {
			e.scattered(p, extents)
		}
		e.ok(e.store.DeleteTopic(e.ctx, topic.ID))
		var pruned atomic.Int64
		e.together(agents, func(int) error {
			rows, err := e.store.Prune(e.ctx)
			pruned.Add(rows)
			return err
		})
		e.equal("rows pruned", pruned.Load(), int64(partitions*(extents+1+1)))
		e.wantPurged(keys(topic)...)
	}},
	{"what is deleted while it is pruned is pruned in the end", func(e *env) {
		const rounds, last = 40, 39
		topic := e.newTopic(2)
		terms := e.lead(e.agent, ttl, keys(topic)...)
		for n := range rounds {
			e.commit(batch(terms[0], 1), batch(terms[1], 1))
			e.together(5, func(call int) (err error) {
				switch {
				case call < 2:
					_, err = e.store.Prune(e.ctx)
				case call < 4:
					_, err = e.store.DeleteRecords(e.ctx, terms[call-2].Key, -1)
					if n == last && errors.Is(err, metadata.ErrUnknownTopic) {
						return nil
					}
				case n == last:
					err = e.store.DeleteTopic(e.ctx, topic.ID)
				}
				return err
			})
			e.wantPurged(keys(topic)...)
		}
	}},
}
