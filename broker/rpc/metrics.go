package rpc

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Results of calls, as metrics name them.
const (
	resultOK       = "ok"
	resultRefused  = "refused"  // nothing was done
	resultUnknown  = "unknown"  // it may have happened
	resultCanceled = "canceled" // the caller did not wait
)

// Metrics of the two sides:
//
//	streamhouse_peer_connection_bytes_total{direction,zone}  as sent and received, TLS included
//	streamhouse_peer_bytes_total{direction,kind,zone}        of messages and blocks alone
//	streamhouse_peer_calls_total{kind,result}                to others
//	streamhouse_peer_call_duration_seconds{kind}             of those
//	streamhouse_peer_served_total{kind,result}               for others
//	streamhouse_peer_in_flight{kind}                         calls of others
//	streamhouse_peer_unreachable                             peers that do not answer
//	streamhouse_peer_strangers_total                         handshakes with who is none of the cluster
type Metrics struct {
	connectionBytes *prometheus.CounterVec
	bytes           *prometheus.CounterVec
	calls           *prometheus.CounterVec
	took            *prometheus.HistogramVec
	served          *prometheus.CounterVec
	inFlight        *prometheus.GaugeVec
	unreachable     prometheus.Gauge
	strangers       prometheus.Counter
}

// NewMetrics registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	const namespace, subsystem = "streamhouse", "peer"
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}, labels)
	}
	m := &Metrics{
		connectionBytes: counter("connection_bytes_total", "Bytes of connections with agents of a zone, TLS included.", "direction", "zone"),
		bytes:           counter("bytes_total", "Bytes of messages and blocks, by the call that they are of.", "direction", "kind", "zone"),
		calls:           counter("calls_total", "Calls of other agents. Of those with an unknown result it may be that they happened.", "kind", "result"),
		served:          counter("served_total", "Calls by other agents.", "kind", "result"),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "call_duration_seconds",
			Help:    "Duration of calls of other agents, but for streams.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15), // to 8 s
		}, []string{"kind"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "in_flight", Help: "Calls by other agents that are being answered.",
		}, []string{"kind"}),
		unreachable: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "unreachable", Help: "Agents that did not answer when they were last called.",
		}),
		strangers: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "strangers_total",
			Help: "Handshakes that failed, since the other side does not have this cluster's secret or certificates.",
		}),
	}
	for _, kind := range kinds {
		m.inFlight.WithLabelValues(kind)
		for _, result := range []string{resultOK, resultRefused, resultUnknown, resultCanceled} {
			m.calls.WithLabelValues(kind, result)
			m.served.WithLabelValues(kind, result)
		}
		if kind != kindFollow {
			m.took.WithLabelValues(kind)
		}
	}
	for _, direction := range []string{"in", "out"} {
		m.connectionBytes.WithLabelValues(direction, ofUnknown)
		for _, kind := range kinds {
			m.bytes.WithLabelValues(direction, kind, ofUnknown)
		}
	}
	reg.MustRegister(m.connectionBytes, m.bytes, m.calls, m.took, m.served, m.inFlight, m.unreachable, m.strangers)
	return m
}

// called counts a call of another agent.
func (m *Metrics) called(kind, result string, began time.Time) {
	m.calls.WithLabelValues(kind, result).Inc()
	if kind != kindFollow {
		m.took.WithLabelValues(kind).Observe(time.Since(began).Seconds())
	}
}

// carried counts the bytes of a message.
func (m *Metrics) carried(direction, kind, zone string, n int) {
	m.bytes.WithLabelValues(direction, kind, zone).Add(float64(n))
}
