package metadatatest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// OpenGroup opens the store of an agent group on the one database of a test, and closes
// it at the test's end.
type OpenGroup func(t testing.TB, agentGroup string) metadata.Store

// RunAgentGroups runs the suite about agent groups that share a database, which open
// makes, empty.
func RunAgentGroups(t *testing.T, open func(t testing.TB) (OpenGroup, Exec)) {
	of, exec := open(t)
	for _, group := range []struct {
		name  string
		tests []groupsTest
	}{
		{"Isolation", isolationTests},
		{"Sharing", sharingTests},
		{"Moves", moveTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, tc := range group.tests {
				t.Run(tc.name, func(t *testing.T) {
					tc.run(newTenant(t, of, exec), newTenant(t, of, exec))
				})
			}
		})
	}
}

type groupsTest struct {
	name string
	run  func(blue, red *tenant)
}

// tenant is an agent group of a test, with one agent, which is registered.
type tenant struct {
	*env
	of   OpenGroup
	self metadata.Agent
}

func newTenant(t *testing.T, of OpenGroup, exec Exec) *tenant {
	t.Helper()
	group := "group-" + uuid.NewString()
	r := &tenant{env: newEnv(t, of(t, group), exec), of: of}
	r.group = group
	r.self = r.newAgent()
	r.self.ID = r.agent
	r.self.NodeID = must(r.store.Register(r.ctx, r.self))(r.env)
	return r
}

// named makes a topic of one partition and leads it.
func (r *tenant) named(name string) lease.Term {
	r.Helper()
	topic := metadata.NewTopic{ID: uuid.New(), Name: name, Partitions: 1}
	r.ok(r.store.CreateTopic(r.ctx, topic))
	return r.lead(r.agent, ttl, keys(topic)...)[0]
}

// consumers is a consumer group of which the tenant's agent coordinates the shard.
func (r *tenant) consumers(name string) group {
	r.Helper()
	return group{name, r.lead(r.agent, ttl, metadata.GroupShard(r.group, name))[0]}
}

// topics returns the names of all topics.
func (r *tenant) topics() []string {
	r.Helper()
	var names []string
	for _, t := range must(r.store.Topology(r.ctx, 0))(r.env).Topics {
		names = append(names, t.Name)
	}
	return names
}

// wantUnknown checks that a key is not there for an agent.
func (e *env) wantUnknown(agent string, k lease.Key) {
	e.Helper()
	r := must(e.store.Acquire(e.ctx, agent, ttl, []lease.Key{k}))(e)[0]
	e.wantErr(r.Err, lease.ErrUnknownKey)
}

var sharingTests = []groupsTest{
	{"topics of one name live side by side", func(blue, red *tenant) {
		of := []lease.Term{blue.named("orders"), red.named("orders")}
		blue.commit(batch(of[0], 3))
		red.commit(batch(of[1], 5))
		blue.equal("end", []int64{blue.high(of[0].Key), red.high(of[1].Key)}, []int64{3, 5})
		blue.ok(blue.store.DeleteTopic(blue.ctx, of[0].TopicID))
		blue.equal("topics", blue.topics(), []string(nil))
		red.equal("topics", red.topics(), []string{"orders"})
		again := metadata.NewTopic{ID: uuid.New(), Name: "orders", Partitions: 1}
		red.wantErr(red.store.CreateTopic(red.ctx, again), metadata.ErrTopicExists)
		blue.ok(blue.store.CreateTopic(blue.ctx, again))
	}},
	{"a topic is made in the agent group that is named", func(blue, red *tenant) {
		t := metadata.NewTopic{ID: uuid.New(), Name: "orders", Partitions: 2, AgentGroup: &red.group}
		for range 2 { // a retry
			blue.ok(blue.store.CreateTopic(blue.ctx, t))
		}
		blue.equal("topics", blue.topics(), []string(nil))
		red.equal("topics", red.topics(), []string{"orders"})
		blue.wantUnknown(blue.agent, keys(t)[1])
		red.lead(red.agent, ttl, keys(t)...)
		t.ID = uuid.New()
		blue.wantErr(blue.store.CreateTopic(blue.ctx, t), metadata.ErrTopicExists)
		t.AgentGroup = new("no group\x01")
		blue.wantErr(blue.store.CreateTopic(blue.ctx, t), metadata.ErrAgentGroup)
	}},
	{"a topic's id that another agent group has is taken, and what has it stays", func(blue, red *tenant) {
		t := blue.newTopic(1)
		before := blue.state(t.ID)
		red.wantErr(red.store.CreateTopic(red.ctx, metadata.NewTopic{ID: t.ID, Name: "mine", Partitions: 5}), metadata.ErrTopicExists)
		blue.equal("state", blue.state(t.ID), before)
		red.equal("topics", red.topics(), []string(nil))
	}},
	{"consumer groups of one id have positions and records of their own", func(blue, red *tenant) {
		tenants, groups, ks := []*tenant{blue, red}, []group(nil), []lease.Key(nil)
		for i, r := range tenants {
			g, k := r.consumers("readers"), keys(r.newTopic(1))[0]
			groups, ks = append(groups, g), append(ks, k)
			r.write(g, metadata.GroupWrite{
				Commit: g.at(k, int64(i)), Save: []metadata.GroupRecord{{Group: g.name, Record: fmt.Sprint("record ", i)}},
			})
		}
		for i, r := range tenants {
			record, _ := r.record(groups[i])
			r.equal("record", record, fmt.Sprint("record ", i))
			r.equal("positions", r.positions(groups[i]), []metadata.CommittedOffset{{Key: ks[i], Offset: int64(i), LeaderEpoch: -1}})
			r.equal("positions that expire", r.old(groups[i]).Total, 1)
		}
		blue.write(groups[0], metadata.GroupWrite{Delete: []string{"readers"}})
		_, saved := blue.record(groups[0])
		blue.equal("saved", saved, false)
		_, saved = red.record(groups[1])
		red.equal("saved", saved, true)
		red.equal("positions", len(red.positions(groups[1])), 1)
	}},
	{"no id of a consumer group is one of another agent group's", func(blue, red *tenant) {
		theirs := blue.consumers("readers")
		blue.write(theirs, metadata.GroupWrite{Save: []metadata.GroupRecord{{Group: theirs.name, Record: "theirs"}}})
		main := &tenant{env: newEnv(blue.T, blue.of(blue.T, ""), blue.exec), of: blue.of}
		for _, r := range []*tenant{red, main} {
			for _, name := range []string{"readers", "\x01" + blue.group + "\x01readers", "\x01\x01readers", "\x01"} {
				g := r.consumers(name)
				r.write(g, metadata.GroupWrite{Save: []metadata.GroupRecord{{Group: g.name, Record: name}}})
				record, _ := r.record(g)
				r.equal("record", record, name)
				r.ok(r.store.Release(r.ctx, r.agent, []lease.Term{g.shard}))
			}
		}
		record, _ := blue.record(theirs)
		blue.equal("record", record, "theirs")
	}},
	{"configs of resources and of the cluster are an agent group's own", func(blue, red *tenant) {
		res := metadata.Resource{Type: 32, Name: "readers"}
		for _, r := range []*tenant{blue, red} {
			set := metadata.ConfigChange{Values: map[string]*string{"whose": new(r.group)}}
			r.ok(r.store.AlterResourceConfigs(r.ctx, res, set))
			r.ok(r.store.AlterClusterConfigs(r.ctx, set))
		}
		for _, r := range []*tenant{blue, red} {
			in, own := must(r.store.Topology(r.ctx, 0))(r.env), map[string]string{"whose": r.group}
			r.equal("of the cluster", in.Configs, own)
			r.equal("of resources", in.Resources, []metadata.ResourceConfigs{{Resource: res, Configs: own}})
		}
		for _, c := range must(blue.of(blue.T, "").Topology(blue.ctx, 0))(blue.env).Configs {
			blue.Errorf("the default agent group has the config %q", c)
		}
	}},
	{"an agent is granted what is of the group that it has registered in, whichever store it asks", func(blue, red *tenant) {
		theirs, shard := keys(blue.newTopic(1))[0], metadata.GroupShardKey(blue.group, 7)
		main := newEnv(blue.T, blue.of(blue.T, ""), blue.exec)
		open := keys(main.newTopic(1))[0]
		for _, store := range []metadata.Store{blue.store, red.store, main.store} {
			for _, k := range []lease.Key{theirs, shard, open} {
				asked := must(store.Acquire(red.ctx, red.agent, ttl, []lease.Key{k}))(red.env)[0]
				red.wantErr(asked.Err, lease.ErrUnknownKey)
			}
			for _, k := range []lease.Key{theirs, shard} {
				asked := must(store.Acquire(red.ctx, "nobody", ttl, []lease.Key{k}))(red.env)[0]
				red.wantErr(asked.Err, lease.ErrUnknownKey)
			}
		}
		blue.lead(blue.agent, ttl, theirs, shard)
		red.wantUnknown(red.agent, theirs) // and who holds it is not said
	}},
	{"a lease is not handed over to an agent of another group, but free", func(blue, red *tenant) {
		terms := blue.ledTopic(3)
		member := blue.newAgent()
		must(blue.store.Register(blue.ctx, member))(blue.env)
		given := must(blue.store.HandOver(blue.ctx, blue.agent, ttl, []lease.Move{
			{Term: terms[0], To: red.agent}, {Term: terms[1], To: member.ID}, {Term: terms[2], To: "nobody"},
		}))(blue.env)
		blue.equal("given", len(given), 1)
		blue.equal("given", given[0].Key, terms[1].Key)
		red.wantUnknown(red.agent, terms[0].Key)
		blue.equal("leaders", blue.leaders(terms...), []string{"", member.ID, ""})
	}},
	{"an id is of one agent group at a time, and its leases stay behind", func(blue, red *tenant) {
		term := blue.ledTopic(1)[0]
		a := red.newAgent()
		a.ID = blue.agent
		_, err := red.store.Register(red.ctx, a)
		red.wantErr(err, metadata.ErrAgentGroup)
		other := a
		other.Group = blue.group
		_, err = red.store.Register(red.ctx, other)
		red.wantErr(err, metadata.ErrAgentGroup)
		blue.ok(blue.store.Heartbeat(blue.ctx, blue.agent, blue.self.Session))
		blue.ok(blue.store.Deregister(blue.ctx, blue.agent, blue.self.Session))
		blue.equal("node id", must(red.store.Register(red.ctx, a))(red.env), blue.self.NodeID)
		blue.equal("leader", blue.leaders(term), []string{""})
		blue.wantUnknown(a.ID, term.Key)
	}},
	{"an agent is isolated among those of its group", func(blue, red *tenant) {
		members := blue.agents(3) // of others, nobody is listed
		stranger := red.newAgent()
		must(red.store.Register(red.ctx, stranger))(red.env)
		blue.report(true, members[0], members[1], stranger)
		red.report(true, members[0], stranger)
		blue.wantIsolated("reported by one and by a stranger", members)
		blue.report(true, members[0], members[2])
		blue.wantIsolated("reported by all of its group", members, 0)
		red.report(false, members[0], members[1])
		blue.wantIsolated("a stranger took it back", members, 0)
	}},
	{"all agents that share the database are counted", func(blue, red *tenant) {
		before := must(blue.store.Topology(blue.ctx, 0))(blue.env)
		must(red.store.Register(red.ctx, red.newAgent()))(red.env)
		after := must(blue.store.Topology(blue.ctx, 0))(blue.env)
		blue.equal("sharing", after.Sharing, before.Sharing+1)
		blue.equal("agents", []int{len(before.Agents), len(after.Agents)}, []int{1, 1})
	}},
}

// leaders returns who leads the keys of terms.
func (e *env) leaders(of ...lease.Term) []string {
	e.Helper()
	ks := make([]lease.Key, len(of))
	for i := range of {
		ks[i] = of[i].Key
	}
	var ids []string
	for _, w := range must(e.store.Watermarks(e.ctx, ks))(e) {
		ids = append(ids, w.LeaderID)
	}
	return ids
}

// unless is nil if the error is the expected one.
func unless(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

// moveTo moves a topic to another tenant.
func (r *tenant) moveTo(to *tenant, topic uuid.UUID) {
	r.Helper()
	r.ok(r.store.AlterTopicConfigs(r.ctx, topic, metadata.ConfigChange{AgentGroup: &to.group}))
}

var moveTests = []groupsTest{
	{"a topic goes with its records, its leader does not", func(blue, red *tenant) {
		term := blue.named("orders")
		blue.commit(batch(term, 3))
		since := []int64{must(blue.store.Topology(blue.ctx, 0))(blue.env).Version, must(red.store.Topology(red.ctx, 0))(red.env).Version}
		set := metadata.ConfigChange{Values: map[string]*string{"a": new("b")}, AgentGroup: &red.group}
		blue.ok(blue.store.AlterTopicConfigs(blue.ctx, term.TopicID, set))

		left := must(blue.store.Topology(blue.ctx, since[0]))(blue.env)
		blue.equal("deleted", left.Deleted, []uuid.UUID{term.TopicID})
		blue.equal("of the topic", []int{len(left.Topics), len(left.Leaders)}, []int{0, 0})
		came := must(red.store.Topology(red.ctx, since[1]))(red.env)
		red.equal("topics", came.Topics, []metadata.Topic{{
			ID: term.TopicID, Name: "orders", Partitions: 1, Configs: map[string]string{"a": "b"},
		}})
		red.equal("leaders", came.Leaders, []metadata.Leader{{Key: term.Key, LeaderEpoch: term.LeaderEpoch}})
		blue.equal("deleted, asked for all", must(blue.store.Topology(blue.ctx, 0))(blue.env).Deleted, []uuid.UUID(nil))

		blue.wantOutcome(blue.commit(batch(term, 1))[0], metadata.Fenced, -1)
		blue.equal("renewed", len(must(blue.store.Renew(blue.ctx, blue.agent, ttl, []lease.Term{term}))(blue.env)), 0)
		blue.wantUnknown(blue.agent, term.Key)
		next := red.lead(red.agent, ttl, term.Key)[0]
		red.equal("leader epoch", next.LeaderEpoch, term.LeaderEpoch+1)
		red.wantOutcome(red.commit(batch(next, 2))[0], metadata.Committed, 3)
		red.equal("extents", len(red.readFrom(term.Key, 0, 1<<20).Extents), 2)
		red.ok(red.store.AddPartitions(red.ctx, term.TopicID, 2))
		red.lead(red.agent, ttl, lease.Key{TopicID: term.TopicID, Partition: 1})
	}},
	{"to where the name is taken, or to no group's name, a topic does not go", func(blue, red *tenant) {
		term, other := blue.named("orders"), red.named("orders")
		set := metadata.ConfigChange{Values: map[string]*string{"a": new("b")}, AgentGroup: &red.group}
		before := blue.state(term.TopicID)
		blue.wantErr(blue.store.AlterTopicConfigs(blue.ctx, term.TopicID, set), metadata.ErrTopicExists)
		set.AgentGroup = new("no/group")
		blue.wantErr(blue.store.AlterTopicConfigs(blue.ctx, term.TopicID, set), metadata.ErrAgentGroup)
		blue.equal("state", blue.state(term.TopicID), before)
		red.ok(red.store.DeleteTopic(red.ctx, other.TopicID))
		blue.moveTo(red, term.TopicID)
	}},
	{"to its own group a topic moves without a change", func(blue, _ *tenant) {
		term := blue.named("orders")
		v := must(blue.store.Topology(blue.ctx, 0))(blue.env).Version
		blue.moveTo(blue, term.TopicID)
		blue.equal("version", must(blue.store.Topology(blue.ctx, v))(blue.env).Version, v)
		blue.wantOutcome(blue.commit(batch(term, 1))[0], metadata.Committed, 0)
	}},
	{"a topic that came back was never away, for who did not look", func(blue, red *tenant) {
		term := blue.named("orders")
		v := must(blue.store.Topology(blue.ctx, 0))(blue.env).Version
		blue.moveTo(red, term.TopicID)
		red.moveTo(blue, term.TopicID)
		next := must(blue.store.Topology(blue.ctx, v))(blue.env)
		blue.equal("topics and deleted", []int{len(next.Topics), len(next.Deleted)}, []int{1, 0})
		away := must(red.store.Topology(red.ctx, v))(red.env)
		red.equal("topics and deleted", []int{len(away.Topics), len(away.Deleted)}, []int{0, 1})
		blue.moveTo(red, term.TopicID)
		red.ok(red.store.DeleteTopic(red.ctx, term.TopicID))
		gone := must(blue.store.Topology(blue.ctx, next.Version))(blue.env)
		blue.equal("deleted", gone.Deleted, []uuid.UUID{term.TopicID})
	}},
	{"positions in a topic that has left are gone, and there again if it is back before they are forgotten", func(blue, red *tenant) {
		k := keys(blue.newTopic(1))[0]
		g := blue.consumers("readers")
		blue.commitAt(g, k, 5)
		blue.moveTo(red, k.TopicID)
		blue.equal("positions", len(blue.positions(g)), 0)
		blue.equal("old", blue.old(g), metadata.OldOffsets{Gone: []lease.Key{k}})
		blue.commitAt(g, k, 7)
		theirs := red.consumers("readers")
		red.equal("positions", len(red.positions(theirs)), 0)
		red.commitAt(theirs, k, 1)
		red.moveTo(blue, k.TopicID)
		blue.equal("positions", blue.positions(g), []metadata.CommittedOffset{{Key: k, Offset: 5, LeaderEpoch: -1}})
		red.equal("positions", len(red.positions(theirs)), 0)
	}},
	{"no commit of the old leader is in the log after a move", func(blue, red *tenant) {
		const writers = 4
		term := blue.named("orders")
		var committed [writers]int64
		blue.together(writers+1, func(n int) error {
			if n == writers {
				return blue.store.AlterTopicConfigs(blue.ctx, term.TopicID, metadata.ConfigChange{AgentGroup: &red.group})
			}
			for {
				r, err := blue.store.Commit(blue.ctx, &metadata.Commit{AgentID: blue.agent, Objects: []metadata.CommitObject{object(batch(term, 1))}})
				switch {
				case err != nil:
					return err
				case r[0][0].Outcome == metadata.Fenced:
					return nil
				case r[0][0].Outcome != metadata.Committed:
					return fmt.Errorf("outcome %d", r[0][0].Outcome)
				}
				committed[n]++
			}
		})
		var all int64
		for _, n := range committed {
			all += n
		}
		red.equal("end of the log", red.high(term.Key), all)
	}},
	{"of moves and creations of one name at once, one is done", func(blue, red *tenant) {
		const each = 4
		var from [each]lease.Term
		tenants := make([]*tenant, each)
		for i := range from {
			tenants[i] = newTenant(blue.T, blue.of, blue.exec)
			from[i] = tenants[i].named("orders")
		}
		var done [2 * each]bool
		blue.together(2*each, func(n int) error {
			var err error
			if n < each {
				err = tenants[n].store.AlterTopicConfigs(blue.ctx, from[n].TopicID, metadata.ConfigChange{AgentGroup: &red.group})
			} else {
				err = red.store.CreateTopic(red.ctx, metadata.NewTopic{ID: uuid.New(), Name: "orders", Partitions: 1})
			}
			done[n] = err == nil
			return unless(err, metadata.ErrTopicExists)
		})
		if n := len(slices.DeleteFunc(done[:], func(b bool) bool { return !b })); n != 1 {
			blue.Errorf("%d were done", n)
		}
		red.equal("topics", red.topics(), []string{"orders"})
	}},
	{"acquisitions and moves at once leave no lease to an agent of another group", func(blue, red *tenant) {
		k := keys(blue.newTopic(1))[0]
		tenants := []*tenant{blue, red}
		blue.together(4, func(n int) error {
			r := tenants[n%2]
			for range 25 {
				var err error
				if n < 2 {
					err = r.store.AlterTopicConfigs(r.ctx, k.TopicID, metadata.ConfigChange{AgentGroup: &tenants[1-n%2].group})
				} else {
					_, err = r.store.Acquire(r.ctx, r.agent, time.Hour, []lease.Key{k})
				}
				if err := unless(err, metadata.ErrUnknownTopic); err != nil {
					return err
				}
			}
			return nil
		})
		for i, r := range tenants {
			if w := must(r.store.Watermarks(r.ctx, []lease.Key{k}))(r.env)[0]; w != nil && w.LeaderID == tenants[1-i].agent {
				r.Errorf("the topic of %s is led by an agent of another group", r.group)
			}
		}
	}},
}
