package compattests

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/compat-tests/clients"
	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/internal/testdb"
)

// mixSize is how much of everything a fault mix has.
type mixSize struct {
	agents     int
	partitions int32
	patient    int // producers that never give up
	wanderers  int
	seats      int           // of each group
	interval   time.Duration // between two bursts of a producer
	lease      time.Duration
	fault      time.Duration // the longest, if nothing takes longer
	topicLife  time.Duration
}

var (
	smallMix = mixSize{
		agents: 3, partitions: 6, patient: 2, wanderers: 1, seats: 2,
		interval: 50 * time.Millisecond, lease: 3 * time.Second,
	}
	largeMix = mixSize{
		agents: 4, partitions: 20, patient: 3, wanderers: 3, seats: 3,
		interval: 25 * time.Millisecond, lease: 10 * time.Second, fault: 20 * time.Second, topicLife: 3 * time.Minute,
	}
)

// mixPeriod is the least time from one choice of faults to the next.
const mixPeriod = 15 * time.Second

// TestFaultMixSmall has a few faults in a row: enough to see that the mix works, and that agents stand the usual.
func TestFaultMixSmall(t *testing.T) {
	t.Parallel()
	m := startMix(t, smallMix, harness.FastStores(t), seed(t))
	r := m.startRound(t)
	r.settle(t)
	for _, faults := range [][]string{{"kill"}, {"cut from postgres", "lose answers of postgres"}, {"fail stored uploads", "drain"}} {
		m.period(t, r, faults, smallMix.lease+time.Second, 0)
	}
	r.finish(t)
	m.report(t)
}

// TestFaultMix is the fault mix of `make chaos`: for CHAOS_DURATION, agents and stores are killed, frozen, cut off and
// more, several at once, while clients of all kinds work. CHAOS_SEED chooses the faults. Topics take turns, each with a
// history of its own that is checked when all is well again.
func TestFaultMix(t *testing.T) {
	wanted := os.Getenv("CHAOS_DURATION")
	if wanted == "" {
		t.Log("runs with CHAOS_DURATION=10m (make chaos)")
		return
	}
	length, err := time.ParseDuration(wanted)
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(environmentInt(t, "CHAOS_SEED", int(rand.Uint32())))
	database, bucket := testdb.StartPostgres(t), testdb.StartS3(t)
	m := startMix(t, largeMix, harness.Stores{Metadata: database.Database(), Objects: bucket.Bucket()}, seed)
	m.postgres, m.bucket = database, bucket
	m.startForeign(t)
	defer m.report(t)
	for time.Since(m.begun) < length && !t.Failed() {
		r := m.startRound(t)
		r.settle(t)
		for time.Since(r.begun) < m.size.topicLife && time.Since(m.begun) < length && !t.Failed() {
			m.period(t, r, m.choose(), m.length(), mixPeriod)
		}
		r.finish(t)
	}
}

// faultMix is a cluster whose agents have links, and what befell it.
type faultMix struct {
	size     mixSize
	database string                 // its URL
	postgres *testdb.PostgresServer // nil: it belongs to others too, like bucket
	bucket   *testdb.S3Server
	agents   []*harness.LinkedAgent
	nodes    []int32        // the agents' node ids
	lives    []atomic.Int32 // how often each agent was started anew
	seeds    []string
	foreign  []clients.Client
	random   *rand.Rand
	begun    time.Time
	rounds   int

	counts   counts
	silences map[string][]time.Duration // by faults: the longest of a partition, in each period
	totals   mixTotals
}

// mixTotals is what the rounds come to.
type mixTotals struct {
	operations, sent, acked, anomalies int
}

func startMix(t *testing.T, size mixSize, stores harness.Stores, seed uint64) *faultMix {
	t.Helper()
	m := &faultMix{
		size: size, database: stores.Metadata, lives: make([]atomic.Int32, size.agents),
		random: rand.New(rand.NewPCG(seed, 0)), begun: time.Now(), silences: make(map[string][]time.Duration),
	}
	m.agents = harness.LinkedCluster(t, stores, size.agents,
		fmt.Sprintf("STREAMHOUSE_LEASE_DURATION=%s", size.lease), fmt.Sprintf("STREAMHOUSE_HEARTBEAT_INTERVAL=%s", size.lease*2/5),
		"STREAMHOUSE_FLUSH_INLINE_MAX_BYTES=1KiB") // so that there are uploads as well as inline flushes
	ids := make(map[string]int32)
	for _, a := range m.agents {
		m.seeds = append(m.seeds, a.Address())
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(m.seeds...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	brokers, err := kadm.NewClient(client).ListBrokers(deadline(t, time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range brokers {
		ids[fmt.Sprintf("%s:%d", b.Host, b.Port)] = b.NodeID
	}
	for _, address := range m.seeds {
		id, ok := ids[address]
		if !ok {
			t.Fatalf("no agent advertises its link at %s: %v", address, ids)
		}
		m.nodes = append(m.nodes, id)
	}
	return m
}

// agent returns the number of an agent in histories, which is another one after each start.
func (m *faultMix) agent(i int) int32 { return m.nodes[i] + 1000*m.lives[i].Load() }

// choose picks the faults of a period: none in a quarter of them, else mostly one.
func (m *faultMix) choose() []string {
	n := []int{0, 0, 1, 1, 1, 2, 2, 3}[m.random.IntN(8)]
	names := slices.Sorted(maps.Keys(mixFaults))
	m.random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	if i := slices.IndexFunc(names[:n], func(name string) bool { return mixFaults[name].alone }); i >= 0 {
		return names[i : i+1]
	}
	return names[:n]
}

// length is how long the faults of a period last: less than a lease, or up to twice that.
func (m *faultMix) length() time.Duration {
	return time.Second + time.Duration(m.random.Int64N(int64(m.size.fault-time.Second)))
}

func (m *faultMix) report(t *testing.T) {
	t.Helper()
	t.Logf("in %s, %d topics: %d operations, %d records sent, %d acknowledged, %d anomalies", time.Since(m.begun).Round(time.Second),
		m.rounds, m.totals.operations, m.totals.sent, m.totals.acked, m.totals.anomalies)
	for _, a := range m.agents {
		m.counts.add(int(a.S3.FailedUploads()), "uploads that were stored and answered with an error")
	}
	m.countOutcomes(t)
	m.counts.log(t)
	for _, faults := range slices.Sorted(maps.Keys(m.silences)) {
		all := m.silences[faults]
		slices.Sort(all)
		t.Logf("longest silence of a partition: %s: median %s, worst %s of %d periods", faults,
			all[len(all)/2].Round(time.Millisecond), all[len(all)-1].Round(time.Millisecond), len(all))
	}
}

// countOutcomes counts what the database decided of batches. It keeps that for a day.
func (m *faultMix) countOutcomes(t *testing.T) {
	t.Helper()
	ctx := deadline(t, mixRecovery)
	database := m.connect(ctx, t)
	defer database.Close(ctx)
	rows, err := database.Query(ctx, `
SELECT (ARRAY['committed', 'duplicate', 'fenced', 'unknown partition', 'out of order sequence', 'invalid producer epoch', 'object claimed'])[o.outcome + 1], count(*)::int
FROM objects, unnest(results[1:cardinality(results) / 4]) AS o(outcome) GROUP BY o.outcome`)
	if err != nil {
		t.Error(err)
		return
	}
	var outcome string
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&outcome, &n}, func() error {
		m.counts.add(n, "batches that the database found: %s", outcome)
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// period has faults befall the cluster, and returns when all goes on again, and least has passed.
func (m *faultMix) period(t *testing.T, r *mixRound, faults []string, length, least time.Duration) {
	t.Helper()
	next := time.NewTimer(least)
	defer next.Stop()
	r.silences.begin()
	m.befall(t, faults, length)
	select {
	case <-next.C:
	case <-t.Context().Done():
	}
	r.settle(t)
	m.noteSilence(faults, r.silences.longest())
}

// noteSilence takes note of the longest silence of a period.
func (m *faultMix) noteSilence(faults []string, longest time.Duration) {
	name := strings.Join(faults, ", ")
	switch {
	case len(faults) == 0:
		name = "no fault"
	case len(faults) > 1:
		name = "several faults"
	}
	m.silences[name] = append(m.silences[name], longest)
}
