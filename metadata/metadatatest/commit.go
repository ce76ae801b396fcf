package metadatatest

import (
	"bytes"
	"slices"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

var commitTests = []test{
	{"offsets of a partition are dense and in order of acceptance", func(e *env) {
		p := e.ledTopic(1)[0]
		e.equal("offsets", offsets(e.commit(batch(p, 3), batch(p, 1), batch(p, 5))), []int64{0, 3, 4})
		e.equal("offsets", offsets(e.commit(batch(p, 2))), []int64{9})
		e.equal("high watermark", e.high(p.Key), int64(11))
	}},
	{"batches of many partitions are one commit, each with offsets of its own", func(e *env) {
		const partitions = 100
		terms := e.ledTopic(partitions)
		for round := range int64(2) {
			var batches []metadata.CommitBatch
			for _, p := range terms {
				batches = append(batches, batch(p, p.Partition+1))
			}
			for i, r := range e.commit(batches...) {
				e.wantOutcome(r, metadata.Committed, round*int64(i+1))
			}
		}
	}},
	{"objects of one commit follow on one another", func(e *env) {
		p := e.ledTopic(1)[0]
		r := e.commitAs(e.agent, object(batch(p, 2)), object(batch(p, 3)), inline(batch(p, 4)))
		e.equal("offsets", offsets(slices.Concat(r...)), []int64{0, 2, 5})
		e.equal("extents", len(e.readFrom(p.Key, 0, 1e9).Extents), 3)
	}},
	{"batches that lie together are one extent", func(e *env) {
		p := e.ledTopic(1)[0]
		early, late := batch(p, 2), batch(p, 3)
		late.MaxTimestamp = 5000
		o := object(early, late, early)
		e.commitAs(e.agent, o)
		e.equal("extents", e.readFrom(p.Key, 0, 1e9).Extents, []metadata.Extent{{
			BaseOffset: 0, EndOffset: 7, LeaderEpoch: p.LeaderEpoch, MaxTimestamp: 5000, AppendTime: -1,
			Object: o.ID, ObjectSize: o.Size, Position: 16, Length: 3 * batchLength,
		}})
	}},
	{"a refused batch between two leaves a hole in the bytes and none in the offsets", func(e *env) {
		p := e.ledTopic(1)[0]
		stale := batch(p, 7)
		stale.LeaderEpoch--
		r := e.commit(batch(p, 1), stale, batch(p, 1))
		e.equal("outcomes", outcomes(r), []metadata.CommitOutcome{metadata.Committed, metadata.Fenced, metadata.Committed})
		e.equal("offsets", offsets(r), []int64{0, -1, 1})
		extents := e.readFrom(p.Key, 0, 1e9).Extents
		e.equal("extents", len(extents), 2)
		e.equal("position", extents[1].Position, int64(16+2*batchLength))
	}},
	{"inline batches of a run are kept as one", func(e *env) {
		terms := e.ledTopic(2)
		p, q := terms[0], terms[1]
		o := inline(batch(p, 2), batch(p, 3), batch(q, 1))
		e.commitAs(e.agent, o)
		e.equal("extents", e.readFrom(p.Key, 0, 1e9).Extents, []metadata.Extent{{
			BaseOffset: 0, EndOffset: 5, LeaderEpoch: p.LeaderEpoch, MaxTimestamp: 1000, AppendTime: -1,
			Length: 2 * batchLength, Inline: slices.Concat(o.Batches[0].Inline, o.Batches[1].Inline),
		}})
		got := e.readFrom(q.Key, 0, 1e9).Extents
		if len(got) != 1 || !bytes.Equal(got[0].Inline, o.Batches[2].Inline) {
			e.Errorf("got %+v", got)
		}
	}},
	{"a batch of a partition that is not there is refused alone", func(e *env) {
		p := e.ledTopic(1)[0]
		absent := p
		absent.Partition = 1
		nowhere := p
		nowhere.TopicID = uuid.New()
		r := e.commit(batch(absent, 1), batch(p, 1), batch(nowhere, 1))
		e.equal("outcomes", outcomes(r), []metadata.CommitOutcome{metadata.UnknownPartition, metadata.Committed, metadata.UnknownPartition})
		e.equal("offsets", offsets(r), []int64{-1, 0, -1})
	}},
	{"a commit is fenced if nobody leads the partition", func(e *env) {
		p := e.ledTopic(1)[0]
		e.ok(e.store.Release(e.ctx, e.agent, []lease.Term{p}))
		e.wantOutcome(e.commit(batch(p, 1))[0], metadata.Fenced, -1)
		e.equal("high watermark", e.high(p.Key), int64(0))
	}},
	{"a commit is fenced by another agent's leadership", func(e *env) {
		p := e.ledTopic(1)[0]
		other := e.takeOver(p, e.agent, "other-"+e.agent)
		e.wantOutcome(e.commit(batch(p, 1))[0], metadata.Fenced, -1)
		e.wantOutcome(e.commit(batch(other, 1))[0], metadata.Fenced, -1) // right epoch, wrong agent
		e.wantOutcome(e.commitAs("other-"+e.agent, object(batch(other, 1)))[0][0], metadata.Committed, 0)
	}},
	{"a commit is fenced by a hand-over, which is listed, before the successor acquires and after", func(e *env) {
		p, successor := e.ledTopic(1)[0], "other-"+e.agent
		v := must(e.store.Topology(e.ctx, 0))(e).Version
		must(e.store.HandOver(e.ctx, e.agent, ttl, []lease.Move{{Term: p, To: successor}}))(e)
		e.wantOutcome(e.commit(batch(p, 1))[0], metadata.Fenced, -1)
		e.equal("leaders", must(e.store.Topology(e.ctx, v))(e).Leaders,
			[]metadata.Leader{{Key: p.Key, AgentID: successor, LeaderEpoch: p.LeaderEpoch + 1}})
		next := e.lead(successor, ttl, p.Key)[0]
		e.wantOutcome(e.commit(batch(p, 1))[0], metadata.Fenced, -1)
		e.wantOutcome(e.commitAs(successor, object(batch(next, 1)))[0][0], metadata.Committed, 0)
	}},
	{"a commit is fenced by a later leadership of the same agent", func(e *env) {
		p := e.ledTopic(1)[0]
		again := e.lead(e.agent, ttl, p.Key)[0]
		e.wantOutcome(e.commit(batch(p, 1))[0], metadata.Fenced, -1)
		e.wantOutcome(e.commit(batch(again, 1))[0], metadata.Committed, 0)
	}},
	{"a commit is not fenced by a renewal", func(e *env) {
		p := e.ledTopic(1)[0]
		must(e.store.Renew(e.ctx, e.agent, ttl, []lease.Term{p}))(e)
		e.wantOutcome(e.commit(batch(p, 1))[0], metadata.Committed, 0)
	}},
	{"a commit is not fenced by the lease's end, as long as nobody has taken it", func(e *env) {
		p := e.lead(e.agent, 0, keys(e.newTopic(1))...)[0]
		e.wantOutcome(e.commit(batch(p, 1))[0], metadata.Committed, 0)
	}},
	{"LogAppendTime is the store's clock at the commit", func(e *env) {
		p := e.ledTopic(1)[0]
		b := batch(p, 2)
		b.LogAppendTime, b.MaxTimestamp = true, -1
		first := e.commit(b, b)
		second := e.commit(b)[0]
		const year2020, year2200 = 1_577_836_800_000, 7_258_118_400_000
		now := first[0].AppendTime
		if now < year2020 || now > year2200 || first[1].AppendTime != now || second.AppendTime < now {
			e.Errorf("append times %d, %d, then %d", now, first[1].AppendTime, second.AppendTime)
		}
		for i, x := range e.readFrom(p.Key, 0, 1e9).Extents {
			want := []int64{now, second.AppendTime}[i]
			e.equal("times of the extent", []int64{x.MaxTimestamp, x.AppendTime}, []int64{want, want})
		}
	}},
	{"LogAppendTime and CreateTime are never one extent", func(e *env) {
		p := e.ledTopic(1)[0]
		stamped := batch(p, 1)
		stamped.LogAppendTime = true
		r := e.commit(batch(p, 1), stamped, batch(p, 1))
		e.equal("append time", []int64{r[0].AppendTime, r[2].AppendTime}, []int64{-1, -1})
		e.equal("extents", len(e.readFrom(p.Key, 0, 1e9).Extents), 3)
	}},
	{"the log start comes with the results", func(e *env) {
		p := e.ledTopic(1)[0]
		e.equal("log start", e.commit(batch(p, 10))[0].LogStartOffset, int64(0))
		must(e.store.DeleteRecords(e.ctx, p.Key, 4))(e)
		e.equal("log start", e.commit(batch(p, 1))[0].LogStartOffset, int64(4))
	}},
	{"a commit does not move the topology's version, nor does a renewal", func(e *env) {
		p := e.ledTopic(1)[0]
		before := must(e.store.Topology(e.ctx, 0))(e).Version
		e.commit(batch(p, 1))
		must(e.store.Renew(e.ctx, e.agent, ttl, []lease.Term{p}))(e)
		e.equal("version", must(e.store.Topology(e.ctx, 0))(e).Version, before)
	}},
	{"a commit of nothing is answered", func(e *env) {
		e.equal("results", len(e.commitAs(e.agent)), 0)
		e.equal("results", len(e.commitAs(e.agent, object())[0]), 0)
	}},
}

var retryTests = []test{
	{"an object that was committed gets its first results again", func(e *env) {
		terms := e.ledTopic(2)
		stale := batch(terms[1], 1)
		stale.LeaderEpoch--
		stamped := batch(terms[1], 3)
		stamped.LogAppendTime = true
		o := object(batch(terms[0], 2), stale, stamped)
		first := e.commitAs(e.agent, o)
		e.commit(batch(terms[0], 5))
		e.equal("results", e.commitAs(e.agent, o), first)
		e.equal("high watermark", e.high(terms[0].Key), int64(7))
		e.equal("high watermark", e.high(terms[1].Key), int64(3))
	}},
	{"it gets them even if its agent was fenced since", func(e *env) {
		p := e.ledTopic(1)[0]
		o := object(batch(p, 2))
		first := e.commitAs(e.agent, o)
		e.takeOver(p, e.agent, "other-"+e.agent)
		e.equal("results", e.commitAs(e.agent, o), first)
	}},
	{"an object that was refused stays refused", func(e *env) {
		p := e.ledTopic(1)[0]
		other := e.takeOver(p, e.agent, "other-"+e.agent)
		late := object(batch(p, 1))
		e.wantOutcome(e.commitAs(e.agent, late)[0][0], metadata.Fenced, -1)
		e.ok(e.store.Release(e.ctx, "other-"+e.agent, []lease.Term{other}))
		e.lead(e.agent, ttl, p.Key)
		e.wantOutcome(e.commitAs(e.agent, late)[0][0], metadata.Fenced, -1)
	}},
	{"old and new objects may come in one commit", func(e *env) {
		p := e.ledTopic(1)[0]
		one, two := object(batch(p, 1)), inline(batch(p, 1))
		first := e.commitAs(e.agent, one, two)
		r := e.commitAs(e.agent, one, two, object(batch(p, 1)))
		e.equal("results", r[:2], first)
		e.wantOutcome(r[2][0], metadata.Committed, 2)
	}},
	{"an object whose name a collector claimed is refused whole", func(e *env) {
		p := e.ledTopic(1)[0]
		o, free := object(batch(p, 1), batch(p, 1)), object(batch(p, 1))
		must(e.store.ClaimOrphans(e.ctx, []uuid.UUID{o.ID}))(e)
		r := e.commitAs(e.agent, o, free)
		e.equal("outcomes", outcomes(r[0]), []metadata.CommitOutcome{metadata.ObjectClaimed, metadata.ObjectClaimed})
		e.equal("offsets", offsets(r[0]), []int64{-1, -1})
		e.wantOutcome(r[1][0], metadata.Committed, 0)
		e.wantOutcome(e.commitAs(e.agent, o)[0][0], metadata.ObjectClaimed, -1)
	}},
}
