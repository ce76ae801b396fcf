package bench

import (
	"maps"
	"os"
	"strings"
	"testing"
	"time"
)

func TestParseCPUTime(t *testing.T) {
	for name, test := range map[string]struct {
		stat string
		want time.Duration
		ok   bool
	}{
		"a plain name":       {"7 (agent) S 1 7 7 0 -1 4 1 0 0 0 150 25 0 0 20 0 9 0 5 0 0", 1750 * time.Millisecond, true},
		"a name like fields": {"7 (a) S 1) S 1 7 7 0 -1 4 1 0 0 0 1 2 0 0 20 0 9 0 5 0 0", 30 * time.Millisecond, true},
		"too short":          {"7 (agent) S 1 7 7", 0, false},
		"no number":          {"7 (agent) S 1 7 7 0 -1 4 1 0 0 0 x 25 0 0", 0, false},
		"nothing":            {"", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseCPUTime(test.stat)
			if got != test.want || (err == nil) != test.ok {
				t.Errorf("got %v, %v; want %v", got, err, test.want)
			}
		})
	}
}

func TestUsageOfThisProcess(t *testing.T) {
	if _, err := CPUTime(os.Getpid()); err != nil {
		t.Error(err)
	}
	if mib, err := ResidentMiB(os.Getpid()); err != nil || mib < 1 || mib > 1e6 {
		t.Errorf("%v MiB resident, %v", mib, err)
	}
}

func TestParseMetrics(t *testing.T) {
	const exposed = `# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{api="Fetch"} 3
requests_total{api="with a space"} 1.5e+06
requests_total_of_others 7

up 1
`
	got, err := parseMetrics(strings.NewReader(exposed))
	want := Metrics{
		`requests_total{api="Fetch"}`: 3, `requests_total{api="with a space"}`: 1.5e6,
		"requests_total_of_others": 7, "up": 1,
	}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if sum := got.Sum("requests_total"); sum != 1.5e6+3 {
		t.Errorf("sum %v", sum)
	}
	for _, bad := range []string{"up", "up yes"} {
		if _, err := parseMetrics(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
