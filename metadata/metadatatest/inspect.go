package metadatatest

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// session finds an agent's session; nil if it has ended.
func (e *env) session(id string) *metadata.AgentSession {
	e.Helper()
	sessions := must(e.store.Sessions(e.ctx))(e)
	if i := slices.IndexFunc(sessions, func(a metadata.AgentSession) bool { return a.ID == id }); i >= 0 {
		return &sessions[i]
	}
	return nil
}

// within reports a duration that is not from least to most.
func (e *env) within(what string, got, least, most time.Duration) {
	e.Helper()
	if got < least || got > most {
		e.Errorf("%s is %v, want %v to %v", what, got, least, most)
	}
}

var inspectTests = []test{
	{"a session is shown with its ages until it ends, however long it is silent", func(e *env) {
		a := e.newAgent()
		a.NodeID = must(e.store.Register(e.ctx, a))(e)
		e.ok(e.exec(e.ctx, `UPDATE agents SET started_at = started_at - 7200000, heartbeat_at = heartbeat_at - 3600000
			WHERE agent_id = $1`, a.ID))
		got := e.session(a.ID)
		if got == nil {
			e.Fatal("not shown")
		}
		e.within("heartbeat age", got.HeartbeatAge, time.Hour, time.Hour+10*time.Minute)
		e.within("uptime", got.Uptime, 2*time.Hour, 2*time.Hour+10*time.Minute)
		got.HeartbeatAge = 0
		e.equal("agent", got.Agent, a)

		e.ok(e.store.Deregister(e.ctx, a.ID, a.Session))
		if e.session(a.ID) != nil {
			e.Error("a session that has ended is shown")
		}
	}},
	{"sessions are in the order of their node ids", func(e *env) {
		for range 3 {
			must(e.store.Register(e.ctx, e.newAgent()))(e)
		}
		if !slices.IsSortedFunc(must(e.store.Sessions(e.ctx))(e), func(a, b metadata.AgentSession) int { return int(a.NodeID - b.NodeID) }) {
			e.Error("they are not")
		}
	}},
	{"leases that are held are shown with their terms and ages, by topic and partition", func(e *env) {
		topic, other := e.newTopic(3), e.newTopic(1)
		terms := e.lead(e.agent, ttl, keys(topic)[:2]...) // nobody leads the third
		rival := e.lead("rival-"+e.agent, ttl, keys(other)...)[0]
		terms = must(e.store.Renew(e.ctx, e.agent, ttl, terms))(e)
		slices.SortFunc(terms, func(a, b lease.Term) int { return a.Key.Compare(b.Key) })
		e.ok(e.exec(e.ctx, `UPDATE leader_epochs SET since = since - 3600000 WHERE topic_id = $1`, topic.ID[:]))

		got := must(e.store.Leases(e.ctx, metadata.LeaseFilter{Topic: topic.Name}))(e)
		for i := range got {
			e.within("age", got[i].Age, time.Hour, time.Hour+10*time.Minute)
			e.within("time to expiry", got[i].ExpiresIn, ttl-10*time.Minute, ttl)
			got[i].Age, got[i].ExpiresIn = 0, 0
		}
		e.equal("leases of the topic", got, []metadata.HeldLease{
			{Term: terms[0], Topic: topic.Name, AgentID: e.agent},
			{Term: terms[1], Topic: topic.Name, AgentID: e.agent},
		})
		e.equal("leases of the agent", e.leased(metadata.LeaseFilter{AgentID: e.agent}), []lease.Term{terms[0], terms[1]})
		e.equal("leases of the agent in the other topic", e.leased(metadata.LeaseFilter{Topic: other.Name, AgentID: e.agent}), []lease.Term{})
		all := e.leased(metadata.LeaseFilter{})
		if !slices.Contains(all, terms[0]) || !slices.Contains(all, rival) {
			e.Errorf("not among all: %v", all)
		}
		e.ok(e.store.Release(e.ctx, e.agent, terms[:1]))
		e.equal("after a release", e.leased(metadata.LeaseFilter{Topic: topic.Name}), terms[1:])
	}},
	{"a lease that is over is shown until it is taken", func(e *env) {
		t := e.ledTopic(1)[0]
		e.ok(e.exec(e.ctx, `UPDATE partitions SET lease_expires_at = lease_expires_at - 7200000 WHERE topic_id = $1`, t.TopicID[:]))
		got := must(e.store.Leases(e.ctx, metadata.LeaseFilter{AgentID: e.agent}))(e)
		e.equal("leases", len(got), 1)
		e.within("time to expiry", got[0].ExpiresIn, -ttl-10*time.Minute, -ttl)
	}},
	{"a coordinator's shard has no topic, and its number as the partition", func(e *env) {
		agent := "agent-" + uuid.NewString()
		terms := e.lead(agent, ttl, metadata.GroupShardKey(metadata.DefaultAgentGroup, 3))
		got := must(e.store.Leases(e.ctx, metadata.LeaseFilter{AgentID: agent}))(e)
		e.ok(e.store.Release(e.ctx, agent, terms))
		e.equal("leases", len(got), 1)
		got[0].Age, got[0].ExpiresIn = 0, 0
		e.equal("lease", got[0], metadata.HeldLease{Term: terms[0], AgentID: agent})
	}},
}

// leased returns the terms of the leases that a filter selects.
func (e *env) leased(f metadata.LeaseFilter) []lease.Term {
	e.Helper()
	terms := []lease.Term{}
	for _, l := range must(e.store.Leases(e.ctx, f))(e) {
		terms = append(terms, l.Term)
	}
	return terms
}
