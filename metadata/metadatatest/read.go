package metadatatest

import (
	"errors"
	"math"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// bases are the base offsets of extents.
func bases(extents []metadata.Extent) []int64 {
	out := []int64{}
	for _, x := range extents {
		out = append(out, x.BaseOffset)
	}
	return out
}

var readTests = []test{
	{"a read begins at the extent that contains the offset", func(e *env) {
		p := e.ledTopic(1)[0]
		for range 3 {
			e.commit(batch(p, 10))
		}
		for _, c := range []struct {
			offset int64
			want   []int64
		}{
			{0, []int64{0, 10, 20}},
			{9, []int64{0, 10, 20}},
			{10, []int64{10, 20}},
			{29, []int64{20}},
		} {
			e.equal("extents", bases(e.readFrom(p.Key, c.offset, 1e9).Extents), c.want)
		}
	}},
	{"a read outside of the log returns the watermarks alone", func(e *env) {
		p := e.ledTopic(1)[0]
		e.commit(batch(p, 10))
		must(e.store.DeleteRecords(e.ctx, p.Key, 5))(e)
		for _, offset := range []int64{-1, 0, 4, 10, 11, math.MaxInt64} {
			r := e.readFrom(p.Key, offset, 1e9)
			e.equal("extents", bases(r.Extents), []int64{})
			e.equal("watermarks", r.Watermarks, metadata.Watermarks{
				LogStart: 5, LastStable: 10, High: 10, LeaderEpoch: p.LeaderEpoch, LeaderID: e.agent,
			})
		}
	}},
	{"a read is cut after the bytes asked for, with one extent at least", func(e *env) {
		p := e.ledTopic(1)[0]
		for range 5 {
			e.commit(batch(p, 1))
		}
		for _, c := range []struct{ maxBytes, want int64 }{
			{0, 1},
			{1, 1},
			{batchLength, 1},
			{batchLength + 1, 2},
			{3 * batchLength, 3},
			{math.MaxInt64, 5},
		} {
			e.equal("extents", int64(len(e.readFrom(p.Key, 0, c.maxBytes).Extents)), c.want)
		}
	}},
	{"a long log is read in pieces that join", func(e *env) {
		const commits = 300
		p := e.ledTopic(1)[0]
		for range commits {
			e.commit(batch(p, 2))
		}
		at, pieces := int64(0), 0
		for at < 2*commits {
			for _, x := range e.readFrom(p.Key, at, 100*batchLength).Extents {
				e.equal("base offset", x.BaseOffset, at)
				at = x.EndOffset
			}
			pieces++
		}
		e.equal("pieces", pieces, 3)
	}},
	{"many requests are answered in their order, each for itself", func(e *env) {
		terms := e.ledTopic(3)
		for n, p := range terms {
			for range n {
				e.commit(batch(p, 1))
			}
		}
		absent := lease.Key{TopicID: uuid.New()}
		got := must(e.store.Read(e.ctx, []metadata.ReadRequest{
			{Key: terms[2].Key, Offset: 1, MaxBytes: 1e6},
			{Key: absent, Offset: 0, MaxBytes: 1e6},
			{Key: terms[0].Key, Offset: 0, MaxBytes: 1e6},
			{Key: terms[2].Key, Offset: 0, MaxBytes: 1},
			{Key: terms[1].Key, Offset: 0, MaxBytes: 1e6},
		}))(e)
		e.equal("extents", [][]int64{bases(got[0].Extents), bases(got[1].Extents), bases(got[2].Extents), bases(got[3].Extents), bases(got[4].Extents)},
			[][]int64{{1}, {}, {}, {0}, {0}})
		for i, r := range got {
			if errors.Is(r.Err, metadata.ErrUnknownTopic) != (i == 1) {
				e.Errorf("request %d: error %v", i, r.Err)
			}
		}
		e.equal("high watermarks", []int64{got[0].Watermarks.High, got[2].Watermarks.High, got[4].Watermarks.High}, []int64{2, 0, 1})
	}},
	{"watermarks name the leader, and are nil where there is no partition", func(e *env) {
		p := e.ledTopic(1)[0]
		e.commit(batch(p, 3))
		free := keys(e.newTopic(1))[0]
		got := must(e.store.Watermarks(e.ctx, []lease.Key{{TopicID: uuid.New()}, free, p.Key}))(e)
		e.equal("watermarks", got, []*metadata.Watermarks{
			nil,
			{LeaderEpoch: -1},
			{LastStable: 3, High: 3, LeaderEpoch: p.LeaderEpoch, LeaderID: e.agent},
		})
	}},
	{"no requests have no answers", func(e *env) {
		e.equal("reads", len(must(e.store.Read(e.ctx, nil))(e)), 0)
		e.equal("watermarks", len(must(e.store.Watermarks(e.ctx, nil))(e)), 0)
		e.equal("timestamps", len(must(e.store.FindTimestamp(e.ctx, nil))(e)), 0)
		e.equal("epoch ends", len(must(e.store.EpochEnds(e.ctx, nil))(e)), 0)
		e.equal("log sizes", len(must(e.store.LogSizes(e.ctx, nil))(e)), 0)
		e.equal("offsets", len(must(e.store.FetchOffsets(e.ctx, nil))(e)), 0)
	}},
}

// at gives a batch a timestamp.
func at(b metadata.CommitBatch, timestamp int64) metadata.CommitBatch {
	b.MaxTimestamp = timestamp
	return b
}

var logTests = []test{
	{"a timestamp is found in the first extent that reaches it", func(e *env) {
		p := e.ledTopic(1)[0]
		for _, ts := range []int64{100, 300, 200, 300} {
			e.commit(at(batch(p, 1), ts))
		}
		for _, c := range []struct{ timestamp, want int64 }{
			{0, 0}, {100, 0}, {101, 1}, {200, 1}, {300, 1}, {301, -1}, {metadata.MaxTimestamp, 1},
		} {
			r := must(e.store.FindTimestamp(e.ctx, []metadata.TimestampRequest{{Key: p.Key, Timestamp: c.timestamp}}))(e)[0]
			e.ok(r.Err)
			got := int64(-1)
			if r.Extent != nil {
				got = r.Extent.BaseOffset
			}
			e.equal("extent", got, c.want)
			e.equal("high watermark", r.Watermarks.High, int64(4))
		}
	}},
	{"deleted records have no timestamp", func(e *env) {
		p := e.ledTopic(1)[0]
		e.commit(at(batch(p, 1), 900))
		e.commit(at(batch(p, 2), 500))
		must(e.store.DeleteRecords(e.ctx, p.Key, 1))(e)
		got := must(e.store.FindTimestamp(e.ctx, []metadata.TimestampRequest{
			{Key: p.Key, Timestamp: metadata.MaxTimestamp},
			{Key: p.Key, Timestamp: 1},
			{Key: p.Key, Timestamp: 900},
			{Key: lease.Key{TopicID: uuid.New()}, Timestamp: 1},
		}))(e)
		e.equal("extents", []int64{got[0].Extent.BaseOffset, got[1].Extent.BaseOffset}, []int64{1, 1})
		if got[2].Extent != nil {
			e.Errorf("found %+v", got[2].Extent)
		}
		if !errors.Is(got[3].Err, metadata.ErrUnknownTopic) {
			e.Errorf("unknown topic: %v", got[3].Err)
		}
	}},
	{"an empty log has no largest timestamp", func(e *env) {
		p := e.ledTopic(1)[0]
		r := must(e.store.FindTimestamp(e.ctx, []metadata.TimestampRequest{{Key: p.Key, Timestamp: metadata.MaxTimestamp}}))(e)[0]
		if r.Extent != nil || r.Err != nil {
			e.Errorf("got %+v", r)
		}
	}},
	{"a leader epoch ends where the next began, the newest at the high watermark", func(e *env) {
		p := e.ledTopic(1)[0]
		e.commit(batch(p, 10))
		q := e.lead(e.agent, ttl, p.Key)[0]
		e.commit(batch(q, 5))
		r := e.lead(e.agent, ttl, p.Key)[0]
		ask := func(epoch int32) metadata.EpochEnd {
			return must(e.store.EpochEnds(e.ctx, []metadata.EpochRequest{{Key: p.Key, LeaderEpoch: epoch}}))(e)[0]
		}
		now := r.LeaderEpoch
		e.equal("leader epochs", []int32{p.LeaderEpoch, q.LeaderEpoch, now}, []int32{0, 1, 2})
		e.equal("first", ask(0), metadata.EpochEnd{LeaderEpoch: 0, EndOffset: 10, Current: now})
		e.equal("second", ask(1), metadata.EpochEnd{LeaderEpoch: 1, EndOffset: 15, Current: now})
		e.equal("current", ask(2), metadata.EpochEnd{LeaderEpoch: 2, EndOffset: 15, Current: now})
		e.equal("future", ask(9), metadata.EpochEnd{LeaderEpoch: 2, EndOffset: 15, Current: now})
		e.equal("before all", ask(-1), metadata.EpochEnd{LeaderEpoch: -1, EndOffset: -1, Current: now})
		e.commit(batch(r, 1))
		e.equal("current, after a commit", ask(2).EndOffset, int64(16))
	}},
	{"a partition that nobody led has no epochs, one that is not there an error", func(e *env) {
		free := keys(e.newTopic(1))[0]
		got := must(e.store.EpochEnds(e.ctx, []metadata.EpochRequest{{Key: free}, {Key: lease.Key{TopicID: uuid.New()}}}))(e)
		e.equal("free", got[0], metadata.EpochEnd{LeaderEpoch: -1, EndOffset: -1, Current: -1})
		if !errors.Is(got[1].Err, metadata.ErrUnknownTopic) {
			e.Errorf("unknown topic: %v", got[1].Err)
		}
	}},
	{"DeleteRecords raises the log start and never lowers it", func(e *env) {
		p := e.ledTopic(1)[0]
		for range 3 {
			e.commit(batch(p, 10))
		}
		for _, c := range []struct{ offset, want int64 }{{15, 15}, {0, 15}, {15, 15}, {20, 20}, {-1, 30}, {30, 30}} {
			e.equal("log start", must(e.store.DeleteRecords(e.ctx, p.Key, c.offset))(e), c.want)
			if c.want == 15 {
				r := e.readFrom(p.Key, 15, 1e9)
				e.equal("extents", bases(r.Extents), []int64{10, 20}) // the batch stays whole
			}
		}
		e.equal("offset", e.commit(batch(p, 1))[0].BaseOffset, int64(30))
		e.equal("extents", bases(e.readFrom(p.Key, 30, 1e9).Extents), []int64{30})
	}},
	{"DeleteRecords beyond the high watermark is refused", func(e *env) {
		p := e.ledTopic(1)[0]
		e.commit(batch(p, 10))
		for _, offset := range []int64{11, -2} {
			if _, err := e.store.DeleteRecords(e.ctx, p.Key, offset); !errors.Is(err, metadata.ErrOffsetOutOfRange) {
				e.Errorf("to %d: %v", offset, err)
			}
		}
		if _, err := e.store.DeleteRecords(e.ctx, lease.Key{TopicID: uuid.New()}, 0); !errors.Is(err, metadata.ErrUnknownTopic) {
			e.Errorf("unknown topic: %v", err)
		}
	}},
	{"LogSizes counts the bytes of each partition", func(e *env) {
		topic, other := e.newTopic(3), e.newTopic(1)
		terms := e.lead(e.agent, ttl, keys(topic)...)
		e.commit(batch(terms[0], 1), batch(terms[0], 1))
		e.commitAs(e.agent, inline(batch(terms[0], 1), batch(terms[1], 1)))
		got := must(e.store.LogSizes(e.ctx, []uuid.UUID{topic.ID, other.ID, uuid.New()}))(e)
		e.equal("sizes", got, map[lease.Key]int64{
			terms[0].Key: 3 * batchLength, terms[1].Key: batchLength, terms[2].Key: 0, keys(other)[0]: 0,
		})
	}},
}
