package bench

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
)

var (
	targets  = flag.String("targets", strings.Join([]string{kafka, embedded, cluster}, ","), "targets to measure")
	markdown = flag.String("markdown", "", "also write the tables to this file")
	jsonFile = flag.String("results", "", "also write the results, as JSON, to this file")
	profiles = flag.String("profiles", "", "folder to write CPU profiles of agents under full load to")

	rate       = flag.Int("rate", 500, "records a second of the latency scenario")
	warmUp     = flag.Duration("warm-up", 5*time.Second, "length of the warm-up of latency and throughput")
	latency    = flag.Duration("latency", 30*time.Second, "length of the latency scenario")
	oneByOne   = flag.Duration("one-by-one", 10*time.Second, "length of the scenario with one request in flight")
	throughput = flag.Duration("throughput", 10*time.Second, "longest time of each throughput measurement")
	gibibytes  = flag.Float64("gib", 2, "GiB of values that each throughput measurement produces at most")
	idle       = flag.Duration("idle", 30*time.Second, "length of the idle scenario")
	starts     = flag.Int("starts", 10, "starts that are timed")
	rebalances = flag.Int("rebalances", 10, "joins and leaves that are timed")
	commits    = flag.Duration("commits", 10*time.Second, "length of the scenario of offset commits")
	settings   = flag.String("settings", "", "settings of many agents that are not the defaults: STREAMHOUSE_NAME=value, with commas between")
	steady     = flag.Duration("steady", 30*time.Second, "length of each scenario with many agents under load")
	scaling    = flag.Duration("scaling", 15*time.Second, "length of the scenario with each number of agents, and of each with zones")
	manyIdle   = flag.Duration("many-idle", time.Minute, "length of the idle scenario with many agents")
)

const (
	valueBytes  = 1024
	idleTopics  = 10 // of 100 partitions each
	settleTime  = 5 * time.Second
	restartTime = time.Minute // at most
)

// The quantities.
const (
	p50, p90, p99, maximum = "p50-ms", "p90-ms", "p99-ms", "max-ms"
	acksPerSecond          = "acks/s"
	mibPerSecond           = "MiB/s"
	cpuPerGiB              = "CPU-s/GiB"
	timesKafka             = "times-Kafka's-CPU"
	allocsPerRequest       = "mallocs/request"
	kibPerRequest          = "KiB/request"
	allocatedPerByte       = "bytes-allocated/byte"
	storedPerByte          = "object-bytes/byte"
	storeRequestsPerGiB    = "object-requests/GiB"
	percentOfCore          = "%-of-a-core"
	queriesPerSecond       = "queries/s"
	transactionsPerSecond  = "database-transactions/s"
	residentMiB            = "resident-MiB"
)

// results are the tables of a run.
type results struct {
	machine string

	latency, oneByOne, produce, produceLZ4, fetch, fetchCold, idle, start Table

	groups  groupResults
	many    manyResults
	scaling scalingResults
	zones   zoneResults
}

func newResults() *results {
	moved := []Column{
		{Unit: mibPerSecond},
		{Unit: cpuPerGiB},
		{Unit: timesKafka},
		{Unit: kibPerRequest},
		{Unit: allocsPerRequest},
		{Unit: allocatedPerByte},
		{Unit: storedPerByte},
		{Unit: storeRequestsPerGiB},
	}
	produced := slices.Clone(moved)
	produced[2].Goal = 2
	latencies := []Column{{Unit: p50}, {Unit: p90}, {Unit: p99}, {Unit: maximum}, {Unit: acksPerSecond}}
	latenciesAtRate := slices.Clone(latencies)
	latenciesAtRate[2].Goal = 50
	return &results{
		machine: machine(),
		latency: Table{
			Title:   fmt.Sprintf("Acknowledged produce at %d records/s of 1 KiB, 4 producers, 4 partitions, no linger", *rate),
			Columns: latenciesAtRate,
		},
		oneByOne:   Table{Title: "One producer, one connection, one partition, one request in flight, 1 KiB", Columns: latencies},
		produce:    Table{Title: "Produce at full speed, batches of up to 1 MiB, uncompressed", Columns: produced},
		produceLZ4: Table{Title: "Produce at full speed, batches of up to 1 MiB, lz4", Columns: produced},
		fetch:      Table{Title: "Fetch at full speed what was produced uncompressed", Columns: moved},
		fetchCold:  Table{Title: "The same after a restart", Columns: moved},
		idle: Table{
			Title: "Idle, 1,000 partitions led, one record in each",
			Columns: []Column{
				{Unit: percentOfCore, Goal: 2},
				{Unit: queriesPerSecond, Goal: 5},
				{Unit: transactionsPerSecond},
				{Unit: residentMiB, Goal: 100},
			},
		},
		start: Table{
			Title:   "From the start of the process to the first answered Metadata",
			Columns: []Column{{Unit: p50, Goal: 1000}, {Unit: maximum}, {Unit: residentMiB, Goal: 100}},
		},
		groups:  newGroupResults(),
		many:    newManyResults(),
		scaling: newScalingResults(),
		zones:   newZoneResults(),
	}
}

func (r *results) report() *Report {
	for _, t := range []*Table{&r.produce, &r.produceLZ4, &r.fetch, &r.fetchCold} {
		t.Compare(cpuPerGiB, timesKafka, kafka)
	}
	return &Report{
		Machine: r.machine,
		Tables: slices.Concat(
			[]*Table{&r.latency, &r.oneByOne, &r.produce, &r.produceLZ4, &r.fetch, &r.fetchCold, &r.idle, &r.start},
			r.groups.tables(),
			r.many.tables(),
			[]*Table{&r.scaling.fixed, &r.scaling.growing, &r.zones.latency},
		),
	}
}

// BenchmarkEndToEnd is to be run once: -benchtime 1x.
func BenchmarkEndToEnd(b *testing.B) {
	r := newResults()
	b.Cleanup(func() {
		if err := publish(r.report()); err != nil {
			b.Error(err)
		}
	})
	names := strings.Split(*targets, ",")
	agents := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == kafka })
	forEachTarget(b, "latency", names, r.measureLatency)
	forEachTarget(b, "throughput", names, r.measureThroughput)
	forEachTarget(b, "idle", agents, r.measureIdle)
	if slices.Contains(names, embedded) {
		b.Run("start", r.measureStart)
	}
	forEachTarget(b, "rebalance", names, r.groups.measureRebalances)
	forEachTarget(b, "commits", names, r.groups.measureCommits)
	forEachTarget(b, "at-rest", names, r.groups.measureAtRest)
	if slices.Contains(names, cluster) {
		b.Run("many", r.many.measure)
		b.Run("scaling", r.scaling.measure)
		b.Run("zones", r.zones.measure)
	}
}

// forEachTarget runs a scenario on each of the targets, fresh.
func forEachTarget(b *testing.B, scenario string, names []string, measure func(*testing.B, target)) {
	for _, name := range names {
		b.Run(scenario+"/"+name, func(b *testing.B) { measure(b, startTarget(b, name)) })
	}
}

// add puts values into a table and into Go's benchmark line, there under a prefix if the line has several tables.
func add(b *testing.B, t *Table, name, prefix string, values map[string]float64) {
	t.Add(name, values)
	for unit, value := range values {
		b.ReportMetric(value, prefix+unit)
	}
	b.ReportMetric(0, "ns/op") // how long the scenario took says nothing
}

func (r *results) measureLatency(b *testing.B, t target) {
	ctx := b.Context()
	load := Load{Address: t.Address(), Topic: "latency", Partitions: 4, ValueBytes: valueBytes, Producers: 4}
	if err := CreateTopics(ctx, t.Address(), load.Partitions, load.Topic); err != nil {
		b.Fatal(err)
	}
	took, err := load.OpenLoop(ctx, *rate, *warmUp, *latency)
	if err != nil {
		b.Fatal(err)
	}
	add(b, &r.latency, t.name, "", quantiles(took, *latency))
	took, err = load.ClosedLoop(ctx, time.Second, *oneByOne)
	if err != nil {
		b.Fatal(err)
	}
	add(b, &r.oneByOne, t.name, "one-by-one-", quantiles(took, *oneByOne))
}

func quantiles(took []time.Duration, duration time.Duration) map[string]float64 {
	return map[string]float64{
		p50: Quantile(took, 0.5), p90: Quantile(took, 0.9), p99: Quantile(took, 0.99), maximum: Quantile(took, 1),
		acksPerSecond: float64(len(took)) / duration.Seconds(),
	}
}

func (r *results) measureThroughput(b *testing.B, t target) {
	ctx := b.Context()
	load := Load{Address: t.Address(), Partitions: 8, ValueBytes: valueBytes, Producers: 4}
	if err := CreateTopics(ctx, t.Address(), load.Partitions, "warm-up", "lz4", "none"); err != nil {
		b.Fatal(err)
	}
	limit := int64(*gibibytes * (1 << 30))
	load.Topic = "warm-up"
	if _, err := load.Flood(ctx, kgo.NoCompression(), limit, *warmUp); err != nil {
		b.Fatal(err)
	}
	load.Topic = "lz4"
	add(b, &r.produceLZ4, t.name, "produce-lz4-", t.throughput(ctx, b, "Produce", func() (int64, error) {
		return load.Flood(ctx, kgo.Lz4Compression(), limit, *throughput)
	}))
	load.Topic = "none"
	add(b, &r.produce, t.name, "produce-", t.throughput(ctx, b, "Produce", func() (int64, error) {
		return load.Flood(ctx, kgo.NoCompression(), limit, *throughput)
	}))
	drain := func() (int64, error) { return load.Drain(ctx, *throughput) }
	add(b, &r.fetch, t.name, "fetch-", t.throughput(ctx, b, "Fetch", drain))

	restarting, cancel := context.WithTimeout(ctx, restartTime)
	defer cancel()
	t.restart(restarting, b)
	add(b, &r.fetchCold, t.name, "fetch-restarted-", t.throughput(ctx, b, "Fetch", drain))
}

func (r *results) measureIdle(b *testing.B, t target) {
	ctx := b.Context()
	load := Load{Address: t.Address(), Partitions: 100, ValueBytes: valueBytes}
	var topics []string
	for i := range idleTopics {
		topics = append(topics, fmt.Sprintf("idle-%d", i))
	}
	if err := CreateTopics(ctx, t.Address(), load.Partitions, topics...); err != nil {
		b.Fatal(err)
	}
	if err := load.OneEach(ctx, topics); err != nil {
		b.Fatal(err)
	}
	if led := t.metrics(ctx, b).Sum("streamhouse_agent_lease_count"); int(led) < idleTopics*load.Partitions {
		b.Fatalf("the agent leads %v partitions", led)
	}
	elapse(b, settleTime)

	values := t.usage(ctx, b, func() { elapse(b, *idle) })
	values[residentMiB] = t.residentMiB(b)
	add(b, &r.idle, t.name, "", values)
}

func (r *results) measureStart(b *testing.B) {
	var fresh, again []time.Duration
	var agent *harness.Agent
	for range *starts {
		agent = harness.PrepareEmbedded(b)
		fresh = append(fresh, timeStart(b, agent))
		if err := agent.Stop(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	for range *starts {
		again = append(again, timeStart(b, agent))
		if err := agent.Stop(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	timeStart(b, agent)
	elapse(b, settleTime)
	resident, err := ResidentMiB(agent.PID())
	if err != nil {
		b.Fatal(err)
	}
	slices.Sort(fresh)
	slices.Sort(again)
	add(b, &r.start, "embedded, fresh folder", "fresh-", map[string]float64{
		p50: Quantile(fresh, 0.5), maximum: Quantile(fresh, 1),
	})
	add(b, &r.start, "embedded, existing folder", "existing-", map[string]float64{
		p50: Quantile(again, 0.5), maximum: Quantile(again, 1), residentMiB: resident,
	})
}

// timeStart starts the agent and returns the time until its first answer.
func timeStart(b *testing.B, agent *harness.Agent) time.Duration {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), restartTime)
	defer cancel()
	begin := time.Now()
	if err := agent.Launch(ctx); err != nil {
		b.Fatal(err)
	}
	if err := FirstAnswer(ctx, agent.Address(), agent.Exited); err != nil {
		b.Fatal(err)
	}
	return time.Since(begin)
}

// publish prints the report and writes it where the flags say.
func publish(report *Report) error {
	var tables, object bytes.Buffer
	if err := errors.Join(report.Markdown(&tables), report.JSON(&object)); err != nil {
		return err
	}
	if _, err := io.WriteString(os.Stdout, "\n"+tables.String()+"\n"); err != nil {
		return err
	}
	for path, content := range map[string][]byte{*markdown: tables.Bytes(), *jsonFile: object.Bytes()} {
		if path == "" {
			continue
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// machine says on what the numbers were had, and what else it did when they began.
func machine() string {
	model, load := "unknown processor", "unknown"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	if averages, err := os.ReadFile("/proc/loadavg"); err == nil {
		load, _, _ = strings.Cut(string(averages), " ")
	}
	return fmt.Sprintf("%s/%s, %d cores of %s, %s, load average before: %s",
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), model, runtime.Version(), load)
}

// elapse lets the time pass over which something is measured. There is nothing
// to wait for: that nothing happens is the measurement.
func elapse(b *testing.B, d time.Duration) {
	b.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-b.Context().Done():
		b.Fatal(b.Context().Err())
	}
}
