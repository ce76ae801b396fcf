package postgres_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse/internal/testdb"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/postgres"
	"github.com/streamhouse/streamhouse/segment"
)

// attendant is an agent that attends, with a connection that can be cut or
// frozen, as its process can.
type attendant struct {
	metadata.Agent
	*postgres.Store
	proxy      *testdb.Proxy
	present    chan struct{} // has an element a sign of life that is up
	challenged chan struct{}
	lost       chan error // the end of the attendance
	stop       context.CancelFunc
}

// attend registers an agent with so many leases and has it attend.
func attend(t *testing.T, url string, partitions int) (*attendant, []lease.Term) {
	t.Helper()
	a := &attendant{Agent: metadata.Agent{ID: agentID, Session: uuid.New(), Host: "h", Port: 1}, proxy: testdb.NewProxy(t, url)}
	var err error
	a.Store, err = postgres.Open(t.Context(), a.proxy.URL(), postgres.Options{AgentID: a.ID, Session: a.Session, AllowUnsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() }) // a cut connection may not say goodbye
	a.register(t, a.Store)
	terms := leadTopic(t, a, partitions)
	a.again(t)
	return a, terms
}

func (a *attendant) register(t *testing.T, by *postgres.Store) {
	t.Helper()
	if _, err := by.Register(t.Context(), a.Agent); err != nil {
		t.Fatal(err)
	}
}

// again attends, and returns when the sign of life is up.
func (a *attendant) again(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	a.present, a.challenged, a.lost, a.stop = make(chan struct{}, 1), make(chan struct{}, 10), make(chan error, 1), stop
	signals := metadata.Signals{
		Present:    func() { a.present <- struct{}{} },
		Challenged: func() { a.challenged <- struct{}{} },
	}
	go func() { a.lost <- a.Attend(ctx, a.ID, a.Session, signals) }()
	t.Cleanup(stop)
	select {
	case <-a.present:
	case err := <-a.lost:
		t.Fatalf("cannot attend: %v", err)
	}
}

// bury asks once.
func (a *attendant) bury(t *testing.T, by *postgres.Store, patience time.Duration) metadata.Burial {
	t.Helper()
	burial, err := by.Bury(t.Context(), a.ID, a.Session, patience)
	if err != nil {
		t.Fatal(err)
	}
	return burial
}

// wantBuried asks until the agent is buried, and checks on what evidence.
func (a *attendant) wantBuried(t *testing.T, by *postgres.Store, patience time.Duration, want metadata.Burial) {
	t.Helper()
	for {
		switch got := a.bury(t, by, patience); got {
		case metadata.NotBuried:
			continue
		case want:
			return
		default:
			t.Fatalf("%s, want %s", got, want)
		}
	}
}

// wantFree checks that the store has ended the session and freed its leases, and
// that no write under them is accepted.
func (a *attendant) wantFree(t *testing.T, by *postgres.Store, terms []lease.Term) {
	t.Helper()
	if err := by.Heartbeat(t.Context(), a.ID, a.Session); !errors.Is(err, metadata.ErrBuried) {
		t.Errorf("heartbeat: %v", err)
	}
	object := metadata.CommitObject{ID: segment.NewID()}
	for _, term := range terms {
		batch(&object, term, 1)
	}
	results, err := by.Commit(t.Context(), &metadata.Commit{AgentID: a.ID, Objects: []metadata.CommitObject{object}})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results[0] {
		if r.Outcome != metadata.Fenced {
			t.Errorf("the commit of the buried agent: outcome %d", r.Outcome)
		}
	}
	topology, err := by.Topology(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range slices.Concat(topology.Leaders, topology.Shards) {
		if l.AgentID == a.ID {
			t.Errorf("the buried agent leads %s", l.Key)
		}
	}
	if len(topology.Agents) > 0 {
		t.Errorf("listed: %+v", topology.Agents)
	}
}

func TestADeadAgentIsBuriedAtOnce(t *testing.T) {
	url := testdb.Postgres(t)
	a, terms := attend(t, url, 3)
	by := open(t, url)
	if got := a.bury(t, by, 0); got != metadata.NotBuried {
		t.Fatalf("alive, and buried: %s", got)
	}
	shards, err := by.Acquire(t.Context(), a.ID, time.Minute, []lease.Key{metadata.GroupShardKey(metadata.DefaultAgentGroup, 5)})
	if err != nil {
		t.Fatal(err)
	}
	before, err := by.Topology(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}

	a.proxy.Refuse(true)
	a.proxy.CloseAll()
	died := time.Now()
	a.wantBuried(t, by, time.Hour, metadata.BuriedGone)
	t.Logf("buried %s after its connections ended", time.Since(died))
	if err := <-a.lost; !errors.Is(err, metadata.ErrUnavailable) {
		t.Errorf("the attendance ended with %v", err)
	}
	after, err := by.Topology(t.Context(), before.Version)
	if err != nil {
		t.Fatal(err)
	}
	if after.Version != before.Version+1 || len(after.Leaders) != len(terms) || len(after.Shards) != 1 {
		t.Errorf("version %d after %d, with %d leaders and %d shards", after.Version, before.Version, len(after.Leaders), len(after.Shards))
	}
	a.wantFree(t, by, terms)
	if err := by.WriteGroups(t.Context(), a.ID, shards[0].Term, &metadata.GroupWrite{}); !errors.Is(err, metadata.ErrFenced) {
		t.Errorf("the buried coordinator's write: %v", err)
	}
	if got := a.bury(t, by, 0); got != metadata.EndedBefore {
		t.Errorf("buried twice: %s", got)
	}
}

// What was handed over to an agent that dies before it acquires is free with its
// burial; what is handed over to it later, by who has not heard of it, is too.
func TestSuccessorThatIsBuried(t *testing.T) {
	url := testdb.Postgres(t)
	a, _ := attend(t, url, 1)
	by := open(t, url)
	keys := createTopic(t, by, 2)
	terms := acquireAll(t, by, "giver", keys)
	handOver := func(term lease.Term) []lease.Term {
		given, err := by.HandOver(t.Context(), "giver", time.Hour, []lease.Move{{Term: term, To: a.ID}})
		if err != nil {
			t.Fatal(err)
		}
		return given
	}
	if given := handOver(terms[0]); len(given) != 1 {
		t.Fatalf("handed over %v", given)
	}
	a.proxy.Refuse(true)
	a.proxy.CloseAll()
	a.wantBuried(t, by, time.Hour, metadata.BuriedGone)
	if given := handOver(terms[1]); len(given) != 0 {
		t.Errorf("handed over to a buried agent: %v", given)
	}
	for i, next := range acquireAll(t, by, "third", keys) {
		if want := []int32{2, 1}[i]; next.LeaderEpoch != want {
			t.Errorf("%s: leader epoch %d, want %d", next.Key, next.LeaderEpoch, want)
		}
	}
}

// An agent that stands still holds its connections, and answers nothing.
func TestAFrozenAgentIsBuriedWhenItDoesNotAnswer(t *testing.T) {
	url := testdb.Postgres(t)
	a, terms := attend(t, url, 3)
	by := open(t, url)
	const patience = 100 * time.Millisecond
	if err := by.Challenge(t.Context(), a.ID, a.Session); err != nil {
		t.Fatal(err)
	}
	<-a.challenged
	challenged := time.Now()
	a.wantBuried(t, by, patience, metadata.BuriedMute)
	if waited := time.Since(challenged); waited < patience/2 {
		t.Errorf("buried %s after the challenge", waited)
	}
	if err := <-a.lost; !errors.Is(err, metadata.ErrUnavailable) {
		t.Errorf("its connection was left: %v", err)
	}
	a.wantFree(t, by, terms)

	// It thaws, and is an agent again, without the leases. (The connections of its
	// pools were ended, so the other's are used.)
	if err := by.Attend(t.Context(), a.ID, a.Session, metadata.Signals{}); !errors.Is(err, metadata.ErrBuried) {
		t.Errorf("attending when buried: %v", err)
	}
	a.register(t, by)
	if got := a.bury(t, by, 0); got != metadata.NotBuried {
		t.Errorf("buried before it attends: %s", got)
	}
	a.again(t)
	if got := a.bury(t, by, 0); got != metadata.NotBuried {
		t.Errorf("buried on the evidence of its former life: %s", got)
	}
	renewed, err := by.Renew(t.Context(), a.ID, time.Minute, terms)
	if err != nil || len(renewed) > 0 {
		t.Errorf("renewed %v, %v", renewed, err)
	}
}

func TestAChallengeThatIsAnsweredBuriesNobody(t *testing.T) {
	url := testdb.Postgres(t)
	a, _ := attend(t, url, 1)
	by := open(t, url)
	for range 3 {
		if err := by.Challenge(t.Context(), a.ID, a.Session); err != nil {
			t.Fatal(err)
		}
		<-a.challenged
		if err := by.Challenge(t.Context(), a.ID, a.Session); err != nil { // one is open: not asked again
			t.Fatal(err)
		}
		if err := a.Store.Heartbeat(t.Context(), a.ID, a.Session); err != nil {
			t.Fatal(err)
		}
		if got := a.bury(t, by, 0); got != metadata.NotBuried {
			t.Fatalf("buried: %s", got)
		}
	}
	if len(a.challenged) > 0 {
		t.Error("asked while a challenge was open")
	}
}

// A session that was superseded, and one that has never attended (of an older
// release, or in its first moments), is not buried.
func TestWhoIsNotBuried(t *testing.T) {
	url := testdb.Postgres(t)
	a, _ := attend(t, url, 1)
	by := open(t, url)
	next := a.Agent
	next.Session = uuid.New()
	if _, err := by.Register(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	a.stop()
	if err := <-a.lost; err != nil {
		t.Errorf("the attendance ended with %v", err)
	}
	if got := a.bury(t, by, 0); got != metadata.EndedBefore {
		t.Errorf("the superseded session: %s", got)
	}
	if err := by.Challenge(t.Context(), next.ID, next.Session); err != nil {
		t.Fatal(err)
	}
	if got, err := by.Bury(t.Context(), next.ID, next.Session, 0); err != nil || got != metadata.NotBuried {
		t.Errorf("the session that has not attended: %s, %v", got, err)
	}
	if err := a.Attend(t.Context(), a.ID, a.Session, metadata.Signals{}); !errors.Is(err, metadata.ErrSuperseded) {
		t.Errorf("attending when superseded: %v", err)
	}
}

// A server that ends idle sessions leaves the sign of life alone, which is idle.
func TestTheSignOfLifeMayBeIdle(t *testing.T) {
	url := testdb.Postgres(t)
	a, _ := attend(t, url, 1)
	by := open(t, url)
	connect := func() *pgx.Conn {
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	admin := connect()
	defer admin.Close(context.Background())
	_, err := admin.Exec(t.Context(), `DO $$ BEGIN
		EXECUTE format('ALTER DATABASE %I SET idle_session_timeout = 100', current_database()); END $$`)
	if err != nil {
		t.Fatal(err)
	}
	a.stop()
	<-a.lost
	a.again(t)
	if _, err := connect().WaitForNotification(t.Context()); err == nil {
		t.Fatal("the server has ended no session")
	}
	if got := a.bury(t, by, time.Hour); got != metadata.NotBuried {
		t.Errorf("buried: %s", got)
	}
}

func TestTwoBuryAtOnce(t *testing.T) {
	url := testdb.Postgres(t)
	a, terms := attend(t, url, 10)
	by := open(t, url)
	a.proxy.Refuse(true)
	a.proxy.CloseAll()
	const buriers = 3
	got := make(chan metadata.Burial, buriers)
	for range buriers {
		go func() {
			for {
				burial, err := by.Bury(t.Context(), a.ID, a.Session, time.Hour)
				if err != nil || burial != metadata.NotBuried {
					got <- burial
					return
				}
			}
		}()
	}
	buried := 0
	for range buriers {
		switch burial := <-got; burial {
		case metadata.BuriedGone:
			buried++
		case metadata.EndedBefore:
		default:
			t.Errorf("%s", burial)
		}
	}
	if buried != 1 {
		t.Errorf("buried %d times", buried)
	}
	a.wantFree(t, by, terms)
}

// A server that has started has no locks, and nobody is dead for that. One of whose
// processes crashed starts anew too, and says that it has not.
func TestARestartOfTheServerBuriesNobody(t *testing.T) {
	for name, restart := range map[string]func(*testing.T, *testdb.PostgresServer, string){
		"stopped": func(_ *testing.T, s *testdb.PostgresServer, _ string) { s.Restart() },
		"killed":  func(_ *testing.T, s *testdb.PostgresServer, _ string) { s.Kill(); s.Start() },
		"a process of it crashed": func(t *testing.T, _ *testdb.PostgresServer, url string) {
			conn, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			backend, err := os.FindProcess(int(conn.PgConn().PID()))
			if err != nil {
				t.Fatal(err)
			}
			if err := backend.Kill(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testdb.StartPostgres(t)
			url := server.Database()
			a, _ := attend(t, url, 1)
			by := open(t, url)
			restart(t, server, url)
			if err := <-a.lost; !errors.Is(err, metadata.ErrUnavailable) {
				t.Errorf("the attendance ended with %v", err)
			}
			var got metadata.Burial
			err := errors.New("not asked")
			for err != nil { // connections of the pool are of before
				got, err = by.Bury(t.Context(), a.ID, a.Session, 0)
			}
			if got != metadata.NotBuried {
				t.Fatalf("buried: %s", got)
			}
			// One that has not come back is found by a challenge.
			if err := by.Challenge(t.Context(), a.ID, a.Session); err != nil {
				t.Fatal(err)
			}
			a.wantBuried(t, by, time.Millisecond, metadata.BuriedMute)
		})
	}
}
