package postgres_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/internal/testdb"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/postgres"
)

// A renewal that had to wait for a row lasts as long as one that did not.
func TestRenewCountsFromTheEndOfItsWait(t *testing.T) {
	e := &faultEnv{url: testdb.Postgres(t)}
	store := open(t, e.url)
	terms := leadTopic(t, store, 2)
	unlock := e.lockPartitions(t)
	renewed := make(chan error, 1)
	go func() {
		_, err := store.Renew(t.Context(), agentID, time.Hour, terms)
		renewed <- err
	}()
	e.whenBlocked(t, 1, `pid`)
	conn := e.connect(t)
	const nowMs = `floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint`
	var unlockedAt, expiresAt int64
	if err := conn.QueryRow(t.Context(), `SELECT `+nowMs).Scan(&unlockedAt); err != nil {
		t.Fatal(err)
	}
	unlock()
	if err := <-renewed; err != nil {
		t.Fatal(err)
	}
	err := conn.QueryRow(t.Context(), `SELECT min(lease_expires_at) FROM partitions WHERE leader_agent_id = $1`, agentID).Scan(&expiresAt)
	if err != nil {
		t.Fatal(err)
	}
	if expiresAt < unlockedAt+time.Hour.Milliseconds() {
		t.Errorf("the lease expires %d ms after the wait ended, not an hour", expiresAt-unlockedAt)
	}
}

// An acquisition neither waits for the row of a living leader nor takes it.
func TestAcquireDoesNotWaitForALivingLeader(t *testing.T) {
	e := &faultEnv{url: testdb.Postgres(t)}
	store := open(t, e.url)
	term := leadTopic(t, store, 1)[0]
	defer e.lockPartitions(t)()
	results, err := store.Acquire(t.Context(), "agent-2", time.Hour, []lease.Key{term.Key})
	if err != nil {
		t.Fatal(err)
	}
	if held, ok := results[0].Err.(*lease.HeldByOtherError); !ok || held.Holder.AgentID != agentID {
		t.Errorf("got %+v", results[0])
	}
}

// Queries that take all the time that they may have neither end an agent's
// leases nor make it look dead.
func TestSlowQueriesDoNotHoldUpTheUpkeep(t *testing.T) {
	e := &faultEnv{url: testdb.Postgres(t)}
	store, err := postgres.Open(t.Context(), e.url, postgres.Options{AgentID: agentID, OtherConns: 1, AllowUnsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	term := leadTopic(t, store, 1)[0]
	unlock := e.lockPartitions(t)
	slow := make(chan error, 1)
	go func() {
		_, err := store.DeleteRecords(t.Context(), term.Key, 0)
		slow <- err
	}()
	e.whenBlocked(t, 1, `pid`)

	a := metadata.Agent{ID: agentID, Session: uuid.New()}
	_, err = store.Register(t.Context(), a)
	_, acquireErr := store.Acquire(t.Context(), agentID, time.Hour, []lease.Key{{TopicID: uuid.New()}})
	_, renewErr := store.Renew(t.Context(), "agent-2", time.Hour, []lease.Term{term})
	err = errors.Join(err, acquireErr, renewErr, store.Heartbeat(t.Context(), a.ID, a.Session),
		store.Release(t.Context(), "agent-2", []lease.Term{term}), store.Deregister(t.Context(), a.ID, a.Session))
	if err != nil {
		t.Error(err)
	}
	select {
	case err := <-slow:
		t.Errorf("the slow call is over: %v", err)
	default:
	}
	unlock()
	if err := <-slow; err != nil {
		t.Error(err)
	}
}

// What commits and renewals change is in no index: else no update would be HOT,
// and the hot rows would bloat (CORRECTNESS, E9).
func TestHotColumnsAreNotIndexed(t *testing.T) {
	e := &faultEnv{url: testdb.Postgres(t)}
	open(t, e.url)
	var indexed []string
	err := e.connect(t).QueryRow(t.Context(), `SELECT coalesce(array_agg(DISTINCT c.relname || '.' || a.attname), '{}')
		FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
		JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
		WHERE (c.relname, a.attname) IN (('partitions', 'high_watermark'), ('partitions', 'lease_expires_at'), ('partitions', 'epoch'),
			('producers', 'producer_epoch'), ('producers', 'updated_at'), ('agents', 'heartbeat_at'))`).Scan(&indexed)
	if err != nil {
		t.Fatal(err)
	}
	if len(indexed) > 0 {
		t.Errorf("indexed: %v", indexed)
	}
}
