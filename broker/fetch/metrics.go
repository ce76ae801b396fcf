package fetch

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics are the read path's. Make them once per registry with NewMetrics.
type Metrics struct {
	latency  prometheus.Histogram
	bytes    prometheus.Counter
	errors   prometheus.Counter
	waiting  prometheus.Gauge
	hits     prometheus.Counter
	misses   prometheus.Counter
	gets     prometheus.Counter
	loaded   prometheus.Counter
	corrupt  prometheus.Counter
	dataLoss prometheus.Counter
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Namespace: "streamhouse", Name: name, Help: help})
	}
	return &Metrics{
		latency: f.NewHistogram(prometheus.HistogramOpts{
			Namespace: "streamhouse", Name: "agent_read_latency_seconds",
			Help:    "Time to answer fetches that returned records, since there were enough of them.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}),
		bytes:  counter("fetch_bytes_total", "Bytes of record batches that were served."),
		errors: counter("fetch_partition_errors_total", "Partitions of fetches that were answered with an error."),
		waiting: f.NewGauge(prometheus.GaugeOpts{
			Namespace: "streamhouse", Name: "fetch_waiting", Help: "Fetches that wait for new records.",
		}),
		hits:     counter("fetch_cache_hits_total", "Object blocks that a fetch found in the cache, or on their way to it."),
		misses:   counter("fetch_cache_misses_total", "Object blocks that were read from the object store."),
		gets:     counter("fetch_ranged_gets_total", "Ranges that were read from the object store; adjacent blocks are one."),
		loaded:   counter("fetch_loaded_bytes_total", "Bytes that were read from the object store."),
		corrupt:  counter("fetch_corrupt_reads_total", "Reads that failed because stored bytes are not those that were written."),
		dataLoss: counter("partition_data_loss_events_total", "Objects that the index names and the object store does not have."),
	}
}

func (m *Metrics) fetched(since time.Time, results []Result) {
	var n int
	for i := range results {
		n += len(results[i].Records)
		if results[i].Err != nil {
			m.errors.Inc()
		}
	}
	if n > 0 {
		m.bytes.Add(float64(n))
		m.latency.Observe(time.Since(since).Seconds())
	}
}
