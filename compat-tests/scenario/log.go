package scenario

import (
	"errors"
	"fmt"
	"slices"
)

// Log is what a topic must hold: the records of each partition, where the index is the offset.
type Log [Partitions][]Record

// Append adds records in the order in which one producer sent them, and returns the offsets that they must get.
func (l *Log) Append(records []Record) []int64 {
	offsets := make([]int64, len(records))
	for i, r := range records {
		r.Offset = int64(len(l[r.Partition]))
		l[r.Partition] = append(l[r.Partition], r)
		offsets[i] = r.Offset
	}
	return offsets
}

// AdoptTimestamps replaces each ClientTime by the timestamp that was read at the same place, which must be one of
// [from, to].
func (l *Log) AdoptTimestamps(read []Record, from, to int64) error {
	for _, r := range read {
		if int(r.Partition) >= Partitions || r.Offset < 0 || r.Offset >= int64(len(l[r.Partition])) {
			return fmt.Errorf("partition %d has no offset %d", r.Partition, r.Offset)
		}
		want := &l[r.Partition][r.Offset]
		if want.Timestamp != ClientTime {
			continue
		}
		if r.Timestamp < from || r.Timestamp > to {
			return fmt.Errorf("partition %d offset %d: timestamp %d is outside of [%d, %d], when it was produced", r.Partition, r.Offset, r.Timestamp, from, to)
		}
		want.Timestamp = r.Timestamp
	}
	return nil
}

// Len is the number of records in all partitions.
func (l *Log) Len() int {
	n := 0
	for _, records := range l {
		n += len(records)
	}
	return n
}

// Special timestamps of ListOffsets.
const (
	Latest   int64 = -1
	Earliest int64 = -2
)

// NoOffset is the answer of ListOffsets where no record is young enough.
const NoOffset int64 = -1

// Offsets returns, for each partition, what ListOffsets must answer: the smallest offset whose record's timestamp is
// not less than the given one, or NoOffset.
func (l *Log) Offsets(timestamp int64) [Partitions]int64 {
	var offsets [Partitions]int64
	for p, records := range l {
		switch timestamp {
		case Earliest:
			offsets[p] = 0
		case Latest:
			offsets[p] = int64(len(records))
		default:
			offsets[p] = int64(slices.IndexFunc(records, func(r Record) bool { return r.Timestamp >= timestamp }))
		}
	}
	return offsets
}

// Timestamps returns timestamps worth asking for: before, at, between and after the records.
func (l *Log) Timestamps() []int64 {
	records := l[0]
	oldest, newest := records[0].Timestamp, records[0].Timestamp
	for _, partition := range l {
		for _, r := range partition {
			oldest, newest = min(oldest, r.Timestamp), max(newest, r.Timestamp)
		}
	}
	return []int64{oldest - 1000, oldest, records[len(records)/3].Timestamp, records[len(records)/2].Timestamp + 1, newest, newest + 1}
}

// Since returns the records that a consumer reads which has sought each partition to the given timestamp. A partition
// without such a record gives nothing.
func (l *Log) Since(timestamp int64) Log { return l.From(l.Offsets(timestamp)) }

// From returns the records of each partition from an offset on: none for NoOffset.
func (l *Log) From(offsets [Partitions]int64) Log {
	var from Log
	for p, offset := range offsets {
		if offset != NoOffset {
			from[p] = l[p][offset:]
		}
	}
	return from
}

// Ends returns the offset after the last record of each partition.
func (l *Log) Ends() [Partitions]int64 { return l.Offsets(Latest) }

// Compare reports how what was read, in the order in which it was read, differs from the log. Order counts within a
// partition only.
func (l *Log) Compare(read []Record) error {
	var got Log
	for _, r := range read {
		if r.Partition < 0 || r.Partition >= Partitions {
			return fmt.Errorf("read from partition %d of %d", r.Partition, Partitions)
		}
		got[r.Partition] = append(got[r.Partition], r)
	}
	var errs []error
	for p := range l {
		errs = append(errs, comparePartition(p, l[p], got[p]))
	}
	return errors.Join(errs...)
}

func comparePartition(partition int, want, got []Record) error {
	const maxErrors = 5
	var errs []error
	for i := range min(len(want), len(got)) {
		if want[i].Offset != got[i].Offset {
			errs = append(errs, fmt.Errorf("partition %d: record %d is at offset %d, want %d", partition, i, got[i].Offset, want[i].Offset))
			break // all that follows is shifted
		}
		if d := difference(want[i], got[i]); d != "" {
			errs = append(errs, fmt.Errorf("partition %d offset %d: %s", partition, want[i].Offset, d))
		}
		if len(errs) == maxErrors {
			break
		}
	}
	if len(want) != len(got) {
		errs = append(errs, fmt.Errorf("partition %d: read %d records, want %d", partition, len(got), len(want)))
	}
	return errors.Join(errs...)
}
