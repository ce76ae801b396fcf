package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/knadh/koanf/parsers/yaml"

	"github.com/streamhouse/streamhouse/broker/peers"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// metricsIn finds the names of metrics in a text.
var metricsIn = regexp.MustCompile(`\bstreamhouse_[a-z_]+`)

// realMetrics are the metrics that there are: the type, and the labels.
func realMetrics(t *testing.T) map[string][]string {
	t.Helper()
	real := map[string][]string{}
	for line := range strings.Lines(read(t, "cmd/streamhouse/testdata/metrics.txt")) {
		fields := strings.Fields(line)
		real[fields[0]] = fields[1:]
	}
	return real
}

// TestManualsNameMetrics compares the metrics in the manuals with those that
// there are.
func TestManualsNameMetrics(t *testing.T) {
	real, told := realMetrics(t), map[string]bool{}
	for _, page := range []string{"docs/OPERATIONS.md", "docs/AGENT_API.md", "docs/OPERATING_MULTI_AGENT.md", "docs/MULTI_AGENT_ARCHITECTURE.md", "docs/COSTS.md"} {
		for _, name := range metricsIn.FindAllString(read(t, page), -1) {
			name = strings.TrimSuffix(name, "_bucket")
			told[name] = true
			if real[name] == nil && !strings.HasSuffix(name, "_") {
				t.Errorf("%s tells of %s, which there is not", page, name)
			}
		}
	}
	for name := range real {
		if !told[name] {
			t.Errorf("no manual tells of %s", name)
		}
	}
}

// TestAgentAPITellsOfMetrics compares types and labels.
func TestAgentAPITellsOfMetrics(t *testing.T) {
	got, want := map[string]string{}, map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(streamhouse_[a-z_]+)` \\| (\\w+) \\| ([^|]*)\\|").FindAllStringSubmatch(read(t, "docs/AGENT_API.md"), -1) {
		got[row[1]] = strings.TrimSpace(row[2] + " " + strings.NewReplacer("`", "", ",", "").Replace(row[3]))
	}
	for name, of := range realMetrics(t) {
		if regexp.MustCompile(`^streamhouse_(agent|peers|partition)_`).MatchString(name) {
			want[name] = strings.Join(of, " ")
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/AGENT_API.md (-there is +it tells):\n%s", diff)
	}
}

// TestAgentAPITellsOfFields compares the fields of /agents and /leases.
func TestAgentAPITellsOfFields(t *testing.T) {
	page := read(t, "docs/AGENT_API.md")
	for heading, shown := range map[string]any{"field of an agent": shownAgent{}, "field of a lease": shownLease{}} {
		var got, want []string
		_, table, _ := strings.Cut(page, "| "+heading+" |")
		table, _, _ = strings.Cut(table, "\n\n")
		for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]+) \\|").FindAllStringSubmatch(table, -1) {
			got = append(got, strings.Split(strings.ReplaceAll(row[1], "`", ""), ", ")...)
		}
		for field := range reflect.TypeOf(shown).Fields() {
			want = append(want, field.Tag.Get("json"))
			if !strings.Contains(page, fmt.Sprintf("    %q: ", field.Tag.Get("json"))) {
				t.Errorf("the example of %T has no %s", shown, field.Tag.Get("json"))
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-there is +it tells):\n%s", heading, diff)
		}
	}
}

// TestAgentAPINamesFunctions finds the functions that the tables name, each in a
// file that its row names.
func TestAgentAPINamesFunctions(t *testing.T) {
	rows := regexp.MustCompile("(?m)^\\| (`[^|]+`) \\| (`[^|]+\\.go`) \\|").FindAllStringSubmatch(read(t, "docs/AGENT_API.md"), -1)
	if len(rows) < 20 {
		t.Fatalf("%d rows of functions", len(rows))
	}
	list := func(cell string) []string { return strings.Split(strings.ReplaceAll(cell, "`", ""), ", ") }
	for _, row := range rows {
		var sources strings.Builder
		for _, file := range list(row[2]) {
			sources.WriteString(read(t, file))
		}
		for _, name := range list(row[1]) {
			if !regexp.MustCompile(`(?m)^func (\([^)]*\) )?` + name + `\(`).MatchString(sources.String()) {
				t.Errorf("%s has no function %s", row[2], name)
			}
		}
	}
}

// TestTimesOfTheCluster compares the table of times.
func TestTimesOfTheCluster(t *testing.T) {
	_, table, _ := strings.Cut(read(t, "docs/MULTI_AGENT_ARCHITECTURE.md"), "\n## Times\n")
	table, _, _ = strings.Cut(table, "\n## ")
	var got []time.Duration
	for _, row := range regexp.MustCompile(`(?m)\| ([0-9][0-9a-z.]*) \|$`).FindAllStringSubmatch(table, -1) {
		d, err := time.ParseDuration(row[1])
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, d)
	}
	l, p := lease.DefaultConfig(), peers.DefaultConfig()
	want := []time.Duration{
		l.Duration, l.RenewInterval, l.Margin, l.HeldByOtherFor, metadata.AgentListedFor, p.Interval, p.Timeout, p.Patience,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the times (-there are +the page tells):\n%s", diff)
	}
}

// TestAlerts finds the metrics and labels of the alerts, and each alert in the
// manual.
func TestAlerts(t *testing.T) {
	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	rules := read(t, "deploy/prometheus/alerts.yml")
	parsed, err := yaml.Parser().Unmarshal([]byte(rules))
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := json.Marshal(parsed)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(encoded, &file); err != nil {
		t.Fatal(err)
	}
	real, manual := realMetrics(t), read(t, "docs/OPERATING_MULTI_AGENT.md")
	target := []string{"instance", "job", "le"}
	labels := regexp.MustCompile(`\bby \(([^)]+)\)|(\w+)=~?"`)
	alerts := 0
	for _, g := range file.Groups {
		for _, rule := range g.Rules {
			alerts++
			if !strings.Contains(manual, rule.Alert) {
				t.Errorf("the manual does not tell of %s", rule.Alert)
			}
			known := slices.Clone(target)
			for _, name := range metricsIn.FindAllString(rule.Expr, -1) {
				of := real[strings.TrimSuffix(name, "_bucket")]
				if of == nil {
					t.Errorf("%s: there is no %s", rule.Alert, name)
					continue
				}
				known = append(known, of[1:]...)
			}
			for _, m := range labels.FindAllStringSubmatch(rule.Expr, -1) {
				for label := range strings.SplitSeq(m[1]+m[2], ", ") {
					if !slices.Contains(known, label) {
						t.Errorf("%s: no metric of it has a label %s", rule.Alert, label)
					}
				}
			}
		}
	}
	for _, name := range regexp.MustCompile(`\bStreamHouse[A-Z]\w+`).FindAllString(manual, -1) {
		if !strings.Contains(rules, "alert: "+name+"\n") {
			t.Errorf("the manual tells of %s, which there is not", name)
		}
	}
	if alerts < 20 {
		t.Errorf("%d alerts", alerts)
	}
}

// TestGraceOfDeployments checks that who deploys an agent leaves it the time of
// its drain.
func TestGraceOfDeployments(t *testing.T) {
	shutdown := defaultSettings().ShutdownTimeout
	for name, grace := range map[string]string{
		"deploy/docker-compose.yaml": `stop_grace_period: (\S+)`,
		"deploy/kubernetes.yaml":     `terminationGracePeriodSeconds: (\d+)`,
		"deploy/streamhouse.service": `TimeoutStopSec=(\S+)`,
	} {
		m := regexp.MustCompile(grace).FindStringSubmatch(read(t, name))
		if m == nil {
			t.Errorf("%s has no %s", name, grace)
			continue
		}
		d, err := time.ParseDuration(strings.TrimSuffix(m[1], "s") + "s")
		if err != nil || d <= shutdown {
			t.Errorf("%s: %s is not more than shutdown_timeout (%s)", name, m[1], shutdown)
		}
	}
}
