package clients

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/scenario"
)

// inbox stands between the goroutines of a client that pushes records and the Member whose Poll takes them. It is small,
// and its goroutines wait when it is full. What is stale, after a rebalance or a seek, is dropped when it is taken. Its
// methods are safe for concurrent use.
type inbox struct {
	records chan delivery

	mu     sync.Mutex
	claims map[int32]*claim // by partition: what the member owns now
	err    error            // why the member is broken, if it is
}

// delivery is a record on its way from a claim's goroutine to Poll.
type delivery struct {
	claim  *claim
	record scenario.Record
}

// claim is one partition in one generation of the group. The inbox's lock guards its fields, but for the first.
type claim struct {
	partition int32
	next      int64             // the offset after what Poll returned; none before Poll returned anything
	awaited   int64             // the offset to go on with after a seek: what comes before it is dropped; or none
	paused    bool              // Poll returns nothing of it
	held      []scenario.Record // what arrived while it was paused: what the client had fetched by then, and no more
}

// none is no offset.
const none = -1

// errNotAssigned tells that a member has no such partition now.
var errNotAssigned = errors.New("the partition is not assigned")

func newInbox() *inbox {
	const buffered = 100 // so that one Poll returns more than one record
	return &inbox{records: make(chan delivery, buffered)}
}

// assign begins a generation that owns the partitions. Claims of past generations are worth nothing from then on.
func (b *inbox) assign(partitions ...int32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.claims = make(map[int32]*claim, len(partitions))
	for _, p := range partitions {
		b.claims[p] = &claim{partition: p, next: none, awaited: none}
	}
}

// claimOf returns the claim of a partition that the member owns.
func (b *inbox) claimOf(partition int32) *claim {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.claims[partition]
}

// put leaves a record of the claim for Poll, as soon as there is space. It returns false if ctx ended first.
func (b *inbox) put(ctx context.Context, c *claim, r scenario.Record) bool {
	select {
	case b.records <- delivery{c, r}:
		return true
	case <-ctx.Done():
		return false
	}
}

// fail makes every later Poll fail.
func (b *inbox) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = errors.Join(b.err, err)
}

// Poll is that of Member.
func (b *inbox) Poll(ctx context.Context, limit int, wait time.Duration) ([]scenario.Record, error) {
	records := b.resumed(limit)
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	for len(records) == 0 {
		if err := b.broken(); err != nil {
			return nil, err
		}
		select {
		case d := <-b.records:
			records = b.take(d, records)
		case <-timeout.C:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	for len(records) < limit {
		select {
		case d := <-b.records:
			records = b.take(d, records)
		default:
			return records, nil
		}
	}
	return records, nil
}

func (b *inbox) broken() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// take appends what arrived, unless it is stale or of a paused partition.
func (b *inbox) take(d delivery, records []scenario.Record) []scenario.Record {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, r := d.claim, d.record
	switch {
	case b.claims[c.partition] != c:
		return records
	case c.awaited != none && c.awaited != r.Offset:
		return records // fetched before the seek
	case c.paused:
		c.awaited = none
		c.held = append(c.held, r)
		return records
	}
	c.awaited = none
	c.next = r.Offset + 1
	return append(records, r)
}

// resumed returns what was held of partitions that are not paused any more.
func (b *inbox) resumed(limit int) []scenario.Record {
	b.mu.Lock()
	defer b.mu.Unlock()
	var records []scenario.Record
	for _, c := range b.claims {
		if n := min(len(c.held), limit-len(records)); n > 0 && !c.paused {
			records = append(records, c.held[:n]...)
			c.held = c.held[n:]
			c.next = records[len(records)-1].Offset + 1
		}
	}
	return records
}

// Assignment is that of Member.
func (b *inbox) Assignment(context.Context) ([]int32, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.claims)), b.err
}

// positions returns, for each partition of which Poll returned anything, the offset to commit.
func (b *inbox) positions() map[int32]int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	offsets := make(map[int32]int64)
	for p, c := range b.claims {
		if c.next != none {
			offsets[p] = c.next
		}
	}
	return offsets
}

// seek drops what arrives of the partition until the given offset does. The partition's log must have that offset, or
// end there.
func (b *inbox) seek(partition int32, offset int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.claims[partition]; c != nil {
		c.awaited, c.next, c.held = offset, offset, nil
	}
}

// pause holds back, or gives out again, what arrives of the partition.
func (b *inbox) pause(partition int32, paused bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.claims[partition]; c != nil {
		c.paused = paused
	}
}
