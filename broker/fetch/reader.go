package fetch

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment/objstore"
)

// Leases tells in which leader epoch this agent leads a partition.
type Leases interface {
	// Leads returns ok false if the agent does not hold the lease.
	Leads(k lease.Key) (leaderEpoch int32, ok bool)
}

// Reader serves reads of all partitions, led here or not. Its methods are safe
// for concurrent use.
type Reader struct {
	cfg     Config
	index   metadata.Log
	leases  Leases
	blocks  *blocks
	views   views
	metrics *Metrics
	log     *slog.Logger

	born       time.Time
	waiting    atomic.Int64  // long polls that wait
	pollWanted chan struct{} // somebody began to wait
	soon       chan struct{} // there is something new, which the index knows
	running    context.Context
	stop       context.CancelFunc
}

// New returns a reader. Run must be called, for the long polls of partitions
// that other agents lead, and so that what the reader has started ends.
func New(cfg Config, index metadata.Log, objects objstore.Store, leases Leases, m *Metrics, log *slog.Logger) *Reader {
	cfg = cfg.withDefaults()
	r := &Reader{
		cfg: cfg, index: index, leases: leases, metrics: m, log: log,
		views: views{m: map[lease.Key]*view{}, inline: inlineBytes{limit: cfg.CacheBytes / 4}},
		born:  time.Now(), pollWanted: make(chan struct{}, 1), soon: make(chan struct{}, 1),
	}
	r.running, r.stop = context.WithCancel(context.Background())
	r.blocks = newBlocks(r.running, cfg, objects, m, log)
	return r
}

// Request asks for one partition's records from an offset on.
type Request struct {
	Key      lease.Key
	Offset   int64
	MaxBytes int32
	// LeaderEpoch is what the client believes; -1 if it does not say. A view
	// that is older is not believed to be complete.
	LeaderEpoch int32
}

// Options are those of the whole fetch.
type Options struct {
	MinBytes      int64         // answer once there are so many; 0: at once
	MaxBytes      int64         // over all partitions
	MaxWait       time.Duration // the longest wait for MinBytes
	ReadCommitted bool
	// Reserve, if not nil, is told once how many bytes there are to be read, and
	// returns how many of them may be.
	Reserve func(bytes int64) int64
}

// Result is one partition's answer.
type Result struct {
	// Records are whole batches; the first one may begin below the offset. The
	// slice is the caller's.
	Records []byte
	// Watermarks are as of the plan; zero with an error, but for those that an
	// ErrOffsetOutOfRange was decided by.
	Watermarks metadata.Watermarks
	// Err is nil, metadata.ErrUnknownTopic, ErrOffsetOutOfRange, ErrStorage,
	// ErrCorrupt, or metadata.ErrUnavailable.
	Err error
}

// Fetch answers the requests in their order. Partitions are filled in that
// order too, so the caller rotates them to be fair. At least one whole batch of
// the first partition that has records is returned, however small the limits,
// which are exceeded by no more than that batch.
func (r *Reader) Fetch(ctx context.Context, reqs []Request, o Options) []Result {
	plans, since := r.await(ctx, reqs, o)
	if o.Reserve != nil {
		if n := readable(plans, reqs); n > 0 {
			o.MaxBytes = o.Reserve(min(n, o.MaxBytes))
		}
	}
	results := r.read(ctx, reqs, plans, o)
	r.metrics.fetched(since, results)
	return results
}

// Committed makes an object's batches visible after their commit, before their
// producers are answered. object is the object's bytes, nil if it was inline;
// they must not change any more. logStarts are the partitions' log starts by
// extent, -1 where it is not known.
func (r *Reader) Committed(object []byte, extents []metadata.PartitionExtent, logStarts []int64) {
	if len(object) > 0 && len(extents) > 0 {
		r.blocks.put(extents[0].Object, object)
	}
	now := time.Now()
	for i := range extents {
		r.views.get(extents[i].Key).committed(extents[i].Extent, logStarts[i], now)
	}
}

// LogStart makes a DeleteRecords that was done through this agent visible.
func (r *Reader) LogStart(k lease.Key, offset int64) { r.views.get(k).logStart(offset) }

// Forget drops what is known of a topic that was deleted.
func (r *Reader) Forget(topic uuid.UUID) {
	r.views.drop(func(k lease.Key) bool { return k.TopicID == topic })
}

// ledEpoch is the leader epoch in which this agent leads, or one that no view has.
func (r *Reader) ledEpoch(k lease.Key) int32 {
	if epoch, ok := r.leases.Leads(k); ok {
		return epoch
	}
	return -2
}
