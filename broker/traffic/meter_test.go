package traffic

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a meter in zone a of a cluster with two agents in each of three zones.
// Client ids are the clients' zones.
type rig struct {
	*Meter
	reg      *prometheus.Registry
	agents   atomic.Value // []string
	requests map[string]int64
}

func newRig(own string) *rig {
	r := &rig{reg: prometheus.NewPedanticRegistry(), requests: make(map[string]int64)}
	r.agents.Store([]string{"a", "a", "b", "b", "c", "c"})
	r.Meter = New(Config{
		Zone: own, Zones: []string{"d"},
		ZoneOf:   func(clientID string, _ net.Addr) (string, bool) { return clientID, true },
		Agents:   func() []string { return r.agents.Load().([]string) },
		Requests: func(operation string) int64 { return r.requests[operation] },
		Prices:   DefaultPrices(),
	}, r.reg)
	return r
}

// alike compares reports but for what floats lose.
func alike(t *testing.T, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateApprox(1e-9, 0)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReportOfTrafficAndItsPrice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig("a")
		r.Served("a", nil, 4*gib, 2*gib, true)
		r.Served("a", nil, 0, gib, false)
		r.Served("b", nil, gib, 1000, true)
		r.Exchanged("b", 3000, gib)
		r.Exchanged("a", 500, 600)
		r.requests = map[string]int64{"put": 1e6, "get": 2e6, "head": 1e6, "list": 10, "delete": 7}
		time.Sleep(30 * time.Second)
		got := r.Report()
		alike(t, got.SinceStart, got.LastMinute)
		dollars := Dollars{
			Transfer: 2*0.02 + 1000*0.02/gib, // of client b, and what was sent to b
			Put:      5, Get: 3 * 0.4, List: 0.00005,
		}
		would := 8*gib*2./3 + 1000*2./3
		alike(t, got, Report{
			Zone: "a", Prices: DefaultPrices(), SinceStart: got.SinceStart,
			LastMinute: Period{
				Seconds: 30,
				Links: []Link{
					{"client_in", "a", "a", 4 * gib},
					{"client_in", "b", "a", gib},
					{"client_out", "a", "a", 3 * gib},
					{"client_out", "a", "b", 1000},
					{"peer_in", "a", "a", 500},
					{"peer_in", "b", "a", 3000},
					{"peer_out", "a", "a", 600},
					{"peer_out", "a", "b", gib},
				},
				Requests:       Requests{Put: 1e6, Get: 3e6, List: 10, Delete: 7},
				ProducedBytes:  5 * gib,
				CrossZoneBytes: 2*gib + 1000,
				Dollars:        dollars,
				PerHour:        dollars.Sum() * 120,
				PerGiB:         dollars.Sum() / 5,
				WithoutZones: WithoutZones{
					CrossZoneBytes: int64(would), Transfer: would / gib * 0.02,
					PerHour: (dollars.Sum() - dollars.Transfer + would/gib*0.02) * 120,
					PerGiB:  (dollars.Sum() - dollars.Transfer + would/gib*0.02) / 5,
				},
			},
		})
	})
}

// The last minute forgets; and what would have crossed goes by the agents that there
// are at the time.
func TestTheLastMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig("a")
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		r.Served("a", nil, 600, 0, true)
		time.Sleep(10 * interval)
		if got := r.Report().LastMinute; got.ProducedBytes != 600 || got.WithoutZones.CrossZoneBytes != 400 || got.Seconds != 50 {
			t.Errorf("%+v", got)
		}
		r.agents.Store([]string{"a", "b"})
		r.Served("a", nil, 100, 0, true)
		time.Sleep(10 * interval)
		if got := r.Report(); got.LastMinute.ProducedBytes != 100 || got.LastMinute.Seconds != 60 || got.SinceStart.ProducedBytes != 700 ||
			got.LastMinute.WithoutZones.CrossZoneBytes != 50 {
			t.Errorf("%+v", got)
		}
		time.Sleep(time.Hour)
		if got := r.Report(); got.LastMinute.ProducedBytes != 0 || got.LastMinute.PerGiB != 0 || len(got.LastMinute.Links) != 0 || got.SinceStart.Seconds != 3700 {
			t.Errorf("%+v", got)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if n := len(r.recent); n > int(window/interval)+1 {
			t.Errorf("%d looks are kept", n)
		}
	})
}

func TestWithoutAZoneNothingCrosses(t *testing.T) {
	r := newRig("")
	r.Served("b", nil, 1000, 1000, true)
	r.Exchanged("c", 1000, 1000)
	if got := r.Report().SinceStart; got.CrossZoneBytes != 0 || got.WithoutZones.CrossZoneBytes != 0 || got.ProducedBytes != 1000 {
		t.Errorf("%+v", got)
	}
}

// Clients say what they like: only the zones of settings and agents are told apart.
func TestZonesAreBounded(t *testing.T) {
	r := newRig("a")
	for i := range 1000 {
		r.Served(fmt.Sprint("zone-", i), nil, 1, 0, false)
	}
	r.Served("d", nil, 5, 0, false)
	want := []Link{{"client_in", "d", "a", 5}, {"client_in", Other, "a", 1000}}
	got := r.Report().SinceStart
	alike(t, got.Links, want)
	alike(t, got.CrossZoneBytes, int64(1005))
	for i := range 1000 {
		r.agents.Store([]string{fmt.Sprint("zone-", i)})
		r.Report()
	}
	if n := len(*r.zones.Load()); n != maxZones {
		t.Errorf("%d zones", n)
	}
	r.agents.Store([]string{"e"}) // too late to be told apart
	r.Served("e", nil, 1, 1, false)
	if got := r.Report().SinceStart.CrossZoneBytes; got != 1007 {
		t.Errorf("%d bytes crossed", got)
	}
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig("a")
		r.agents.Store([]string{"a", "b"})
		r.Served("b", nil, gib, gib, true)
		r.requests["put"] = 1e6
		time.Sleep(time.Minute)
		problems, err := testutil.GatherAndLint(r.reg)
		if err != nil || len(problems) > 0 {
			t.Error(problems, err)
		}
		const want = `
# HELP streamhouse_cost_avoided_dollars_per_hour What an hour like the last minute would have cost more if clients were sent to agents of any zone.
# TYPE streamhouse_cost_avoided_dollars_per_hour gauge
streamhouse_cost_avoided_dollars_per_hour -1.2
# HELP streamhouse_cost_dollars_per_gib Estimated cost of the last minute for each GiB of Produce requests; 0 if there were none.
# TYPE streamhouse_cost_dollars_per_gib gauge
streamhouse_cost_dollars_per_gib 5.04
# HELP streamhouse_cost_dollars_total Estimated cost since the start, by the configured prices.
# TYPE streamhouse_cost_dollars_total counter
streamhouse_cost_dollars_total{what="delete"} 0
streamhouse_cost_dollars_total{what="get"} 0
streamhouse_cost_dollars_total{what="list"} 0
streamhouse_cost_dollars_total{what="put"} 5
streamhouse_cost_dollars_total{what="transfer"} 0.04
# HELP streamhouse_traffic_cross_zone_bytes_total Bytes that crossed zones: those of this agent's clients, and those that it sent to other agents.
# TYPE streamhouse_traffic_cross_zone_bytes_total counter
streamhouse_traffic_cross_zone_bytes_total 2.147483648e+09
`
		err = testutil.GatherAndCompare(r.reg, strings.NewReader(want), "streamhouse_cost_avoided_dollars_per_hour",
			"streamhouse_cost_dollars_per_gib", "streamhouse_cost_dollars_total", "streamhouse_traffic_cross_zone_bytes_total")
		if err != nil {
			t.Error(err)
		}
		families, err := r.reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, f := range families {
			names = append(names, strings.TrimPrefix(f.GetName(), "streamhouse_"))
		}
		if want := []string{
			"cost_avoided_dollars_per_hour", "cost_dollars_per_gib", "cost_dollars_per_hour", "cost_dollars_total",
			"traffic_bytes_total", "traffic_cross_zone_bytes_total", "traffic_would_have_crossed_bytes_total",
		}; !slices.Equal(names, want) {
			t.Errorf("%q", names)
		}
	})
}

func TestCountingAllocatesNothing(t *testing.T) {
	r := newRig("a")
	if n := testing.AllocsPerRun(100, func() {
		r.Served("b", nil, 1, 1, true)
		r.Served("who knows", nil, 1, 1, true)
		r.Exchanged("b", 1, 1)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkServed(b *testing.B) {
	r := newRig("a")
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			r.Served("b", nil, 1000, 100, true)
		}
	})
}
