package ingest

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the measurements of a Pool.
type Metrics struct {
	latency  prometheus.Histogram
	flushes  [2][4]prometheus.Counter // by kind and reason
	size     prometheus.Histogram
	linger   prometheus.Histogram
	upload   prometheus.Histogram
	failed   prometheus.Counter
	commit   prometheus.Histogram
	group    prometheus.Histogram
	retries  prometheus.Counter
	unknown  prometheus.Counter
	claimed  prometheus.Counter
	batches  prometheus.Counter
	records  prometheus.Counter
	bytes    prometheus.Counter
	buffered prometheus.Gauge

	remote      prometheus.Histogram
	remoteParts [4]prometheus.Counter // by outcome
	sequenced   prometheus.Counter
}

// What became of parts that other agents were to commit.
const (
	remoteCommitted      = iota // answered by the holder
	remoteRefused               // nothing was done
	remoteFoundCommitted        // the store knew
	remoteForestalled           // the store did not, and never will
)

// NewMetrics makes the measurements and registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	const ns = "streamhouse"
	seconds := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	counter := func(subsystem, name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: subsystem, Name: name, Help: help})
		reg.MustRegister(c)
		return c
	}
	histogram := func(subsystem, name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: ns, Subsystem: subsystem, Name: name, Help: help, Buckets: buckets})
		reg.MustRegister(h)
		return h
	}
	m := &Metrics{
		latency: histogram("agent", "write_latency_seconds", "From a batch's acceptance to the end of its commit.", seconds),
		size:    histogram("ingest", "flush_bytes", "Bytes of batches in a flush.", prometheus.ExponentialBuckets(256, 4, 9)),
		linger:  histogram("ingest", "linger_seconds", "From the first batch of a buffer to its flush.", seconds),
		upload:  histogram("ingest", "upload_seconds", "Encoding and upload of an object, with retries.", seconds),
		failed:  counter("ingest", "upload_failures_total", "Objects whose upload failed for good."),
		commit:  histogram("ingest", "commit_seconds", "Commit of a group of flushes, with retries.", seconds),
		group:   histogram("ingest", "commit_flushes", "Flushes in a commit.", prometheus.ExponentialBuckets(1, 2, 10)),
		retries: counter("ingest", "commit_retries_total", "Commits that were sent again."),
		unknown: counter("ingest", "commit_unknown_outcomes_total", "Attempts of a commit whose outcome was unknown."),
		claimed: counter("ingest", "claimed_objects_total", "Batches refused because a collector had claimed their object, or this agent's clock is hours behind."),
		batches: counter("ingest", "batches_total", "Batches that were accepted into the pool."),
		records: counter("ingest", "records_total", "Records that were accepted into the pool."),
		bytes:   counter("ingest", "bytes_total", "Bytes of batches that were accepted into the pool."),
		buffered: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: ns, Subsystem: "ingest", Name: "buffered_bytes", Help: "Bytes of batches that are in the pool.",
		}),
	}
	m.remote = histogram("ingest", "remote_commit_seconds", "Commit by the holder of borrowed leases, until its outcome is known.", seconds)
	m.sequenced = counter("ingest", "sequenced_objects_total", "Objects, or parts of them, that this agent committed for other agents.")
	parts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: ns, Subsystem: "ingest", Name: "remote_parts_total", Help: "Parts of objects that holders of borrowed leases were to commit, by what became of them.",
	}, []string{"outcome"})
	reg.MustRegister(parts)
	for i, outcome := range [...]string{
		remoteCommitted: "committed", remoteRefused: "refused",
		remoteFoundCommitted: "resolved_committed", remoteForestalled: "resolved_claimed",
	} {
		m.remoteParts[i] = parts.WithLabelValues(outcome)
	}
	flushes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: ns, Subsystem: "ingest", Name: "flushes_total", Help: "Flushes by where their bytes go and why they were made.",
	}, []string{"kind", "reason"})
	reg.MustRegister(flushes, m.buffered)
	for k, kind := range [...]string{inObject: "object", inline: "inline"} {
		for r, reason := range [...]string{reasonReady: "ready", reasonFull: "full", reasonLinger: "linger", reasonHurry: "hurry"} {
			m.flushes[k][r] = flushes.WithLabelValues(kind, reason)
		}
	}
	return m
}

// since observes the seconds since begun.
func since(h prometheus.Histogram, begun time.Time) { h.Observe(time.Since(begun).Seconds()) }
