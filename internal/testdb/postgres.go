package testdb

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
)

// PostgresVariable names the environment variable that holds the URL of the test
// run's PostgreSQL server, with a superuser.
const PostgresVariable = "STREAMHOUSE_TEST_POSTGRES"

// Postgres returns the URL of a new, empty database for this test, which is
// dropped when the test ends. The server is shared and runs with fsync off:
// nothing about durability can be shown with it.
func Postgres(t testing.TB) string {
	t.Helper()
	server, err := sharedPostgres()
	if err != nil {
		t.Fatalf("testdb: %v", err)
	}
	database, name := newDatabase(t, server)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		if err := execute(ctx, server, "DROP DATABASE "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)"); err != nil {
			t.Errorf("testdb: drop database: %v", err)
		}
	})
	return database
}

// PostgresServer is a private PostgreSQL server, with fsync on.
type PostgresServer struct{ *Server }

// StartPostgres starts a private server for this test. Settings are those of
// postgresql.conf, each in the form "name=value".
func StartPostgres(t testing.TB, settings ...string) *PostgresServer {
	t.Helper()
	p, address, err := newPostgres(settings...)
	if err != nil {
		t.Fatalf("testdb: %v", err)
	}
	return &PostgresServer{newServer(t, p, address)}
}

// Database returns the URL of a new, empty database on this server. It can be
// called while the server runs.
func (s *PostgresServer) Database() string {
	s.t.Helper()
	database, _ := newDatabase(s.t, postgresURL(s.address))
	return database
}

// sharedPostgres is the URL of the server that tests of this process share.
var sharedPostgres = sync.OnceValues(func() (string, error) {
	if given := os.Getenv(PostgresVariable); given != "" {
		return given, nil
	}
	p, address, err := newPostgres(sharedPostgresSettings...)
	keep(p)
	return postgresURL(address), err
})

// sharedPostgresSettings trade durability for speed: the server's folder does not
// outlive the run.
var sharedPostgresSettings = []string{"fsync=off", "full_page_writes=off", "max_connections=400"}

// newPostgres makes a cluster and starts a server on it.
func newPostgres(settings ...string) (*process, string, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, "", err
	}
	credential, err := unprivileged()
	if err != nil {
		return nil, "", fmt.Errorf("find a user for postgres: %w", err)
	}
	address, err := freeAddress()
	if err != nil {
		return nil, "", err
	}
	dir, err := newDir("postgres", credential)
	if err != nil {
		return nil, "", err
	}
	host, port, _ := net.SplitHostPort(address)
	data := filepath.Join(dir, "data")
	args := []string{filepath.Join(bin, "postgres"), "-D", data, "-h", host, "-p", port}
	for _, setting := range append([]string{"unix_socket_directories=", "max_connections=200"}, settings...) {
		args = append(args, "-c", setting)
	}
	p := &process{
		name: "PostgreSQL at " + address, dir: dir, args: args, credential: credential,
		stop:    "INT",  // the fast shutdown: sessions are ended, a checkpoint is made
		abandon: "QUIT", // the immediate one: frees its shared memory, which a kill does not
		ready:   func(ctx context.Context) error { return execute(ctx, postgresURL(address), "SELECT 1") },
	}
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres",
		"-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	initdb.Dir = dir
	initdb.SysProcAttr = p.sysProcAttr()
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, "", errors.Join(fmt.Errorf("initdb: %w\n%s", err, out), p.close())
	}
	if err := p.start(); err != nil {
		return nil, "", errors.Join(err, p.close())
	}
	return p, address, nil
}

// postgresBin finds the folder of PostgreSQL's server programs.
func postgresBin() (string, error) {
	var folders []string
	if given := os.Getenv("PG_BIN"); given != "" {
		folders = append(folders, given)
	}
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		folders = append(folders, strings.TrimSpace(string(out)))
	}
	debian, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.Reverse(debian) // newest first
	for _, folder := range append(folders, debian...) {
		if _, err := os.Stat(filepath.Join(folder, "initdb")); err == nil {
			return folder, nil
		}
	}
	return "", errors.New("no PostgreSQL server found: run tools/setup.sh, or set PG_BIN to the folder of initdb, or " +
		PostgresVariable + " to a server's URL")
}

func postgresURL(address string) string {
	return "postgres://postgres@" + address + "/postgres?sslmode=disable"
}

// newDatabase makes a database on the server, and returns its URL and its name.
func newDatabase(t testing.TB, server string) (database, name string) {
	t.Helper()
	target, err := url.Parse(server)
	if err != nil {
		t.Fatalf("testdb: the server's URL: %v", err)
	}
	name = uniqueName(t, "_")
	target.Path = "/" + name
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := execute(ctx, server, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		t.Fatalf("testdb: create database: %v", err)
	}
	return target.String(), name
}

// execute runs one statement on a connection of its own.
func execute(ctx context.Context, server, statement string) error {
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, statement)
	return err
}

// uniqueName is the test's name as lower-case letters and digits, and a random
// end: a valid name for a database and for a bucket.
func uniqueName(t testing.TB, separator string) string {
	readable := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		}
		return -1
	}, t.Name())
	return readable[:min(len(readable), 36)] + separator + strings.ToLower(rand.Text()[:12])
}
