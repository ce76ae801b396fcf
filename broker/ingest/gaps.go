package ingest

import (
	"math"
	"time"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/protocol/batch"
)

// stream is what is in sequence: the batches of one producer in one partition.
type stream struct {
	key      lease.Key
	producer int64
}

const (
	// gapLife is how long a gap is remembered: longer than clients wait for an
	// answer (30 s), for which a batch that was sent before the failure was known
	// may wait for a lease on its way to the pool.
	gapLife = time.Minute
	// maxGaps bounds the memory of all gaps to about 10 MiB. Beyond it the
	// oldest are forgotten.
	maxGaps = 1 << 16
)

// gaps are the streams that have a gap which the producer does not know of yet:
// a batch has failed, and those that were sent before its answer arrived are
// still coming. They must fail too, with the same error. The store can't be
// relied on to refuse them as out of order: it believes a producer whose state
// it may have forgotten.
//
// A producer that has learned of the failure sends what failed again, in order.
// So a batch that is behind all that failed comes too early, and is the next to
// fail; one that has failed before is a retry, and narrows the gap to those
// behind it. That need not be the first: it may have gone into the log through
// another agent meanwhile, and then the gap costs its successors one attempt.
//
// The zero value has no gaps. It is not safe for concurrent use.
type gaps struct {
	open map[stream]gap
	ends []gapEnd // in the order of time; some are of gaps that have ended since
}

// gap is a run of batches of one stream, by their base sequences, that have
// failed and not been let in since. They fail in rounds: when a retry fails, the
// others come once more before the producer learns of that.
type gap struct {
	epoch int16
	first int32 // of the run; this round began with it
	round int32 // the last that failed in this round
	last  int32 // of the run
	err   error // with which the round began
	until time.Time
}

// widen lets a batch behind the round fail too.
func (g *gap) widen(sequence int32) {
	g.round = sequence
	if follows(sequence, g.last) {
		g.last = sequence
	}
}

type gapEnd struct {
	stream
	until time.Time
}

// fail takes note that a batch has failed with err and is in no log.
func (g *gaps) fail(key lease.Key, b *batch.Validated, err error, now time.Time) {
	if b.ProducerID == batch.NoProducerID {
		return
	}
	g.expire(now)
	s := stream{key, b.ProducerID}
	begun := gap{
		epoch: b.ProducerEpoch, first: b.BaseSequence, round: b.BaseSequence, last: b.BaseSequence,
		err: err, until: now.Add(gapLife),
	}
	if old, ok := g.open[s]; ok {
		switch {
		case b.ProducerEpoch < old.epoch:
			return
		case b.ProducerEpoch > old.epoch:
		case follows(b.BaseSequence, old.round):
			old.widen(b.BaseSequence)
			g.open[s] = old
			return
		case follows(old.last, begun.last):
			begun.last = old.last
		}
	}
	if len(g.ends) == maxGaps {
		g.drop()
	}
	if g.open == nil {
		g.open = make(map[stream]gap)
	}
	g.open[s] = begun
	g.ends = append(g.ends, gapEnd{s, begun.until})
}

// admit returns nil if the batch may go on, or the error with which it fails
// because of a gap in front of it.
func (g *gaps) admit(key lease.Key, b *batch.Validated, now time.Time) error {
	if len(g.open) == 0 || b.ProducerID == batch.NoProducerID {
		return nil
	}
	g.expire(now)
	s := stream{key, b.ProducerID}
	old, ok := g.open[s]
	switch {
	case !ok, b.ProducerEpoch < old.epoch:
		return nil
	case b.ProducerEpoch > old.epoch:
		delete(g.open, s)
		return nil
	case follows(b.BaseSequence, old.round):
		old.widen(b.BaseSequence)
		g.open[s] = old
		return old.err
	case follows(old.first, b.BaseSequence):
		return nil
	}
	old.first, old.round = batch.AddSequence(b.BaseSequence, b.RecordCount), old.last
	if follows(old.first, old.last) {
		delete(g.open, s)
	} else {
		g.open[s] = old
	}
	return nil
}

// follows says whether sequence a is behind b. Sequences go round, so that of
// any two the nearer way decides.
func follows(a, b int32) bool {
	const half = 1 << 30
	ahead := (a - b) & math.MaxInt32
	return 0 < ahead && ahead < half
}

// expire forgets the gaps whose time is over.
func (g *gaps) expire(now time.Time) {
	for len(g.ends) > 0 && !now.Before(g.ends[0].until) {
		g.drop()
	}
}

// drop forgets the oldest gap.
func (g *gaps) drop() {
	end := g.ends[0]
	g.ends = g.ends[1:]
	if g.open[end.stream].until.Equal(end.until) {
		delete(g.open, end.stream)
	}
}
