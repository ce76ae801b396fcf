package metadata

import (
	"math"
	"time"
)

// ProducerExpiry is how long the state of a producer that writes nothing is
// kept at least, by the store's clock (Kafka's producer.id.expiration.ms).
const ProducerExpiry = 24 * time.Hour

// ProducerWindow is how many batches of a producer are remembered in a
// partition; a retry of one of them is recognised. Kafka's clients have at
// most as many requests in flight.
const ProducerWindow = 5

// ProducerState is what a partition knows of one idempotent producer: Kafka's
// ProducerStateEntry. The zero value is a producer that never wrote there. It
// is a plain value; the partition's row lock guards it.
type ProducerState struct {
	// Epoch of the newest batch; meaningless while Entries is empty.
	Epoch int16
	// Entries are the last batches of that epoch, oldest first, never more
	// than ProducerWindow. Sequences follow on one another.
	Entries []ProducerEntry
}

// ProducerEntry is one remembered batch.
type ProducerEntry struct {
	BaseSequence int32
	LastSequence int32 // inclusive; below BaseSequence if it wrapped
	BaseOffset   int64
	AppendTime   int64 // ms; -1 unless LogAppendTime
}

// LastSequence returns the sequence of the last of records that begin at
// base; sequences go on at 0 after 2^31-1. records is at least 1.
func LastSequence(base, records int32) int32 {
	return int32((int64(base) + int64(records) - 1) & math.MaxInt32)
}

// Check decides about a batch by the rules of Kafka's ProducerAppendInfo:
//
//   - of the newest epoch: Committed if it follows on the last batch, or
//     Duplicate, with the original, if it is one of those remembered;
//   - of a higher epoch: Committed if it begins at sequence 0;
//   - of a lower epoch: InvalidProducerEpoch;
//   - all else: OutOfOrderSequence.
//
// A producer that is not known here begins at sequence 0 too, unless forgotten
// says that its state may have been here and was dropped: then it is believed,
// as Kafka does always. Check changes nothing; Append does once the batch has
// its offset.
func (s *ProducerState) Check(epoch int16, baseSequence, records int32, forgotten bool) (CommitOutcome, *ProducerEntry) {
	if len(s.Entries) == 0 {
		return sequenced(baseSequence == 0 || forgotten)
	}
	switch {
	case epoch < s.Epoch:
		return InvalidProducerEpoch, nil
	case epoch > s.Epoch:
		return sequenced(baseSequence == 0)
	}
	last := LastSequence(baseSequence, records)
	for i := range s.Entries {
		if e := &s.Entries[i]; e.BaseSequence == baseSequence && e.LastSequence == last {
			return Duplicate, e
		}
	}
	newest := s.Entries[len(s.Entries)-1].LastSequence
	return sequenced(baseSequence == LastSequence(newest, 2))
}

// sequenced is the outcome of a batch that is no duplicate.
func sequenced(ok bool) (CommitOutcome, *ProducerEntry) {
	if ok {
		return Committed, nil
	}
	return OutOfOrderSequence, nil
}

// Append remembers a batch for which Check answered Committed.
func (s *ProducerState) Append(epoch int16, e ProducerEntry) {
	if epoch != s.Epoch {
		s.Epoch, s.Entries = epoch, s.Entries[:0]
	}
	if len(s.Entries) == ProducerWindow {
		copy(s.Entries, s.Entries[1:])
		s.Entries = s.Entries[:ProducerWindow-1]
	}
	s.Entries = append(s.Entries, e)
}
