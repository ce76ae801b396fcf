package rpc

import (
	"encoding/binary"
	"fmt"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// A commit is
//
//	agent id    text
//	objects     uvarint, then of each
//	  id        16 bytes
//	  size      uvarint
//	  batches   uvarint, then of each
//	    flags   1 byte
//	    topic   uvarint: its number by order of appearance; a new one is followed
//	            by its 16 bytes               } not with samePartition: that and
//	    partition    varint                   } the leader epoch are as in the
//	    leader epoch varint                   } batch before
//	    position     varint, from the end of the batch before in the object
//	    length       varint
//	    records      varint
//	    producer id  varint, from the one before  } not with
//	    its epoch    varint                       } notIdempotent
//	    sequence     varint                       }
//	    timestamp    varint, from the one before
//
// and its results are, of each object, the count of batches, and of each of these
// a byte with the outcome and flags, then what these say (appendResults).
const (
	samePartition = 1 << iota
	notIdempotent
	logAppendTime
	knownBatchFlags = 1<<iota - 1
)

// The least bytes of an encoded object, batch and result.
const (
	leastObject = 18
	leastBatch  = 5
	leastResult = 1
)

// commitCoder is what encoder and decoder know of what went before.
type commitCoder struct {
	topics   []uuid.UUID
	numbers  map[uuid.UUID]int // of topics; of the encoder only
	last     metadata.CommitBatch
	producer int64 // of the last idempotent batch
	batches  int
}

// appendCommit encodes a commit without any record bytes.
func appendCommit(b []byte, c *metadata.Commit) ([]byte, error) {
	e := commitCoder{numbers: make(map[uuid.UUID]int)}
	b = appendText(b, c.AgentID)
	b = binary.AppendUvarint(b, uint64(len(c.Objects)))
	for i := range c.Objects {
		o := &c.Objects[i]
		if e.batches += len(o.Batches); e.batches > MaxCommitBatches {
			return nil, fmt.Errorf("a commit of more than %d batches", MaxCommitBatches)
		}
		b = append(b, o.ID[:]...)
		b = binary.AppendUvarint(b, uint64(o.Size))
		b = binary.AppendUvarint(b, uint64(len(o.Batches)))
		e.last.Position, e.last.Length = 0, 0
		for j := range o.Batches {
			if o.Batches[j].Inline != nil {
				return nil, fmt.Errorf("object %s has record bytes, which are not for peers", o.ID)
			}
			b = e.appendBatch(b, &o.Batches[j])
		}
	}
	return b, nil
}

func (e *commitCoder) appendBatch(b []byte, c *metadata.CommitBatch) []byte {
	var flags byte
	if len(e.topics) > 0 && c.Key == e.last.Key && c.LeaderEpoch == e.last.LeaderEpoch {
		flags |= samePartition
	}
	if c.ProducerID == -1 && c.ProducerEpoch == -1 && c.BaseSequence == -1 {
		flags |= notIdempotent
	}
	if c.LogAppendTime {
		flags |= logAppendTime
	}
	b = append(b, flags)
	if flags&samePartition == 0 {
		number, known := e.numbers[c.TopicID]
		if !known {
			number = len(e.topics)
			e.numbers[c.TopicID] = number
			e.topics = append(e.topics, c.TopicID)
		}
		b = binary.AppendUvarint(b, uint64(number))
		if !known {
			b = append(b, c.TopicID[:]...)
		}
		b = binary.AppendVarint(b, int64(c.Partition))
		b = binary.AppendVarint(b, int64(c.LeaderEpoch))
	}
	b = binary.AppendVarint(b, c.Position-e.last.Position-int64(e.last.Length))
	b = binary.AppendVarint(b, int64(c.Length))
	b = binary.AppendVarint(b, int64(c.Records))
	if flags&notIdempotent == 0 {
		b = binary.AppendVarint(b, c.ProducerID-e.producer)
		b = binary.AppendVarint(b, int64(c.ProducerEpoch))
		b = binary.AppendVarint(b, int64(c.BaseSequence))
		e.producer = c.ProducerID
	}
	b = binary.AppendVarint(b, c.MaxTimestamp-e.last.MaxTimestamp)
	e.last = *c
	return b
}

// parseCommit decodes a commit. What it allocates is bounded by len(b).
func parseCommit(b []byte) (*metadata.Commit, error) {
	d, e := decoder{b: b}, commitCoder{}
	c := &metadata.Commit{AgentID: d.text()}
	c.Objects = make([]metadata.CommitObject, d.count(leastObject))
	for i := range c.Objects {
		o := &c.Objects[i]
		o.ID, o.Size = d.id(), int64(d.uvarint())
		n := d.count(leastBatch)
		if e.batches += n; e.batches > MaxCommitBatches {
			return nil, fmt.Errorf("%w: more than %d batches", errMalformed, MaxCommitBatches)
		}
		o.Batches = make([]metadata.CommitBatch, n)
		e.last.Position, e.last.Length = 0, 0
		for j := range o.Batches {
			e.parseBatch(&d, &o.Batches[j])
		}
	}
	return c, d.end()
}

func (e *commitCoder) parseBatch(d *decoder, c *metadata.CommitBatch) {
	flags := d.byte()
	if flags&^knownBatchFlags != 0 || flags&samePartition != 0 && len(e.topics) == 0 {
		d.fail()
		return
	}
	if flags&samePartition != 0 {
		c.Key, c.LeaderEpoch = e.last.Key, e.last.LeaderEpoch
	} else {
		number := d.uvarint()
		switch known := uint64(len(e.topics)); {
		case number > known:
			d.fail()
			return
		case number == known:
			e.topics = append(e.topics, d.id())
		}
		c.Key = lease.Key{TopicID: e.topics[number], Partition: d.int32()}
		c.LeaderEpoch = d.int32()
	}
	c.Position = d.varint() + e.last.Position + int64(e.last.Length)
	c.Length, c.Records = d.int32(), d.int32()
	if flags&notIdempotent != 0 {
		c.ProducerID, c.ProducerEpoch, c.BaseSequence = -1, -1, -1
	} else {
		c.ProducerID = d.varint() + e.producer
		c.ProducerEpoch, c.BaseSequence = d.int16(), d.int32()
		e.producer = c.ProducerID
	}
	c.MaxTimestamp = d.varint() + e.last.MaxTimestamp
	c.LogAppendTime = flags&logAppendTime != 0
	e.last = *c
}

// Flags of a result, beside its outcome.
const (
	outcomeBits  = 0x0f
	hasOffset    = 0x10 // BaseOffset is not -1
	hasTime      = 0x20 // AppendTime is not -1
	sameLogStart = 0x40 // as in the result before
	resultFlags  = outcomeBits | hasOffset | hasTime | sameLogStart
)

// appendResults encodes what became of a commit.
func appendResults(b []byte, results [][]metadata.CommitResult) []byte {
	var last metadata.CommitResult
	b = binary.AppendUvarint(b, uint64(len(results)))
	for _, object := range results {
		b = binary.AppendUvarint(b, uint64(len(object)))
		for _, r := range object {
			flags := byte(r.Outcome) & outcomeBits
			if r.BaseOffset != -1 {
				flags |= hasOffset
			}
			if r.AppendTime != -1 {
				flags |= hasTime
			}
			if r.LogStartOffset == last.LogStartOffset {
				flags |= sameLogStart
			}
			b = append(b, flags)
			if flags&hasOffset != 0 {
				b = binary.AppendVarint(b, r.BaseOffset)
			}
			if flags&hasTime != 0 {
				b = binary.AppendVarint(b, r.AppendTime-last.AppendTime)
				last.AppendTime = r.AppendTime
			}
			if flags&sameLogStart == 0 {
				b = binary.AppendVarint(b, r.LogStartOffset)
				last.LogStartOffset = r.LogStartOffset
			}
		}
	}
	return b
}

// parseResults decodes the results of a commit, which must be of its shape.
func parseResults(b []byte, c *metadata.Commit) ([][]metadata.CommitResult, error) {
	d := decoder{b: b}
	var last metadata.CommitResult
	if n := d.count(1); n != len(c.Objects) {
		return nil, fmt.Errorf("%w: results of %d objects for %d", errMalformed, n, len(c.Objects))
	}
	results := make([][]metadata.CommitResult, len(c.Objects))
	for i := range results {
		if n := d.count(leastResult); n != len(c.Objects[i].Batches) {
			return nil, fmt.Errorf("%w: results of %d batches for %d", errMalformed, n, len(c.Objects[i].Batches))
		}
		results[i] = make([]metadata.CommitResult, len(c.Objects[i].Batches))
		for j := range results[i] {
			r := &results[i][j]
			flags := d.byte()
			if flags&^resultFlags != 0 || metadata.CommitOutcome(flags&outcomeBits) > metadata.ObjectClaimed {
				d.fail()
			}
			r.Outcome, r.BaseOffset, r.AppendTime = metadata.CommitOutcome(flags&outcomeBits), -1, -1
			if flags&hasOffset != 0 {
				r.BaseOffset = d.varint()
			}
			if flags&hasTime != 0 {
				last.AppendTime += d.varint()
				r.AppendTime = last.AppendTime
			}
			if flags&sameLogStart == 0 {
				last.LogStartOffset = d.varint()
			}
			r.LogStartOffset = last.LogStartOffset
		}
	}
	return results, d.end()
}
