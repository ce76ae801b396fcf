package metadata

import (
	"context"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/segment"
)

// Extent is a row of the batch index: a run of whole record batches of one
// partition, contiguous in offsets and in bytes. Offsets are not in the bytes;
// they are counted on from BaseOffset and stamped when the extent is served.
type Extent struct {
	BaseOffset   int64
	EndOffset    int64 // exclusive
	LeaderEpoch  int32 // stamped into the batches
	MaxTimestamp int64 // ms, the largest of the run
	AppendTime   int64 // ms to be stamped (LogAppendTime); -1: the client's own timestamps

	Object     segment.ID // uuid.Nil if inline
	ObjectSize int64      // bytes of the whole object; 0 if inline
	Position   int64
	Length     int64
	Inline     []byte
}

// Watermarks bound a partition's log. LogStart <= LastStable <= High.
type Watermarks struct {
	LogStart    int64
	LastStable  int64
	High        int64
	LeaderEpoch int32
	LeaderID    string // agent id; "" if nobody leads
}

// Growth is news of one partition's log, as an agent that commits to it tells others.
type Growth struct {
	lease.Key
	// Watermarks after the commit. LogStart is -1 where it is not known.
	Watermarks Watermarks
	// Extents are those that were committed, contiguous and up to Watermarks.High.
	// None: there is something new, which the index knows.
	Extents []Extent
}

// ReadRequest asks for the extents from an offset on.
type ReadRequest struct {
	lease.Key
	Offset   int64
	MaxBytes int64 // at least one extent is returned if there is one
}

// ReadResult is a consistent view of one partition.
type ReadResult struct {
	Watermarks Watermarks
	// Extents tile the log from the one that contains Offset; empty if Offset
	// is outside [LogStart, High). Extents are cut after MaxBytes.
	Extents []Extent
	Err     error // ErrUnknownTopic, else nil
}

// TimestampResult locates a timestamp.
type TimestampResult struct {
	Watermarks Watermarks
	Extent     *Extent // the first extent that has a timestamp >= the one asked for; nil if none
	Err        error   // ErrUnknownTopic, else nil
}

// EpochEnd answers OffsetForLeaderEpoch (KIP-101, KIP-320).
type EpochEnd struct {
	LeaderEpoch int32 // the largest epoch <= the one asked for; -1 if none
	EndOffset   int64 // where the next larger epoch starts, or the high watermark; -1 if none
	Current     int32 // the partition's leader epoch now
	Err         error
}

// MaxTimestamp asks TimestampRequest for the record with the largest timestamp.
const MaxTimestamp = -3

// TimestampRequest asks for the extent of a timestamp in ms, or MaxTimestamp.
type TimestampRequest struct {
	lease.Key
	Timestamp int64
}

// EpochRequest asks for the end of a leader epoch.
type EpochRequest struct {
	lease.Key
	LeaderEpoch int32
}

// Log reads the batch index. Every answer is fresh: it contains all commits
// that were acknowledged before the call. Each method is one statement over
// all requests, and answers in their order.
type Log interface {
	Read(ctx context.Context, reqs []ReadRequest) ([]ReadResult, error)
	// Watermarks leaves the entry of an unknown partition nil.
	Watermarks(ctx context.Context, keys []lease.Key) ([]*Watermarks, error)
	FindTimestamp(ctx context.Context, reqs []TimestampRequest) ([]TimestampResult, error)
	EpochEnds(ctx context.Context, reqs []EpochRequest) ([]EpochEnd, error)
	// DeleteRecords raises the log start to offset, or to the high watermark
	// if offset is -1; one below today's log start changes nothing. It returns
	// the log start. Extents that end there or below can't be read any more from
	// then on; Prune removes them. ErrOffsetOutOfRange beyond the high watermark.
	DeleteRecords(ctx context.Context, key lease.Key, offset int64) (logStart int64, err error)
	// LogSizes returns the bytes of each partition of the topics, in extents that
	// can be read.
	LogSizes(ctx context.Context, topics []uuid.UUID) (map[lease.Key]int64, error)
}

// ActiveProducer is what a partition remembers of an idempotent producer that
// wrote to it within ProducerExpiry.
type ActiveProducer struct {
	ID           int64
	Epoch        int16
	LastSequence int32
	LastUse      int64 // ms, when its last batch was committed, by the store's clock
}

// Producers gives out producer ids, and shows who used them.
type Producers interface {
	// AllocateProducerIDs returns the first of count ids that were never given
	// out before and never will be again.
	AllocateProducerIDs(ctx context.Context, count int64) (first int64, err error)
	// ActiveProducers returns the producers of each partition, by id, in the
	// order of the keys; a nil entry is an unknown partition.
	ActiveProducers(ctx context.Context, keys []lease.Key) ([][]ActiveProducer, error)
}

// Objects is the collector's side of the names of objects.
type Objects interface {
	// ClaimOrphans claims the names of objects, or of their parts, that no commit
	// has named, so that a commit that comes later is refused (ObjectClaimed). It
	// waits for commits in flight, and returns the ids that were claimed, now or
	// before. Of the names in one commit it gets all or none, but for those that
	// were claimed or committed before. An object may be deleted from the bucket only
	// if the names of all its parts are among these (segment.MaxParts).
	ClaimOrphans(ctx context.Context, ids []segment.ID) ([]segment.ID, error)
}
