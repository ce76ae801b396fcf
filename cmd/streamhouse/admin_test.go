package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/internal/testdb"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// get asks an admin listener, and returns the status and the body.
func get(ctx context.Context, t *testing.T, admin, path string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Close = true // no idle connection stays behind
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// awaitMetric waits until a line of /metrics is as it says.
func awaitMetric(ctx context.Context, t *testing.T, admin, line string) {
	t.Helper()
	awaitAdmin(ctx, t, admin, "/metrics", func(_ int, body string) bool {
		return slices.Contains(strings.Split(body, "\n"), line)
	})
}

// awaitAdmin asks until the answer is as it should be.
func awaitAdmin(ctx context.Context, t *testing.T, admin, path string, right func(status int, body string) bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		status, body := get(ctx, t, admin, path)
		if right(status, body) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s does not get right: %d %s", path, status, body)
		}
	}
}

// missionMetrics are the names that dashboards of other clusters know.
var missionMetrics = []string{
	"agent_heartbeat_age_seconds", "agent_lease_count", "agent_uptime_seconds", "agent_failures_total",
	"agent_write_latency_seconds", "agent_read_latency_seconds",
	"partition_lease_acquisitions_total", "partition_lease_expirations_total", "partition_lease_epoch",
	"partition_lease_duration_seconds", "partition_failover_duration_seconds", "partition_data_loss_events_total",
	"metadata_store_query_duration_seconds",
}

// TestMetricNames compares the names, types and labels of all metrics with
// testdata/metrics.txt.
func TestMetricNames(t *testing.T) {
	a := startAgent(t, embeddedStores(t))
	ctx := testContext(t)
	// What has labels shows when it happened once: an upload, and an error of
	// the database.
	client := connect(t, a.addr)
	if err := client.ProduceSync(ctx, &kgo.Record{Topic: "t", Value: make([]byte, 100_000)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := a.node.Store.Ping(cancelled); err == nil {
		t.Fatal("the database answers without time")
	}

	status, body := get(ctx, t, a.admin.Addr().String(), "/metrics")
	if status != http.StatusOK {
		t.Fatalf("status %d: %s", status, body)
	}
	got := metricNames(body)
	golden := filepath.Join("testdata", "metrics.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("metrics have changed (-want +got); if that is intended, run with -update and correct docs/OPERATIONS.md:\n%s", diff)
	}
	for _, name := range missionMetrics {
		if !strings.Contains(got, "streamhouse_"+name+" ") {
			t.Errorf("there is no streamhouse_%s", name)
		}
	}
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		// A name that was given, and Go's own metrics.
		if p.Metric != "streamhouse_agent_lease_count" && strings.HasPrefix(p.Metric, "streamhouse_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// metricNames lists our metrics of an exposition: name, type and labels.
func metricNames(exposition string) string {
	labels := map[string]map[string]bool{}
	types := map[string]string{}
	for line := range strings.Lines(exposition) {
		line = strings.TrimSpace(line)
		if fields := strings.Fields(line); len(fields) == 4 && fields[1] == "TYPE" && strings.HasPrefix(fields[2], "streamhouse_") {
			types[fields[2]] = fields[3]
			labels[fields[2]] = map[string]bool{}
		}
	}
	for line := range strings.Lines(exposition) {
		name, rest, ok := strings.Cut(line, "{")
		if types[name] == "" {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				if base, cut := strings.CutSuffix(name, suffix); cut && types[base] == "histogram" {
					name = base
				}
			}
		}
		if !ok || labels[name] == nil {
			continue
		}
		for pair := range strings.SplitSeq(rest[:strings.LastIndexByte(rest, '}')], `",`) {
			if label, _, ok := strings.Cut(pair, "="); ok && label != "le" {
				labels[name][label] = true
			}
		}
	}
	var lines []string
	for name, kind := range types {
		line := fmt.Sprintf("%s %s", name, kind)
		for _, label := range slices.Sorted(maps.Keys(labels[name])) {
			line += " " + label
		}
		lines = append(lines, line+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// TestHealth cuts an agent off from its database: it is alive and not ready,
// and ready again when the database is back.
func TestHealth(t *testing.T) {
	ctx := testContext(t)
	s := sharedStores(t)
	database := testdb.NewProxy(t, s.metadata)
	a := startAgent(t, stores{database.URL(), s.objects})
	admin := a.admin.Addr().String()
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, body := get(ctx, t, admin, path); status != http.StatusOK || body != "ok\n" {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}

	database.Refuse(true)
	database.CloseAll()
	awaitAdmin(ctx, t, admin, "/readyz", func(status int, _ string) bool { return status == http.StatusServiceUnavailable })
	if status, _ := get(ctx, t, admin, "/healthz"); status != http.StatusOK {
		t.Errorf("/healthz is %d while the database is away: that would have the agent restarted", status)
	}
	database.Refuse(false)
	awaitAdmin(ctx, t, admin, "/readyz", func(status int, _ string) bool { return status == http.StatusOK })

	a.node.Agent.Drain()
	if status, body := get(ctx, t, admin, "/readyz"); status != http.StatusServiceUnavailable || body != "shutting down\n" {
		t.Errorf("/readyz of an agent that drains: %d %q", status, body)
	}
}

// TestProfiles asks for profiles, and for what must not be told.
func TestProfiles(t *testing.T) {
	ctx := testContext(t)
	a := startAgent(t, embeddedStores(t))
	for path, want := range map[string]int{
		"/debug/pprof/":          http.StatusOK,
		"/debug/pprof/heap":      http.StatusOK,
		"/debug/pprof/goroutine": http.StatusOK,
		"/debug/pprof/cmdline":   http.StatusNotFound, // flags may hold secrets
		"/":                      http.StatusNotFound,
	} {
		if status, _ := get(ctx, t, a.admin.Addr().String(), path); status != want {
			t.Errorf("%s: status %d, want %d", path, status, want)
		}
	}
}
