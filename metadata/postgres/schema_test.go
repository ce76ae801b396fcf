package postgres_test

import (
	"strings"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/streamhouse/streamhouse/internal/testdb"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/postgres"
)

// Agents of two clusters start together in a database that has neither.
func TestSchemasAreMadeOnce(t *testing.T) {
	const agents = 3 // of each
	url := testdb.Postgres(t)
	schemas := []string{"streamhouse_one", "streamhouse_two"}
	ids := make(map[string]map[string]bool) // of clusters, by schema
	var starting errgroup.Group
	var seen [2 * agents]string
	for n := range seen {
		starting.Go(func() error {
			s, err := postgres.Open(t.Context(), url, postgres.Options{Session: uuid.New(), Schema: schemas[n%2], AllowUnsafe: true})
			if err != nil {
				return err
			}
			defer s.Close()
			in, err := s.Topology(t.Context(), 0)
			if err == nil {
				seen[n] = in.ClusterID
			}
			return err
		})
	}
	if err := starting.Wait(); err != nil {
		t.Fatal(err)
	}
	for n, id := range seen {
		if ids[schemas[n%2]] == nil {
			ids[schemas[n%2]] = make(map[string]bool)
		}
		ids[schemas[n%2]][id] = true
	}
	if len(ids[schemas[0]]) != 1 || len(ids[schemas[1]]) != 1 || seen[0] == seen[1] {
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
