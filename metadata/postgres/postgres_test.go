package postgres_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/internal/testdb"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/postgres"
	"github.com/streamhouse/streamhouse/segment"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const agentID = "agent-1"

// open opens a store on the database, of the default agent group.
func open(t testing.TB, url string) *postgres.Store {
	t.Helper()
	return openWith(t, url, postgres.Options{})
}

func openWith(t testing.TB, url string, o postgres.Options) *postgres.Store {
	t.Helper()
	o.AgentID, o.Session, o.AllowUnsafe = agentID, uuid.New(), true
	store, err := postgres.Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// createTopic makes a topic and returns the keys of its partitions.
func createTopic(t testing.TB, store metadata.Store, partitions int) []lease.Key {
	t.Helper()
	id := uuid.New()
	topic := metadata.NewTopic{ID: id, Name: id.String(), Partitions: int32(partitions)}
	if err := store.CreateTopic(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	keys := make([]lease.Key, partitions)
	for i := range keys {
		keys[i] = lease.Key{TopicID: id, Partition: int32(i)}
	}
	return keys
}

// leadTopic makes a topic, all of whose partitions the agent leads.
func leadTopic(t testing.TB, store metadata.Store, partitions int) []lease.Term {
	t.Helper()
	return acquireAll(t, store, agentID, createTopic(t, store, partitions))
}

// acquireAll makes an agent the leader of keys that are free.
func acquireAll(t testing.TB, store metadata.Store, agent string, keys []lease.Key) []lease.Term {
	t.Helper()
	results, err := store.Acquire(t.Context(), agent, time.Minute, keys)
	if err != nil {
		t.Fatal(err)
	}
	terms := make([]lease.Term, len(keys))
	for i, r := range results {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		terms[i] = r.Term
	}
	return terms
}

func BenchmarkCommit(b *testing.B) {
	store := open(b, testdb.Postgres(b))
	first, err := store.AllocateProducerIDs(b.Context(), 1000)
	if err != nil {
		b.Fatal(err)
	}
	for _, shape := range []struct{ partitions, batches int }{{1, 1}, {10, 1}, {100, 1}, {1000, 1}, {1, 100}} {
		for _, producerID := range []int64{first, -1} {
			b.Run(fmt.Sprintf("partitions=%d/batches=%d/idempotent=%t", shape.partitions, shape.batches, producerID >= 0), func(b *testing.B) {
				terms := leadTopic(b, store, shape.partitions)
				sequence := int32(0)
				for b.Loop() {
					commit(b, store, terms, shape.batches, producerID, sequence)
					sequence += int32(shape.batches)
				}
			})
		}
	}
}

// commit commits an object with so many batches of one record in each partition.
func commit(b *testing.B, store metadata.Store, terms []lease.Term, batches int, producerID int64, sequence int32) {
	object := metadata.CommitObject{ID: segment.NewID()}
	for _, term := range terms {
		for i := range batches {
			object.Batches = append(object.Batches, metadata.CommitBatch{
				Key: term.Key, LeaderEpoch: term.LeaderEpoch, Position: object.Size, Length: 1000, Records: 1,
				ProducerID: producerID, BaseSequence: sequence + int32(i), MaxTimestamp: 1,
			})
			object.Size += 1000
		}
	}
	results, err := store.Commit(context.Background(), &metadata.Commit{AgentID: agentID, Objects: []metadata.CommitObject{object}})
	if err != nil {
		b.Fatal(err)
	}
	for _, r := range results[0] {
		if r.Outcome != metadata.Committed {
			b.Fatalf("outcome %d", r.Outcome)
		}
	}
}

func BenchmarkAcquire1000(b *testing.B) {
	store := open(b, testdb.Postgres(b))
	keys := createTopic(b, store, 1000)
	for b.Loop() {
		if _, err := store.Acquire(b.Context(), agentID, time.Minute, keys); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRenew1000(b *testing.B) {
	store := open(b, testdb.Postgres(b))
	terms := leadTopic(b, store, 1000)
	for b.Loop() {
		if _, err := store.Renew(b.Context(), agentID, time.Minute, terms); err != nil {
			b.Fatal(err)
		}
	}
}
