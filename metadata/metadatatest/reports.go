package metadatatest

import (
	"slices"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/metadata"
)

// agents registers so many agents, which are all that are listed.
func (e *env) agents(n int) []metadata.Agent {
	e.Helper()
	e.ok(e.exec(e.ctx, `UPDATE agents SET heartbeat_at = 0`))
	all := make([]metadata.Agent, n)
	for i := range all {
		all[i] = e.newAgent()
		must(e.store.Register(e.ctx, all[i]))(e)
	}
	return all
}

// report reports an agent by each of the others, or takes that back.
func (e *env) report(unreachable bool, a metadata.Agent, by ...metadata.Agent) {
	e.Helper()
	for _, r := range by {
		e.ok(e.store.Report(e.ctx, metadata.Report{
			AgentID: a.ID, Session: a.Session, ReporterID: r.ID, Reporter: r.Session, Unreachable: unreachable,
		}))
	}
}

// wantIsolated checks which of the agents are isolated.
func (e *env) wantIsolated(when string, agents []metadata.Agent, want ...int) {
	e.Helper()
	for i, a := range agents {
		if got := must(e.store.Isolated(e.ctx, a.ID, a.Session))(e); got != slices.Contains(want, i) {
			e.Errorf("%s: agent %d is isolated: %t", when, i, got)
		}
	}
}

var reportTests = []test{
	{"an agent that all others report is isolated, until one of them takes it back", func(e *env) {
		a := e.agents(3)
		e.wantIsolated("at first", a)
		e.report(true, a[0], a[1])
		e.wantIsolated("reported by one, which the other contradicts", a)
		e.report(true, a[0], a[2], a[2])
		e.wantIsolated("reported by all", a, 0)
		e.report(true, a[1], a[0]) // the network is cut in both directions
		e.report(true, a[2], a[0])
		e.wantIsolated("it reports the others", a, 0)
		e.report(false, a[0], a[2])
		e.wantIsolated("taken back", a)
	}},
	{"of two agents none is isolated", func(e *env) {
		a := e.agents(2)
		e.report(true, a[0], a[1])
		e.report(true, a[1], a[0])
		e.wantIsolated("reported by each other", a)
	}},
	{"where all report all nobody is isolated", func(e *env) {
		a := e.agents(4)
		for i := range a {
			e.report(true, a[i], slices.Concat(a[:i], a[i+1:])...)
		}
		e.wantIsolated("reported by all", a)
	}},
	{"of many agents, as many as watch one must report it", func(e *env) {
		a := e.agents(metadata.WatchersOfEach + 4)
		e.report(true, a[0], a[1:metadata.WatchersOfEach]...)
		e.wantIsolated("one is missing", a)
		e.report(true, a[0], a[metadata.WatchersOfEach])
		e.wantIsolated("reported by all that watch", a, 0)
		e.report(true, a[1], a[0], a[2], a[3])
		e.report(true, a[2], a[0], a[1], a[3])
		e.wantIsolated("one of the reporters is reached", a, 0, 1, 2)
	}},
	{"a report counts for its time, and while both sessions last", func(e *env) {
		for what, ends := range map[string]func(reported, reporter metadata.Agent){
			"the report is old": func(reported, _ metadata.Agent) {
				e.ok(e.exec(e.ctx, `UPDATE reports SET reported_at = reported_at - $1 WHERE agent_id = $2`,
					metadata.ReportValidFor.Milliseconds(), reported.ID))
			},
			"the reported agent has registered again": func(reported, _ metadata.Agent) {
				// As if the reports had been made a moment ago.
				e.ok(e.exec(e.ctx, `UPDATE reports SET reported_at = reported_at - 10 WHERE agent_id = $1`, reported.ID))
				must(e.store.Register(e.ctx, reported))(e)
			},
			"a reporter has registered again": func(reported, reporter metadata.Agent) {
				e.ok(e.exec(e.ctx, `UPDATE reports SET reported_at = reported_at - 10 WHERE agent_id = $1`, reported.ID))
				reporter.Session = uuid.New()
				must(e.store.Register(e.ctx, reporter))(e)
			},
			"the reported agent has ended": func(reported, _ metadata.Agent) {
				e.ok(e.store.Deregister(e.ctx, reported.ID, reported.Session))
			},
			"a reporter has ended, and the other is not enough": func(_, reporter metadata.Agent) {
				e.ok(e.store.Deregister(e.ctx, reporter.ID, reporter.Session))
			},
		} {
			a := e.agents(3)
			e.ok(e.exec(e.ctx, `UPDATE agents SET started_at = started_at - 60000`))
			e.report(true, a[0], a[1:]...)
			e.wantIsolated("before "+what, a, 0)
			ends(a[0], a[1])
			e.wantIsolated(what, a)
		}
	}},
	{"a report about a session that has ended, or by one, changes nothing", func(e *env) {
		a := e.agents(3)
		before, earlier := a[0], a[1]
		before.Session, earlier.Session = uuid.New(), uuid.New()
		e.report(true, before, a[1:]...)
		e.report(true, a[0], earlier, a[2])
		e.wantIsolated("reported", append(a, before))
		e.report(true, a[0], a[1:]...)
		e.wantIsolated("another session of it", []metadata.Agent{before})
		e.wantIsolated("reported by all", a, 0)
	}},
}
