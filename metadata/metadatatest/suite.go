package metadatatest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment"
)

// Exec runs a statement on a store's database behind its back, which is how time
// passes in tests.
type Exec func(ctx context.Context, sql string, args ...any) error

// Run runs the suite on a store that open opens on an empty database and closes
// at the test's end.
func Run(t *testing.T, open func(t testing.TB) (metadata.Store, Exec)) {
	store, exec := open(t)
	for _, group := range []struct {
		name  string
		tests []test
	}{
		{"Agents", agentTests},
		{"Reports", reportTests},
		{"Topics", topicTests},
		{"Configs", configTests},
		{"Resources", resourceTests},
		{"Topology", topologyTests},
		{"Peering", peeringTests},
		{"Commit", commitTests},
		{"Retry", retryTests},
		{"Idempotence", idempotenceTests},
		{"Read", readTests},
		{"Log", logTests},
		{"Producers", producerTests},
		{"ActiveProducers", activeProducerTests},
		{"Groups", groupTests},
		{"Objects", objectTests},
		{"Prune", pruneTests},
		{"Purge", purgeTests},
		{"Inspect", inspectTests},
		{"Concurrency", concurrencyTests},
		{"Model", modelTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, tc := range group.tests {
				t.Run(tc.name, func(t *testing.T) { tc.run(newEnv(t, store, exec)) })
			}
		})
	}
}

type test struct {
	name string
	run  func(*env)
}

// ttl is a lease's time where nothing is meant to expire.
const ttl = time.Hour

// env is what a test works with.
type env struct {
	*testing.T
	ctx   context.Context
	store metadata.Store
	exec  Exec
	agent string // this test's own
	group string // the store's agent group
}

func newEnv(t *testing.T, store metadata.Store, exec Exec) *env {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // for a hang; a slow disk takes one
	t.Cleanup(cancel)
	return &env{T: t, ctx: ctx, store: store, exec: exec, agent: "agent-" + uuid.NewString(), group: metadata.DefaultAgentGroup}
}

// ok ends the test if there is an error.
func (e *env) ok(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

// equal reports a difference.
func (e *env) equal(what string, got, want any) {
	e.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		e.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// must ends the test at an error, else returns the value.
func must[T any](v T, err error) func(e *env) T {
	return func(e *env) T {
		e.Helper()
		e.ok(err)
		return v
	}
}

// newTopic makes a topic of a name of its own.
func (e *env) newTopic(partitions int32) metadata.NewTopic {
	e.Helper()
	id := uuid.New()
	t := metadata.NewTopic{ID: id, Name: "topic-" + id.String(), Partitions: partitions}
	e.ok(e.store.CreateTopic(e.ctx, t))
	return t
}

// keys returns the keys of a topic's partitions.
func keys(t metadata.NewTopic) []lease.Key {
	out := make([]lease.Key, t.Partitions)
	for i := range out {
		out[i] = lease.Key{TopicID: t.ID, Partition: int32(i)}
	}
	return out
}

// lead makes the agent the leader of the keys, whoever it was before.
func (e *env) lead(agent string, ttl time.Duration, of ...lease.Key) []lease.Term {
	e.Helper()
	results := must(e.store.Acquire(e.ctx, agent, ttl, of))(e)
	terms := make([]lease.Term, len(results))
	for i, r := range results {
		e.ok(r.Err)
		terms[i] = r.Term
	}
	return terms
}

// ledTopic makes a topic and leads its partitions as the test's agent.
func (e *env) ledTopic(partitions int32) []lease.Term {
	e.Helper()
	return e.lead(e.agent, ttl, keys(e.newTopic(partitions))...)
}

// takeOver releases the term and has another agent lead the key.
func (e *env) takeOver(of lease.Term, from, by string) lease.Term {
	e.Helper()
	e.ok(e.store.Release(e.ctx, from, []lease.Term{of}))
	return e.lead(by, ttl, of.Key)[0]
}

// batchLength is the length of the batches that batch makes.
const batchLength = 100

// batch is a batch of a producer that is not idempotent.
func batch(of lease.Term, records int32) metadata.CommitBatch {
	return metadata.CommitBatch{
		Key: of.Key, LeaderEpoch: of.LeaderEpoch, Length: batchLength, Records: records,
		ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, MaxTimestamp: 1000,
	}
}

// object is a new object of batches that lie one after the other.
func object(batches ...metadata.CommitBatch) metadata.CommitObject {
	o := metadata.CommitObject{ID: segment.NewID(), Batches: slices.Clone(batches)}
	o.Size = 16
	for i := range o.Batches {
		o.Batches[i].Position = o.Size
		o.Size += int64(o.Batches[i].Length)
	}
	return o
}

// inline is a new flush that keeps its batches' bytes in the index.
func inline(batches ...metadata.CommitBatch) metadata.CommitObject {
	o := metadata.CommitObject{ID: segment.NewID(), Batches: slices.Clone(batches)}
	for i := range o.Batches {
		b := &o.Batches[i]
		b.Inline = make([]byte, b.Length)
		for at := range b.Inline {
			b.Inline[at] = byte(i + at)
		}
	}
	return o
}

// commitAs commits objects and checks the shape of the answer.
func (e *env) commitAs(agent string, objects ...metadata.CommitObject) [][]metadata.CommitResult {
	e.Helper()
	results := must(e.store.Commit(e.ctx, &metadata.Commit{AgentID: agent, Objects: objects}))(e)
	if len(results) != len(objects) {
		e.Fatalf("results of %d objects for %d", len(results), len(objects))
	}
	for i := range objects {
		if len(results[i]) != len(objects[i].Batches) {
			e.Fatalf("object %d: %d results for %d batches", i, len(results[i]), len(objects[i].Batches))
		}
	}
	return results
}

// commit commits one object of the test's agent.
func (e *env) commit(batches ...metadata.CommitBatch) []metadata.CommitResult {
	e.Helper()
	return e.commitAs(e.agent, object(batches...))[0]
}

// outcomes and offsets of results, for comparison.
func outcomes(results []metadata.CommitResult) []metadata.CommitOutcome {
	out := make([]metadata.CommitOutcome, len(results))
	for i, r := range results {
		out[i] = r.Outcome
	}
	return out
}

func offsets(results []metadata.CommitResult) []int64 {
	out := make([]int64, len(results))
	for i, r := range results {
		out[i] = r.BaseOffset
	}
	return out
}

// wantOutcome checks one batch's outcome.
func (e *env) wantOutcome(got metadata.CommitResult, want metadata.CommitOutcome, baseOffset int64) {
	e.Helper()
	if got.Outcome != want || got.BaseOffset != baseOffset {
		e.Errorf("got outcome %d at offset %d, want %d at %d", got.Outcome, got.BaseOffset, want, baseOffset)
	}
}

// readFrom reads a partition from an offset.
func (e *env) readFrom(k lease.Key, offset, maxBytes int64) metadata.ReadResult {
	e.Helper()
	r := must(e.store.Read(e.ctx, []metadata.ReadRequest{{Key: k, Offset: offset, MaxBytes: maxBytes}}))(e)[0]
	e.ok(r.Err)
	return r
}

// high returns a partition's high watermark.
func (e *env) high(k lease.Key) int64 {
	e.Helper()
	w := must(e.store.Watermarks(e.ctx, []lease.Key{k}))(e)[0]
	if w == nil {
		e.Fatalf("no partition %s", k)
	}
	return w.High
}
