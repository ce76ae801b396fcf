package fetch_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/broker/fetch"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol/batch"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
	"github.com/streamhouse/streamhouse/segment"
	"github.com/streamhouse/streamhouse/segment/objstore/faulty"
	"github.com/streamhouse/streamhouse/segment/objstore/objstoretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var topicID = uuid.MustParse("6f3cbd4e-9a2f-4a3e-8f6b-0d5a1c7e2b11")

// key is a partition of the tests' topic.
func key(partition int32) lease.Key { return lease.Key{TopicID: topicID, Partition: partition} }

// world is a reader with the store that it reads from. Commits of this agent
// and of others are made by its methods.
type world struct {
	tb      testing.TB
	index   *index
	objects *faulty.Store
	leases  *leases
	reader  *fetch.Reader
	reg     *prometheus.Registry
	seen    int // calls that gets has returned, or passed over
}

// fatal is the part of testing.TB that rapid's T has too.
type fatal interface {
	Helper()
	Fatalf(format string, args ...any)
}

// newWorld returns a world whose reader runs until the test ends.
func newWorld(tb testing.TB, cfg fetch.Config) *world {
	w := makeWorld(cfg)
	w.tb = tb
	tb.Cleanup(w.run())
	return w
}

func makeWorld(cfg fetch.Config) *world {
	return on(&index{parts: map[lease.Key]*part{}}, faulty.New(objstoretest.NewMemory()), cfg)
}

// on returns the world of one agent of several that share an index and a bucket.
func on(x *index, objects *faulty.Store, cfg fetch.Config) *world {
	w := &world{index: x, objects: objects, leases: &leases{led: map[lease.Key]int32{}}, reg: prometheus.NewRegistry()}
	w.reader = fetch.New(cfg, w.index, w.objects, w.leases, fetch.NewMetrics(w.reg), slog.New(slog.DiscardHandler))
	return w
}

// run starts the reader and returns what stops it.
func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.reader.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			w.tb.Errorf("Run: %v", err)
		}
	}
}

// metric returns the value of a counter or gauge without labels.
func (w *world) metric(name string) float64 {
	families, err := w.reg.Gather()
	if err != nil {
		w.tb.Fatalf("gather: %v", err)
	}
	for _, f := range families {
		if f.GetName() == "streamhouse_"+name {
			m := f.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	w.tb.Fatalf("no metric %s", name)
	return 0
}

// leases are the leaderships of this agent.
type leases struct {
	mu  sync.Mutex
	led map[lease.Key]int32
}

func (l *leases) Leads(k lease.Key) (int32, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	epoch, ok := l.led[k]
	return epoch, ok
}

// forget ends a leadership.
func (l *leases) forget(k lease.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.led, k)
}

// lead makes this agent the leader of a partition, in the next leader epoch.
func (w *world) lead(k lease.Key) {
	epoch := w.index.nextEpoch(k)
	w.leases.mu.Lock()
	defer w.leases.mu.Unlock()
	w.leases.led[k] = epoch
}

// lose makes another agent the leader, in the next leader epoch.
func (w *world) lose(k lease.Key) {
	w.leases.forget(k)
	w.index.nextEpoch(k)
}

// chunk is the batches of one partition in a commit.
type chunk struct {
	key     lease.Key
	batches []batch.Batch
}

// of is a chunk with a batch for each of the values.
func of(k lease.Key, values ...string) chunk {
	c := chunk{key: k}
	for _, v := range values {
		c.batches = append(c.batches, batchtest.Of(v))
	}
	return c
}

// commit is one committed object, or flush of inline batches.
type commit struct {
	object    []byte // nil if inline
	extents   []metadata.PartitionExtent
	logStarts []int64
}

// elsewhere commits an object as another agent does.
func (w *world) elsewhere(chunks ...chunk) commit {
	id := segment.NewID()
	object := []byte("header") // so that no extent begins at 0
	places := make([]int64, len(chunks))
	for i, c := range chunks {
		places[i] = int64(len(object))
		for _, b := range c.batches {
			object = append(object, b...)
		}
	}
	w.put(id, object)
	done := commit{object: object}
	for i, c := range chunks {
		e := w.index.append(c, metadata.Extent{Object: id, ObjectSize: int64(len(object)), Position: places[i], AppendTime: -1})
		done.add(c.key, e, w.index.part(c.key).logStart())
	}
	return done
}

// inlineExtent is an inline extent of the chunk, with LogAppendTime
// unless appendTime is -1.
func inlineExtent(c chunk, appendTime int64) metadata.Extent {
	return metadata.Extent{Inline: slices.Concat(asBytes(c.batches)...), AppendTime: appendTime}
}

// inlineElsewhere commits batches inline as another agent does.
func (w *world) inlineElsewhere(chunks ...chunk) commit {
	var done commit
	for _, c := range chunks {
		e := w.index.append(c, inlineExtent(c, -1))
		done.add(c.key, e, w.index.part(c.key).logStart())
	}
	return done
}

func (c *commit) add(k lease.Key, e metadata.Extent, logStart int64) {
	c.extents = append(c.extents, metadata.PartitionExtent{Key: k, Extent: e})
	c.logStarts = append(c.logStarts, logStart)
}

// here commits an object as this agent.
func (w *world) here(chunks ...chunk) commit { return w.committed(w.elsewhere(chunks...)) }

// inlineHere commits batches inline as this agent.
func (w *world) inlineHere(chunks ...chunk) commit { return w.committed(w.inlineElsewhere(chunks...)) }

func (w *world) committed(c commit) commit {
	w.reader.Committed(c.object, c.extents, c.logStarts)
	return c
}

func (w *world) put(id segment.ID, object []byte) {
	if err := w.objects.Put(context.Background(), segment.ObjectKey(id), object); err != nil {
		w.tb.Fatalf("put: %v", err)
	}
}

// remove removes an object from the bucket.
func (w *world) remove(id segment.ID) {
	if err := w.objects.Delete(context.Background(), segment.ObjectKey(id)); err != nil {
		w.tb.Fatalf("delete: %v", err)
	}
}

func asBytes(batches []batch.Batch) [][]byte {
	all := make([][]byte, len(batches))
	for i, b := range batches {
		all[i] = b
	}
	return all
}

// merge replaces the extents of a partition by one in a new object, and removes
// the objects that nothing names any more.
func (w *world) merge(k lease.Key) {
	id := segment.NewID()
	object, old := w.index.merge(k, id, func(e metadata.Extent) []byte {
		if e.Object == uuid.Nil {
			return e.Inline
		}
		data, err := w.objects.Get(context.Background(), segment.ObjectKey(e.Object), e.Position, e.Length)
		if err != nil {
			w.tb.Fatalf("read for merge: %v", err)
		}
		return data
	})
	if object != nil {
		w.put(id, object)
		for _, o := range old {
			w.remove(o)
		}
	}
}

// index is a batch index in memory, and the model that answers are held against.
type index struct {
	mu         sync.Mutex
	parts      map[lease.Key]*part
	reads      int   // statements
	asked      int64 // bytes that the last of them asked for
	watermarks int
	err        error         // what statements fail with
	late       chan struct{} // closed when answers may arrive; nil: at once
}

type part struct {
	marks   metadata.Watermarks
	extents []metadata.Extent
	batches []stored
}

func (p *part) logStart() int64 { return p.marks.LogStart }

// stored is a batch as it has to be served.
type stored struct {
	base, end int64
	bytes     []byte
}

func (x *index) part(k lease.Key) *part {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.locked(k)
}

func (x *index) locked(k lease.Key) *part {
	p := x.parts[k]
	if p == nil {
		p = &part{}
		x.parts[k] = p
	}
	return p
}

func (x *index) nextEpoch(k lease.Key) int32 {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := x.locked(k)
	p.marks.LeaderEpoch++
	return p.marks.LeaderEpoch
}

// append gives a chunk its offsets and makes the extent part of the log.
func (x *index) append(c chunk, e metadata.Extent) metadata.Extent {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := x.locked(c.key)
	e.BaseOffset, e.LeaderEpoch = p.marks.High, p.marks.LeaderEpoch
	for _, b := range c.batches {
		s := stored{base: p.marks.High, end: p.marks.High + int64(b.LastOffsetDelta()) + 1, bytes: slices.Clone(b)}
		batch.Batch(s.bytes).Stamp(s.base, e.LeaderEpoch)
		if e.AppendTime >= 0 {
			batch.Batch(s.bytes).StampLogAppendTime(e.AppendTime)
		}
		e.MaxTimestamp = max(e.MaxTimestamp, batch.Batch(s.bytes).MaxTimestamp())
		e.Length += int64(len(b))
		p.batches = append(p.batches, s)
		p.marks.High = s.end
	}
	e.EndOffset, p.marks.LastStable = p.marks.High, p.marks.High
	p.extents = append(p.extents, e)
	return e
}

// deleteRecords raises the log start.
func (x *index) deleteRecords(k lease.Key, offset int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := x.locked(k)
	p.marks.LogStart = max(p.marks.LogStart, min(offset, p.marks.High))
	p.extents = slices.DeleteFunc(slices.Clone(p.extents), func(e metadata.Extent) bool { return e.EndOffset <= p.marks.LogStart })
}

// merge makes runs of extents with equal stamps one extent each, in one object.
func (x *index) merge(k lease.Key, id segment.ID, read func(metadata.Extent) []byte) (object []byte, unnamed []segment.ID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := x.locked(k)
	var merged []metadata.Extent
	old := map[segment.ID]bool{}
	for _, e := range p.extents {
		old[e.Object] = true
		data := read(e)
		n := len(merged) - 1
		if n >= 0 && merged[n].LeaderEpoch == e.LeaderEpoch && merged[n].AppendTime == e.AppendTime {
			merged[n].EndOffset = e.EndOffset
			merged[n].Length += e.Length
			merged[n].MaxTimestamp = max(merged[n].MaxTimestamp, e.MaxTimestamp)
		} else {
			e.Object, e.Position, e.Inline = id, int64(len(object)), nil
			merged = append(merged, e)
		}
		object = append(object, data...)
	}
	for i := range merged {
		merged[i].ObjectSize = int64(len(object))
	}
	p.extents = merged
	for _, p := range x.parts {
		for _, e := range p.extents {
			delete(old, e.Object)
		}
	}
	delete(old, uuid.Nil)
	for o := range old {
		unnamed = append(unnamed, o)
	}
	return object, unnamed
}

// fail makes all statements fail; nil ends that.
func (x *index) fail(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.err = err
}

// statements returns how many there were.
func (x *index) statements() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.reads + x.watermarks
}

func (x *index) Read(_ context.Context, reqs []metadata.ReadRequest) ([]metadata.ReadResult, error) {
	results, late, err := x.read(reqs)
	if late != nil {
		<-late
	}
	return results, err
}

func (x *index) read(reqs []metadata.ReadRequest) (_ []metadata.ReadResult, late chan struct{}, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.reads++
	x.asked = 0
	for _, q := range reqs {
		x.asked += q.MaxBytes
	}
	if x.err != nil {
		return nil, x.late, x.err
	}
	results := make([]metadata.ReadResult, len(reqs))
	for i, q := range reqs {
		p := x.parts[q.Key]
		if p == nil {
			results[i].Err = fmt.Errorf("%w: %s", metadata.ErrUnknownTopic, q.Key)
			continue
		}
		results[i].Watermarks = p.marks
		if q.Offset < p.marks.LogStart {
			continue
		}
		left := q.MaxBytes
		for _, e := range p.extents {
			if e.EndOffset > q.Offset && (left > 0 || len(results[i].Extents) == 0) {
				results[i].Extents = append(results[i].Extents, e)
				left -= e.Length
			}
		}
	}
	return results, x.late, nil
}

func (x *index) Watermarks(_ context.Context, keys []lease.Key) ([]*metadata.Watermarks, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.watermarks++
	if x.err != nil {
		return nil, x.err
	}
	marks := make([]*metadata.Watermarks, len(keys))
	for i, k := range keys {
		if p := x.parts[k]; p != nil {
			m := p.marks
			marks[i] = &m
		}
	}
	return marks, nil
}

func (x *index) FindTimestamp(_ context.Context, reqs []metadata.TimestampRequest) ([]metadata.TimestampResult, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err != nil {
		return nil, x.err
	}
	results := make([]metadata.TimestampResult, len(reqs))
	for i, q := range reqs {
		p := x.parts[q.Key]
		if p == nil {
			results[i].Err = metadata.ErrUnknownTopic
			continue
		}
		results[i].Watermarks = p.marks
		for _, e := range p.extents {
			found := results[i].Extent
			switch {
			case q.Timestamp == metadata.MaxTimestamp && (found == nil || e.MaxTimestamp > found.MaxTimestamp),
				q.Timestamp != metadata.MaxTimestamp && found == nil && e.MaxTimestamp >= q.Timestamp:
				results[i].Extent = &e
			}
		}
	}
	return results, nil
}

func (x *index) EpochEnds(context.Context, []metadata.EpochRequest) ([]metadata.EpochEnd, error) {
	panic("not for the reader")
}

func (x *index) DeleteRecords(context.Context, lease.Key, int64) (int64, error) {
	panic("not for the reader")
}

func (x *index) LogSizes(context.Context, []uuid.UUID) (map[lease.Key]int64, error) {
	panic("not for the reader")
}

var _ metadata.Log = (*index)(nil)

// check holds one partition's records against the model: they are whole
// batches, in the order of the log, from the one that contains the offset. It
// returns the offset behind them.
func (x *index) check(t fatal, k lease.Key, offset int64, records []byte) int64 {
	t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, s := range x.locked(k).batches {
		if s.end <= offset || len(records) == 0 {
			continue
		}
		if !bytes.HasPrefix(records, s.bytes) {
			t.Fatalf("partition %d, fetched at %d: at offset %d there is not the batch of offsets %d to %d",
				k.Partition, offset, offset, s.base, s.end)
		}
		records, offset = records[len(s.bytes):], s.end
	}
	if len(records) > 0 {
		t.Fatalf("partition %d: %d bytes behind offset %d that are not in the log", k.Partition, len(records), offset)
	}
	return offset
}

// ample are limits that limit nothing.
var ample = fetch.Options{MaxBytes: 1 << 30}

func at(k lease.Key, offset int64) fetch.Request {
	return fetch.Request{Key: k, Offset: offset, MaxBytes: 1 << 30, LeaderEpoch: -1}
}

// fetch fetches one partition.
func (w *world) fetch(k lease.Key, offset int64, o fetch.Options) fetch.Result {
	return w.reader.Fetch(context.Background(), []fetch.Request{at(k, offset)}, o)[0]
}

// want fetches a partition and expects its log from the offset to its end.
func (w *world) want(k lease.Key, offset int64) {
	w.tb.Helper()
	res := w.fetch(k, offset, ample)
	if res.Err != nil {
		w.tb.Fatalf("fetch at %d: %v", offset, res.Err)
	}
	if end, high := w.index.check(w.tb, k, offset, res.Records), w.index.part(k).marks.High; end != high {
		w.tb.Fatalf("fetch at %d ended at %d, not at %d", offset, end, high)
	}
}

// seconds is a time that no test waits for unless something hangs.
const seconds = 30 * time.Second
