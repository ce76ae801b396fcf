package agent

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics registers an agent's measurements when the agent has started:
// streamhouse_agent_heartbeat_age_seconds, _uptime_seconds and _failures_total.
type Metrics struct{ reg prometheus.Registerer }

// NewMetrics returns metrics for one agent.
func NewMetrics(reg prometheus.Registerer) *Metrics { return &Metrics{reg} }

type metrics struct{ failures *prometheus.CounterVec }

func (m *Metrics) of(a *Agent) *metrics {
	gauge := func(name, help string, value func() time.Duration) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "streamhouse", Subsystem: "agent", Name: name, Help: help,
		}, func() float64 { return value().Seconds() })
	}
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "streamhouse", Subsystem: "agent", Name: "failures_total",
		Help: "Signs of life that failed, by what went wrong.",
	}, []string{"reason"})
	for _, reason := range []string{"heartbeat", "superseded", "buried", "attend", "standstill"} {
		failures.WithLabelValues(reason)
	}
	m.reg.MustRegister(failures,
		gauge("heartbeat_age_seconds", "Time since the last heartbeat that the metadata store confirmed.", a.age),
		gauge("uptime_seconds", "Time since the agent was started.", func() time.Duration { return time.Since(a.started) }))
	return &metrics{failures}
}
