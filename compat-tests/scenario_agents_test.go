package compattests

import (
	"context"
	"fmt"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/internal/testdb"
)

// What befalls one agent of several: it dies, stands still, or is cut off.

// faultDeadline bounds one round of a fault, and says that nothing came of it.
const faultDeadline = 2 * time.Minute

// killWriting kills an agent with records in flight. The others take its partitions over before it is back.
func killWriting(t *testing.T, r *faultRun) { killInFlight(t, r, r.victim(t)) }

// killInFlight kills an agent while records are in flight, and starts it again when the others do without it.
func killInFlight(t *testing.T, r *faultRun, victim *harness.LinkedAgent) {
	t.Helper()
	ctx := deadline(t, faultDeadline)
	for r.inFlight() == 0 {
		if err := r.awaitAcks(ctx, 1); err != nil {
			t.Fatal(err)
		}
	}
	kill(t, victim)
	r.await(ctx, t, "without the agent that was killed")
	launch(ctx, t, victim)
}

// killReading kills the agent from which consumers read what was written long ago. They go on at another one.
func killReading(t *testing.T, r *faultRun) {
	const backlog, begun = 1500, 300
	ctx := deadline(t, faultDeadline)
	if err := r.awaitAcks(ctx, backlog); err != nil {
		t.Fatal(err)
	}
	victim := r.victim(t)
	reader := r.read(t, "a slow consumer", kgo.FetchMaxBytes(8<<10), kgo.FetchMaxPartitionBytes(4<<10))
	for r.position(reader) < begun {
		if err := r.awaitAcks(ctx, 1); err != nil {
			t.Fatal(err)
		}
	}
	kill(t, victim)
	t.Logf("killed with %d of %d records read", r.position(reader), r.ackCount())
	r.await(ctx, t, "without the agent that was killed")
	launch(ctx, t, victim)
}

// position is how many records a consumer has read.
func (l *scenarioLoad) position(reader *scenarioReader) (n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, next := range reader.next {
		n += next
	}
	return n
}

// freezeCommitted freezes an agent while its commit waits for a lock, and lets that commit land. Thawed, it learns what
// became of it.
func freezeCommitted(t *testing.T, r *faultRun) {
	ctx := deadline(t, faultDeadline)
	victim := r.victim(t)
	release := r.lock(ctx, t)
	r.awaitStatement(ctx, t, victim, "commit_objects")
	freeze(t, victim)
	release()
	r.await(ctx, t, "without the agent that is frozen")
	pause(ctx, scenarioLease)
	thaw(t, victim)
}

// freezeWaiting freezes an agent while its commit waits for a lock, which is let go of only when another agent waits for
// it to take over. The commit comes to nothing, in the database or after a repetition.
func freezeWaiting(t *testing.T, r *faultRun) {
	ctx := deadline(t, faultDeadline)
	victim, before := r.victim(t), r.fenced(t)
	release := r.lock(ctx, t)
	r.awaitStatement(ctx, t, victim, "commit_objects")
	freeze(t, victim)
	r.awaitStatement(ctx, t, nil, "bury_agent")
	release()
	r.await(ctx, t, "without the agent that is frozen")
	pause(ctx, scenarioLease)
	thaw(t, victim)
	r.awaitFenced(ctx, t, before)
}

// freezeSending freezes an agent whose commit is still on the way to the database, where it arrives when others lead.
func freezeSending(t *testing.T, r *faultRun) {
	ctx := deadline(t, faultDeadline)
	victim, before := r.victim(t), r.fenced(t)
	victim.Postgres.CutOneWay(testdb.ToServer)
	pause(ctx, 10*scenarioInterval) // there are records to be committed all the time
	freeze(t, victim)
	r.await(ctx, t, "without the agent that is frozen")
	pause(ctx, scenarioLease)
	thaw(t, victim)
	victim.Heal()
	r.awaitFenced(ctx, t, before)
}

// cutFromPostgres cuts an agent off from the database past its lease. What it sends when it is healed is refused.
func cutFromPostgres(t *testing.T, r *faultRun) {
	ctx := deadline(t, faultDeadline)
	victim, before := r.victim(t), r.fenced(t)
	victim.Postgres.Cut()
	r.await(ctx, t, "without the agent that is cut off")
	pause(ctx, scenarioLease)
	victim.Heal()
	r.awaitFenced(ctx, t, before)
}

// cutFromS3 cuts an agent off from the bucket until others have its leases.
func cutFromS3(t *testing.T, r *faultRun) {
	ctx := deadline(t, faultDeadline)
	victim := r.victim(t)
	victim.S3.Cut()
	r.await(ctx, t, "without the agent that is cut off")
	pause(ctx, scenarioLease)
	victim.Heal()
}

// cutFromPeers cuts an agent off from other agents, but not from clients. It can't know that, and hands over what it
// leads; the clients, which reach it, are sent on.
func cutFromPeers(t *testing.T, r *faultRun) {
	ctx := deadline(t, faultDeadline)
	victim := r.victim(t)
	victim.Kafka.Cut()
	r.await(ctx, t, "with an agent that is cut off")
	eventually(ctx, t, func() error {
		leaders := r.leaders(t)
		if len(leaders) < scenarioPartitions || slices.ContainsFunc(leaders, func(l leadership) bool { return l.Agent == victim.ID() }) {
			return fmt.Errorf("not all is led by others: %v", leaders)
		}
		return nil
	})
	r.await(ctx, t, "without the agent that is cut off")
	victim.Heal()
}

// pastLinks makes agents whose clients do not come over the links, which are the way of agents to each other.
func pastLinks(t *testing.T) *faultRun {
	t.Helper()
	stores := harness.FastStores(t)
	agents := harness.LinkedCluster(t, stores, 3, shortLeases...)
	direct := make(map[string]string)
	for _, a := range agents {
		direct[a.Address()] = a.Agent.Address()
	}
	dialer := net.Dialer{Timeout: scenarioPatience}
	past := kgo.Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, direct[address])
	})
	return startFaultRun(t, agents, stores, clientele{options: func() []kgo.Opt { return []kgo.Opt{past} }})
}

// cutFromAll cuts an agent off from clients and other agents, but not from the stores.
func cutFromAll(t *testing.T, r *faultRun) {
	ctx := deadline(t, faultDeadline)
	victim := r.victim(t)
	victim.Kafka.Cut()
	r.await(ctx, t, "without the agent that is cut off")
	victim.Heal()
}

func kill(t *testing.T, a *harness.LinkedAgent) {
	t.Helper()
	if err := a.Kill(); err != nil {
		t.Fatal(err)
	}
}

func stop(ctx context.Context, t *testing.T, a *harness.LinkedAgent) {
	t.Helper()
	if err := a.Stop(ctx); err != nil {
		t.Fatal(err)
	}
}

// launch starts an agent again.
func launch(ctx context.Context, t *testing.T, a *harness.LinkedAgent) {
	t.Helper()
	if err := a.Start(ctx); err != nil {
		t.Fatal(err)
	}
}

func freeze(t *testing.T, a *harness.LinkedAgent) {
	t.Helper()
	signalAgent(t, a, syscall.SIGSTOP)
	t.Cleanup(func() { // or it could not be stopped, if the test fails
		if a.Exited() == nil {
			signalAgent(t, a, syscall.SIGCONT)
		}
	})
}

func thaw(t *testing.T, a *harness.LinkedAgent) {
	t.Helper()
	signalAgent(t, a, syscall.SIGCONT)
}

func signalAgent(t *testing.T, a *harness.LinkedAgent, signal syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(a.PID(), signal); err != nil {
		t.Fatal(err)
	}
}

// lock locks the rows of the topic's partitions until release is called, or the test ends.
func (r *faultRun) lock(ctx context.Context, t *testing.T) (release func()) {
	t.Helper()
	conn := observe(ctx, t, r.stores)
	t.Cleanup(func() { conn.Close(afterTest(t, time.Minute)) })
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, `SELECT FROM partitions JOIN topics USING (topic_id) WHERE name = $1
		ORDER BY partition FOR NO KEY UPDATE OF partitions`, r.topic); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(ctx); err != nil {
			t.Error(err)
		}
	}
}

// awaitStatement returns when a statement with this text waits for a lock: one of an agent, or of any.
func (r *faultRun) awaitStatement(ctx context.Context, t *testing.T, a *harness.LinkedAgent, text string) {
	t.Helper()
	whose := "%"
	if a != nil {
		whose = "streamhouse/%/" + a.ID()
	}
	for len(query[struct{ PID int32 }](t, r.stores, `SELECT pid FROM pg_stat_activity WHERE datname = current_database()
		AND wait_event_type = 'Lock' AND application_name LIKE $1 AND strpos(query, $2) > 0 AND pid <> pg_backend_pid()`, whose, text)) == 0 {
		pause(ctx, 10*time.Millisecond)
		if ctx.Err() != nil {
			t.Fatalf("no %s of %s waited for a lock", text, whose)
		}
	}
}

// awaitFenced returns when the database has refused a commit since its agent did not lead.
func (r *faultRun) awaitFenced(ctx context.Context, t *testing.T, before int) {
	t.Helper()
	for r.fenced(t) <= before {
		pause(ctx, 50*time.Millisecond)
		if ctx.Err() != nil {
			t.Fatal("no commit was refused")
		}
	}
}

// observe connects to the database, past all links.
func observe(ctx context.Context, t *testing.T, stores harness.Stores) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(stores.Metadata)
	if err != nil {
		t.Fatal(err)
	}
	delete(config.RuntimeParams, "allow_unsafe") // is for agents
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatalf("connect to the database: %v", err)
	}
	return conn
}
