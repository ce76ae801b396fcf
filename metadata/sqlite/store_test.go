package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/lease/leasetest"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/metadatatest"
	"github.com/streamhouse/streamhouse/segment"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openAt(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// exec runs a statement behind the store's back.
func (s *Store) exec(ctx context.Context, text string, args ...any) error {
	return s.transact(ctx, "exec", func(ctx context.Context, c *conn) error {
		_, err := c.exec(ctx, text, args...)
		return err
	})
}

func openNew(t testing.TB) *Store {
	return openAt(t, filepath.Join(t.TempDir(), "data", "metadata.db"))
}

// The suite runs through the metrics, which it so tests as well.
func TestStore(t *testing.T) {
	reg := prometheus.NewRegistry()
	metadatatest.Run(t, func(t testing.TB) (metadata.Store, metadatatest.Exec) {
		s := openNew(t)
		return metadata.WithMetrics(s, reg, new(metadata.Silence)), s.exec
	})

	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	measured := make(map[string]map[string]bool) // the methods in each metric
	for _, f := range families {
		methods := make(map[string]bool)
		for _, m := range f.Metric {
			methods[m.Label[0].GetValue()] = true
		}
		measured[f.GetName()] = methods
	}
	for m := range reflect.TypeFor[metadata.Store]().Methods() {
		for _, metric := range []string{"streamhouse_metadata_store_query_duration_seconds", "streamhouse_metadata_store_queries_total"} {
			if m.Name != "Close" && !measured[metric][m.Name] {
				t.Errorf("%s has no %s", metric, m.Name)
			}
		}
	}
}

func TestAgentGroups(t *testing.T) {
	metadatatest.RunAgentGroups(t, func(t testing.TB) (metadatatest.OpenGroup, metadatatest.Exec) {
		s := openNew(t)
		return func(t testing.TB, agentGroup string) metadata.Store { return s.of(t, agentGroup) }, s.exec
	})
}

// of is the store of an agent group in the same file.
func (s *Store) of(t testing.TB, agentGroup string) *Store {
	t.Helper()
	of, err := s.ForAgentGroup(t.Context(), agentGroup)
	if err != nil {
		t.Fatal(err)
	}
	return of
}

func TestLeases(t *testing.T) {
	leasetest.Run(t, func(t testing.TB) leasetest.Setup {
		s := openNew(t)
		return leasetest.Setup{
			Store:   s,
			NewKeys: func(t testing.TB, n int) []lease.Key { return newKeys(t, s, n) },
			Strangers: func(t testing.TB, n int) (string, []lease.Key) {
				others := s.of(t, "others")
				a := metadata.Agent{ID: uuid.NewString(), Session: uuid.New(), Group: "others"}
				if _, err := others.Register(t.Context(), a); err != nil {
					t.Fatal(err)
				}
				return a.ID, newKeys(t, others, n)
			},
		}
	})
}

// newKeys makes a topic.
func newKeys(t testing.TB, s *Store, n int) []lease.Key {
	t.Helper()
	id := uuid.New()
	if err := s.CreateTopic(t.Context(), metadata.NewTopic{ID: id, Name: id.String(), Partitions: int32(n)}); err != nil {
		t.Fatal(err)
	}
	keys := make([]lease.Key, n)
	for i := range keys {
		keys[i] = lease.Key{TopicID: id, Partition: int32(i)}
	}
	return keys
}

// leadNew makes a topic and leads its partitions as "a1".
func leadNew(t testing.TB, s *Store, n int) []lease.Term {
	t.Helper()
	results, err := s.Acquire(t.Context(), "a1", time.Hour, newKeys(t, s, n))
	if err != nil {
		t.Fatal(err)
	}
	terms := make([]lease.Term, n)
	for i, r := range results {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		terms[i] = r.Term
	}
	return terms
}

// commitOf is a commit of one object with one batch of a producer a term.
func commitOf(terms []lease.Term, producerID int64, sequence int32) *metadata.Commit {
	o := metadata.CommitObject{ID: segment.NewID(), Size: int64(len(terms)) * 100}
	for i, term := range terms {
		o.Batches = append(o.Batches, metadata.CommitBatch{
			Key: term.Key, LeaderEpoch: term.LeaderEpoch, Position: int64(i) * 100, Length: 100, Records: 1,
			ProducerID: producerID, BaseSequence: sequence, MaxTimestamp: 1,
		})
	}
	return &metadata.Commit{AgentID: "a1", Objects: []metadata.CommitObject{o}}
}

func TestASecondAgentIsKeptOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metadata.db")
	openAt(t, path)
	_, err := Open(t.Context(), Scheme+path)
	if !errors.Is(err, ErrInUse) {
		t.Fatalf("got %v", err)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than a line: %q", err)
	}
}

func TestADatabaseIsTheSameAfterItWasClosed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metadata.db")
	s := openAt(t, path)
	terms := leadNew(t, s, 3)
	c := commitOf(terms, 0, 0)
	first, err := s.Commit(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	before, err := s.Topology(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s, err = Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	after, err := s.Topology(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if after.ClusterID != before.ClusterID || after.Version != before.Version || len(after.Leaders) != 3 {
		t.Errorf("topology was %+v, is %+v", before, after)
	}
	again, err := s.Commit(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	for i := range again[0] {
		if again[0][i] != first[0][i] {
			t.Errorf("batch %d: first %+v, again %+v", i, first[0][i], again[0][i])
		}
	}
	if err := metadatatest.Audit(t.Context(), s); err != nil {
		t.Error(err)
	}
}

func TestAFolderThatCannotBeMadeIsNamed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), filepath.Join(file, "metadata.db")); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v", err)
	}
}

// An id that was given out longer ago than producers are remembered may have
// been forgotten, so that its sequence is believed.
func TestAnExpiredProducerGoesOn(t *testing.T) {
	s := openNew(t)
	terms := leadNew(t, s, 1)
	id, err := s.AllocateProducerIDs(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	outcome := func(producer int64) metadata.CommitOutcome {
		r, err := s.Commit(t.Context(), commitOf(terms, producer, 7))
		if err != nil {
			t.Fatal(err)
		}
		return r[0][0].Outcome
	}
	if got := outcome(id); got != metadata.OutOfOrderSequence {
		t.Errorf("a young producer: outcome %d", got)
	}
	if err := s.exec(t.Context(), `UPDATE producer_id_blocks SET allocated_at = allocated_at - $1`,
		metadata.ProducerExpiry.Milliseconds()+1000); err != nil {
		t.Fatal(err)
	}
	if got := outcome(id + 9); got != metadata.Committed {
		t.Errorf("an old producer: outcome %d", got)
	}
	if got := outcome(id + 10); got != metadata.OutOfOrderSequence {
		t.Errorf("beyond the block: outcome %d", got)
	}
}

func BenchmarkCommit(b *testing.B) {
	for _, partitions := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("partitions=%d", partitions), func(b *testing.B) {
			s := openNew(b)
			terms := leadNew(b, s, partitions)
			sequence := int32(0)
			b.ReportAllocs()
			for b.Loop() {
				r, err := s.Commit(b.Context(), commitOf(terms, 0, sequence))
				if err != nil || r[0][0].Outcome != metadata.Committed {
					b.Fatal(r, err)
				}
				sequence++
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	s := openNew(b)
	terms := leadNew(b, s, 100)
	for n := range int32(100) {
		if _, err := s.Commit(b.Context(), commitOf(terms, 0, n)); err != nil {
			b.Fatal(err)
		}
	}
	for _, partitions := range []int{1, 100} {
		b.Run(fmt.Sprintf("partitions=%d", partitions), func(b *testing.B) {
			var reqs []metadata.ReadRequest
			for _, t := range terms[:partitions] {
				reqs = append(reqs, metadata.ReadRequest{Key: t.Key, Offset: 50, MaxBytes: 1000})
			}
			b.ReportAllocs()
			for b.Loop() {
				if r, err := s.Read(b.Context(), reqs); err != nil || len(r[0].Extents) != 10 {
					b.Fatal(r, err)
				}
			}
		})
	}
}

// pragma sets a limit on the connection that writes.
func pragma(t *testing.T, s *Store, text string) {
	t.Helper()
	c := <-s.db.writer
	defer func() { s.db.writer <- c }()
	if _, err := c.ExecContext(t.Context(), `PRAGMA `+text); err != nil {
		t.Fatal(err)
	}
}

func TestAFullDiskIsUnavailableUntilItIsNot(t *testing.T) {
	s := openNew(t)
	terms := leadNew(t, s, 1)
	pragma(t, s, "max_page_count = 1") // no page more than there are
	var (
		c   *metadata.Commit
		err error
	)
	n := int32(0)
	for ; err == nil; n++ {
		c = commitOf(terms, 0, n)
		_, err = s.Commit(t.Context(), c)
	}
	if !errors.Is(err, metadata.ErrUnavailable) || errors.Is(err, metadata.ErrUnknownOutcome) {
		t.Fatalf("got %v", err)
	}
	pragma(t, s, "max_page_count = 100000")
	r, err := s.Commit(t.Context(), c)
	if err != nil || r[0][0].Outcome != metadata.Committed || r[0][0].BaseOffset != int64(n-1) {
		t.Errorf("the commit again: %+v, %v", r, err)
	}
	if err := metadatatest.Audit(t.Context(), s); err != nil {
		t.Error(err)
	}
}

func TestACallThatIsGivenUpBeforeItBeganChangedNothing(t *testing.T) {
	s := openNew(t)
	terms := leadNew(t, s, 1)
	c := <-s.db.writer // a transaction that takes its time
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Commit(ctx, commitOf(terms, 0, 0))
	s.db.writer <- c
	if !errors.Is(err, metadata.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	marks, err := s.Watermarks(t.Context(), []lease.Key{terms[0].Key})
	if err != nil || marks[0].High != 0 {
		t.Errorf("watermarks %+v, %v", marks[0], err)
	}
}

func BenchmarkRenew1000(b *testing.B) {
	s := openNew(b)
	terms := leadNew(b, s, 1000)
	b.ReportAllocs()
	for b.Loop() {
		if renewed, err := s.Renew(b.Context(), "a1", time.Hour, terms); err != nil || len(renewed) != len(terms) {
			b.Fatal(len(renewed), err)
		}
	}
}

func BenchmarkAcquire1000(b *testing.B) {
	s := openNew(b)
	keys := newKeys(b, s, 1000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Acquire(b.Context(), "a1", time.Hour, keys); err != nil {
			b.Fatal(err)
		}
	}
}
