package metadata

import "github.com/streamhouse/streamhouse/lease"

// PartitionExtent is an extent of a partition.
type PartitionExtent struct {
	lease.Key
	Extent
}

// ExtentsOf returns the index rows that a commit made of an object: its
// accepted batches, with those that follow on one another in the same
// partition, in offsets and in bytes, as one. They are in the order of their
// first batches. results are the object's own, by batch; the answer of a
// repeated commit gives the same extents as the first.
func ExtentsOf(obj *CommitObject, results []CommitResult) []PartitionExtent {
	var extents []PartitionExtent
	open := make(map[lease.Key]int) // the partition's newest extent
	for i := range obj.Batches {
		if results[i].Outcome != Committed {
			continue
		}
		b := &obj.Batches[i]
		next := extentOf(obj, b, results[i])
		if at, ok := open[b.Key]; ok && extents[at].extend(&next) {
			continue
		}
		open[b.Key] = len(extents)
		extents = append(extents, PartitionExtent{b.Key, next})
	}
	return extents
}

// extentOf returns the extent of a single batch.
func extentOf(obj *CommitObject, b *CommitBatch, r CommitResult) Extent {
	e := Extent{
		BaseOffset:   r.BaseOffset,
		EndOffset:    r.BaseOffset + int64(b.Records),
		LeaderEpoch:  b.LeaderEpoch,
		MaxTimestamp: b.MaxTimestamp,
		AppendTime:   -1,
		Length:       int64(b.Length),
	}
	if b.LogAppendTime {
		e.MaxTimestamp, e.AppendTime = r.AppendTime, r.AppendTime
	}
	if obj.Size == 0 {
		// The bytes are the caller's: without spare capacity, the first append
		// copies them.
		e.Inline = b.Inline[:len(b.Inline):len(b.Inline)]
	} else {
		e.Object, e.ObjectSize, e.Position = obj.ID, obj.Size, b.Position
	}
	return e
}

// extend appends next to e if it follows on it. Both are of the same partition
// and object.
func (e *Extent) extend(next *Extent) bool {
	if next.BaseOffset != e.EndOffset || next.LeaderEpoch != e.LeaderEpoch || next.AppendTime != e.AppendTime {
		return false
	}
	if e.Inline == nil && next.Position != e.Position+e.Length {
		return false
	}
	if e.Inline != nil {
		e.Inline = append(e.Inline, next.Inline...)
	}
	e.EndOffset = next.EndOffset
	e.Length += next.Length
	e.MaxTimestamp = max(e.MaxTimestamp, next.MaxTimestamp)
	return true
}
