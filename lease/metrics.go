package lease

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the measurements of a Manager.
type Metrics struct {
	held         prometheus.Gauge
	borrowed     prometheus.Gauge
	acquisitions prometheus.Counter
	losses       *prometheus.CounterVec
	epoch        prometheus.Gauge
	duration     prometheus.Histogram
	failover     prometheus.Histogram
	renewals     *prometheus.CounterVec
	handovers    *prometheus.CounterVec
}

// NewMetrics makes the measurements and registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		held: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "streamhouse_agent_lease_count",
			Help: "Leases that this agent holds.",
		}),
		borrowed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "streamhouse_agent_borrowed_leases",
			Help: "Partitions led by agents of other zones for which this agent takes appends.",
		}),
		acquisitions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "streamhouse_partition_lease_acquisitions_total",
			Help: "Leases that this agent acquired.",
		}),
		losses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "streamhouse_partition_lease_expirations_total",
			Help: "Leases that this agent lost without having released them, but for those of deleted topics, by cause.",
		}, []string{"cause"}),
		epoch: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "streamhouse_partition_lease_epoch",
			Help: "Largest epoch (acquisitions and renewals) of the leases that this agent holds.",
		}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "streamhouse_partition_lease_duration_seconds",
			Help:    "How long leaderships of this agent lasted, counted at their end.",
			Buckets: []float64{1, 10, 30, 60, 600, 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600},
		}),
		failover: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "streamhouse_partition_failover_duration_seconds",
			Help:    "From the end of another agent's lease, as last seen, to its acquisition by this agent.",
			Buckets: []float64{0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60},
		}),
		renewals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "streamhouse_agent_lease_renewals_total",
			Help: "Renewal requests, each of all leases of the agent, by outcome.",
		}, []string{"outcome"}),
		handovers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "streamhouse_agent_lease_handovers_total",
			Help: "Leases that this agent handed over to a successor, by reason.",
		}, []string{"reason"}),
	}
	for _, reason := range []HandoverReason{ForShutdown, ForBalance, ForBucket, ForReach, ForWriters} {
		m.handovers.WithLabelValues(string(reason))
	}
	for _, cause := range []string{causeExpired, causeTaken, causeFenced, causeGivenUp} {
		m.losses.WithLabelValues(cause)
	}
	for _, outcome := range []string{renewalOK, renewalFailed} {
		m.renewals.WithLabelValues(outcome)
	}
	reg.MustRegister(m.held, m.borrowed, m.acquisitions, m.losses, m.epoch, m.duration, m.failover, m.renewals, m.handovers)
	return m
}

// The values of the labels.
const (
	causeExpired  = "expired"
	causeTaken    = "taken"
	causeFenced   = "fenced"
	causeGivenUp  = "given_up"
	renewalOK     = "ok"
	renewalFailed = "failed"
)

// lost counts a lease that was lost for the cause. That of a deleted topic is no
// loss.
func (m *Metrics) lost(cause error) {
	switch {
	case errors.Is(cause, ErrReleased), errors.Is(cause, ErrUnknownKey):
	case errors.Is(cause, ErrExpired):
		m.losses.WithLabelValues(causeExpired).Inc()
	case errors.Is(cause, ErrFenced):
		m.losses.WithLabelValues(causeFenced).Inc()
	case errors.Is(cause, ErrTaken):
		m.losses.WithLabelValues(causeTaken).Inc()
	default: // whoever called Lose could do nothing with it
		m.losses.WithLabelValues(causeGivenUp).Inc()
	}
}

// lasted observes a leadership's length at its end.
func (m *Metrics) lasted(d time.Duration) { m.duration.Observe(d.Seconds()) }
