package batch

import (
	"fmt"
	"math"
)

// FindTimestamp finds the first record of a stored batch whose timestamp is at
// least ts, in ms since 1970, among those whose offset is at least the base offset
// plus minDelta: its offset minus the base offset, and its timestamp. ok is false
// if there is none; where the batch's header shows it, without reading the
// records. In a batch with [LogAppendTime] every record has the batch's max
// timestamp. b is trusted to have passed [Validate]: there is no bound on what it
// decompresses to.
func FindTimestamp(b Batch, minDelta int32, ts int64) (delta int32, timestamp int64, ok bool, err error) {
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
