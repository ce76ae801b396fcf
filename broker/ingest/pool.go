package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol/batch"
	"github.com/streamhouse/streamhouse/segment"
)

// Errors with which a batch is answered; doc.go has what they mean to the
// producer.
var (
	// ErrFull says that the pool holds MaxBufferedBytes.
	ErrFull = errors.New("ingest pool is full")
	// ErrClosed says that the pool takes nothing any more.
	ErrClosed = errors.New("ingest pool is closed")
	// ErrUpload says that the batch's object is not in the bucket for sure, and
	// was not committed.
	ErrUpload = errors.New("object could not be uploaded")
	// ErrCommitUnavailable says that the metadata store could not be asked
	// until the batch's deadline.
	ErrCommitUnavailable = errors.New("batch could not be committed in time")
	// ErrOutOfOrderSequence says that the producer's sequence has a gap in front
	// of the batch, or that it is a duplicate too old to be known.
	ErrOutOfOrderSequence = errors.New("out of order sequence")
	// ErrInvalidProducerEpoch says that a newer epoch of the producer has written.
	ErrInvalidProducerEpoch = errors.New("invalid producer epoch")
)

// Item is one batch to be committed under a lease.
type Item struct {
	Lease *lease.Lease
	Batch batch.Validated // its bytes must not change until it is answered
	// LogAppendTime asks for the store's time as the batch's timestamp.
	LogAppendTime bool
	Receiver      Receiver
}

// Receiver takes the answer to one batch.
type Receiver interface {
	// Answer is called once, on a goroutine of the pool, and must not block.
	Answer(Result)
}

// Result is what became of a batch.
type Result struct {
	Err            error // nil if the batch is in the log, now or since earlier
	BaseOffset     int64 // -1 with an error
	AppendTime     int64 // ms, of batches with LogAppendTime; else -1
	LogStartOffset int64 // of the partition; -1 where it is not known
}

// Failed is the result of a batch that is not in the log.
func Failed(err error) Result {
	return Result{Err: err, BaseOffset: -1, AppendTime: -1, LogStartOffset: -1}
}

// Leases is told of lost leases.
type Leases interface {
	// Lose gives up a lease; see lease.Manager.
	Lose(l *lease.Lease, cause error)
}

// Objects is where flushes are uploaded to.
type Objects interface {
	// Put stores an object that is not there, durably when it returns nil, and
	// makes the retries that are worth making.
	Put(ctx context.Context, key string, body []byte) error
}

// Observer learns of what was committed.
type Observer interface {
	// Committed is called after a commit and before its producers are answered,
	// never concurrently, and for each leader of partitions in the order of its
	// commits. object is the whole object the first time that something of it was
	// committed; nil after that, and if the batches are inline or another agent
	// has uploaded them. logStarts are the log start offsets of the extents'
	// partitions, -1 where they are not known. What another agent has committed
	// here again, since it did not hear the answer, is shown again. All of it may
	// be kept; object and extents must not be changed.
	Committed(object []byte, extents []metadata.PartitionExtent, logStarts []int64)
}

// Environment is what a Pool works with.
type Environment struct {
	AgentID   string
	Session   uuid.UUID // of the agent's registration
	Leases    Leases
	Objects   Objects
	Committer metadata.Committer
	// Remote has the agent that a commit names make it, for what is accepted under
	// borrowed leases. metadata.ErrUnavailable from it says that nothing was and
	// will be done. nil where nothing is borrowed.
	Remote metadata.Committer
	// Names finds out about commits of which Remote does not know the outcome.
	Names    metadata.Objects
	Observer Observer
	// Agents is how many agents commit to the metadata store, this one included. It
	// must not block. nil says that there is no other.
	Agents  func() int
	Metrics *Metrics
	Log     *slog.Logger
}

// Pool commits batches in the order in which they are added, or has the holders of
// borrowed leases do so. It is safe for concurrent use.
type Pool struct {
	cfg Config
	env Environment

	wake    chan struct{} // has an element if there may be something to do
	drained chan struct{} // closed when the pool is closed and empty
	workers sync.WaitGroup

	own     *lane      // of what this agent leads
	showing sync.Mutex // of what was committed, to the observer; taken with no other

	mu           sync.Mutex
	open         buffer
	line         []*flush              // sealed and not uploaded, in the order of acceptance
	uploads      int                   // flushes of the line that are being uploaded
	lanes        []*lane               // the first is the agent's own
	guests       map[segment.ID]*guest // in the own lane
	guestBatches int
	sequence     uint64
	puts         bucket
	inlineBytes  bucket
	commits      pace
	hurried      bool // the open buffer has to be flushed at once
	gaps         gaps
	refused      []answer // to batches that gaps did not let in
	buffered     int64    // bytes of what was added and not answered
	outstanding  int      // its batches, and those of guests
	closed       bool     // Add is refused
	empty        bool     // drained is closed
}

// NewPool makes a pool. The configuration must be valid. Nothing happens to
// what is added before Run.
func NewPool(cfg Config, env Environment) *Pool {
	now := time.Now()
	agents := env.Agents
	if agents == nil {
		agents = func() int { return 1 }
	}
	own := &lane{}
	return &Pool{
		cfg: cfg, env: env, own: own,
		wake:        make(chan struct{}, 1),
		drained:     make(chan struct{}),
		open:        newBuffer(),
		lanes:       []*lane{own},
		guests:      make(map[segment.ID]*guest),
		puts:        newBucket(cfg.PutsPerSecond, cfg.PutBurst, now),
		inlineBytes: newBucket(cfg.InlineBytesPerSecond, cfg.InlineBurst, now),
		commits:     newPace(cfg.CommitSpacing, agents, now),
	}
}

// Add accepts the items, all or none, in their order and behind what was added
// before. It never blocks on I/O. With ErrFull or ErrClosed, nothing was
// accepted and nobody will be answered. After ErrFull the items count as
// missed.
//
// All items of a partition that are in the pool at a time must be under one
// lease; whoever adds sees to it.
func (p *Pool) Add(items []Item) error {
	var size, records int64
	for i := range items {
		size += int64(len(items[i].Batch.Batch))
		records += int64(items[i].Batch.RecordCount)
	}
	now := time.Now()
	p.mu.Lock()
	switch {
	case p.closed:
		p.mu.Unlock()
		return ErrClosed
	case p.buffered+size > p.cfg.MaxBufferedBytes:
		for i := range items {
			p.gaps.fail(items[i].Lease.Key(), &items[i].Batch, ErrFull, now)
		}
		p.mu.Unlock()
		return ErrFull
	}
	p.buffered += size
	p.outstanding += len(items)
	admitted := 0
	for i := range items {
		if err := p.gaps.admit(items[i].Lease.Key(), &items[i].Batch, now); err != nil {
			p.refused = append(p.refused, answer{&entry{Item: items[i], accepted: now, err: err}, Failed(err)})
			continue
		}
		if admitted++; admitted == 1 {
			p.open.requests++
		}
		p.open.add(items[i], now)
		if p.full() {
			p.seal(inObject, reasonFull, now)
		}
	}
	p.mu.Unlock()
	p.signal()
	p.env.Metrics.batches.Add(float64(len(items)))
	p.env.Metrics.records.Add(float64(records))
	p.env.Metrics.bytes.Add(float64(size))
	p.env.Metrics.buffered.Add(float64(size))
	return nil
}

// Miss takes note that a batch has failed with err and will not be added, though
// batches behind it in its stream may be: they fail with the same error.
func (p *Pool) Miss(key lease.Key, b *batch.Validated, err error) {
	if b.ProducerID == batch.NoProducerID {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gaps.fail(key, b, err, time.Now())
}

// Hasten flushes what was added before without waiting for any budget: somebody
// waits for its answers who can go on only then.
func (p *Pool) Hasten() {
	p.mu.Lock()
	p.hurried = p.hurried || p.open.bytes > 0
	p.mu.Unlock()
	p.signal()
}

// never is when a timer is due that nothing has set.
const never time.Duration = math.MaxInt64

// Run flushes and commits until ctx ends, and returns nil then. What is in the
// pool by then is answered with ErrClosed, or with metadata.ErrUnknownOutcome
// if it may have been committed; Close before leaves nothing.
func (p *Pool) Run(ctx context.Context) error {
	timer := time.NewTimer(never)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			p.abort()
			return nil
		case <-p.wake:
		case <-timer.C:
		}
		after := p.step(ctx)
		if after == 0 {
			after = never
		}
		timer.Reset(after)
	}
}

// Close refuses what is added from now on, and returns when all that was added
// before is flushed, committed and answered, or with an error when ctx ends.
// Run must go on until then.
func (p *Pool) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.signal()
	select {
	case <-p.drained:
		return nil
	case <-ctx.Done():
		p.mu.Lock()
		defer p.mu.Unlock()
		return fmt.Errorf("ingest: close with %d batches left: %w", p.outstanding, context.Cause(ctx))
	}
}

// step does all that can be done now, and returns when to look again if nothing
// happens before; 0 is never.
func (p *Pool) step(ctx context.Context) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	d := p.cfg.decide(p.view(now))
	if d.flush {
		p.seal(d.kind, d.reason, now)
	}
	for _, f := range p.line {
		if f.progress == queued && p.uploads < p.cfg.MaxUploads {
			f.progress = uploading
			p.uploads++
			p.workers.Go(func() { p.upload(ctx, f) })
		}
	}
	after := d.after
	for _, l := range p.lanes {
		if l.committing {
			continue
		}
		group := l.readyPrefix()
		if len(group) == 0 {
			continue
		}
		if wait := p.gather(l, group, now); wait > 0 {
			after = soonest(after, wait)
			continue
		}
		l.committing, l.begun = true, now
		p.workers.Go(func() {
			if l == p.own {
				p.commit(ctx, group)
			} else {
				p.commitRemote(ctx, l, group)
			}
		})
	}
	if refused := p.refused; len(refused) > 0 {
		p.refused = nil
		p.workers.Go(func() { p.deliver(refused) })
	}
	if p.closed && p.outstanding == 0 && !p.empty {
		p.empty = true
		close(p.drained)
	}
	return after
}

// soonest is the first of two times from now of which 0 is never.
func soonest(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// view is what the flush policy sees. The caller holds mu.
func (p *Pool) view(now time.Time) view {
	v := view{
		bytes:      p.open.bytes,
		hurried:    p.closed || p.hurried,
		borrowed:   p.open.borrowed(),
		committing: p.own.committing,
		slot:       len(p.line) < p.cfg.MaxUploads,
		putWait:    p.puts.wait(now, 1),
		inlineWait: p.inlineBytes.wait(now, float64(p.open.bytes)),
	}
	if v.bytes > 0 {
		v.age = now.Sub(p.open.entries[0].accepted)
	}
	requests := p.open.requests
	for _, pt := range p.own.line {
		v.uploading = v.uploading || !pt.ready()
		if pt.flush != nil {
			requests += pt.flush.requests
		}
	}
	if !v.borrowed {
		v.commitWait = p.commits.wait(now, p.open.requests, requests)
	}
	return v
}

// full says whether the open buffer has reached a limit. The caller holds mu.
func (p *Pool) full() bool {
	return p.open.bytes >= p.cfg.MaxBytes ||
		len(p.open.entries) >= p.cfg.MaxBatches ||
		len(p.open.leases) >= p.cfg.MaxPartitions ||
		len(p.open.holders) >= segment.MaxParts
}

// seal puts the open buffer into the lanes, to be uploaded, and pays for it. The caller holds mu.
func (p *Pool) seal(k kind, r reason, now time.Time) {
	p.sequence++
	f := &flush{
		id: segment.NewID(), sequence: p.sequence, kind: k,
		entries: p.open.entries, bytes: p.open.bytes, requests: p.open.requests, sealed: now,
	}
	if p.open.borrowed() {
		p.commits.interrupt()
	}
	p.commits.sealed(now, f.requests)
	p.hurried = false
	if k == inline {
		f.progress = ready
		p.inlineBytes.take(now, float64(f.bytes))
	} else {
		p.line = append(p.line, f)
		p.puts.take(now, 1)
	}
	p.split(f, p.open.holders)
	p.open.reset()

	p.env.Metrics.flushes[k][r].Inc()
	p.env.Metrics.size.Observe(float64(f.bytes))
	p.env.Metrics.linger.Observe(now.Sub(f.opened()).Seconds())
}

// upload makes an object of a flush and stores it.
func (p *Pool) upload(ctx context.Context, f *flush) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.UploadTimeout)
	defer cancel()
	begun := time.Now()
	err := f.encodeObject(p.env.AgentID, p.env.Session)
	if err == nil {
		err = p.env.Objects.Put(ctx, segment.ObjectKey(f.id), f.stored)
	}
	since(p.env.Metrics.upload, begun)

	var answers []answer
	p.mu.Lock()
	p.uploads--
	p.line = slices.DeleteFunc(p.line, func(other *flush) bool { return other == f })
	if err == nil {
		f.progress = ready
	} else {
		for _, pt := range f.parts {
			answers = append(answers, p.fail(pt, fmt.Errorf("%w: %w", ErrUpload, err))...)
		}
	}
	p.mu.Unlock()
	if err != nil {
		p.env.Metrics.failed.Inc()
		p.env.Log.Error("object could not be uploaded, its batches are failed",
			"object", f.id, "bytes", len(f.stored), "batches", len(answers), "error", err)
	}
	p.deliver(answers)
}

// answer is a result on its way.
type answer struct {
	e      *entry
	result Result
}

// deliver answers batches and wakes the loop. The caller does not hold mu.
func (p *Pool) deliver(answers []answer) {
	var size int64
	for _, a := range answers {
		size += int64(len(a.e.Batch.Batch))
	}
	// There is room before anybody is answered, who may add the next batch at once.
	p.mu.Lock()
	p.buffered -= size
	p.mu.Unlock()
	p.env.Metrics.buffered.Sub(float64(size))
	for _, a := range answers {
		a.e.Receiver.Answer(a.result)
	}
	p.mu.Lock()
	p.outstanding -= len(answers)
	p.mu.Unlock()
	p.signal()
}

// fail takes a part out of its lane and marks its batches as failed with err, and
// with them those behind them in their streams. It returns the answers. A guest is
// answered at once. The caller holds mu.
func (p *Pool) fail(pt *part, err error) (answers []answer) {
	l := pt.lane
	at := slices.Index(l.line, pt)
	l.line = slices.Delete(l.line, at, at+1)
	p.leave(l)
	if pt.guest != nil {
		p.dismiss(pt.guest, nil, err)
		return nil
	}
	now := time.Now()
	for i := range pt.flush.entries {
		if e := &pt.flush.entries[i]; pt.has(e) && e.err == nil {
			answers = append(answers, p.failEntry(e, err, now))
		}
	}
	return append(answers, p.failSuccessors(l.line[at:], now)...)
}

// failEntry marks a batch as answered with err, and its stream as broken. The
// caller holds mu.
func (p *Pool) failEntry(e *entry, err error, now time.Time) answer {
	e.err = err
	p.gaps.fail(e.Lease.Key(), &e.Batch, err, now)
	return answer{e, Failed(err)}
}

// failSuccessors admits anew, in their order, what is in later parts of a lane and
// in the open buffer, after batches in front of it have failed. The caller holds
// mu.
func (p *Pool) failSuccessors(later []*part, now time.Time) (answers []answer) {
	refused := func(e *entry) bool {
		if e.err = p.gaps.admit(e.Lease.Key(), &e.Batch, now); e.err == nil {
			return false
		}
		answers = append(answers, answer{e, Failed(e.err)})
		return true
	}
	for _, pt := range later {
		if pt.flush == nil {
			continue
		}
		for i := range pt.flush.entries {
			if e := &pt.flush.entries[i]; pt.has(e) && e.err == nil {
				refused(e)
			}
		}
	}
	open, requests := p.open.entries, p.open.requests
	p.open.reset()
	p.open.requests = requests
	for i := range open {
		if e := &open[i]; !refused(e) {
			p.open.add(e.Item, e.accepted)
		}
	}
	return answers
}

// abort answers all that is left at the end of Run.
func (p *Pool) abort() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.workers.Wait()

	p.mu.Lock()
	answers := p.refused
	p.refused = nil
	for _, l := range slices.Clone(p.lanes) {
		for len(l.line) > 0 {
			answers = append(answers, p.fail(l.line[0], ErrClosed)...)
		}
	}
	p.line = nil
	for i := range p.open.entries {
		answers = append(answers, answer{&p.open.entries[i], Failed(ErrClosed)})
	}
	p.open.reset()
	if !p.empty {
		p.empty = true
		close(p.drained)
	}
	p.mu.Unlock()
	p.deliver(answers)
}

// signal makes sure that the loop looks again.
func (p *Pool) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}
