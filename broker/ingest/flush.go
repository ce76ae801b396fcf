package ingest

import (
	"cmp"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/segment"
)

// entry is one batch in the pool.
type entry struct {
	Item
	accepted time.Time
	// err is set when the batch has been answered with it ahead of its flush,
	// and is not to be committed. Guarded by the pool's mutex.
	err error
}

// buffer collects batches until it is sealed.
type buffer struct {
	entries []entry
	bytes   int64
	// requests is how many calls of Add put something in.
	requests int
	leases   map[*lease.Lease]struct{} // one for each partition
	holders  []string                  // of the leases, each once
}

func (b *buffer) add(it Item, now time.Time) {
	b.entries = append(b.entries, entry{Item: it, accepted: now})
	b.bytes += int64(len(it.Batch.Batch))
	b.leases[it.Lease] = struct{}{}
	if holder := it.Lease.Holder(); !slices.Contains(b.holders, holder) {
		b.holders = append(b.holders, holder)
	}
}

// borrowed says whether there is something in the buffer that another agent commits.
func (b *buffer) borrowed() bool {
	return len(b.holders) > 1 || len(b.holders) == 1 && b.holders[0] != ""
}

func newBuffer() buffer { return buffer{leases: make(map[*lease.Lease]struct{})} }

// reset empties the buffer and leaves its entries to whoever has them. The next
// ones are likely to be as many.
func (b *buffer) reset() {
	b.entries = make([]entry, 0, len(b.entries))
	b.bytes = 0
	b.requests = 0
	clear(b.leases)
	b.holders = b.holders[:0]
}

// progress is how far a flush has come.
type progress uint8

const (
	queued progress = iota // waits for a slot to be uploaded
	uploading
	ready // to be committed
)

// flush is a sealed buffer: what is uploaded at once.
type flush struct {
	id       segment.ID
	parts    []*part // one for each holder of its leases
	sequence uint64  // of the session, in the order of acceptance
	kind     kind
	entries  []entry // in the order of acceptance
	bytes    int64
	requests int
	sealed   time.Time

	progress progress // guarded by the pool's mutex

	// What the upload made of it; set before the flush is ready.
	order     []int32 // indices of entries in the order of the layout
	positions []int64 // of their bytes in stored, by place in order
	// stored is the object, until the observer has it, or the batches alone if inline.
	// Guarded by Pool.showing once the flush is ready.
	stored []byte
	size   int64 // of the object, 0 if inline
}

// opened is when the first batch was accepted.
func (f *flush) opened() time.Time { return f.entries[0].accepted }

// layOut sets the order in which the batches are stored: the partitions in lock
// order, in each the batches of a producer together, and these in the order of
// their acceptance. Between producers of a partition there was no order to keep.
func (f *flush) layOut() {
	f.order = make([]int32, len(f.entries))
	f.positions = make([]int64, len(f.entries))
	for i := range f.order {
		f.order[i] = int32(i)
	}
	slices.SortStableFunc(f.order, func(i, j int32) int {
		a, b := &f.entries[i], &f.entries[j]
		if a.Lease != b.Lease {
			if c := a.Lease.Key().Compare(b.Lease.Key()); c != 0 {
				return c
			}
		}
		return cmp.Compare(a.Batch.ProducerID, b.Batch.ProducerID)
	})
}

// encodeInline copies the batches together, so that nobody has to keep whole
// requests for a few small batches.
func (f *flush) encodeInline() {
	f.layOut()
	f.stored = make([]byte, 0, f.bytes)
	for at, i := range f.order {
		f.positions[at] = int64(len(f.stored))
		f.stored = append(f.stored, f.entries[i].Batch.Batch...)
	}
}

// encodeObject lays the flush out as an object. It reads nothing of the entries
// that can change.
func (f *flush) encodeObject(agentID string, session uuid.UUID) error {
	f.layOut()
	origin := segment.Origin{AgentID: agentID, Session: session, Sequence: f.sequence, CreatedAt: f.opened().UnixMilli()}
	enc := segment.NewEncoder(f.id, origin, f.sections(), int(f.bytes))
	batches := make([][]byte, 0, len(f.order))
	for begin := 0; begin < len(f.order); {
		first := &f.entries[f.order[begin]]
		end, records, maxTimestamp := begin, int32(0), int64(-1)
		batches = batches[:0]
		for ; end < len(f.order) && f.entries[f.order[end]].Lease == first.Lease; end++ {
			b := &f.entries[f.order[end]].Batch
			batches = append(batches, b.Batch)
			records += b.RecordCount
			maxTimestamp = max(maxTimestamp, b.MaxTimestamp)
		}
		key := first.Lease.Key()
		section, err := enc.Add(key.TopicID, key.Partition, first.Lease.LeaderEpoch(), batches, records, maxTimestamp)
		if err != nil {
			return err
		}
		position := section.Position
		for i, b := range batches {
			f.positions[begin+i] = position
			position += int64(len(b))
		}
		begin = end
	}
	stored, err := enc.Bytes()
	f.stored, f.size = stored, int64(len(stored))
	return err
}

// sections counts the runs of one lease in the layout.
func (f *flush) sections() int {
	n := 0
	var last *lease.Lease
	for _, i := range f.order {
		if l := f.entries[i].Lease; l != last {
			last = l
			n++
		}
	}
	return n
}
