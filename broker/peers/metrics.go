package peers

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamhouse/streamhouse/metadata"
)

// Metrics of a Watcher:
//
//	streamhouse_peers_watched               agents that this one watches
//	streamhouse_peers_burials_total{evidence}
//	streamhouse_peers_burial_seconds        from the last sign of life to the burial
//	streamhouse_peers_challenges_total
//	streamhouse_peers_false_alarms_total    suspicions of agents that live
type Metrics struct {
	watched     prometheus.Gauge
	burials     *prometheus.CounterVec
	took        prometheus.Histogram
	challenges  prometheus.Counter
	falseAlarms prometheus.Counter
}

// NewMetrics registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	const namespace, subsystem = "streamhouse", "peers"
	m := &Metrics{
		watched: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "watched", Help: "Other agents that this one watches.",
		}),
		burials: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "burials_total",
			Help: "Agents that this one found dead, by the store's evidence.",
		}, []string{"evidence"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "burial_seconds",
			Help:    "Time from the last sign of life of an agent until its leases were free.",
			Buckets: prometheus.ExponentialBuckets(0.125, 2, 10), // to 64 s
		}),
		challenges: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "challenges_total",
			Help: "Agents that were asked through the store whether they live.",
		}),
		falseAlarms: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "false_alarms_total",
			Help: "Suspicions of agents that live: the network between agents is bad.",
		}),
	}
	for _, evidence := range []metadata.Burial{metadata.BuriedGone, metadata.BuriedMute} {
		m.burials.WithLabelValues(evidence.String())
	}
	reg.MustRegister(m.watched, m.burials, m.took, m.challenges, m.falseAlarms)
	return m
}
