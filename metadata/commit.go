package metadata

import (
	"context"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/segment"
)

// Commit makes batches part of their partitions' logs: one or more objects, in
// the order in which their batches were accepted, in one round trip.
type Commit struct {
	AgentID string // the leader of every partition in it, or so it believes
	Objects []CommitObject
}

// CommitObject is one uploaded object, or a part of one that others share, or one
// small flush whose batches are kept inline in the index.
type CommitObject struct {
	// ID names the object, or the part of it that is committed here (segment.Part),
	// and is the commit's idempotency key. It is no older than CommitMaxAge.
	ID segment.ID
	// Size is the object's length in bytes; 0 if nothing was uploaded and
	// every batch is inline.
	Size int64
	// Batches are in order of acceptance within a partition, and the batches
	// of one partition and one producer are adjacent.
	Batches []CommitBatch
}

// CommitBatch is one record batch of a client, by its coordinates.
type CommitBatch struct {
	lease.Key
	LeaderEpoch int32 // the leadership under which it was accepted

	Position int64  // of the batch's first byte in the object; 0 if inline
	Length   int32  // bytes of the batch
	Inline   []byte // the batch itself, only where Size is 0

	Records       int32 // also the number of offsets that it takes
	ProducerID    int64 // -1: not idempotent
	ProducerEpoch int16
	BaseSequence  int32
	MaxTimestamp  int64 // ms; ignored with LogAppendTime
	LogAppendTime bool  // the store's clock at the commit is the timestamp
}

// CommitOutcome says what became of one batch.
type CommitOutcome uint8

// The outcomes. Only Committed changed anything for the batch.
const (
	Committed            CommitOutcome = iota
	Duplicate                          // one of the producer's last five batches: BaseOffset and AppendTime are the original's
	Fenced                             // the agent does not lead the partition in that leader epoch
	UnknownPartition                   // topic deleted or never there
	OutOfOrderSequence                 // a gap, or a duplicate older than the last five
	InvalidProducerEpoch               // a newer epoch of the producer has written
	ObjectClaimed                      // a collector claimed the object's name first, and it may be gone; or its id is older than CommitMaxAge
)

// CommitResult is the outcome of one batch.
type CommitResult struct {
	Outcome    CommitOutcome
	BaseOffset int64 // Committed, Duplicate; else -1
	AppendTime int64 // ms, of batches with LogAppendTime; else -1
	// LogStartOffset of the partition; -1 where it is not known.
	LogStartOffset int64
}

// Committer is the fenced commit.
type Committer interface {
	// Commit accepts or refuses each batch alone and returns the results by
	// object and batch. It is atomic, and idempotent by object id: an object
	// that was committed before gets its first results again, even if its
	// agent was fenced since, for CommitRetention at least; then ObjectClaimed,
	// whatever they were.
	//
	// ErrUnavailable: nothing was changed. Any other error leaves the outcome
	// unknown: the caller must call again with the same objects until it gets
	// an answer before it tells anyone anything definite.
	Commit(ctx context.Context, c *Commit) ([][]CommitResult, error)
}
