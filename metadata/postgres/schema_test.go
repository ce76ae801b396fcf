package postgres_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/streamhouse/streamhouse/internal/testdb"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/postgres"
)

// Agents of two clusters start together in a database that has neither.
func TestSchemasAreMadeOnce(t *testing.T) {
	url := testdb.Postgres(t)
	schemas := []string{"streamhouse_one", "streamhouse_two"}
	var ids [6]string // of clusters, by agent
	var starting errgroup.Group
	for n := range ids {
		starting.Go(func() error {
			s, err := postgres.Open(t.Context(), url, postgres.Options{Session: uuid.New(), Schema: schemas[n%2], AllowUnsafe: true})
			if err != nil {
				return err
			}
			defer s.Close()
			in, err := s.Topology(t.Context(), 0)
			if err == nil {
				ids[n] = in.ClusterID
			}
			return err
		})
	}
	if err := starting.Wait(); err != nil {
		t.Fatal(err)
	}
	if ids != [6]string{ids[0], ids[1], ids[0], ids[1], ids[0], ids[1]} || ids[0] == ids[1] {
		t.Errorf("ids of clusters: %v", ids)
	}
	var tables int
	err := (&faultEnv{url: url}).connect(t).QueryRow(t.Context(), `SELECT count(*) FROM pg_tables WHERE schemaname = 'public'`).Scan(&tables)
	if err != nil || tables != 0 {
		t.Errorf("%d tables are in no cluster's schema, %v", tables, err)
	}
}

// A connection that would use other tables is refused, whoever makes it.
func TestSchemaThatIsNotThere(t *testing.T) {
	url := testdb.Postgres(t)
	_, err := postgres.Inspect(t.Context(), url, "streamhouse_none")
	if err == nil || !strings.Contains(err.Error(), `schema "streamhouse_none": it does not exist`) {
		t.Errorf("got %v", err)
	}
}

// The inspector of a schema sees all agent groups there, and no other schema.
func TestInspectInSchema(t *testing.T) {
	url := testdb.Postgres(t)
	const schema = "streamhouse_one"
	for _, o := range []postgres.Options{{Schema: schema}, {Schema: schema, AgentGroup: "blue"}, {Schema: "streamhouse_two"}} {
		a := metadata.Agent{ID: o.Schema + o.AgentGroup, Session: uuid.New(), Group: o.AgentGroup}
		if _, err := openWith(t, url, o).Register(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	i, err := postgres.Inspect(t.Context(), url, schema)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	sessions, err := i.Sessions(t.Context())
	if err != nil || len(sessions) != 2 || sessions[0].Group != "" || sessions[1].Group != "blue" {
		t.Errorf("got %+v, %v", sessions, err)
	}
}

// An agent of one cluster is buried, and one of the same id in the cluster beside it
// has neither its sign of life taken for that one's nor its leases.
func TestBurialStaysInItsSchema(t *testing.T) {
	url := testdb.Postgres(t)
	type life struct {
		*postgres.Store
		session uuid.UUID
		term    lease.Term
		end     func() // of its sign of life
	}
	begin := func(schema string) *life {
		l := &life{Store: openWith(t, url, postgres.Options{Schema: schema}), session: uuid.New()}
		if _, err := l.Register(t.Context(), metadata.Agent{ID: agentID, Session: l.session}); err != nil {
			t.Fatal(err)
		}
		l.term = leadTopic(t, l, 1)[0]
		ctx, stop := context.WithCancel(t.Context())
		present, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			ended <- l.Attend(ctx, agentID, l.session, metadata.Signals{Present: func() { close(present) }, Challenged: func() {}})
		}()
		l.end = sync.OnceFunc(func() { stop(); <-ended })
		t.Cleanup(l.end)
		select {
		case <-present:
		case err := <-ended:
			t.Fatalf("cannot attend: %v", err)
		}
		return l
	}
	leads := func(l *life) bool {
		marks, err := l.Watermarks(t.Context(), []lease.Key{l.term.Key})
		if err != nil {
			t.Fatal(err)
		}
		return marks[0].LeaderID == agentID
	}
	one, two := begin("streamhouse_one"), begin("streamhouse_two")
	one.end()
	for {
		burial, err := one.Bury(t.Context(), agentID, one.session, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if burial == metadata.BuriedGone { // the server has noticed the end of the connection
			break
		}
	}
	burial, err := two.Bury(t.Context(), agentID, two.session, time.Hour)
	if err != nil || burial != metadata.NotBuried {
		t.Errorf("the agent beside: %s, %v", burial, err)
	}
	if leads(one) || !leads(two) {
		t.Errorf("leading after the burial: %t, and the agent beside: %t", leads(one), leads(two))
	}
}
