package metadatatest

import (
	"context"
	"slices"
	"sync/atomic"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// leader finds a partition's leadership in a topology.
func leader(in []metadata.Leader, k lease.Key) *metadata.Leader {
	if i := slices.IndexFunc(in, func(l metadata.Leader) bool { return l.Key == k }); i >= 0 {
		return &in[i]
	}
	return nil
}

// agent finds an agent in a topology.
func listed(in *metadata.Topology, id string) *metadata.Agent {
	if i := slices.IndexFunc(in.Agents, func(a metadata.Agent) bool { return a.ID == id }); i >= 0 {
		return &in.Agents[i]
	}
	return nil
}

// newAgent is an agent that nobody has registered.
func (e *env) newAgent() metadata.Agent {
	return metadata.Agent{
		ID: "agent-" + uuid.NewString(), Session: uuid.New(), Host: "10.1.2.3", Port: 9092, Zone: "us-east-1a", Group: e.group,
		PeerAddress: "10.1.2.3:9645",
	}
}

var agentTests = []test{
	{"an agent is listed from its registration on", func(e *env) {
		a := e.newAgent()
		a.NodeID = must(e.store.Register(e.ctx, a))(e)
		got := listed(must(e.store.Topology(e.ctx, 0))(e), a.ID)
		if got == nil {
			e.Fatal("not listed")
		}
		if got.HeartbeatAge < 0 || got.HeartbeatAge >= metadata.AgentListedFor {
			e.Errorf("heartbeat age %v", got.HeartbeatAge)
		}
		got.HeartbeatAge = 0
		e.equal("agent", *got, a)
	}},
	{"agents that register at once get node ids of their own, above 0", func(e *env) {
		const agents = 8
		var ids [agents]int32
		e.together(agents, func(n int) (err error) {
			ids[n], err = e.store.Register(e.ctx, e.newAgent())
			return err
		})
		slices.Sort(ids[:])
		if ids[0] < 1 || len(slices.Compact(ids[:])) != agents {
			e.Errorf("node ids %v", ids)
		}
	}},
	{"an agent id keeps its node id through sessions, and after it was deregistered", func(e *env) {
		a := e.newAgent()
		node := must(e.store.Register(e.ctx, a))(e)
		e.equal("node id, again", must(e.store.Register(e.ctx, a))(e), node)
		e.ok(e.store.Deregister(e.ctx, a.ID, a.Session))
		a.Session, a.Port = uuid.New(), 9093
		e.equal("node id, later", must(e.store.Register(e.ctx, a))(e), node)
		e.equal("port", listed(must(e.store.Topology(e.ctx, 0))(e), a.ID).Port, int32(9093))
	}},
	{"a session is superseded by the next of its agent id", func(e *env) {
		a := e.newAgent()
		must(e.store.Register(e.ctx, a))(e)
		e.ok(e.store.Heartbeat(e.ctx, a.ID, a.Session))
		next := a
		next.Session = uuid.New()
		must(e.store.Register(e.ctx, next))(e)
		e.wantErr(e.store.Heartbeat(e.ctx, a.ID, a.Session), metadata.ErrSuperseded)
		e.ok(e.store.Deregister(e.ctx, a.ID, a.Session)) // changes nothing
		e.ok(e.store.Heartbeat(e.ctx, a.ID, next.Session))
		e.equal("session", listed(must(e.store.Topology(e.ctx, 0))(e), a.ID).Session, next.Session)
	}},
	{"a deregistered agent is not listed, and its heartbeat is refused", func(e *env) {
		a := e.newAgent()
		must(e.store.Register(e.ctx, a))(e)
		e.ok(e.store.Deregister(e.ctx, a.ID, a.Session))
		if listed(must(e.store.Topology(e.ctx, 0))(e), a.ID) != nil {
			e.Error("still listed")
		}
		e.wantErr(e.store.Heartbeat(e.ctx, a.ID, a.Session), metadata.ErrBuried)
		e.wantErr(e.store.Heartbeat(e.ctx, "nobody", a.Session), metadata.ErrBuried)
	}},
	{"what was handed over to an agent and not acquired is free when the agent ends, and what it acquired is not", func(e *env) {
		a := e.newAgent()
		must(e.store.Register(e.ctx, a))(e)
		terms := e.ledTopic(2)
		given := must(e.store.HandOver(e.ctx, e.agent, ttl, []lease.Move{{Term: terms[0], To: a.ID}, {Term: terms[1], To: a.ID}}))(e)
		e.equal("handed over", len(given), 2)
		acquired := e.lead(a.ID, ttl, terms[1].Key)[0]
		v := must(e.store.Topology(e.ctx, 0))(e).Version
		e.ok(e.store.Deregister(e.ctx, a.ID, uuid.New())) // another session's goodbye
		e.ok(e.store.Deregister(e.ctx, a.ID, a.Session))
		e.equal("leaders", must(e.store.Topology(e.ctx, v))(e).Leaders, []metadata.Leader{{Key: terms[0].Key, LeaderEpoch: 1}})
		e.equal("leader epoch", e.lead("third-"+e.agent, ttl, terms[0].Key)[0].LeaderEpoch, int32(2))
		e.equal("renewed", len(must(e.store.Renew(e.ctx, a.ID, ttl, []lease.Term{acquired}))(e)), 1)
	}},
	{"what is handed over to an agent that has ended is free", func(e *env) {
		ended, lives := e.newAgent(), e.newAgent()
		must(e.store.Register(e.ctx, ended))(e)
		must(e.store.Register(e.ctx, lives))(e)
		e.ok(e.store.Deregister(e.ctx, ended.ID, ended.Session))
		terms := e.ledTopic(2)
		v := must(e.store.Topology(e.ctx, 0))(e).Version
		given := must(e.store.HandOver(e.ctx, e.agent, ttl, []lease.Move{{Term: terms[0], To: ended.ID}, {Term: terms[1], To: lives.ID}}))(e)
		if len(given) != 1 || given[0].Key != terms[1].Key || given[0].LeaderEpoch != 1 {
			e.Errorf("handed over %v", given)
		}
		e.equal("leaders", must(e.store.Topology(e.ctx, v))(e).Leaders, []metadata.Leader{
			{Key: terms[0].Key}, {Key: terms[1].Key, AgentID: lives.ID, LeaderEpoch: 1},
		})
		e.equal("leader epoch", e.lead("third-"+e.agent, ttl, terms[0].Key)[0].LeaderEpoch, int32(1))
	}},
	{"what was handed over to an agent that was buried then can be acquired", func(e *env) {
		term := e.ledTopic(1)[0]
		must(e.store.HandOver(e.ctx, e.agent, ttl, []lease.Move{{Term: term, To: "buried-" + e.agent}}))(e)
		// As a burial does, and leaves the mark of the hand-over behind.
		e.ok(e.exec(e.ctx, `UPDATE partitions SET leader_agent_id = NULL, lease_expires_at = 0 WHERE topic_id = $1`, term.TopicID[:]))
		next := e.lead("third-"+e.agent, ttl, term.Key)[0]
		e.equal("leader epoch", next.LeaderEpoch, int32(2))
		e.equal("leader epoch, again", e.lead("third-"+e.agent, ttl, term.Key)[0].LeaderEpoch, int32(3))
	}},
	{"a living agent is attended until it ends, challenged or not, and is not buried", func(e *env) {
		a := e.newAgent()
		must(e.store.Register(e.ctx, a))(e)
		ctx, stop := context.WithCancel(e.ctx)
		defer stop()
		present, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			ended <- e.store.Attend(ctx, a.ID, a.Session, metadata.Signals{
				Present: func() { close(present) }, Challenged: func() {},
			})
		}()
		<-present
		for range 2 {
			burial := must(e.store.Bury(e.ctx, a.ID, a.Session, ttl))(e)
			e.equal("burial", burial, metadata.NotBuried)
			e.ok(e.store.Challenge(e.ctx, a.ID, a.Session))
		}
		stop()
		e.ok(<-ended)
		e.ok(e.store.Heartbeat(e.ctx, a.ID, a.Session))
	}},
	{"the store answers a ping", func(e *env) { e.ok(e.store.Ping(e.ctx)) }},
}

var topologyTests = []test{
	{"the cluster has an id of its own, in the shape of Kafka's", func(e *env) {
		id := must(e.store.Topology(e.ctx, 0))(e).ClusterID
		if len(id) != 22 {
			e.Errorf("cluster id %q", id)
		}
		e.equal("cluster id", must(e.store.Topology(e.ctx, 0))(e).ClusterID, id)
	}},
	{"a version is told apart from the next by what changed between", func(e *env) {
		old := e.newTopic(1)
		v := must(e.store.Topology(e.ctx, 0))(e).Version
		none := must(e.store.Topology(e.ctx, v))(e)
		e.equal("nothing changed", []int{len(none.Topics), len(none.Deleted), len(none.Leaders), len(none.Shards)}, []int{0, 0, 0, 0})
		e.equal("version", none.Version, v)

		topic := e.newTopic(2)
		p := e.lead(e.agent, ttl, keys(topic)[:1]...)[0]
		next := must(e.store.Topology(e.ctx, v))(e)
		e.equal("topics", next.Topics, []metadata.Topic{{ID: topic.ID, Name: topic.Name, Partitions: 2}})
		e.equal("leaders", next.Leaders, []metadata.Leader{{Key: p.Key, AgentID: e.agent, LeaderEpoch: 0}})

		e.ok(e.store.AddPartitions(e.ctx, old.ID, 2))
		e.ok(e.store.AlterTopicConfigs(e.ctx, topic.ID, metadata.ConfigChange{Values: map[string]*string{"a": new("b")}}))
		e.ok(e.store.Release(e.ctx, e.agent, []lease.Term{p}))
		last := must(e.store.Topology(e.ctx, next.Version))(e)
		e.equal("topics", len(last.Topics), 2)
		e.equal("leaders", last.Leaders, []metadata.Leader{{Key: p.Key, LeaderEpoch: 0}})
	}},
	{"a deletion is told to those who may have seen the topic, and to no others", func(e *env) {
		topic := e.newTopic(1)
		e.lead(e.agent, ttl, keys(topic)...)
		v := must(e.store.Topology(e.ctx, 0))(e).Version
		e.ok(e.store.DeleteTopic(e.ctx, topic.ID))
		next := must(e.store.Topology(e.ctx, v))(e)
		e.equal("deleted", next.Deleted, []uuid.UUID{topic.ID})
		e.equal("topics", len(next.Topics), 0)
		if all := must(e.store.Topology(e.ctx, 0))(e); slices.Contains(all.Deleted, topic.ID) || leader(all.Leaders, keys(topic)[0]) != nil {
			e.Error("the deleted topic is in the whole topology")
		}
	}},
	{"a refused acquisition changes nothing", func(e *env) {
		p := e.ledTopic(1)[0]
		v := must(e.store.Topology(e.ctx, 0))(e).Version
		must(e.store.Acquire(e.ctx, "rival", ttl, []lease.Key{p.Key}))(e)
		e.ok(e.store.Release(e.ctx, "rival", []lease.Term{p}))
		e.equal("version", must(e.store.Topology(e.ctx, v))(e).Version, v)
	}},
	{"a topic's configs that are set to what they are change nothing", func(e *env) {
		topic := e.newTopic(1)
		set := metadata.ConfigChange{Values: map[string]*string{"a": new("1"), "b": new("2")}}
		e.ok(e.store.AlterTopicConfigs(e.ctx, topic.ID, set))
		v := must(e.store.Topology(e.ctx, 0))(e).Version
		for _, same := range []metadata.ConfigChange{
			set,
			{Values: set.Values, Replace: true},
			{Values: map[string]*string{"b": new("2"), "c": nil}},
			{},
		} {
			e.ok(e.store.AlterTopicConfigs(e.ctx, topic.ID, same))
		}
		e.equal("version", must(e.store.Topology(e.ctx, v))(e).Version, v)
	}},
	{"coordinator shards are leased like partitions and listed apart", func(e *env) {
		v := must(e.store.Topology(e.ctx, 0))(e).Version
		var shards []lease.Key
		for n := range int32(metadata.GroupShards) {
			shards = append(shards, metadata.GroupShardKey(metadata.DefaultAgentGroup, n))
		}
		terms := e.lead(e.agent, ttl, shards...)
		next := must(e.store.Topology(e.ctx, v))(e)
		e.equal("shards", len(next.Shards), metadata.GroupShards)
		e.equal("leaders", len(next.Leaders), 0)
		for _, t := range terms {
			e.equal("shard", leader(next.Shards, t.Key), &metadata.Leader{Key: t.Key, AgentID: e.agent, LeaderEpoch: t.LeaderEpoch})
		}
		e.ok(e.store.Release(e.ctx, e.agent, terms))
		for _, t := range must(e.store.Topology(e.ctx, 0))(e).Topics {
			if metadata.IsShard(lease.Key{TopicID: t.ID}) {
				e.Errorf("the reserved topic is listed: %+v", t)
			}
		}
	}},
	{"a version that the store never had asks for all", func(e *env) {
		topic := e.newTopic(1)
		v := must(e.store.Topology(e.ctx, 0))(e).Version
		all := must(e.store.Topology(e.ctx, v+1000))(e)
		e.equal("version", all.Version, v)
		if !slices.ContainsFunc(all.Topics, func(t metadata.Topic) bool { return t.ID == topic.ID }) {
			e.Error("a topic is missing")
		}
	}},
	{"who follows the versions misses no change, however many change at once", func(e *env) {
		const writers, changes = 4, 15
		follow := must(e.store.Topology(e.ctx, 0))(e)
		seen := make(map[uuid.UUID]metadata.Topic)
		led := make(map[lease.Key]metadata.Leader)
		deleted := make(map[uuid.UUID]bool)
		catchUp := func(since int64) int64 {
			next := must(e.store.Topology(e.ctx, since))(e)
			for _, t := range next.Topics {
				seen[t.ID] = t
			}
			for _, l := range next.Leaders {
				led[l.Key] = l
			}
			for _, id := range next.Deleted {
				deleted[id] = true
			}
			return next.Version
		}
		var writing atomic.Int32
		writing.Store(writers)
		made := make([][]metadata.NewTopic, writers)
		e.together(writers+1, func(n int) error {
			if n == writers {
				for v := follow.Version; ; {
					last := writing.Load() == 0
					v = catchUp(v)
					if last {
						return nil
					}
				}
			}
			defer writing.Add(-1)
			for i := range changes {
				id := uuid.New()
				t := metadata.NewTopic{ID: id, Name: id.String(), Partitions: 1}
				if err := e.store.CreateTopic(e.ctx, t); err != nil {
					return err
				}
				if _, err := e.store.Acquire(e.ctx, e.agent, ttl, keys(t)); err != nil {
					return err
				}
				if i%3 == 2 {
					if err := e.store.DeleteTopic(e.ctx, id); err != nil {
						return err
					}
				}
				made[n] = append(made[n], t)
			}
			return nil
		})
		for _, of := range made {
			for i, t := range of {
				if i%3 == 2 {
					if !deleted[t.ID] {
						e.Errorf("missed that topic %d was deleted", i)
					}
					continue
				}
				if seen[t.ID].Name != t.Name {
					e.Errorf("missed topic %d", i)
				}
				if led[keys(t)[0]].AgentID != e.agent {
					e.Errorf("missed the leader of topic %d", i)
				}
			}
		}
	}},
}
