package metadatatest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

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
	k := metadata.GroupShard(metadata.DefaultAgentGroup, name)
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

// write makes a change as the test's agent.
func (e *env) write(g group, w metadata.GroupWrite) {
	e.Helper()
	e.ok(e.store.WriteGroups(e.ctx, e.agent, g.shard, &w))
}

// commitAt commits one position of a group.
func (e *env) commitAt(g group, k lease.Key, offset int64) {
	e.Helper()
	e.write(g, metadata.GroupWrite{Commit: g.at(k, offset)})
}

// wantFenced checks that an agent can't write in a term.
func (e *env) wantFenced(agent string, shard lease.Term, w metadata.GroupWrite) {
	e.Helper()
	e.wantErr(e.store.WriteGroups(e.ctx, agent, shard, &w), metadata.ErrFenced)
}

// positions fetches a group's positions.
func (e *env) positions(g group) []metadata.CommittedOffset {
	e.Helper()
	return must(e.store.FetchOffsets(e.ctx, []string{g.name}))(e)[0]
}

// record loads a group's record; false if there is none.
func (e *env) record(g group) (string, bool) {
	e.Helper()
	for _, s := range must(e.store.LoadGroups(e.ctx, g.shard.Key))(e) {
		if s.Group == g.name {
			return s.Record, true
		}
	}
	return "", false
}

// old asks for the positions of one group that are an hour old.
func (e *env) old(g group) metadata.OldOffsets {
	e.Helper()
	return must(e.store.OldOffsets(e.ctx, []string{"nobody", g.name}, time.Hour))(e)[1]
}

// backdate makes what a group has stored older.
func (e *env) backdate(table, column string, g group, by time.Duration) {
	e.Helper()
	e.ok(e.exec(e.ctx, `UPDATE `+table+` SET `+column+` = `+column+` - $1 WHERE group_id = $2`, by.Milliseconds(), g.name))
}

var groupTests = []test{
	{"a position is what was committed last", func(e *env) {
		g, ks := e.newGroup(), keys(e.newTopic(3))
		first := metadata.CommittedOffset{Key: ks[0], Offset: 5, LeaderEpoch: 2, Metadata: "ünï"}
		second := metadata.CommittedOffset{Key: ks[2], Offset: 9, LeaderEpoch: -1}
		commit := func(offsets ...metadata.CommittedOffset) {
			e.write(g, metadata.GroupWrite{Commit: []metadata.OffsetCommit{{Group: g.name, Offsets: offsets}}})
		}
		commit(first, second)
		e.equal("positions", e.positions(g), []metadata.CommittedOffset{first, second})
		first.Offset, first.LeaderEpoch, first.Metadata = 3, 4, "back"
		commit(first)
		e.equal("positions", e.positions(g), []metadata.CommittedOffset{first, second})
	}},
	{"the metadata of a position is any bytes", func(e *env) {
		g, ks := e.newGroup(), keys(e.newTopic(1))
		o := metadata.CommittedOffset{Key: ks[0], Offset: 5, LeaderEpoch: -1, Metadata: "a\x00b\xffc"}
		e.write(g, metadata.GroupWrite{Commit: []metadata.OffsetCommit{{Group: g.name, Offsets: []metadata.CommittedOffset{o}}}})
		e.equal("positions", e.positions(g), []metadata.CommittedOffset{o})
	}},
	{"commits of a shard are stored together, the later over the earlier", func(e *env) {
		g, k := e.newGroup(), keys(e.newTopic(1))[0]
		other := "second-" + g.name
		e.write(g, metadata.GroupWrite{Commit: slices.Concat(g.at(k, 1),
			[]metadata.OffsetCommit{{Group: other, Offsets: []metadata.CommittedOffset{{Key: k, Offset: 7}}}}, g.at(k, 2))})
		got := must(e.store.FetchOffsets(e.ctx, []string{other, "nobody", g.name}))(e)
		e.equal("groups", [][]metadata.CommittedOffset{got[0], got[1], got[2]}, [][]metadata.CommittedOffset{
			{{Key: k, Offset: 7}}, nil, {{Key: k, Offset: 2, LeaderEpoch: -1}},
		})
	}},
	{"a write is fenced by another leadership of the shard, and not by a renewal", func(e *env) {
		g, k := e.newGroup(), keys(e.newTopic(1))[0]
		must(e.store.Renew(e.ctx, e.agent, ttl, []lease.Term{g.shard}))(e)
		first := metadata.GroupWrite{Commit: g.at(k, 1), Save: []metadata.GroupRecord{{Group: g.name, Record: "{}"}}}
		e.write(g, first)
		late := metadata.GroupWrite{Commit: g.at(k, 2), Save: []metadata.GroupRecord{{Group: g.name, Record: `{"late":true}`}}}
		e.wantFenced("rival", g.shard, late)
		later := e.lead(e.agent, ttl, g.shard.Key)[0]
		e.wantFenced(e.agent, g.shard, late)
		e.wantFenced(e.agent, g.shard, metadata.GroupWrite{Delete: []string{g.name}})
		e.wantFenced(e.agent, g.shard, metadata.GroupWrite{DeleteOffsets: []metadata.OffsetDelete{{Group: g.name, Keys: []lease.Key{k}}}})
		e.equal("positions", e.positions(g), []metadata.CommittedOffset{{Key: k, Offset: 1, LeaderEpoch: -1}})
		record, _ := e.record(g)
		e.equal("record", record, "{}")
		e.ok(e.store.WriteGroups(e.ctx, e.agent, later, &metadata.GroupWrite{Commit: g.at(k, 4)}))
		e.ok(e.store.Release(e.ctx, e.agent, []lease.Term{later}))
		e.wantFenced(e.agent, later, metadata.GroupWrite{Commit: g.at(k, 5)})
		e.equal("positions", e.positions(g), []metadata.CommittedOffset{{Key: k, Offset: 4, LeaderEpoch: -1}})
	}},
	{"positions are deleted one by one", func(e *env) {
		g, ks := e.newGroup(), keys(e.newTopic(3))
		for _, k := range ks {
			e.commitAt(g, k, 1)
		}
		e.write(g, metadata.GroupWrite{DeleteOffsets: []metadata.OffsetDelete{
			{Group: g.name, Keys: ks[1:2]}, {Group: "other-" + g.name, Keys: ks}, {Group: g.name},
		}})
		e.equal("positions", e.positions(g), []metadata.CommittedOffset{
			{Key: ks[0], Offset: 1, LeaderEpoch: -1}, {Key: ks[2], Offset: 1, LeaderEpoch: -1},
		})
	}},
	{"a group is what was saved last, and deleted with its positions", func(e *env) {
		g, k := e.newGroup(), keys(e.newTopic(1))[0]
		_, saved := e.record(g)
		e.equal("saved", saved, false)
		for _, record := range []string{`{"generation":1}`, "", `{"generation":2,"name":"ünï"}`} {
			e.write(g, metadata.GroupWrite{Commit: g.at(k, 1), Save: []metadata.GroupRecord{{Group: g.name, Record: record}}})
			got, _ := e.record(g)
			e.equal("record", got, record)
		}
		e.write(g, metadata.GroupWrite{Delete: []string{g.name, "nobody"}})
		_, saved = e.record(g)
		e.equal("saved", saved, false)
		e.equal("positions", len(e.positions(g)), 0)
	}},
	{"a group that is deleted, committed and saved at once is new", func(e *env) {
		g, ks := e.newGroup(), keys(e.newTopic(2))
		e.commitAt(g, ks[0], 1)
		e.write(g, metadata.GroupWrite{
			Delete: []string{g.name}, Commit: g.at(ks[1], 2), Save: []metadata.GroupRecord{{Group: g.name, Record: "new"}},
		})
		e.equal("positions", e.positions(g), []metadata.CommittedOffset{{Key: ks[1], Offset: 2, LeaderEpoch: -1}})
		record, _ := e.record(g)
		e.equal("record", record, "new")
	}},
	{"the groups of a shard are loaded by name, with their age", func(e *env) {
		g := e.newGroup()
		var sibling, stranger group
		for n := 0; sibling.name == "" || stranger.name == ""; n++ {
			name := fmt.Sprintf("%s-%d", g.name, n)
			if metadata.GroupShard(metadata.DefaultAgentGroup, name) == g.shard.Key {
				sibling.name = name
			} else {
				stranger.name = name
			}
		}
		e.write(g, metadata.GroupWrite{Save: []metadata.GroupRecord{{Group: sibling.name, Record: "b"}, {Group: g.name, Record: "a"}}})
		// As the migration leaves groups that are older than the table.
		e.ok(e.exec(e.ctx, `UPDATE groups SET shard = -1 WHERE group_id = $1`, sibling.name))
		e.ok(e.exec(e.ctx, `INSERT INTO groups (group_id, shard, record, updated_at) VALUES ($1, -1, '', 0)`, stranger.name))
		e.backdate("groups", "updated_at", g, time.Hour)
		loaded := must(e.store.LoadGroups(e.ctx, g.shard.Key))(e)
		loaded = slices.DeleteFunc(loaded, func(s metadata.StoredGroup) bool { return !strings.HasPrefix(s.Group, g.name) })
		if len(loaded) != 2 || loaded[0].Record != "a" || loaded[1].Group != sibling.name || loaded[1].Record != "b" {
			e.Fatalf("loaded %+v", loaded)
		}
		if a, b := loaded[0].Age, loaded[1].Age; a < time.Hour || a > time.Hour+time.Minute || b < 0 || b > time.Minute {
			e.Errorf("ages %v and %v", a, b)
		}
	}},
	{"positions are old by the time of their last commit", func(e *env) {
		topic := e.newTopic(3)
		g, ks := e.newGroup(), keys(topic)
		e.equal("old", e.old(g), metadata.OldOffsets{})
		for _, k := range ks {
			e.commitAt(g, k, 1)
		}
		e.equal("old", e.old(g), metadata.OldOffsets{Total: 3})
		e.backdate("group_offsets", "committed_at", g, time.Hour)
		e.commitAt(g, ks[1], 2)
		e.equal("old", e.old(g), metadata.OldOffsets{Total: 3, Old: []metadata.OldOffset{{Key: ks[0], Topic: topic.Name}, {Key: ks[2], Topic: topic.Name}}})
	}},
	{"positions of partitions that are not there are gone, and can be deleted", func(e *env) {
		g, k := e.newGroup(), keys(e.newTopic(1))[0]
		gone := lease.Key{TopicID: uuid.New(), Partition: 3}
		e.commitAt(g, k, 1)
		e.ok(e.exec(e.ctx, `INSERT INTO group_offsets (group_id, topic_id, partition, committed_offset, leader_epoch, metadata, committed_at)
			SELECT group_id, $1, 3, 1, -1, metadata, committed_at FROM group_offsets WHERE group_id = $2`, gone.TopicID[:], g.name))
		e.equal("old", e.old(g), metadata.OldOffsets{Total: 1, Gone: []lease.Key{gone}})
		e.equal("positions", len(e.positions(g)), 1)
		e.write(g, metadata.GroupWrite{DeleteOffsets: []metadata.OffsetDelete{{Group: g.name, Keys: []lease.Key{gone}}}})
		e.equal("old", e.old(g), metadata.OldOffsets{Total: 1})
	}},
	{"what a coordinator was told is stored is what its successor loads", func(e *env) {
		g, k := e.newGroup(), keys(e.newTopic(1))[0]
		var told int64
		writing := make(chan struct{})
		ended := make(chan error, 1)
		go func() { // until it is fenced
			for n := int64(1); ; n++ {
				err := e.store.WriteGroups(e.ctx, e.agent, g.shard, &metadata.GroupWrite{
					Commit: g.at(k, n), Save: []metadata.GroupRecord{{Group: g.name, Record: fmt.Sprint(n)}},
				})
				if err != nil {
					ended <- err
					return
				}
				if told = n; n == 20 {
					close(writing)
				}
			}
		}()
		<-writing
		e.ok(e.exec(e.ctx, `UPDATE partitions SET lease_expires_at = 0 WHERE topic_id = $1 AND partition = $2`,
			g.shard.TopicID[:], g.shard.Partition))
		next := e.lead("successor", ttl, g.shard.Key)[0]
		record, _ := e.record(g)
		position := e.positions(g)[0].Offset
		e.wantErr(<-ended, metadata.ErrFenced)

		later := e.positions(g)[0].Offset
		if fmt.Sprint(position) != record || position != later || position != told {
			e.Errorf("told %d, loaded %s and %d, and later %d", told, record, position, later)
		}
		e.ok(e.store.Release(e.ctx, "successor", []lease.Term{next}))
	}},
	{"an empty write asks the fence all the same", func(e *env) {
		g := e.newGroup()
		e.write(g, metadata.GroupWrite{})
		e.wantFenced("rival", g.shard, metadata.GroupWrite{})
	}},
	{"a position in a partition that is not there is dropped", func(e *env) {
		g := e.newGroup()
		e.commitAt(g, lease.Key{TopicID: uuid.New()}, 1)
		e.equal("positions", len(e.positions(g)), 0)
	}},
}
