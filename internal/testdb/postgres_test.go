package testdb

import (
	"context"
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestPostgresDatabasesAreSeparate(t *testing.T) {
	t.Parallel()
	first, second := connect(t, Postgres(t)), connect(t, Postgres(t))
	mustExec(t, first, "CREATE TABLE probe (n int)")
	mustExec(t, second, "CREATE TABLE probe (n int)")
}

func TestPostgresDatabaseIsDroppedWithItsTest(t *testing.T) {
	t.Parallel()
	var database string
	t.Run("owner", func(t *testing.T) {
		database = Postgres(t)
		connect(t, database)
	})
	if conn, err := pgx.Connect(t.Context(), database); err == nil {
		conn.Close(t.Context())
		t.Fatalf("%s is still there", database)
	}
}

func TestPostgresServerKeepsCommittedRowsThroughKill(t *testing.T) {
	t.Parallel()
	server := StartPostgres(t)
	database := server.Database()
	conn := connect(t, database)
	if on := queryString(t, conn, "SHOW fsync"); on != "on" {
		t.Fatalf("fsync = %s, want on", on)
	}
	mustExec(t, conn, "CREATE TABLE probe (n int)")
	mustExec(t, conn, "INSERT INTO probe VALUES (1)")

	server.Kill()
	if _, err := conn.Exec(t.Context(), "INSERT INTO probe VALUES (2)"); err == nil {
		t.Fatal("a killed server answered")
	}
	server.Start()
	conn = connect(t, database)
	if sum := queryString(t, conn, "SELECT sum(n)::text FROM probe"); sum != "1" {
		t.Fatalf("sum after the kill = %s, want 1", sum)
	}
	server.Restart()
	conn = connect(t, database)
	if sum := queryString(t, conn, "SELECT sum(n)::text FROM probe"); sum != "1" {
		t.Fatalf("sum after the restart = %s, want 1", sum)
	}
}

func TestPostgresServerPause(t *testing.T) {
	t.Parallel()
	server := StartPostgres(t)
	conn := connect(t, server.Database())
	server.Pause()
	answered := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.WithoutCancel(t.Context()), "SELECT 1")
		answered <- err
	}()
	for _, pid := range append(server.process.children(), server.process.pid) {
		// A worker that ended just before is a zombie until the postmaster, which
		// is stopped, collects it.
		if state := processState(pid); state != "T" && state != "Z" {
			t.Errorf("process %d is in state %q, want T (stopped)", pid, state)
		}
	}
	select {
	case err := <-answered:
		t.Fatalf("a frozen server answered: %v", err)
	default:
	}
	server.Resume()
	if err := <-answered; err != nil {
		t.Fatalf("after the pause: %v", err)
	}
}

func TestPostgresServerTakesSettings(t *testing.T) {
	t.Parallel()
	conn := connect(t, StartPostgres(t, "max_connections=17").Database())
	if got := queryString(t, conn, "SHOW max_connections"); got != "17" {
		t.Fatalf("max_connections = %s, want 17", got)
	}
}

func connect(t *testing.T, database string) *pgx.Conn {
	t.Helper()
	if _, err := url.Parse(database); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func mustExec(t *testing.T, conn *pgx.Conn, statement string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func queryString(t *testing.T, conn *pgx.Conn, query string) string {
	t.Helper()
	var s string
	if err := conn.QueryRow(t.Context(), query).Scan(&s); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return s
}
