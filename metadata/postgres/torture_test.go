package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/streamhouse/streamhouse/internal/testdb"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/postgres"
	"github.com/streamhouse/streamhouse/segment"
)

// The torture: idempotent producers commit through several agents, give up after
// milliseconds and ask again under the same object ids, while back-ends are
// killed, answers get lost, agents are buried, leaderships move and are handed over,
// and a collector claims the names of objects that are being committed. Then every
// acknowledgement is compared with the index. STREAMHOUSE_TORTURE=60s runs it for
// longer.
func TestTorture(t *testing.T) {
	tt := newDisturbedTorture(t)
	tt.run(tortureCommits)
	tt.report()
}

const (
	tortureCommits     = 80 // of each producer
	torturePartitions  = 4
	tortureAgents      = 3
	tortureProducers   = 12
	tortureAttempts    = 500 // of one commit, before it is said to hang
	tortureRecordBytes = 100 // offsets and positions advance together
	tortureLeaseLength = time.Millisecond
)

// torture is one run and what it has seen.
type torture struct {
	t      *testing.T
	seed   uint64
	admin  *pgxpool.Pool // straight to the server
	agents []metadata.Agent
	stores []*postgres.Store // of the agents
	keys   []lease.Key

	// disturb are faults, one of which now and then precedes a commit.
	disturb []func(context.Context)
	// claim is the collector's claim of a name: whether it may delete the object.
	claim func(context.Context, *postgres.Store, segment.ID) (bool, error)
	// outage is held while the server is down on purpose.
	outage sync.RWMutex

	commits, ambiguous, takeovers, handOvers, burials, fenced, claims, duplicates atomic.Int64

	mu      sync.Mutex
	leaders map[lease.Key]leadership
	acks    []ack
	claimed []segment.ID
	wrong   []string // what must not be
}

// leadership is who leads a partition, as far as is known.
type leadership struct {
	agent int
	term  lease.Term
}

// ack is a batch that was acknowledged.
type ack struct {
	agent  string // that committed it
	batch  metadata.CommitBatch
	object segment.ID
	base   int64
}

func newTorture(t *testing.T, direct, proxied string) *torture {
	t.Helper()
	tt := &torture{t: t, seed: rand.Uint64(), leaders: make(map[lease.Key]leadership)}
	tt.claim = func(ctx context.Context, s *postgres.Store, id segment.ID) (bool, error) {
		claimed, err := s.ClaimOrphans(ctx, []segment.ID{id})
		return slices.Contains(claimed, id), err
	}
	admin, err := pgxpool.New(t.Context(), direct)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	tt.admin = admin
	for n := range tortureAgents {
		tt.openAgent(n, proxied)
	}
	tt.keys = createTopic(t, tt.stores[0], torturePartitions)
	return tt
}

// newDisturbedTorture is a torture whose back-ends get killed and whose answers
// get lost.
func newDisturbedTorture(t *testing.T) *torture {
	t.Helper()
	url := testdb.Postgres(t)
	proxy := testdb.NewProxy(t, url)
	tt := newTorture(t, url, proxy.URL())
	tt.disturb = append(tt.disturb, tt.killBackend, tt.bury,
		func(context.Context) { proxy.CutNextServerReply(testdb.PostgresReady) })
	return tt
}

// run lets every producer make so many commits, or go on for STREAMHOUSE_TORTURE,
// and compares the index with what they were told.
func (tt *torture) run(commits int) {
	limit := 2 * time.Minute
	proceed := func(n int) bool { return n < commits }
	if given := os.Getenv("STREAMHOUSE_TORTURE"); given != "" {
		d, err := time.ParseDuration(given)
		if err != nil {
			tt.t.Fatal(err)
		}
		end := time.Now().Add(d)
		limit, proceed = d+limit, func(int) bool { return time.Now().Before(end) }
	}
	ctx, cancel := context.WithTimeout(tt.t.Context(), limit)
	defer cancel()
	first, err := tt.stores[0].AllocateProducerIDs(ctx, tortureProducers)
	if err != nil {
		tt.t.Fatal(err)
	}
	attending, leave := context.WithCancel(ctx)
	var attendants, producers sync.WaitGroup
	for n := range tt.agents {
		attendants.Go(func() { tt.attend(attending, n) })
	}
	for i := range tortureProducers {
		p := &tortureProducer{
			torture: tt, id: first + int64(i), key: tt.keys[i%len(tt.keys)],
			rng: rand.New(rand.NewPCG(tt.seed, uint64(i))),
		}
		producers.Go(func() {
			for n := 0; proceed(n) && !tt.failed(); n++ {
				p.step(ctx)
			}
		})
	}
	producers.Wait()
	leave()
	attendants.Wait()
	if !tt.failed() {
		tt.audit(ctx)
	}
	tt.t.Logf("%d commits, %d ambiguous answers, %d acknowledged batches, %d duplicates, %d take-overs, %d hand-overs, %d burials, %d fenced, %d claims",
		tt.commits.Load(), tt.ambiguous.Load(), len(tt.acks), tt.duplicates.Load(), tt.takeovers.Load(), tt.handOvers.Load(),
		tt.burials.Load(), tt.fenced.Load(), tt.claims.Load())
}

// report fails the test if anything was wrong.
func (tt *torture) report() {
	tt.t.Helper()
	for _, w := range tt.wrong {
		tt.t.Errorf("%s (seed %d)", w, tt.seed)
	}
}

// violate notes what must not be; the run ends soon after.
func (tt *torture) violate(format string, args ...any) {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	tt.wrong = append(tt.wrong, fmt.Sprintf(format, args...))
}

func (tt *torture) failed() bool {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	return len(tt.wrong) > 0
}

// killBackend ends a session of the server, one that is in a commit if there is.
func (tt *torture) killBackend(ctx context.Context) {
	_, err := tt.admin.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND application_name LIKE 'streamhouse/%'
		ORDER BY state = 'active' AND query LIKE '%commit_objects%' DESC, random() LIMIT 1`)
	if err != nil {
		tt.violate("kill a back-end: %v", err)
	}
}

// leader returns who leads a partition, as far as is known.
func (tt *torture) leader(key lease.Key) leadership {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	return tt.leaders[key]
}

// takeOver lets an agent take a partition, which may be its own, and may be handed
// over to it before.
func (tt *torture) takeOver(ctx context.Context, rng *rand.Rand, key lease.Key) {
	agent := rng.IntN(tortureAgents)
	if rng.IntN(2) == 0 {
		tt.handOver(ctx, key, agent)
	}
	for range tortureAttempts {
		results, err := tt.stores[agent].Acquire(ctx, agentName(agent), tortureLeaseLength, []lease.Key{key})
		if err != nil {
			tt.waitOutage()
			continue
		}
		if results[0].Err != nil {
			continue // a millisecond later it has expired
		}
		tt.takeovers.Add(1)
		tt.mu.Lock()
		if tt.leaders[key].term.LeaderEpoch < results[0].Term.LeaderEpoch || tt.leaders[key].term.Epoch == 0 {
			tt.leaders[key] = leadership{agent, results[0].Term}
		}
		tt.mu.Unlock()
		return
	}
	tt.violate("%s could not be acquired", key)
}

func agentName(n int) string { return fmt.Sprintf("agent-%d", n) }

// waitOutage returns once the server is not down on purpose.
func (tt *torture) waitOutage() {
	tt.outage.RLock()
	defer tt.outage.RUnlock()
}

// commit asks until it is answered, of any agent's store, under the same ids.
func (tt *torture) commit(ctx context.Context, rng *rand.Rand, c *metadata.Commit) [][]metadata.CommitResult {
	for range tortureAttempts {
		patience := time.Duration(2+rng.IntN(1+rng.IntN(400))) * time.Millisecond
		attempt, cancel := context.WithTimeout(ctx, patience)
		results, err := tt.stores[rng.IntN(tortureAgents)].Commit(attempt, c)
		cancel()
		if err == nil {
			tt.commits.Add(1)
			return results
		}
		var reported *pgconn.PgError
		if errors.As(err, &reported) && slices.Contains([]string{"22", "23", "42", "XX"}, reported.Code[:2]) {
			tt.violate("commit: %v", err)
			return nil
		}
		if errors.Is(err, metadata.ErrUnknownOutcome) {
			tt.ambiguous.Add(1)
		} else if !errors.Is(err, metadata.ErrUnavailable) {
			tt.violate("commit: an error that says nothing: %v", err)
			return nil
		}
		tt.waitOutage()
	}
	tt.violate("a commit got no answer")
	return nil
}
