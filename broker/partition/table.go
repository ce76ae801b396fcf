package partition

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/broker/ingest"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol/batch"
)

var (
	// ErrTimeout says that the append was not decided in time, and may be.
	ErrTimeout = errors.New("append was not decided in time")
	// ErrNotAppended says that there was no lease in time: nothing was and will
	// be written.
	ErrNotAppended = errors.New("no lease was acquired in time")
	// ErrClosed says that the agent is shutting down: nothing was written.
	ErrClosed = errors.New("partition table is closed")
)

// Config sets the limits of a Table.
type Config struct {
	// AcquireTimeout bounds the acquisition of a lease, with its retries.
	AcquireTimeout time.Duration
	// MaxWaiting is how many appends of one partition may wait for its lease.
	MaxWaiting int
	// Doubt returns what is closed when it is known whether the holder of a lease
	// is dead, or nil if nobody suspects it. Clients come a moment before such a
	// lease is free. Without the function nobody is suspected.
	Doubt func(lease.Key) <-chan struct{}
	// Borrow says whether appends to a partition that another agent leads are taken
	// here, and committed by that agent (lease.Manager.Borrow). It must not block.
	// Without the function none are.
	Borrow func(*lease.HeldByOtherError) bool
}

// DefaultConfig returns the limits that suit every agent.
func DefaultConfig() Config { return Config{AcquireTimeout: 10 * time.Second, MaxWaiting: 1024} }

// Append is one validated batch for one partition.
type Append struct {
	Key           lease.Key
	Batch         batch.Validated // its bytes must not change until it is decided
	LogAppendTime bool            // the store's time becomes the timestamp
}

// Table appends to the partitions that the agent leads or borrows, and acquires the
// leases of those that it does not. It is safe for concurrent use.
type Table struct {
	cfg    Config
	leases *lease.Manager
	pool   *ingest.Pool

	wake chan struct{} // has an element if wanted may not be empty

	mu     sync.RWMutex
	parts  map[lease.Key]*part
	wanted []*part // whose leases are to be asked for
	closed bool    // nothing is accepted
	ended  bool    // Run has returned: no lease is asked for
}

// NewTable makes a table, which is the only user of the pool.
func NewTable(cfg Config, leases *lease.Manager, pool *ingest.Pool) *Table {
	return &Table{
		cfg: cfg, leases: leases, pool: pool,
		wake:  make(chan struct{}, 1),
		parts: make(map[lease.Key]*part),
	}
}

// Append accepts batches and returns at once. For each partition, the order of
// the calls is the order in the log; batches of one call for one partition are
// in their order.
func (t *Table) Append(appends []Append) *Pending {
	p := newPending(appends)
	t.mu.RLock()
	closed := t.closed
	t.mu.RUnlock()
	items := make([]ingest.Item, 0, len(appends))
	for i := range p.slots {
		s := &p.slots[i]
		if closed {
			s.decide(ingest.Failed(ErrClosed))
			continue
		}
		for accepted := false; !accepted; {
			items, accepted = t.part(s.Key).accept(s, items)
		}
	}
	if len(items) < len(appends) {
		t.ask() // once, so that one statement asks for all
	}
	if len(items) == 0 {
		return p
	}
	if err := t.pool.Add(items); err != nil {
		for _, it := range items {
			s := it.Receiver.(*slot)
			s.part.returned(1)
			s.decide(ingest.Failed(err))
		}
	}
	return p
}

// Miss takes note that a batch is refused with err before it comes to Append, though
// batches behind it in its stream may be appended: they fail with the same error.
func (t *Table) Miss(k lease.Key, b *batch.Validated, err error) { t.pool.Miss(k, b, err) }

// Commit implements metadata.Committer for other agents; see ingest.Pool.Commit. The
// lease of a partition of which the store says by that that this agent leads it, though
// the agent does not have it, is acquired: it was handed over to this agent, or has
// ended here while the store was away. Where all writers are clients of other agents,
// nobody else would ask for it, and it would be led by nobody who knows.
func (t *Table) Commit(ctx context.Context, c *metadata.Commit) ([][]metadata.CommitResult, error) {
	results, err := t.pool.Commit(ctx, c)
	for i := range results {
		for j, r := range results[i] {
			if k := c.Objects[i].Batches[j].Key; r.Outcome == metadata.Committed && t.leases.Get(k) == nil {
				t.part(k).claim()
			}
		}
	}
	return results, err
}

// Run acquires the leases that appends wait for, until ctx ends, and returns
// nil then. What waits is failed with ErrClosed.
func (t *Table) Run(ctx context.Context) error {
	var acquisitions sync.WaitGroup
	for {
		select {
		case <-ctx.Done():
			acquisitions.Wait()
			t.end()
			return nil
		case <-t.wake:
		}
		t.mu.Lock()
		wanted := t.wanted
		t.wanted = nil
		t.mu.Unlock()
		for decided, parts := range t.byDoubt(wanted) {
			acquisitions.Go(func() {
				if decided != nil {
					select {
					case <-decided:
					case <-ctx.Done():
					}
				}
				t.acquire(ctx, parts)
			})
		}
	}
}

// Close refuses what is appended from now on, fails what waits for a lease, and
// returns when all that is in the pool is decided, or with an error when ctx
// ends. Leases are not released: that is the next step of a shutdown.
func (t *Table) Close(ctx context.Context) error {
	t.mu.Lock()
	t.closed = true
	var parts []*part
	for _, pt := range t.parts {
		parts = append(parts, pt)
	}
	t.mu.Unlock()
	for _, pt := range parts {
		pt.close()
	}
	return t.pool.Close(ctx)
}

// byDoubt tells parts apart by what their acquisition has to wait for, nil if it is
// nothing.
func (t *Table) byDoubt(wanted []*part) map[<-chan struct{}][]*part {
	parts := make(map[<-chan struct{}][]*part)
	for _, pt := range wanted {
		var decided <-chan struct{}
		if t.cfg.Doubt != nil {
			decided = t.cfg.Doubt(pt.key)
		}
		parts[decided] = append(parts[decided], pt)
	}
	return parts
}

// acquire asks for the leases of parts in one go.
func (t *Table) acquire(ctx context.Context, wanted []*part) {
	bounded, cancel := context.WithTimeout(ctx, t.cfg.AcquireTimeout)
	defer cancel()
	keys := make([]lease.Key, len(wanted))
	for i, pt := range wanted {
		keys[i] = pt.key
	}
	for i, a := range t.leases.Acquire(bounded, keys) {
		a = t.borrow(a)
		switch {
		case a.Err == nil, errors.Is(a.Err, lease.ErrLeaseHeldByOther), errors.Is(a.Err, lease.ErrUnknownKey):
		case ctx.Err() != nil:
			a.Err = ErrClosed
		default:
			a.Err = fmt.Errorf("%w: %w", ErrNotAppended, a.Err)
		}
		wanted[i].acquired(a)
	}
}

// borrow makes an acquisition that was refused one from the agent that has the lease,
// if that is to be.
func (t *Table) borrow(a lease.Acquired) lease.Acquired {
	var held *lease.HeldByOtherError
	if t.cfg.Borrow == nil || !errors.As(a.Err, &held) || !t.cfg.Borrow(held) {
		return a
	}
	if l := t.leases.Borrow(held); l != nil {
		return lease.Acquired{Lease: l}
	}
	return a
}

// want notes that the lease of a part is to be asked for, which ask brings
// about; false if nobody does that any more.
func (t *Table) want(pt *part) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return false
	}
	t.wanted = append(t.wanted, pt)
	return true
}

// ask has Run ask for all leases that are wanted.
func (t *Table) ask() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// end fails what waits for leases that nobody asks for any more.
func (t *Table) end() {
	t.mu.Lock()
	t.closed, t.ended = true, true
	wanted := t.wanted
	t.wanted = nil
	t.mu.Unlock()
	for _, pt := range wanted {
		pt.acquired(lease.Acquired{Err: ErrClosed})
	}
}

// part returns the part of a key, a new one if there is none.
func (t *Table) part(k lease.Key) *part {
	t.mu.RLock()
	pt := t.parts[k]
	t.mu.RUnlock()
	if pt != nil {
		return pt
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if pt = t.parts[k]; pt == nil {
		pt = &part{key: k, table: t}
		t.parts[k] = pt
	}
	return pt
}

// remove forgets a part.
func (t *Table) remove(pt *part) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.parts, pt.key)
}

// watch tells the part when its lease ends.
func (t *Table) watch(pt *part, l *lease.Lease) {
	context.AfterFunc(l.Context(), func() { pt.lost(l) })
}
