package main

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/streamhouse/streamhouse/internal/testdb"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

// lasting makes leases so long that no test sees their end: what moves, moves
// because a death was noticed.
func lasting(s *Settings) {
	s.LeaseDuration, s.HeartbeatInterval = time.Hour, 20*time.Second
	s.ShutdownTimeout = time.Second
}

func TestADeadAgentIsNoticed(t *testing.T) {
	t.Parallel()
	s := sharedStores(t)
	first := startIsolated(t, s, named("first"), lasting)
	second, third := startAgent(t, s, named("second"), lasting), startAgent(t, s, named("third"), lasting)
	w1, w2, w3 := dial(t, first.addr), dial(t, second.addr), dial(t, third.addr)
	tp := makeShared(w1, w2, "death", 1)
	mustProduce(w1, tp, 0, batchtest.Of("a"))
	eventually(t, "all know each other", func() bool {
		_, m := metadataOf(w2, tp.name)
		return m.Partitions[0].Leader == first.node.Agent.Self().NodeID && len(third.node.Topology.Snapshot().Agents()) == 3
	})
	first.kill()
	if p := produceUntilTaken(w2, tp, 0, batchtest.Of("b")); p.BaseOffset != 1 {
		t.Errorf("at offset %d", p.BaseOffset)
	}
	for _, w := range []*wire{w2, w3} {
		eventually(t, "metadata names the new leader", func() bool { return leaderAddress(w, tp, 0) == second.addr })
		if got := values(readLog(w, tp, 0)); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("log %q", got)
		}
	}
}

// An agent that is cut off from the database says so to the others, is buried,
// and is an agent again when it is back: also where no connection breaks, and
// nothing comes through any more.
func TestAnAgentThatIsCutOffIsBuriedAndComesBack(t *testing.T) {
	for name, cut := range map[string]struct{ off, heal func(*testdb.Proxy) }{
		"refused": {func(p *testdb.Proxy) { p.Refuse(true); p.CloseAll() }, func(p *testdb.Proxy) { p.Refuse(false) }},
		"silent": {
			func(p *testdb.Proxy) { p.Pause(testdb.ToServer); p.Pause(testdb.ToClient) },
			func(p *testdb.Proxy) { p.Resume(testdb.ToServer); p.Resume(testdb.ToClient) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testCutOff(t, cut.off, cut.heal)
		})
	}
}

func testCutOff(t *testing.T, cut, heal func(*testdb.Proxy)) {
	t.Helper()
	s := sharedStores(t)
	first := startIsolated(t, s, named("first"), lasting)
	second := startAgent(t, s, named("second"), lasting)
	w1, w2 := dial(t, first.addr), dial(t, second.addr)
	tp := makeShared(w1, w2, "cut", 1)
	mustProduce(w1, tp, 0, batchtest.Of("a"))
	eventually(t, "all know each other", func() bool { return len(second.node.Topology.Snapshot().Agents()) == 2 })
	cut(first.database)
	if p := produceUntilTaken(w2, tp, 0, batchtest.Of("b")); p.BaseOffset != 1 {
		t.Errorf("at offset %d", p.BaseOffset)
	}
	heal(first.database)
	eventually(t, "it is listed again", func() bool {
		metadataOf(w2, tp.name)
		_, ok := second.node.Topology.Snapshot().Agent("first")
		return ok && !first.node.Agent.CutOff()
	})
	eventually(t, "it knows that it leads no more", func() bool { return !first.holds(tp, 0) })
	eventually(t, "it names the new leader", func() bool { return leaderAddress(w1, tp, 0) == second.addr })
	if got := values(readLog(w1, tp, 0)); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("log %q", got)
	}
}

// The database is killed, for long enough that every agent tells its watchers that
// it has lost it. When it is back, nobody is dead and everything is led as before.
func TestADatabaseThatWasAwayMovesNothing(t *testing.T) {
	t.Parallel()
	const partitions = 12
	server := testdb.StartPostgres(t)
	s := stores{metadata: server.Database(), objects: testdb.S3(t)}
	var agents []*testAgent
	for _, id := range []string{"first", "second", "third"} {
		agents = append(agents, startAgent(t, s, named(id), lasting))
	}
	makeTopic(dial(t, agents[0].addr), "away", partitions)
	load := startSteady(t, "away", partitions, agents[0].addr)
	led := func() map[lease.Key]lease.Term {
		terms := make(map[lease.Key]lease.Term)
		for _, a := range agents {
			for _, term := range a.node.Leases.Held() {
				term.Epoch = 0 // which moves with renewals
				terms[term.Key] = term
			}
		}
		return terms
	}
	all := func(is func(*testAgent) bool) func() bool {
		return func() bool {
			yes := true
			for _, a := range agents {
				yes = is(a) && yes
			}
			return yes
		}
	}
	eventually(t, "all are led", func() bool { return len(led()) == partitions })
	eventually(t, "all know each other", all(func(a *testAgent) bool { return len(a.node.Topology.Snapshot().Agents()) == len(agents) }))
	before := led()
	server.Kill()
	alarmed := make(map[*testAgent]bool)
	eventually(t, "all are cut off, and have suspected others", all(func(a *testAgent) bool {
		suspected, _ := a.node.Peers.Suspected()
		alarmed[a] = alarmed[a] || len(suspected) > 0
		return a.node.Agent.CutOff() && alarmed[a]
	}))
	server.Start()
	eventually(t, "all are back", all(func(a *testAgent) bool {
		suspected, _ := a.node.Peers.Suspected()
		return !a.node.Agent.CutOff() && len(suspected) == 0
	}))
	load.progress(t)
	if diff := cmp.Diff(before, led()); diff != "" {
		t.Errorf("led (-before +after):\n%s", diff)
	}
}
