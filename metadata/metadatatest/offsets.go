package metadatatest

import (
	"context"
	"slices"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// group is a consumer group, of which the test's agent coordinates the shard.
type group struct {
	name  string
	shard lease.Term
}

func (e *env) newGroup() group {
	e.Helper()
	name := "group-" + uuid.NewString()
	k := metadata.GroupShard(name)
	r := must(e.store.Acquire(e.ctx, e.agent, ttl, []lease.Key{k}))(e)[0]
	e.ok(r.Err)
	e.Cleanup(func() { // the next test leads the shard
		current := must(e.store.Watermarks(context.Background(), []lease.Key{k}))(e)[0]
		last := lease.Term{Key: k, LeaderEpoch: current.LeaderEpoch}
		e.ok(e.store.Release(context.Background(), e.agent, []lease.Term{last}))
	})
	return group{name, r.Term}
}

// at is a commit of one position.
func (g group) at(k lease.Key, offset int64) []metadata.OffsetCommit {
	return []metadata.OffsetCommit{{Group: g.name, Offsets: []metadata.CommittedOffset{{Key: k, Offset: offset, LeaderEpoch: -1}}}}
}

// positions fetches a group's positions.
func (e *env) positions(g group) []metadata.CommittedOffset {
	e.Helper()
	return must(e.store.FetchOffsets(e.ctx, []string{g.name}))(e)[0]
}

var offsetTests = []test{
	{"a position is what was committed last", func(e *env) {
		g, ks := e.newGroup(), keys(e.newTopic(3))
		first := metadata.CommittedOffset{Key: ks[0], Offset: 5, LeaderEpoch: 2, Metadata: "ünï"}
		first.Metadata = "ünï"
		second := metadata.CommittedOffset{Key: ks[2], Offset: 9, LeaderEpoch: -1}
		e.ok(e.store.CommitOffsets(e.ctx, e.agent, g.shard, []metadata.OffsetCommit{
			{Group: g.name, Offsets: []metadata.CommittedOffset{first, second}},
		}))
		e.equal("positions", e.positions(g), []metadata.CommittedOffset{first, second})
		first.Offset, first.LeaderEpoch, first.Metadata = 3, 4, "back"
		e.ok(e.store.CommitOffsets(e.ctx, e.agent, g.shard, []metadata.OffsetCommit{
			{Group: g.name, Offsets: []metadata.CommittedOffset{first}},
		}))
		e.equal("positions", e.positions(g), []metadata.CommittedOffset{first, second})
	}},
	{"the metadata of a position is any bytes", func(e *env) {
		g, ks := e.newGroup(), keys(e.newTopic(1))
		o := metadata.CommittedOffset{Key: ks[0], Offset: 5, LeaderEpoch: -1, Metadata: "a\x00b\xffc"}
		e.ok(e.store.CommitOffsets(e.ctx, e.agent, g.shard, []metadata.OffsetCommit{
			{Group: g.name, Offsets: []metadata.CommittedOffset{o}},
		}))
		e.equal("positions", e.positions(g), []metadata.CommittedOffset{o})
	}},
	{"commits of a shard are stored together, the later over the earlier", func(e *env) {
		g, k := e.newGroup(), keys(e.newTopic(1))[0]
		other := "second-" + g.name
		e.ok(e.store.CommitOffsets(e.ctx, e.agent, g.shard, slices.Concat(g.at(k, 1),
			[]metadata.OffsetCommit{{Group: other, Offsets: []metadata.CommittedOffset{{Key: k, Offset: 7}}}}, g.at(k, 2))))
		got := must(e.store.FetchOffsets(e.ctx, []string{other, "nobody", g.name}))(e)
		e.equal("groups", [][]metadata.CommittedOffset{got[0], got[1], got[2]}, [][]metadata.CommittedOffset{
			{{Key: k, Offset: 7}}, nil, {{Key: k, Offset: 2, LeaderEpoch: -1}},
		})
	}},
	{"a commit is fenced by another leadership of the shard, and not by a renewal", func(e *env) {
		g, k := e.newGroup(), keys(e.newTopic(1))[0]
		must(e.store.Renew(e.ctx, e.agent, ttl, []lease.Term{g.shard}))(e)
		e.ok(e.store.CommitOffsets(e.ctx, e.agent, g.shard, g.at(k, 1)))
		e.wantErr(e.store.CommitOffsets(e.ctx, "rival", g.shard, g.at(k, 2)), metadata.ErrFenced)
		later := e.lead(e.agent, ttl, g.shard.Key)[0]
		e.wantErr(e.store.CommitOffsets(e.ctx, e.agent, g.shard, g.at(k, 3)), metadata.ErrFenced)
		e.wantErr(e.store.DeleteOffsets(e.ctx, e.agent, g.shard, g.name, nil), metadata.ErrFenced)
		e.equal("positions", e.positions(g), []metadata.CommittedOffset{{Key: k, Offset: 1, LeaderEpoch: -1}})
		e.ok(e.store.CommitOffsets(e.ctx, e.agent, later, g.at(k, 4)))
		e.ok(e.store.Release(e.ctx, e.agent, []lease.Term{later}))
		e.wantErr(e.store.CommitOffsets(e.ctx, e.agent, later, g.at(k, 5)), metadata.ErrFenced)
		e.equal("positions", e.positions(g), []metadata.CommittedOffset{{Key: k, Offset: 4, LeaderEpoch: -1}})
	}},
	{"positions are deleted one by one or all at once", func(e *env) {
		g, ks := e.newGroup(), keys(e.newTopic(3))
		for _, k := range ks {
			e.ok(e.store.CommitOffsets(e.ctx, e.agent, g.shard, g.at(k, 1)))
		}
		e.ok(e.store.DeleteOffsets(e.ctx, e.agent, g.shard, g.name, ks[1:2]))
		e.equal("positions", len(e.positions(g)), 2)
		e.ok(e.store.DeleteOffsets(e.ctx, e.agent, g.shard, g.name, []lease.Key{}))
		e.equal("positions", len(e.positions(g)), 2)
		e.ok(e.store.DeleteOffsets(e.ctx, e.agent, g.shard, g.name, nil))
		e.equal("positions", len(e.positions(g)), 0)
	}},
	{"groups with positions are listed, by name", func(e *env) {
		g, k := e.newGroup(), keys(e.newTopic(1))[0]
		e.equal("listed", slices.Contains(must(e.store.ListGroups(e.ctx))(e), g.name), false)
		e.ok(e.store.CommitOffsets(e.ctx, e.agent, g.shard, g.at(k, 1)))
		groups := must(e.store.ListGroups(e.ctx))(e)
		e.equal("listed", slices.Contains(groups, g.name), true)
		e.equal("in order", slices.IsSorted(groups), true)
	}},
	{"an empty commit asks the fence all the same", func(e *env) {
		g := e.newGroup()
		e.ok(e.store.CommitOffsets(e.ctx, e.agent, g.shard, nil))
		e.wantErr(e.store.CommitOffsets(e.ctx, "rival", g.shard, nil), metadata.ErrFenced)
	}},
	{"a position in a partition that is not there is dropped", func(e *env) {
		g := e.newGroup()
		e.ok(e.store.CommitOffsets(e.ctx, e.agent, g.shard, g.at(lease.Key{TopicID: uuid.New()}, 1)))
		e.equal("positions", len(e.positions(g)), 0)
	}},
}
