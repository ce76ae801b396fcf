package postgres_test

import (
	"testing"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/internal/testdb"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/postgres"
)

// TestInspectChangesNothing looks at an empty database, which stays empty, and
// at one that has agents.
func TestInspectChangesNothing(t *testing.T) {
	e := &faultEnv{url: testdb.Postgres(t)}
	i, err := postgres.Inspect(t.Context(), e.url, "")
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if _, err := i.Sessions(t.Context()); err == nil {
		t.Error("an empty database has sessions")
	}
	var tables int
	err = e.connect(t).QueryRow(t.Context(), `SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()`).Scan(&tables)
	if err != nil || tables != 0 {
		t.Errorf("%d tables, %v", tables, err)
	}

	a := metadata.Agent{ID: "a1", Session: uuid.New(), Host: "h", Port: 9092}
	if _, err := open(t, e.url).Register(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	sessions, err := i.Sessions(t.Context())
	if err != nil || len(sessions) != 1 || sessions[0].Session != a.Session {
		t.Errorf("sessions %+v, %v", sessions, err)
	}
}
