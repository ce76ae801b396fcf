package metadatatest

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// property is what a tenant has and another asks for: real, or made up.
type property struct {
	topic     uuid.UUID
	name      string // of the topic
	term      lease.Term
	consumers string // a consumer group
	shard     lease.Term
	resource  metadata.Resource
	agent     metadata.Agent
}

func (p *property) keys() []lease.Key { return []lease.Key{p.term.Key, p.shard.Key} }

// madeUp is a property that nobody has, with the names of one that exists where names
// are the asker's to choose.
func (p property) madeUp() *property {
	fresh := "group-" + uuid.NewString()
	p.topic = uuid.New()
	p.term.TopicID = p.topic
	p.shard.Key = metadata.GroupShardKey(fresh, p.shard.Partition)
	p.agent.ID, p.agent.Session, p.agent.Group = "agent-"+uuid.NewString(), uuid.New(), fresh
	return &p
}

// blind replaces the ids of the property in a text.
func (p *property) blind(text string) string {
	return strings.NewReplacer(p.topic.String(), "TOPIC", p.shard.TopicID.String(), "SHARD", p.agent.ID, "AGENT",
		p.agent.Session.String(), "SESSION", p.agent.Group, "GROUP").Replace(text)
}

// furnish gives a tenant one of everything.
func (r *tenant) furnish() *property {
	r.Helper()
	p := &property{name: "orders", consumers: "readers", resource: metadata.Resource{Type: 32, Name: "readers"}, agent: r.self}
	p.term = r.named(p.name)
	p.topic = p.term.TopicID
	producer := must(r.store.AllocateProducerIDs(r.ctx, 1))(r.env)
	idempotent := batch(p.term, 4)
	idempotent.ProducerID, idempotent.ProducerEpoch, idempotent.BaseSequence = producer, 0, 0
	r.commit(batch(p.term, 3), idempotent)
	g := r.consumers(p.consumers)
	p.shard = g.shard
	r.write(g, metadata.GroupWrite{Commit: g.at(p.term.Key, 2), Save: []metadata.GroupRecord{{Group: g.name, Record: "record"}}})
	set := metadata.ConfigChange{Values: map[string]*string{"a": new("b")}}
	r.ok(r.store.AlterTopicConfigs(r.ctx, p.topic, set))
	r.ok(r.store.AlterResourceConfigs(r.ctx, p.resource, set))
	r.ok(r.store.AlterClusterConfigs(r.ctx, set))
	return p
}

// state is all that a tenant's store says of a topic and of everything else, but for
// the times.
func (r *tenant) state(topic uuid.UUID) map[string]any {
	r.Helper()
	in := must(r.store.Topology(r.ctx, 0))(r.env)
	in.Version, in.Sharing = 0, 0
	for i := range in.Agents {
		in.Agents[i].HeartbeatAge = 0
	}
	leases := must(r.store.Leases(r.ctx, metadata.LeaseFilter{}))(r.env)
	for i := range leases {
		leases[i].Age, leases[i].ExpiresIn = 0, 0
	}
	ks := []lease.Key{{TopicID: topic}, {TopicID: topic, Partition: 1}}
	groups := map[string]string{}
	for n := range int32(metadata.GroupShards) {
		for _, g := range must(r.store.LoadGroups(r.ctx, metadata.GroupShardKey(r.group, n)))(r.env) {
			groups[g.Group] = g.Record
		}
	}
	read := must(r.store.Read(r.ctx, []metadata.ReadRequest{{Key: ks[0], MaxBytes: 1 << 20}}))(r.env)[0]
	return map[string]any{
		"topology": in, "leases": leases, "groups": groups, "extents": read.Extents,
		"watermarks": must(r.store.Watermarks(r.ctx, ks))(r.env),
		"producers":  must(r.store.ActiveProducers(r.ctx, ks))(r.env),
		"epochs":     must(r.store.EpochEnds(r.ctx, []metadata.EpochRequest{{Key: ks[0], LeaderEpoch: 100}}))(r.env)[0].EndOffset,
		"sizes":      must(r.store.LogSizes(r.ctx, []uuid.UUID{topic}))(r.env),
		"positions":  must(r.store.FetchOffsets(r.ctx, []string{"readers"}))(r.env),
	}
}

// everybodys are the methods that are not about what an agent group has, and why.
var everybodys = map[string]string{
	"AllocateProducerIDs": "ids of producers are unique in all of the cluster",
	"ClaimOrphans":        "objects have random names, which only who made them knows, and are in one bucket",
	"Prune":               "removes what nobody can ask for any more",
	"PeerSecret":          "what agents prove with it is of their agent group",
	"Ping":                "asks for nothing",
	"Close":               "asks for nothing",
}

// ask is a call of one method with what another tenant has, or nobody. What it returns
// must be the same for both.
type ask func(red *tenant, of *property) any

// failed is what a caller sees of an error.
func failed(of *property, err error) string {
	if err == nil {
		return ""
	}
	return of.blind(err.Error())
}

// asks has each method of metadata.Store that is not everybody's.
var asks = map[string]ask{
	"Register": func(red *tenant, of *property) any {
		a := of.agent
		a.Host = "10.6.6.6"
		_, err := red.store.Register(red.ctx, a) // of its group
		return failed(of, err)
	},
	"Heartbeat": func(red *tenant, of *property) any {
		return failed(of, red.store.Heartbeat(red.ctx, of.agent.ID, of.agent.Session))
	},
	"Deregister": func(red *tenant, of *property) any {
		return failed(of, red.store.Deregister(red.ctx, of.agent.ID, of.agent.Session))
	},
	"Attend": func(red *tenant, of *property) any {
		ctx, stop := context.WithCancel(red.ctx)
		defer stop()
		return failed(of, red.store.Attend(ctx, of.agent.ID, of.agent.Session, metadata.Signals{Present: stop, Challenged: func() {}}))
	},
	"Challenge": func(red *tenant, of *property) any {
		return failed(of, red.store.Challenge(red.ctx, of.agent.ID, of.agent.Session))
	},
	"Bury": func(red *tenant, of *property) any {
		burial, err := red.store.Bury(red.ctx, of.agent.ID, of.agent.Session, 0)
		return []any{burial, failed(of, err)}
	},
	"Report": func(red *tenant, of *property) any {
		report := metadata.Report{
			AgentID: of.agent.ID, Session: of.agent.Session, ReporterID: red.agent, Reporter: red.self.Session, Unreachable: true,
		}
		return failed(of, red.store.Report(red.ctx, report))
	},
	"Isolated": func(red *tenant, of *property) any {
		isolated, err := red.store.Isolated(red.ctx, of.agent.ID, of.agent.Session)
		return []any{isolated, failed(of, err)}
	},
	"Topology": func(red *tenant, _ *property) any {
		in := must(red.store.Topology(red.ctx, 0))(red.env)
		in.Version, in.Agents = 0, nil // red's own, which have an age
		since := must(red.store.Topology(red.ctx, 1))(red.env)
		since.Version, since.Agents = 0, nil
		return []any{in, since}
	},
	"CreateTopic": func(red *tenant, of *property) any { // its id, in its group
		err := red.store.CreateTopic(red.ctx, metadata.NewTopic{
			ID: of.topic, Name: "another " + of.topic.String(), Partitions: 9, AgentGroup: &of.agent.Group,
		})
		return []any{err == nil} // as a retry of what is there; ids are the caller's to make
	},
	"DeleteTopic": func(red *tenant, of *property) any { return failed(of, red.store.DeleteTopic(red.ctx, of.topic)) },
	"AddPartitions": func(red *tenant, of *property) any {
		return failed(of, red.store.AddPartitions(red.ctx, of.topic, 10))
	},
	"AlterTopicConfigs": func(red *tenant, of *property) any {
		return []string{
			failed(of, red.store.AlterTopicConfigs(red.ctx, of.topic, metadata.ConfigChange{Replace: true})),
			failed(of, red.store.AlterTopicConfigs(red.ctx, of.topic, metadata.ConfigChange{AgentGroup: &red.group})),
		}
	},
	"AlterClusterConfigs": func(red *tenant, of *property) any {
		return failed(of, red.store.AlterClusterConfigs(red.ctx, metadata.ConfigChange{Replace: true}))
	},
	"AlterResourceConfigs": func(red *tenant, of *property) any {
		return failed(of, red.store.AlterResourceConfigs(red.ctx, of.resource, metadata.ConfigChange{Replace: true}))
	},
	// A commit is refused because its agent does not lead, since no agent of another
	// group ever does; so the fence costs no commit a look at groups. That there is
	// such a partition shows, to who knows its random id.
	"Commit": func(red *tenant, of *property) any {
		r := red.commit(batch(of.term, 1))[0]
		return r.Outcome == metadata.Fenced || r.Outcome == metadata.UnknownPartition
	},
	"Read": func(red *tenant, of *property) any {
		r := must(red.store.Read(red.ctx, []metadata.ReadRequest{{Key: of.term.Key, MaxBytes: 100}, {Key: of.shard.Key, MaxBytes: 100}}))(red.env)
		return []any{r[0].Watermarks, r[0].Extents, failed(of, r[0].Err), r[1].Watermarks, failed(of, r[1].Err)}
	},
	"Watermarks": func(red *tenant, of *property) any { return must(red.store.Watermarks(red.ctx, of.keys()))(red.env) },
	"FindTimestamp": func(red *tenant, of *property) any {
		r := must(red.store.FindTimestamp(red.ctx, []metadata.TimestampRequest{{Key: of.term.Key, Timestamp: metadata.MaxTimestamp}}))(red.env)[0]
		return []any{r.Watermarks, r.Extent, failed(of, r.Err)}
	},
	"EpochEnds": func(red *tenant, of *property) any {
		r := must(red.store.EpochEnds(red.ctx, []metadata.EpochRequest{{Key: of.term.Key, LeaderEpoch: 5}}))(red.env)[0]
		return []any{r.LeaderEpoch, r.EndOffset, r.Current, failed(of, r.Err)}
	},
	"DeleteRecords": func(red *tenant, of *property) any {
		start, err := red.store.DeleteRecords(red.ctx, of.term.Key, -1)
		return []any{start, failed(of, err)}
	},
	"LogSizes": func(red *tenant, of *property) any {
		return must(red.store.LogSizes(red.ctx, []uuid.UUID{of.topic, of.shard.TopicID}))(red.env)
	},
	"ActiveProducers": func(red *tenant, of *property) any {
		return must(red.store.ActiveProducers(red.ctx, of.keys()))(red.env)
	},
	"WriteGroups": func(red *tenant, of *property) any {
		write := metadata.GroupWrite{
			Delete:        []string{of.consumers},
			DeleteOffsets: []metadata.OffsetDelete{{Group: of.consumers, Keys: []lease.Key{of.term.Key}}},
			Commit:        group{name: of.consumers}.at(of.term.Key, 0),
			Save:          []metadata.GroupRecord{{Group: of.consumers, Record: "red's"}},
		}
		foreign := failed(of, red.store.WriteGroups(red.ctx, of.agent.ID, of.shard, &write)) // past all checks, as its agent
		mine := red.consumers(of.consumers)
		red.write(mine, write)
		positions := red.positions(mine)
		red.write(mine, metadata.GroupWrite{Delete: []string{of.consumers}})
		return []any{foreign, positions}
	},
	"LoadGroups": func(red *tenant, of *property) any { return must(red.store.LoadGroups(red.ctx, of.shard.Key))(red.env) },
	"FetchOffsets": func(red *tenant, of *property) any {
		return must(red.store.FetchOffsets(red.ctx, []string{of.consumers}))(red.env)
	},
	"OldOffsets": func(red *tenant, of *property) any {
		return must(red.store.OldOffsets(red.ctx, []string{of.consumers}, 0))(red.env)
	},
	"Sessions": func(red *tenant, _ *property) any {
		return len(must(red.store.Sessions(red.ctx))(red.env))
	},
	"Leases": func(red *tenant, of *property) any {
		return []any{
			red.leased(metadata.LeaseFilter{}),
			red.leased(metadata.LeaseFilter{Topic: of.name}), red.leased(metadata.LeaseFilter{AgentID: of.agent.ID}),
		}
	},
	"Acquire": func(red *tenant, of *property) any {
		r := must(red.store.Acquire(red.ctx, red.agent, time.Hour, of.keys()))(red.env)
		return []string{failed(of, r[0].Err), failed(of, r[1].Err)}
	},
	"Renew": func(red *tenant, of *property) any {
		return must(red.store.Renew(red.ctx, red.agent, time.Hour, []lease.Term{of.term, of.shard}))(red.env)
	},
	"Release": func(red *tenant, of *property) any {
		return failed(of, red.store.Release(red.ctx, red.agent, []lease.Term{of.term, of.shard}))
	},
	"HandOver": func(red *tenant, of *property) any {
		return must(red.store.HandOver(red.ctx, red.agent, time.Hour, []lease.Move{{Term: of.term, To: red.agent}, {Term: of.shard, To: red.agent}}))(red.env)
	},
}

var isolationTests = []groupsTest{
	{"every method has a case", func(blue, _ *tenant) {
		known := slices.Concat(slices.Collect(maps.Keys(asks)), slices.Collect(maps.Keys(everybodys)))
		var methods []string
		for m := range reflect.TypeFor[metadata.Store]().Methods() {
			methods = append(methods, m.Name)
		}
		slices.Sort(known)
		blue.equal("methods with a case", known, methods)
	}},
	{"what another agent group has is in no list", func(blue, red *tenant) {
		blue.furnish()
		in := must(red.store.Topology(red.ctx, 0))(red.env)
		red.equal("agents", len(in.Agents), 1)
		red.equal("its own", in.Agents[0].ID, red.agent)
		red.equal("the rest", []any{in.Topics, in.Deleted, in.Leaders, in.Shards, in.Configs, in.Resources},
			[]any{[]metadata.Topic(nil), []uuid.UUID(nil), []metadata.Leader(nil), []metadata.Leader(nil), map[string]string(nil), []metadata.ResourceConfigs(nil)})
		sessions := must(red.store.Sessions(red.ctx))(red.env)
		red.equal("sessions", len(sessions), 1)
		red.equal("its own", sessions[0].ID, red.agent)
		red.equal("leases", red.leased(metadata.LeaseFilter{}), []lease.Term{})
	}},
	{"what another agent group has reads as what is not there, and stays as it is", func(blue, red *tenant) {
		theirs := blue.furnish()
		nobodys := theirs.madeUp()
		for _, method := range slices.Sorted(maps.Keys(asks)) {
			before := blue.state(theirs.topic)
			real, unreal := asks[method](red, theirs), asks[method](red, nobodys)
			red.equal(method+" answers", real, unreal)
			blue.equal("what "+method+" is about", blue.state(theirs.topic), before)
		}
		blue.wantOutcome(blue.commit(batch(theirs.term, 1))[0], metadata.Committed, 7)
	}},
}
