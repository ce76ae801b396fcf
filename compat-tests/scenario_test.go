package compattests

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/internal/testdb"
)

// A faultScenario is a fault that befalls agents under load.
type faultScenario struct {
	name string
	// row is that of the fault matrix in which the fault is.
	row  string
	goal time.Duration // for the longest time in which a partition acknowledges nothing; 0: there is none
	long bool          // it takes minutes
	make func(*testing.T) *faultRun
	// once makes the fault and ends it: all agents serve again afterwards.
	once func(*testing.T, *faultRun)
}

// faultScenarios are the fault matrix of StreamHouse's design, as far as processes are needed to show it. What befalls
// the stores of a single agent is in cmd/streamhouse.
var faultScenarios = []faultScenario{
	{name: "killed while it writes", row: "SIGKILL holder", goal: 5 * time.Second, make: threeAgents, once: killWriting},
	{name: "killed while it is read from", row: "SIGKILL holder", goal: 5 * time.Second, make: threeAgents, once: killReading},
	{name: "frozen, its commit lands", row: "SIGSTOP holder, then CONT", goal: 10 * time.Second, make: threeAgents, once: freezeCommitted},
	{name: "frozen, its commit waits", row: "SIGSTOP holder, then CONT", goal: 10 * time.Second, make: threeAgents, once: freezeWaiting},
	{name: "frozen, its commit is on the way", row: "SIGSTOP holder, then CONT", goal: 10 * time.Second, make: threeAgents, once: freezeSending},
	{name: "cut off from Postgres", row: "agent ⇹ PG cut", goal: 10 * time.Second, make: threeAgents, once: cutFromPostgres},
	{name: "cut off from S3", row: "agent ⇹ S3 cut only", goal: 30 * time.Second, make: uploadingAgents, once: cutFromS3},
	{name: "cut off from its peers", row: "agent ⇹ agent cut", goal: 5 * time.Second, make: pastLinks, once: cutFromPeers},
	{name: "cut off from its peers and clients", row: "client ⇹ holder cut", goal: 10 * time.Second, make: threeAgents, once: cutFromAll},
	{name: "answers of commits are lost", row: "PG ambiguous commit", make: threeAgents, once: loseEachAnswer},
	{name: "Postgres restarted", row: "PG down / restart", make: ownPostgres(), once: restartPostgres},
	{
		name: "Postgres killed inside of COMMIT", row: "PG ambiguous commit",
		// A transaction stays that long, in µs, between its last statement and its end.
		make: ownPostgres("commit_delay=100000", "commit_siblings=0"), once: killCommitting,
	},
	{name: "S3 away", row: "S3 down", make: uploadingAgents, once: stopS3},
	{name: "S3 slow, and errors for uploads that arrived", row: "S3 5xx after storing", make: uploadingAgents, once: failS3},
	{name: "clocks apart by minutes", row: "Clock ±minutes", long: true, make: skewedAgents, once: killEach},
	{name: "clock of the database steps", row: "Clock ±minutes", long: true, make: steppedPostgres, once: stepClock},
	{name: "an older release beside this one", row: "Mixed versions", long: true, make: olderAgents, once: upgrade},
}

// TestScenarios lets the fault matrix befall agents under load. Whatever happens, all goes on without a restart of what
// was not killed, and the history of producers, consumers, a group and the ends that agents gave has no anomaly.
func TestScenarios(t *testing.T) { runScenarios(t, faultScenarios) }

func runScenarios(t *testing.T, scenarios []faultScenario) {
	t.Helper()
	all := slow(t)
	rounds := 1
	if all {
		rounds = environmentInt(t, "COMPAT_ROUNDS", 5)
	} else {
		t.Parallel()
	}
	for _, s := range scenarios {
		if s.long && !all {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			if !all {
				t.Parallel()
			}
			r := s.make(t)
			if r == nil {
				return
			}
			r.await(deadline(t, time.Minute), t, "before the first fault")
			for range rounds {
				s.once(t, r)
				r.await(deadline(t, time.Minute), t, "after the fault")
			}
			quiet := r.finish(t)
			r.reportZones(t)
			t.Logf("%s: %d rounds; %d commits were refused to agents that did not lead any more; longest time without an acknowledgement: %s",
				s.row, rounds, r.fenced(t), quiet.Round(time.Millisecond))
			if all && s.goal > 0 && quiet > s.goal { // the quick version runs beside other tests
				t.Errorf("the goal is %s", s.goal)
			}
		})
	}
}

// scenarioLease is the lease duration in shortLeases.
const scenarioLease = 5 * time.Second

// A faultRun is agents under load.
type faultRun struct {
	*scenarioLoad
	agents   []*harness.LinkedAgent
	stores   harness.Stores
	postgres *testdb.PostgresServer // nil if it is not the test's own
	clock    string                 // the file that has its shift, if it can be stepped
	zones    *harness.ZonedCluster  // nil if the agents are in none
}

func startFaultRun(t *testing.T, agents []*harness.LinkedAgent, stores harness.Stores, place clientele) *faultRun {
	t.Helper()
	var addresses []string
	for _, a := range agents {
		addresses = append(addresses, a.Address())
	}
	return &faultRun{scenarioLoad: startScenarioLoad(t, addresses, place), agents: agents, stores: stores}
}

func threeAgents(t *testing.T) *faultRun {
	t.Helper()
	return agentsWith(t, shortLeases)
}

// neverInline has every flush uploaded.
const neverInline = "STREAMHOUSE_FLUSH_INLINE_MAX_BYTES=0"

func uploadingAgents(t *testing.T) *faultRun {
	t.Helper()
	return agentsWith(t, append(slices.Clone(shortLeases), neverInline))
}

func agentsWith(t *testing.T, settings []string) *faultRun {
	t.Helper()
	stores := harness.FastStores(t)
	return startFaultRun(t, harness.LinkedCluster(t, stores, 3, settings...), stores, clientele{})
}

// ownPostgres makes agents whose leases last, on a server with these settings that can be killed.
func ownPostgres(settings ...string) func(*testing.T) *faultRun {
	return func(t *testing.T) *faultRun {
		t.Helper()
		server := testdb.StartPostgres(t, settings...)
		stores := harness.Stores{Metadata: server.Database(), Objects: testdb.S3(t)}
		r := startFaultRun(t, harness.LinkedCluster(t, stores, 3), stores, clientele{})
		r.postgres = server
		return r
	}
}

// reportZones tells what agents of different zones asked of each other.
func (r *faultRun) reportZones(t *testing.T) {
	t.Helper()
	if r.zones == nil {
		return
	}
	asked := r.zones.Flows().Sum(func(f harness.Flow) bool { return f.Kind == harness.Peers && f.Crosses() })
	t.Logf("agents of different zones exchanged %d bytes", asked.Bytes)
	if asked.Bytes == 0 {
		t.Error("nothing was appended from another zone")
	}
}

// leadership is who leads a partition.
type leadership struct {
	Partition int32
	Agent     string
	Epoch     int32 // of the leader
}

// leaders asks the database who leads the partitions of the topic.
func (r *faultRun) leaders(t *testing.T) []leadership {
	t.Helper()
	return leadersOf(t, r.stores, r.topic)
}

func leadersOf(t *testing.T, stores harness.Stores, topic string) []leadership {
	t.Helper()
	return query[leadership](t, stores, `SELECT p.partition, p.leader_agent_id, p.leader_epoch
		FROM partitions p JOIN topics USING (topic_id) WHERE name = $1 AND p.leader_agent_id IS NOT NULL ORDER BY p.partition`, topic)
}

// victim is the agent that leads the first partition.
func (r *faultRun) victim(t *testing.T) *harness.LinkedAgent {
	t.Helper()
	leaders := r.leaders(t)
	i := slices.IndexFunc(r.agents, func(a *harness.LinkedAgent) bool { return len(leaders) > 0 && a.ID() == leaders[0].Agent })
	if i < 0 || leaders[0].Partition != 0 {
		t.Fatalf("nobody leads partition 0: %v", leaders)
	}
	return r.agents[i]
}

// fenced counts the objects of which a commit was refused since its agent did not lead: what the database has answered
// stands beside their names. So does a claim by an agent of another zone, which forestalls what the leader might yet
// commit for it: all that a frozen leader has on its way may be of others.
func (r *faultRun) fenced(t *testing.T) int {
	t.Helper()
	type row struct{ N int }
	const fenced = 2 // in commit_objects
	return query[row](t, r.stores, `SELECT count(*) AS n FROM objects WHERE $1 = ANY (results[1:cardinality(results) / 4]) OR state = 'deleting'`, fenced)[0].N
}

// query asks the database on a connection of its own, past all links.
func query[T any](t *testing.T, stores harness.Stores, sql string, args ...any) []T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn := observe(ctx, t, stores)
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		t.Fatalf("ask the database: %v", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[T])
	if err != nil {
		t.Fatalf("ask the database: %v", err)
	}
	return found
}
