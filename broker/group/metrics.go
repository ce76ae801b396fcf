package group

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the measurements of a Coordinator.
type Metrics struct {
	groups     [states]prometheus.Gauge
	members    prometheus.Gauge
	rebalances prometheus.Counter
	commit     prometheus.Histogram
	committed  prometheus.Counter
	failures   prometheus.Counter
}

// NewMetrics makes the measurements and registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	const ns, sub = "streamhouse", "group"
	groups := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: ns, Subsystem: sub, Name: "groups",
		Help: "Groups that this agent coordinates and has in memory, by state.",
	}, []string{"state"})
	m := &Metrics{
		members: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: ns, Subsystem: sub, Name: "members",
			Help: "Members of the groups that this agent coordinates.",
		}),
		rebalances: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: ns, Subsystem: sub, Name: "rebalances_total",
			Help: "Generations that became stable.",
		}),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: ns, Subsystem: sub, Name: "offset_commit_seconds",
			Help:    "One commit of offsets to the metadata store, for all groups of a shard that waited.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}),
		committed: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: ns, Subsystem: sub, Name: "offset_commits_total",
			Help: "Requests to commit offsets that were stored.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: ns, Subsystem: sub, Name: "offset_commit_failures_total",
			Help: "Requests to commit offsets that could not be stored.",
		}),
	}
	for s := Empty; s < states; s++ {
		m.groups[s] = groups.WithLabelValues(s.String())
	}
	reg.MustRegister(groups, m.members, m.rebalances, m.commit, m.committed, m.failures)
	return m
}

// counts are the sizes of a machine.
type counts struct {
	groups  [states]int
	members int
}

// move publishes the change from one size of a machine to another.
func (m *Metrics) move(from, to *counts) {
	for s := Empty; s < states; s++ {
		if d := to.groups[s] - from.groups[s]; d != 0 {
			m.groups[s].Add(float64(d))
		}
	}
	if d := to.members - from.members; d != 0 {
		m.members.Add(float64(d))
	}
}

func (m *Metrics) commitTook(d time.Duration) { m.commit.Observe(d.Seconds()) }
