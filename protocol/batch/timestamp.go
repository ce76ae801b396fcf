package batch

import (
	"fmt"
	"math"
)

// FindTimestamp finds the first record of a stored batch whose timestamp is at
// least ts, in ms since 1970: its offset minus the batch's base offset, and its
// timestamp. ok is false if there is none, which is found without reading the
// records. In a batch with [LogAppendTime] every record has the batch's max
// timestamp. b is trusted to have passed [Validate]: there is no bound on what it
// decompresses to.
func FindTimestamp(b Batch, ts int64) (delta int32, timestamp int64, ok bool, err error) {
	return FindTimestampFrom(b, 0, ts)
}

// FindTimestampFrom is [FindTimestamp] among the records whose offset is at least
// the base offset plus minDelta: those that DeleteRecords left.
func FindTimestampFrom(b Batch, minDelta int32, ts int64) (delta int32, timestamp int64, ok bool, err error) {
	if b.MaxTimestamp() < ts || b.LastOffsetDelta() < minDelta {
		return 0, 0, false, nil
	}
	records, err := openRecords(b, math.MaxInt64)
	if err != nil {
		return 0, 0, false, fmt.Errorf("batch at offset %d: %w", b.BaseOffset(), err)
	}
	defer records.close()
	for range b.RecordCount() {
		rec, err := records.next()
		if err != nil {
			return 0, 0, false, fmt.Errorf("batch at offset %d: %w", b.BaseOffset(), err)
		}
		timestamp := b.MaxTimestamp()
		if b.TimestampType() == CreateTime {
			timestamp = b.BaseTimestamp() + rec.timestampDelta
		}
		if timestamp >= ts && rec.offsetDelta >= minDelta {
			return rec.offsetDelta, timestamp, true, nil
		}
	}
	return 0, 0, false, nil
}

// MaxTimestampRecord finds the first record of a stored batch that has the batch's
// max timestamp (ListOffsets with timestamp -3, KIP-734): its offset minus the
// batch's base offset, and its timestamp. A batch without such a record, which
// compaction can make, yields its last offset.
func MaxTimestampRecord(b Batch) (delta int32, timestamp int64, err error) {
	delta, timestamp, ok, err := FindTimestamp(b, b.MaxTimestamp())
	if err != nil {
		return 0, 0, err
	}
	if !ok {
		return b.LastOffsetDelta(), b.MaxTimestamp(), nil
	}
	return delta, timestamp, nil
}
