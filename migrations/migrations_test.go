package migrations

import (
	"database/sql"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite"

	"github.com/streamhouse/streamhouse/internal/testdb"
)

func TestUpIsDoneOnce(t *testing.T) {
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "x.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for range 2 {
		if err := Up(t.Context(), db, SQLite); err != nil {
			t.Fatal(err)
		}
	}
	var applied int
	if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM goose_db_version WHERE version_id > 0`).Scan(&applied); err != nil {
		t.Fatal(err)
	}
	if steps, err := fs.Glob(files, "sqlite/*.sql"); err != nil || applied != len(steps) {
		t.Errorf("%d steps applied of %d, %v", applied, len(steps), err)
	}
}

// Groups that are older than their table are found in the offsets.
func TestGroupsOfOlderOffsets(t *testing.T) {
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "x.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	steps, err := fs.Sub(files, "sqlite")
	if err != nil {
		t.Fatal(err)
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, steps)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.UpTo(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	const commits = `INSERT INTO group_offsets (group_id, topic_id, partition, committed_offset, leader_epoch, metadata, committed_at)
		VALUES ('a', x'00', 0, 1, 0, x'', 10), ('a', x'00', 1, 1, 0, x'', 30), ('b', x'00', 0, 1, 0, x'', 20)`
	if _, err := db.ExecContext(t.Context(), commits); err != nil {
		t.Fatal(err)
	}
	if err := Up(t.Context(), db, SQLite); err != nil {
		t.Fatal(err)
	}
	var groups string
	const query = `SELECT group_concat(group_id || ' ' || shard || ' ' || record || ' ' || updated_at, ', ') FROM (SELECT * FROM groups ORDER BY group_id)`
	if err := db.QueryRowContext(t.Context(), query).Scan(&groups); err != nil {
		t.Fatal(err)
	}
	if want := "a -1  30, b -1  20"; groups != want {
		t.Errorf("groups %q, want %q", groups, want)
	}
}

// The step that gives agent groups a meaning is not taken under agents that have one,
// can be taken back, and be taken again.
func TestAgentGroupsGetAMeaning(t *testing.T) {
	db, err := sql.Open("pgx", testdb.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	steps, err := fs.Sub(files, "postgres")
	if err != nil {
		t.Fatal(err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, steps)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.UpTo(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	exec := func(statement string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	exec(`INSERT INTO agents (agent_id, node_id, session, host, port, zone, agent_group, started_at, heartbeat_at)
		VALUES ('a', 1, '\x00', '', 0, '', 'blue', 0, extract(epoch FROM now()) * 1000)`)
	exec(`INSERT INTO topics (topic_id, name, partitions, created_at, changed_version) VALUES ('\x01', 'orders', 1, 0, 1)`)
	if _, err := provider.Up(t.Context()); err == nil || !strings.Contains(err.Error(), "take it out of their settings") {
		t.Fatalf("with an agent that has a group: %v", err)
	}
	exec(`UPDATE agents SET session = NULL`)
	for range 2 {
		if _, err := provider.Up(t.Context()); err != nil {
			t.Fatal(err)
		}
		var group string
		if err := db.QueryRowContext(t.Context(), `SELECT agent_group FROM topics`).Scan(&group); err != nil || group != "" {
			t.Errorf("group of the topic %q, %v", group, err)
		}
		if _, err := provider.DownTo(t.Context(), 10); err != nil {
			t.Fatal(err)
		}
	}
}

// What is SQL for both databases sees the same tables and columns.
func TestTheSchemasAreTheSame(t *testing.T) {
	postgres, sqlite := tables(t, "postgres/*.sql"), tables(t, "sqlite/*.sql")
	for _, arrays := range []string{"base_sequences", "last_sequences", "base_offsets", "append_times"} {
		delete(postgres["producers"], arrays) // SQLite has no arrays
	}
	delete(sqlite["producers"], "entries")
	if diff := cmp.Diff(postgres, sqlite); diff != "" {
		t.Errorf("(-postgres +sqlite):\n%s", diff)
	}
	if len(sqlite) < 10 {
		t.Errorf("found %d tables", len(sqlite))
	}
}

var (
	createTable = regexp.MustCompile(`(?ms)^CREATE TABLE (\w+) \((.*?)^\)`)
	column      = regexp.MustCompile(`(?m)^    ([a-z_]+) +[A-Z]+`)
)

// tables returns the columns of each table that the steps make.
func tables(t *testing.T, steps string) map[string]map[string]bool {
	t.Helper()
	names, err := fs.Glob(files, steps)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]map[string]bool)
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			t.Fatal(err)
		}
		up, _, _ := strings.Cut(string(text), "-- +goose Down")
		for _, table := range createTable.FindAllStringSubmatch(up, -1) {
			out[table[1]] = make(map[string]bool)
			for _, c := range column.FindAllStringSubmatch(table[2], -1) {
				out[table[1]][c[1]] = true
			}
		}
	}
	return out
}
