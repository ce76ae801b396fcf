package protocol

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Metrics are what servers report, all under streamhouse_kafka.
type Metrics struct {
	requests      *prometheus.CounterVec
	duration      *prometheus.HistogramVec
	requestBytes  prometheus.Counter
	responseBytes prometheus.Counter
	connections   prometheus.Gauge
	accepted      prometheus.Counter
	closed        map[closeReason]prometheus.Counter
	requestMemory prometheus.Gauge
	panics        prometheus.Counter
}

// apiMetrics are those of one API.
type apiMetrics struct {
	requests prometheus.Counter
	duration prometheus.Observer
}

// NewMetrics registers the metrics with reg, or nowhere if reg is nil. Like all
// registration it panics if they are there already.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	const namespace, subsystem = "streamhouse", "kafka"
	auto := promauto.With(reg)
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}
	}
	gauge := func(name, help string) prometheus.GaugeOpts {
		return prometheus.GaugeOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}
	}
	m := &Metrics{
		requests: auto.NewCounterVec(counter("requests_total", "Requests begun, by API."), []string{"api"}),
		duration: auto.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "request_duration_seconds",
			Help: "From a request's last byte to its reply's, waiting included, by API.",
			// 250 µs to 65 s: a cached answer to the longest rebalance.
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 19),
		}, []string{"api"}),
		requestBytes:  auto.NewCounter(counter("request_bytes_total", "Bytes of requests read.")),
		responseBytes: auto.NewCounter(counter("response_bytes_total", "Bytes of replies written.")),
		connections:   auto.NewGauge(gauge("connections", "Open connections.")),
		accepted:      auto.NewCounter(counter("connections_total", "Connections accepted.")),
		requestMemory: auto.NewGauge(gauge("request_memory_bytes", "Bytes of request memory that requests in flight hold.")),
		panics:        auto.NewCounter(counter("handler_panics_total", "Panics of handlers.")),
		closed:        map[closeReason]prometheus.Counter{},
	}
	closed := auto.NewCounterVec(counter("connections_closed_total", "Connections ended, by reason."), []string{"reason"})
	for _, reason := range closeReasons {
		m.closed[reason] = closed.WithLabelValues(string(reason))
	}
	return m
}

// forAPI resolves the labels of one API.
func (m *Metrics) forAPI(key int16) apiMetrics {
	name := kmsg.NameForKey(key)
	return apiMetrics{requests: m.requests.WithLabelValues(name), duration: m.duration.WithLabelValues(name)}
}
