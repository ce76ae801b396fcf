package metadata

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/streamhouse/streamhouse/segment"
)

// CommitRetention is how long the answer of a commit is kept for a retry, by the
// time in its objects' ids and the store's clock.
//
// A retry whose answer is gone must not be taken for a first attempt, or its
// batches would be in the log twice. Fences do not ensure that: a process that was
// frozen for days still leads if nobody took its lease. So an object that the store
// does not know is refused when its id is older than CommitMaxAge. An answer is
// pruned only when the id is older than CommitRetention, and ids only grow older:
// what was pruned is refused for ever after, whatever the clocks of agents say, and
// unless the store's own falls back by more than the difference of the two.
const CommitRetention = 24 * time.Hour

// CommitMaxAge is how old an object's id may be when it is first committed. Buffers
// live for seconds; all else is room for an agent's clock that is behind.
const CommitMaxAge = CommitRetention / 2

// PruneRows is how many rows of a kind one Prune visits, and twice as many at most.
const PruneRows = 2000

// Pruner removes what nobody can ask for any more. Calls may overlap.
type Pruner interface {
	// Prune removes the answers of commits after CommitRetention, with the rows of
	// flushes that were all inline and have nothing else in them, the state of
	// producers that wrote nothing for ProducerExpiry, and what DeleteTopic and
	// DeleteRecords left, some of which may be gone when an error is returned. It
	// returns how many rows it changed. If those are PruneRows or more, there may
	// be more to do.
	Prune(ctx context.Context) (rows int64, err error)
}

// CreatedAt returns when the object's id was made, in ms by its agent's clock.
func (o *CommitObject) CreatedAt() int64 { return int64(binary.BigEndian.Uint64(o.ID[:8]) >> 16) }

// FirstObjectID returns the lowest id that can be made at a time in ms: all that
// are below were made before.
func FirstObjectID(ms int64) segment.ID {
	var id segment.ID
	binary.BigEndian.PutUint64(id[:8], uint64(ms)<<16)
	return id
}
