package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse/compat-tests/apachekafka"
	"github.com/streamhouse/streamhouse/compat-tests/harness"
)

const (
	embedded = "embedded"
	cluster  = "cluster"
	kafka    = "Apache Kafka"
)

// target is a running broker to measure.
type target struct {
	broker
	name     string
	agent    *harness.Agent // the broker, unless it is Kafka
	database string         // URL of a cluster's database
}

type broker interface {
	Address() string
	PID() int
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
}

// startTarget starts one broker on fresh stores. It ends with b.
func startTarget(b *testing.B, name string) target {
	b.Helper()
	t := target{name: name}
	switch name {
	case embedded:
		t.agent = harness.Embedded(b)
		t.broker = t.agent
	case cluster:
		stores := harness.DurableStores(b)
		t.agent = harness.Cluster(b, stores, 1)[0]
		t.broker, t.database = t.agent, stores.Metadata
	case kafka:
		t.broker = apachekafka.Run(b)
	default:
		b.Fatalf("unknown target %q", name)
	}
	return t
}

// restart stops the broker in good order and starts it again, with empty caches.
func (t target) restart(ctx context.Context, b *testing.B) {
	b.Helper()
	if err := t.Stop(ctx); err != nil {
		b.Fatal(err)
	}
	if err := t.Start(ctx); err != nil {
		b.Fatal(err)
	}
}

// metrics are the agent's; Kafka has none.
func (t target) metrics(ctx context.Context, b *testing.B) Metrics {
	b.Helper()
	if t.agent == nil {
		return nil
	}
	m, err := Scrape(ctx, t.agent.AdminAddress())
	if err != nil {
		b.Fatal(err)
	}
	return m
}

func (t target) cpu(b *testing.B) time.Duration {
	b.Helper()
	used, err := CPUTime(t.PID())
	if err != nil {
		b.Fatal(err)
	}
	return used
}

func (t target) residentMiB(b *testing.B) float64 {
	b.Helper()
	mib, err := ResidentMiB(t.PID())
	if err != nil {
		b.Fatal(err)
	}
	return mib
}

// usage is what the target's process used of a core, and what it asked of its database, while work ran.
func (t target) usage(ctx context.Context, b *testing.B, work func()) map[string]float64 {
	b.Helper()
	const queries = "streamhouse_metadata_store_queries_total"
	transactions := func() float64 { return 0 }
	if t.database != "" {
		transactions = func() float64 { return t.transactions(ctx, b) }
	}
	cpu, asked, committed, begin := t.cpu(b), t.metrics(ctx, b).Sum(queries), transactions(), time.Now()
	work()
	seconds := time.Since(begin).Seconds()
	values := map[string]float64{percentOfCore: (t.cpu(b) - cpu).Seconds() / seconds * 100}
	if t.agent != nil {
		values[queriesPerSecond] = (t.metrics(ctx, b).Sum(queries) - asked) / seconds
	}
	if t.database != "" {
		values[transactionsPerSecond] = (transactions() - committed) / seconds
	}
	return values
}

// transactions is how many transactions the target's database has committed, as the database counts.
func (t target) transactions(ctx context.Context, b *testing.B) float64 {
	b.Helper()
	conn, err := pgx.Connect(ctx, t.database)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(ctx)
	var committed int64
	const query = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
	if err := conn.QueryRow(ctx, query).Scan(&committed); err != nil {
		b.Fatal(err)
	}
	return float64(committed)
}

// throughput runs work, which moves the bytes that it returns by requests of this API, and returns what it cost.
func (t target) throughput(ctx context.Context, b *testing.B, api string, work func() (int64, error)) map[string]float64 {
	b.Helper()
	profiled := t.profile(ctx, b, api)
	metricsBefore, cpuBefore, begin := t.metrics(ctx, b), t.cpu(b), time.Now()
	moved, err := work()
	if err != nil {
		b.Fatal(err)
	}
	if moved == 0 {
		b.Fatalf("%s moved nothing", api)
	}
	took, cpu, metrics := time.Since(begin), t.cpu(b)-cpuBefore, t.metrics(ctx, b)
	profiled()
	values := map[string]float64{
		mibPerSecond: float64(moved) / mebibyte / took.Seconds(),
		cpuPerGiB:    cpu.Seconds() / (float64(moved) / (1 << 30)),
	}
	if t.agent != nil {
		delta := func(metric string) float64 { return metrics.Sum(metric) - metricsBefore.Sum(metric) }
		requests := delta(fmt.Sprintf("streamhouse_kafka_requests_total{api=%q}", api))
		values[kibPerRequest] = float64(moved) / 1024 / requests
		values[allocsPerRequest] = delta("go_memstats_mallocs_total") / requests
		values[allocatedPerByte] = delta("go_memstats_alloc_bytes_total") / float64(moved)
		values[storedPerByte] = delta("streamhouse_object_store_bytes_total") / float64(moved)
		values[storeRequestsPerGiB] = delta("streamhouse_object_store_requests_total") / (float64(moved) / (1 << 30))
	}
	return values
}

// profile writes a CPU profile of the agent to the folder of the flag profiles, if there is one. The function that it
// returns waits for the end.
func (t target) profile(ctx context.Context, b *testing.B, work string) (wait func()) {
	if *profiles == "" || t.agent == nil {
		return func() {}
	}
	path := filepath.Join(*profiles, strings.ReplaceAll(b.Name(), "/", "-")+"-"+work+"-"+time.Now().Format("150405")+".pprof")
	done := make(chan error)
	go func() {
		const length = 3 * time.Second
		url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%.0f", t.agent.AdminAddress(), length.Seconds())
		done <- download(ctx, url, path)
	}()
	return func() {
		if err := <-done; err != nil {
			b.Errorf("profile: %v", err)
		}
	}
}

func download(ctx context.Context, url, path string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Close = true // no idle connection stays behind
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o644)
}
