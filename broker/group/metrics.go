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
	load       prometheus.Histogram
	saved      prometheus.Counter
	expired    prometheus.Counter
}

// NewMetrics makes the measurements and registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	const ns, sub = "streamhouse", "group"
	buckets := []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}
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
			Help:    "One write to the metadata store that has commits of offsets, for all groups of a shard that waited.",
			Buckets: buckets,
		}),
		committed: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: ns, Subsystem: sub, Name: "offset_commits_total",
			Help: "Requests to commit offsets that were stored.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: ns, Subsystem: sub, Name: "offset_commit_failures_total",
			Help: "Requests to commit offsets that could not be stored.",
		}),
		load: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: ns, Subsystem: sub, Name: "load_seconds",
			Help:    "Loading the groups of a shard after its lease was acquired.",
			Buckets: buckets,
		}),
		saved: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: ns, Subsystem: sub, Name: "saves_total",
			Help: "Groups that were stored, because of a new generation or another change that must not be forgotten.",
		}),
		expired: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: ns, Subsystem: sub, Name: "expired_offsets_total",
			Help: "Committed offsets that were forgotten after their retention, but for those that expired with their group.",
		}),
	}
	for s := Empty; s < states; s++ {
		m.groups[s] = groups.WithLabelValues(s.String())
	}
	reg.MustRegister(groups, m.members, m.rebalances, m.commit, m.committed, m.failures, m.load, m.saved, m.expired)
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

// wrote takes the outcome of a write.
func (m *Metrics) wrote(b *batch, took time.Duration, err error) {
	commits := float64(len(b.write.Commit))
	if commits > 0 {
		m.commit.Observe(took.Seconds())
	}
	if err != nil {
		m.failures.Add(commits)
		return
	}
	m.committed.Add(commits)
	m.saved.Add(float64(len(b.write.Save)))
	m.expired.Add(float64(b.expired))
}
