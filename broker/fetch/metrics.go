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

	polls     prometheus.Counter
	followed  prometheus.Gauge
	growth    [growthOutcomes]prometheus.Counter
	peerLoads prometheus.Counter
	peerFails prometheus.Counter
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Namespace: "streamhouse", Name: name, Help: help})
	}
	growth := f.NewCounterVec(prometheus.CounterOpts{
		Namespace: "streamhouse", Name: "fetch_growth_total",
		Help: "News of partitions that agents told who lead them, by what became of them: applied, known before, marks alone " +
			"(the metadata store is asked for the rest), old, ended (the agent does not lead), unwanted.",
	}, []string{"outcome"})
	m := &Metrics{
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
		hits:     counter("fetch_cache_hits_total", "Object blocks that a fetch, here or at a peer, found in the cache, or on their way to it."),
		misses:   counter("fetch_cache_misses_total", "Object blocks that were read from the object store."),
		gets:     counter("fetch_ranged_gets_total", "Ranges that were read from the object store; adjacent blocks are one."),
		loaded:   counter("fetch_loaded_bytes_total", "Bytes that were read from the object store."),
		corrupt:  counter("fetch_corrupt_reads_total", "Reads that failed because stored bytes are not those that were written."),
		dataLoss: counter("partition_data_loss_events_total", "Objects that the index names and the object store does not have."),
		polls:    counter("fetch_polls_total", "Questions to the metadata store for news of partitions that are waited for."),
		followed: f.NewGauge(prometheus.GaugeOpts{
			Namespace: "streamhouse", Name: "fetch_followed_partitions", Help: "Partitions of whose growth other agents tell.",
		}),
		peerLoads: counter("fetch_peer_blocks_total", "Object blocks that came from the agent of this zone whose cache has them."),
		peerFails: counter("fetch_peer_fallbacks_total", "Loads from the object store because an agent of this zone could not be asked."),
	}
	for outcome, name := range growthOutcomeNames {
		m.growth[outcome] = growth.WithLabelValues(name)
	}
	return m
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
