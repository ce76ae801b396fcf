package metadata

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/segment"
)

// WithMetrics returns the store with its calls measured, by the name of the
// method as the label "query":
//
//	streamhouse_metadata_store_query_duration_seconds{query}
//	streamhouse_metadata_store_errors_total{query,class}  unavailable, unknown_outcome, canceled, fault
//	streamhouse_metadata_store_queries_total{query}       statements sent to the database
//
// A refusal, such as ErrTopicExists, is an answer and no error. silence is told of
// all calls.
func WithMetrics(store Store, reg prometheus.Registerer, silence *Silence) Store {
	m := &measured{
		store: store, silence: silence,
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "streamhouse_metadata_store_query_duration_seconds",
			Help:    "Time that a call of the metadata store took.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 16), // to 8 s
		}, []string{"query"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "streamhouse_metadata_store_errors_total",
			Help: "Calls of the metadata store that failed.",
		}, []string{"query", "class"}),
		queries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "streamhouse_metadata_store_queries_total",
			Help: "Statements sent to the database.",
		}, []string{"query"}),
	}
	reg.MustRegister(m.duration, m.errors, m.queries)
	return m
}

// queryCounter is the context key of the counter of the call's statements.
type queryCounter struct{}

// CountQueries counts statements that a store sends to its database for the
// call of which ctx is the context.
func CountQueries(ctx context.Context, n int) {
	if c, ok := ctx.Value(queryCounter{}).(prometheus.Counter); ok {
		c.Add(float64(n))
	}
}

// measured is a store with its calls measured.
type measured struct {
	store    Store
	silence  *Silence
	duration *prometheus.HistogramVec
	errors   *prometheus.CounterVec
	queries  *prometheus.CounterVec
}

// measure runs one call.
func (m *measured) measure(ctx context.Context, query string, call func(context.Context) error) error {
	begin := time.Now()
	m.silence.asked()
	err := call(context.WithValue(ctx, queryCounter{}, m.queries.WithLabelValues(query)))
	m.silence.ended(err)
	m.duration.WithLabelValues(query).Observe(time.Since(begin).Seconds())
	m.countError(query, err)
	return err
}

func (m *measured) countError(query string, err error) {
	if class := errorClass(err); class != "" {
		m.errors.WithLabelValues(query, class).Inc()
	}
}

// measure1 runs one call that returns a value.
func measure1[T any](ctx context.Context, m *measured, query string, call func(context.Context) (T, error)) (v T, err error) {
	err = m.measure(ctx, query, func(ctx context.Context) (err error) {
		v, err = call(ctx)
		return err
	})
	return v, err
}

// errorClass is "" for success and for a refusal.
func errorClass(err error) string {
	if err == nil {
		return ""
	}
	for _, refusal := range []error{
		ErrUnknownTopic, ErrTopicExists, ErrInvalidPartitions, ErrSuperseded, ErrBuried, ErrFenced, ErrOffsetOutOfRange,
	} {
		if errors.Is(err, refusal) {
			return ""
		}
	}
	switch {
	case errors.Is(err, ErrUnknownOutcome):
		return "unknown_outcome"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, ErrUnavailable):
		return "unavailable"
	}
	return "fault"
}

func (m *measured) Register(ctx context.Context, a Agent) (int32, error) {
	return measure1(ctx, m, "Register", func(ctx context.Context) (int32, error) { return m.store.Register(ctx, a) })
}

func (m *measured) Heartbeat(ctx context.Context, agentID string, session uuid.UUID) error {
	return m.measure(ctx, "Heartbeat", func(ctx context.Context) error { return m.store.Heartbeat(ctx, agentID, session) })
}

func (m *measured) Deregister(ctx context.Context, agentID string, session uuid.UUID) error {
	return m.measure(ctx, "Deregister", func(ctx context.Context) error { return m.store.Deregister(ctx, agentID, session) })
}

// Attend is measured up to the sign of life: it lasts as long as the agent.
func (m *measured) Attend(ctx context.Context, agentID string, session uuid.UUID, s Signals) error {
	const query = "Attend"
	begin, present := time.Now(), s.Present
	s.Present = func() {
		m.duration.WithLabelValues(query).Observe(time.Since(begin).Seconds())
		present()
	}
	err := m.store.Attend(context.WithValue(ctx, queryCounter{}, m.queries.WithLabelValues(query)), agentID, session, s)
	m.countError(query, err)
	return err
}

func (m *measured) Challenge(ctx context.Context, agentID string, session uuid.UUID) error {
	return m.measure(ctx, "Challenge", func(ctx context.Context) error { return m.store.Challenge(ctx, agentID, session) })
}

func (m *measured) Bury(ctx context.Context, agentID string, session uuid.UUID, patience time.Duration) (Burial, error) {
	return measure1(ctx, m, "Bury", func(ctx context.Context) (Burial, error) {
		return m.store.Bury(ctx, agentID, session, patience)
	})
}

func (m *measured) Report(ctx context.Context, r Report) error {
	return m.measure(ctx, "Report", func(ctx context.Context) error { return m.store.Report(ctx, r) })
}

func (m *measured) Isolated(ctx context.Context, agentID string, session uuid.UUID) (bool, error) {
	return measure1(ctx, m, "Isolated", func(ctx context.Context) (bool, error) { return m.store.Isolated(ctx, agentID, session) })
}

func (m *measured) Sessions(ctx context.Context) ([]AgentSession, error) {
	return measure1(ctx, m, "Sessions", m.store.Sessions)
}

func (m *measured) Leases(ctx context.Context, f LeaseFilter) ([]HeldLease, error) {
	return measure1(ctx, m, "Leases", func(ctx context.Context) ([]HeldLease, error) { return m.store.Leases(ctx, f) })
}

func (m *measured) Topology(ctx context.Context, since int64) (*Topology, error) {
	return measure1(ctx, m, "Topology", func(ctx context.Context) (*Topology, error) { return m.store.Topology(ctx, since) })
}

func (m *measured) CreateTopic(ctx context.Context, t NewTopic) error {
	return m.measure(ctx, "CreateTopic", func(ctx context.Context) error { return m.store.CreateTopic(ctx, t) })
}

func (m *measured) DeleteTopic(ctx context.Context, id uuid.UUID) error {
	return m.measure(ctx, "DeleteTopic", func(ctx context.Context) error { return m.store.DeleteTopic(ctx, id) })
}

func (m *measured) AddPartitions(ctx context.Context, id uuid.UUID, total int32) error {
	return m.measure(ctx, "AddPartitions", func(ctx context.Context) error { return m.store.AddPartitions(ctx, id, total) })
}

func (m *measured) AlterTopicConfigs(ctx context.Context, topicID uuid.UUID, c ConfigChange) error {
	return m.measure(ctx, "AlterTopicConfigs", func(ctx context.Context) error {
		return m.store.AlterTopicConfigs(ctx, topicID, c)
	})
}

func (m *measured) AlterResourceConfigs(ctx context.Context, r Resource, c ConfigChange) error {
	return m.measure(ctx, "AlterResourceConfigs", func(ctx context.Context) error {
		return m.store.AlterResourceConfigs(ctx, r, c)
	})
}

func (m *measured) AlterClusterConfigs(ctx context.Context, c ConfigChange) error {
	return m.measure(ctx, "AlterClusterConfigs", func(ctx context.Context) error {
		return m.store.AlterClusterConfigs(ctx, c)
	})
}

func (m *measured) Commit(ctx context.Context, c *Commit) ([][]CommitResult, error) {
	return measure1(ctx, m, "Commit", func(ctx context.Context) ([][]CommitResult, error) { return m.store.Commit(ctx, c) })
}

func (m *measured) Read(ctx context.Context, reqs []ReadRequest) ([]ReadResult, error) {
	return measure1(ctx, m, "Read", func(ctx context.Context) ([]ReadResult, error) { return m.store.Read(ctx, reqs) })
}

func (m *measured) Watermarks(ctx context.Context, keys []lease.Key) ([]*Watermarks, error) {
	return measure1(ctx, m, "Watermarks", func(ctx context.Context) ([]*Watermarks, error) {
		return m.store.Watermarks(ctx, keys)
	})
}

func (m *measured) FindTimestamp(ctx context.Context, reqs []TimestampRequest) ([]TimestampResult, error) {
	return measure1(ctx, m, "FindTimestamp", func(ctx context.Context) ([]TimestampResult, error) {
		return m.store.FindTimestamp(ctx, reqs)
	})
}

func (m *measured) EpochEnds(ctx context.Context, reqs []EpochRequest) ([]EpochEnd, error) {
	return measure1(ctx, m, "EpochEnds", func(ctx context.Context) ([]EpochEnd, error) { return m.store.EpochEnds(ctx, reqs) })
}

func (m *measured) DeleteRecords(ctx context.Context, key lease.Key, offset int64) (int64, error) {
	return measure1(ctx, m, "DeleteRecords", func(ctx context.Context) (int64, error) {
		return m.store.DeleteRecords(ctx, key, offset)
	})
}

func (m *measured) LogSizes(ctx context.Context, topics []uuid.UUID) (map[lease.Key]int64, error) {
	return measure1(ctx, m, "LogSizes", func(ctx context.Context) (map[lease.Key]int64, error) {
		return m.store.LogSizes(ctx, topics)
	})
}

func (m *measured) AllocateProducerIDs(ctx context.Context, count int64) (int64, error) {
	return measure1(ctx, m, "AllocateProducerIDs", func(ctx context.Context) (int64, error) {
		return m.store.AllocateProducerIDs(ctx, count)
	})
}

func (m *measured) ActiveProducers(ctx context.Context, keys []lease.Key) ([][]ActiveProducer, error) {
	return measure1(ctx, m, "ActiveProducers", func(ctx context.Context) ([][]ActiveProducer, error) {
		return m.store.ActiveProducers(ctx, keys)
	})
}

func (m *measured) WriteGroups(ctx context.Context, agentID string, shard lease.Term, w *GroupWrite) error {
	return m.measure(ctx, "WriteGroups", func(ctx context.Context) error {
		return m.store.WriteGroups(ctx, agentID, shard, w)
	})
}

func (m *measured) LoadGroups(ctx context.Context, shard lease.Key) ([]StoredGroup, error) {
	return measure1(ctx, m, "LoadGroups", func(ctx context.Context) ([]StoredGroup, error) {
		return m.store.LoadGroups(ctx, shard)
	})
}

func (m *measured) FetchOffsets(ctx context.Context, groups []string) ([][]CommittedOffset, error) {
	return measure1(ctx, m, "FetchOffsets", func(ctx context.Context) ([][]CommittedOffset, error) {
		return m.store.FetchOffsets(ctx, groups)
	})
}

func (m *measured) OldOffsets(ctx context.Context, groups []string, age time.Duration) ([]OldOffsets, error) {
	return measure1(ctx, m, "OldOffsets", func(ctx context.Context) ([]OldOffsets, error) {
		return m.store.OldOffsets(ctx, groups, age)
	})
}

func (m *measured) ClaimOrphans(ctx context.Context, ids []segment.ID) ([]segment.ID, error) {
	return measure1(ctx, m, "ClaimOrphans", func(ctx context.Context) ([]segment.ID, error) {
		return m.store.ClaimOrphans(ctx, ids)
	})
}

func (m *measured) PeerSecret(ctx context.Context) ([]byte, error) {
	return measure1(ctx, m, "PeerSecret", func(ctx context.Context) ([]byte, error) { return m.store.PeerSecret(ctx) })
}

func (m *measured) Prune(ctx context.Context) (int64, error) {
	return measure1(ctx, m, "Prune", m.store.Prune)
}

func (m *measured) Acquire(ctx context.Context, agentID string, ttl time.Duration, keys []lease.Key) ([]lease.Result, error) {
	return measure1(ctx, m, "Acquire", func(ctx context.Context) ([]lease.Result, error) {
		return m.store.Acquire(ctx, agentID, ttl, keys)
	})
}

func (m *measured) Renew(ctx context.Context, agentID string, ttl time.Duration, terms []lease.Term) ([]lease.Term, error) {
	return measure1(ctx, m, "Renew", func(ctx context.Context) ([]lease.Term, error) {
		return m.store.Renew(ctx, agentID, ttl, terms)
	})
}

func (m *measured) Release(ctx context.Context, agentID string, terms []lease.Term) error {
	return m.measure(ctx, "Release", func(ctx context.Context) error { return m.store.Release(ctx, agentID, terms) })
}

func (m *measured) HandOver(ctx context.Context, agentID string, ttl time.Duration, moves []lease.Move) ([]lease.Term, error) {
	return measure1(ctx, m, "HandOver", func(ctx context.Context) ([]lease.Term, error) {
		return m.store.HandOver(ctx, agentID, ttl, moves)
	})
}

func (m *measured) Ping(ctx context.Context) error { return m.measure(ctx, "Ping", m.store.Ping) }

func (m *measured) Close() error { return m.store.Close() }
