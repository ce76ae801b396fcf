package metadata

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
)

func TestExtentsOf(t *testing.T) {
	p, q := lease.Key{TopicID: uuid.UUID{1}}, lease.Key{TopicID: uuid.UUID{2}}
	id := uuid.UUID{9}
	batch := func(k lease.Key, position int64, records int32) CommitBatch {
		return CommitBatch{Key: k, LeaderEpoch: 3, Position: position, Length: 10, Records: records, MaxTimestamp: position}
	}
	committed := func(offset int64) CommitResult { return CommitResult{BaseOffset: offset, AppendTime: -1} }
	extent := func(k lease.Key, base, end, position, length, timestamp int64) PartitionExtent {
		return PartitionExtent{k, Extent{
			BaseOffset: base, EndOffset: end, LeaderEpoch: 3, MaxTimestamp: timestamp, AppendTime: -1,
			Object: id, ObjectSize: 99, Position: position, Length: length,
		}}
	}
	later := batch(p, 10, 1)
	later.LeaderEpoch = 4
	laterExtent := extent(p, 1, 2, 10, 10, 10)
	laterExtent.LeaderEpoch = 4

	for name, c := range map[string]struct {
		batches []CommitBatch
		results []CommitResult
		want    []PartitionExtent
	}{
		"nothing": {},
		"a run is one": {
			[]CommitBatch{batch(p, 0, 2), batch(p, 10, 3)},
			[]CommitResult{committed(5), committed(7)},
			[]PartitionExtent{extent(p, 5, 10, 0, 20, 10)},
		},
		"partitions are apart, in the order of their first batches": {
			[]CommitBatch{batch(q, 0, 1), batch(p, 10, 1), batch(p, 20, 1)},
			[]CommitResult{committed(0), committed(0), committed(1)},
			[]PartitionExtent{extent(q, 0, 1, 0, 10, 0), extent(p, 0, 2, 10, 20, 20)},
		},
		"a gap in the bytes divides": {
			[]CommitBatch{batch(p, 0, 1), batch(p, 20, 1)},
			[]CommitResult{committed(0), committed(1)},
			[]PartitionExtent{extent(p, 0, 1, 0, 10, 0), extent(p, 1, 2, 20, 10, 20)},
		},
		"a gap in the offsets divides": {
			[]CommitBatch{batch(p, 0, 1), batch(p, 10, 1)},
			[]CommitResult{committed(0), committed(5)},
			[]PartitionExtent{extent(p, 0, 1, 0, 10, 0), extent(p, 5, 6, 10, 10, 10)},
		},
		"a leader epoch divides": {
			[]CommitBatch{batch(p, 0, 1), later},
			[]CommitResult{committed(0), committed(1)},
			[]PartitionExtent{extent(p, 0, 1, 0, 10, 0), laterExtent},
		},
		"refused batches and duplicates are left out": {
			[]CommitBatch{batch(p, 0, 1), batch(p, 10, 1), batch(p, 20, 1)},
			[]CommitResult{{Outcome: Duplicate, BaseOffset: 3}, {Outcome: Fenced, BaseOffset: -1}, committed(4)},
			[]PartitionExtent{extent(p, 4, 5, 20, 10, 20)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := ExtentsOf(&CommitObject{ID: id, Size: 99, Batches: c.batches}, c.results)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestExtentsOfInlineBatchesLeaveTheCallersBytesAlone(t *testing.T) {
	p := lease.Key{TopicID: uuid.UUID{1}}
	buffer := []byte("aabbcc")
	o := &CommitObject{ID: uuid.UUID{9}}
	for i := range 3 {
		o.Batches = append(o.Batches, CommitBatch{Key: p, Length: 2, Records: 1, Inline: buffer[2*i : 2*i+2], LogAppendTime: i == 2})
	}
	got := ExtentsOf(o, []CommitResult{{BaseOffset: 0, AppendTime: -1}, {BaseOffset: 1, AppendTime: -1}, {BaseOffset: 2, AppendTime: 77}})
	want := []PartitionExtent{
		{p, Extent{BaseOffset: 0, EndOffset: 2, AppendTime: -1, Length: 4, Inline: []byte("aabb")}},
		{p, Extent{BaseOffset: 2, EndOffset: 3, MaxTimestamp: 77, AppendTime: 77, Length: 2, Inline: []byte("cc")}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !bytes.Equal(buffer, []byte("aabbcc")) {
		t.Errorf("the caller's bytes are %q", buffer)
	}
}
