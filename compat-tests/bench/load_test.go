package bench

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestLoads runs each load for a moment, so that the benchmark still works when it is wanted.
func TestLoads(t *testing.T) {
	agent := harness.Embedded(t)
	if err := FirstAnswer(t.Context(), agent.Address(), agent.Exited); err != nil {
		t.Fatal(err)
	}
	load := Load{Address: agent.Address(), Topic: "loads", Partitions: 3, ValueBytes: 1024, Producers: 2}
	topics := []string{load.Topic, "others"}
	if err := CreateTopics(t.Context(), load.Address, load.Partitions, topics...); err != nil {
		t.Fatal(err)
	}
	records := load.Partitions
	if err := load.OneEach(t.Context(), topics); err != nil {
		t.Fatal(err)
	}
	// 100 records a second for 300 ms, the first 10 of which are the warm-up.
	took, err := load.OpenLoop(t.Context(), 100, 100*time.Millisecond, 200*time.Millisecond)
	if err != nil || len(took) != 20 || !slices.IsSorted(took) {
		t.Fatalf("open loop: %v, %v", took, err)
	}
	records += 30
	consuming, end := context.WithCancel(t.Context())
	var consumers sync.WaitGroup
	consumers.Go(func() {
		if err := load.Consume(consuming, "group", topics); err != nil {
			t.Errorf("consume: %v", err)
		}
	})
	// Every partition of both topics has 5 of the 30 records.
	took, err = load.Steady(t.Context(), topics, 100, 0, 300*time.Millisecond)
	if err != nil || len(took) != 30 || !slices.IsSorted(took) {
		t.Fatalf("steady: %v, %v", took, err)
	}
	end()
	consumers.Wait()
	records += 15
	took, err = load.ClosedLoop(t.Context(), 0, 200*time.Millisecond)
	if err != nil || len(took) == 0 || !slices.IsSorted(took) {
		t.Fatalf("closed loop: %v, %v", took, err)
	}
	records += len(took)
	const flood = 4 << 20
	produced, err := load.Flood(t.Context(), kgo.Lz4Compression(), flood, time.Minute)
	if err != nil || produced != flood {
		t.Fatalf("flood: %d bytes, %v", produced, err)
	}
	records += flood / load.ValueBytes
	consumed, err := load.Drain(t.Context(), time.Minute)
	if want := int64(records * load.ValueBytes); err != nil || consumed != want {
		t.Errorf("drain: %d bytes, %v; want %d", consumed, err, want)
	}
	metrics, err := Scrape(t.Context(), agent.AdminAddress())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"streamhouse_kafka_requests_total", "streamhouse_metadata_store_queries_total", "streamhouse_agent_lease_count",
		"go_memstats_mallocs_total", "go_memstats_alloc_bytes_total",
	} {
		if metrics.Sum(name) == 0 {
			t.Errorf("no %s", name)
		}
	}
}

func TestQuantile(t *testing.T) {
	var sorted []time.Duration
	for i := range 200 {
		sorted = append(sorted, time.Duration(i+1)*time.Millisecond)
	}
	for q, want := range map[float64]float64{0: 1, 0.5: 100, 0.99: 198, 0.999: 200, 1: 200} {
		if got := Quantile(sorted, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
}
