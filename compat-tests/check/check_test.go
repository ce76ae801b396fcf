package check

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// history returns a right one: two producers, two partitions, offsets in the order of sending; the last record of each
// producer was written without an acknowledgement, and one more was never written.
func history() History {
	h := History{Ends: make(map[int32]int64)}
	for sequence := range int64(10) {
		for producer := range int32(2) {
			id := ID{producer, sequence}
			partition := int32(sequence % 2)
			sent := Sent{id, partition, h.Ends[partition]}
			if sequence >= 8 {
				sent.Offset = Unacknowledged
			}
			h.Sent = append(h.Sent, sent)
			if sequence < 9 {
				read := Read{id, partition, h.Ends[partition]}
				h.Log = append(h.Log, read)
				h.Seen = append(h.Seen, read, read)
				h.Ends[partition]++
			}
		}
	}
	return h
}

func TestRightHistoryPasses(t *testing.T) {
	if v := Check(history()); len(v) > 0 {
		t.Error(v)
	}
}

func TestEachAnomalyIsCaught(t *testing.T) {
	// Indexes into the log of history: 0 and 1 are acknowledged records at the offsets 0 and 1 of partition 0, 16 and
	// 17 are unacknowledged ones at its end.
	tests := []struct {
		name  string
		spoil func(*History)
		want  []Kind
	}{
		{"the last acknowledged record is gone and the end moved back", func(h *History) {
			// Partition 1 ends with acknowledged records.
			h.Log = slices.DeleteFunc(h.Log, func(r Read) bool { return r.Partition == 1 && r.Offset == 7 })
			h.Seen = nil
			h.Ends[1] = 7
		}, []Kind{Lost}},
		{"an acknowledged record is gone and its offset empty", func(h *History) {
			h.Log = slices.Delete(h.Log, 0, 1)
			h.Seen = nil
		}, []Kind{Gap, Lost}},
		{"a record is there twice", func(h *History) {
			h.Log = append(h.Log, Read{h.Log[0].ID, 0, h.Ends[0]})
			h.Ends[0]++
		}, []Kind{Duplicate}},
		{"an unacknowledged record is there twice", func(h *History) {
			h.Log = append(h.Log, Read{h.Log[16].ID, 0, h.Ends[0]})
			h.Ends[0]++
		}, []Kind{Duplicate}},
		{"an offset was skipped", func(h *History) {
			h.Log[17].Offset++ // unacknowledged, at the end
			h.Ends[0]++
			h.Seen = nil
		}, []Kind{Gap}},
		{"nothing at the end", func(h *History) {
			h.Ends[0]++
		}, []Kind{Gap}},
		{"two unacknowledged records of a producer changed places", func(h *History) {
			h.Sent[0].Offset, h.Sent[4].Offset = Unacknowledged, Unacknowledged
			h.Log[0].ID, h.Log[4].ID = h.Log[4].ID, h.Log[0].ID
			h.Seen = nil
		}, []Kind{Reordered}},
		{"acknowledged with another offset", func(h *History) {
			h.Sent[0].Offset = 5
		}, []Kind{WrongOffset}},
		{"acknowledged with offset 0 for a duplicate", func(h *History) {
			h.Sent[4].Offset = 0
		}, []Kind{WrongOffset}},
		{"a record that nobody sent", func(h *History) {
			h.Log = append(h.Log, Read{ID{7, 7}, 0, h.Ends[0]})
			h.Ends[0]++
		}, []Kind{Phantom}},
		{"a record in another partition", func(h *History) {
			h.Log = append(h.Log, Read{ID{0, 9}, 0, h.Ends[0]}) // sent to partition 1
			h.Ends[0]++
		}, []Kind{Phantom}},
		{"two records at one offset", func(h *History) {
			h.Log[17].Offset-- // the unacknowledged one moves onto its predecessor
			h.Ends[0]--
			h.Seen = nil
		}, []Kind{Conflict}},
		{"a record beyond the end", func(h *History) {
			h.Ends[0]--
		}, []Kind{Conflict}},
		{"a consumer saw another record", func(h *History) {
			h.Seen[0].ID = ID{1, 6}
		}, []Kind{Changed}},
		{"a consumer saw a record that vanished", func(h *History) {
			h.Seen = append(h.Seen, Read{ID{1, 9}, 1, 99})
		}, []Kind{Changed}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := history()
			test.spoil(&h)
			var got []Kind
			for _, v := range Check(h) {
				got = append(got, v.Kind)
			}
			slices.Sort(got)
			if !slices.Equal(got, test.want) {
				t.Errorf("caught %q, want %q", got, test.want)
			}
		})
	}
}

// TestAnyChangeToTheLogIsCaught drops, repeats, moves or swaps records of a right log at random places.
func TestAnyChangeToTheLogIsCaught(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := history()
		i := rapid.IntRange(0, len(h.Log)-1).Draw(t, "i")
		j := rapid.IntRange(0, len(h.Log)-1).Filter(func(j int) bool { return j != i }).Draw(t, "j")
		switch rapid.SampledFrom([]string{"drop", "repeat", "move", "swap"}).Draw(t, "change") {
		case "drop":
			h.Log = slices.Delete(h.Log, i, i+1)
		case "repeat":
			partition := h.Log[i].Partition
			h.Log = append(h.Log, Read{h.Log[i].ID, partition, h.Ends[partition]})
			h.Ends[partition]++
		case "move":
			h.Log[i].Offset = rapid.Int64Range(-2, 20).Filter(func(o int64) bool { return o != h.Log[i].Offset }).Draw(t, "offset")
		case "swap":
			h.Log[i].ID, h.Log[j].ID = h.Log[j].ID, h.Log[i].ID
		}
		if len(Check(h)) == 0 {
			t.Error("nothing caught")
		}
	})
}

func TestValueRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := ID{rapid.Int32().Draw(t, "producer"), rapid.Int64().Draw(t, "sequence")}
		value := Value(id, rapid.IntRange(idSize, 100).Draw(t, "size"))
		if got, err := ParseValue(value); err != nil || got != id {
			t.Errorf("parsed %v, %v, want %v", got, err, id)
		}
	})
}

func TestCorruptValuesAreRefused(t *testing.T) {
	value := Value(ID{1, 2}, 64)
	for i := range value {
		corrupt := slices.Clone(value)
		corrupt[i] ^= 1
		if _, err := ParseValue(corrupt); !errors.Is(err, ErrCorrupt) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	if _, err := ParseValue(value[:idSize-1]); !errors.Is(err, ErrCorrupt) {
		t.Errorf("cut off: %v", err)
	}
}
