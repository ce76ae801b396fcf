package postgres_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse/internal/testdb"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/metadatatest"
	"github.com/streamhouse/streamhouse/metadata/postgres"
	"github.com/streamhouse/streamhouse/segment"
)

// A commit meets each fault once: what the caller is told, and what it is told
// when it asks again under the same id. The record is there once in any case.
func TestCommitFaults(t *testing.T) {
	for _, tc := range []struct {
		name    string
		want    error
		applied bool // by the attempt that met the fault
		// provoke makes the fault ready for a commit with the context that it
		// returns. heal ends it, when the commit has returned.
		provoke func(t *testing.T, e *faultEnv) (ctx context.Context, heal func())
	}{
		{"request lost", metadata.ErrUnknownOutcome, false, func(t *testing.T, e *faultEnv) (context.Context, func()) {
			e.proxy.CutNextRequest(testdb.PostgresExecutes)
			return t.Context(), func() {}
		}},
		{"answer lost", metadata.ErrUnknownOutcome, true, func(t *testing.T, e *faultEnv) (context.Context, func()) {
			e.proxy.CutReplyTo(testdb.PostgresExecutes, testdb.PostgresReady)
			return t.Context(), func() {}
		}},
		{"no connection", metadata.ErrUnavailable, false, func(t *testing.T, e *faultEnv) (context.Context, func()) {
			e.store = open(t, e.proxy.URL()) // with no connection for commits yet
			e.proxy.Refuse(true)
			return t.Context(), func() { e.proxy.Refuse(false) }
		}},
		{"cancelled before", metadata.ErrUnavailable, false, func(t *testing.T, _ *faultEnv) (context.Context, func()) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			return ctx, func() {}
		}},
		{"patience ends", metadata.ErrUnknownOutcome, false, func(t *testing.T, e *faultEnv) (context.Context, func()) {
			unlock := e.lockPartitions(t)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			return ctx, func() {
				cancel()
				e.whenBlocked(t, 0, `pid`) // the server has noticed
				unlock()
			}
		}},
		{"lock not granted", metadata.ErrUnavailable, false, func(t *testing.T, e *faultEnv) (context.Context, func()) {
			e.store = open(t, e.proxy.URL()+"&lock_timeout=10ms")
			return t.Context(), e.lockPartitions(t)
		}},
		{"statement timeout", metadata.ErrUnavailable, false, func(t *testing.T, e *faultEnv) (context.Context, func()) {
			e.store = open(t, e.proxy.URL()+"&statement_timeout=100ms")
			return t.Context(), e.lockPartitions(t)
		}},
		{"back-end terminated", metadata.ErrUnknownOutcome, false, func(t *testing.T, e *faultEnv) (context.Context, func()) {
			unlock := e.lockPartitions(t)
			done := make(chan struct{})
			go func() {
				defer close(done)
				e.whenBlocked(t, 1, `pg_terminate_backend(pid)`)
			}()
			return t.Context(), func() { <-done; unlock() }
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			url := testdb.Postgres(t)
			e := &faultEnv{url: url, proxy: testdb.NewProxy(t, url)}
			e.store = open(t, e.proxy.URL())
			term := leadTopic(t, e.store, 1)[0]
			object := metadata.CommitObject{ID: segment.NewID()}
			batch(&object, term, 1)
			c := &metadata.Commit{AgentID: agentID, Objects: []metadata.CommitObject{object}}
			e.warm(t, term.TopicID)

			ctx, heal := tc.provoke(t, e)
			_, err := e.store.Commit(ctx, c)
			heal()
			if !errors.Is(err, tc.want) {
				t.Errorf("the commit returned %v, not %v", err, tc.want)
			}
			if marks, err := e.store.Watermarks(t.Context(), []lease.Key{term.Key}); err != nil || (marks[0].High == 1) != tc.applied {
				t.Errorf("applied is not %t: %+v, %v", tc.applied, marks, err)
			}
			results, err := e.store.Commit(t.Context(), c)
			if err != nil {
				t.Fatalf("asked again: %v", err)
			}
			if r := results[0][0]; r.Outcome != metadata.Committed || r.BaseOffset != 0 {
				t.Errorf("asked again, the commit answered %+v", r)
			}
			if err := metadatatest.Audit(t.Context(), e.store); err != nil {
				t.Error(err)
			}
		})
	}
}

// faultEnv is what a test of faults works with.
type faultEnv struct {
	url   string // straight to the server
	proxy *testdb.Proxy
	store *postgres.Store
}

// warm makes a connection for commits, with the statement prepared, by a commit
// that changes nothing.
func (e *faultEnv) warm(t *testing.T, topic uuid.UUID) {
	t.Helper()
	object := metadata.CommitObject{ID: segment.NewID()}
	batch(&object, lease.Term{Key: lease.Key{TopicID: topic, Partition: -1}}, 1)
	c := &metadata.Commit{AgentID: agentID, Objects: []metadata.CommitObject{object}}
	if _, err := e.store.Commit(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// connect opens a connection of the test's own, straight to the server.
func (e *faultEnv) connect(t testing.TB) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), e.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// lockPartitions locks all partitions' rows until unlock is called.
func (e *faultEnv) lockPartitions(t *testing.T) (unlock func()) {
	t.Helper()
	tx, err := e.connect(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT FROM partitions FOR NO KEY UPDATE`); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// whenBlocked waits until so many sessions of stores wait for a lock, evaluating
// an expression on their rows of pg_stat_activity.
func (e *faultEnv) whenBlocked(t *testing.T, sessions int, expression string) {
	conn, err := pgx.Connect(t.Context(), e.url)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close(context.Background())
	for seen := -1; seen != sessions; {
		err := conn.QueryRow(t.Context(), `SELECT count(`+expression+`) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock'
			  AND application_name LIKE 'streamhouse/%'`).Scan(&seen)
		if err != nil {
			t.Error(err)
			return
		}
	}
}
