package objstore

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts requests to an object store, for WithMetrics.
type Metrics struct {
	answered [len(operations)]atomic.Int64
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	bytes    *prometheus.CounterVec
}

// operations are the values of that label.
var operations = [...]string{"put", "get", "head", "list", "delete", "check"}

// Answered is how many requests of an operation the store has answered, with what
// was wanted or not: stores are paid by that. The operation is one of put, get, head,
// list and delete.
func (m *Metrics) Answered(operation string) int64 {
	return m.answered[slices.Index(operations[:], operation)].Load()
}

// NewMetrics registers the metrics with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	const namespace, subsystem = "streamhouse", "object_store"
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "requests_total",
			Help: "Requests to the object store, each attempt and hedge of its own, by operation and outcome.",
		}, []string{"operation", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "request_duration_seconds",
			Help:    "Time of requests to the object store, by operation.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"operation"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "bytes_total",
			Help: "Bytes of objects that were read and written with success, by direction.",
		}, []string{"direction"}),
	}
	reg.MustRegister(m.requests, m.duration, m.bytes)
	return m
}

// WithMetrics returns a store that counts the operations of inner. A List is
// counted once, however many pages it has, with the time that its consumer
// took; a Delete once, however many keys.
func WithMetrics(inner Store, m *Metrics) Store {
	return &metricsStore{inner: inner, metrics: m}
}

type metricsStore struct {
	inner   Store
	metrics *Metrics
}

var _ Store = (*metricsStore)(nil)

func (s *metricsStore) Put(ctx context.Context, key string, body []byte) (err error) {
	defer s.metrics.observe("put", time.Now(), &err)
	if err = s.inner.Put(ctx, key, body); err == nil {
		s.metrics.bytes.WithLabelValues("write").Add(float64(len(body)))
	}
	return err
}

func (s *metricsStore) Get(ctx context.Context, key string, offset, length int64) (data []byte, err error) {
	defer s.metrics.observe("get", time.Now(), &err)
	if data, err = s.inner.Get(ctx, key, offset, length); err == nil {
		s.metrics.bytes.WithLabelValues("read").Add(float64(len(data)))
	}
	return data, err
}

func (s *metricsStore) Head(ctx context.Context, key string) (info Info, err error) {
	defer s.metrics.observe("head", time.Now(), &err)
	return s.inner.Head(ctx, key)
}

func (s *metricsStore) List(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		var failure error
		defer s.metrics.observe("list", time.Now(), &failure)
		for info, err := range s.inner.List(ctx, prefix, after) {
			if err != nil {
				failure = err
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

func (s *metricsStore) Delete(ctx context.Context, keys ...string) (err error) {
	defer s.metrics.observe("delete", time.Now(), &err)
	return s.inner.Delete(ctx, keys...)
}

func (s *metricsStore) Check(ctx context.Context) (err error) {
	defer s.metrics.observe("check", time.Now(), &err)
	return s.inner.Check(ctx)
}

func (m *Metrics) observe(operation string, begun time.Time, err *error) {
	result := outcome(*err)
	switch result {
	case "ok", "not_found", "exists":
		m.answered[slices.Index(operations[:], operation)].Add(1)
	}
	m.requests.WithLabelValues(operation, result).Inc()
	m.duration.WithLabelValues(operation).Observe(time.Since(begun).Seconds())
}

// outcome is one of a closed set.
func outcome(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, ErrNotFound):
		return "not_found"
	case errors.Is(err, ErrExists):
		return "exists"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "cancelled"
	case errors.Is(err, ErrUnavailable):
		return "unavailable"
	default:
		return "error"
	}
}
