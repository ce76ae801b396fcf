package metadata

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestLastSequence(t *testing.T) {
	for _, c := range []struct{ base, records, want int32 }{
		{0, 1, 0},
		{5, 3, 7},
		{math.MaxInt32, 1, math.MaxInt32},
		{math.MaxInt32, 2, 0},
		{math.MaxInt32 - 1, 5, 2},
		{math.MaxInt32, math.MaxInt32, math.MaxInt32 - 2},
	} {
		if got := LastSequence(c.base, c.records); got != c.want {
			t.Errorf("%d records from %d end at %d, want %d", c.records, c.base, got, c.want)
		}
	}
}

func TestProducerState(t *testing.T) {
	type batch struct {
		epoch         int16
		base, records int32
		forgotten     bool
		want          CommitOutcome
		wantOffset    int64 // of the original, if Duplicate
	}
	const last = math.MaxInt32
	for name, batches := range map[string][]batch{
		"a new producer begins at 0":               {{base: 1, records: 1, want: OutOfOrderSequence}, {base: 0, records: 1}},
		"a forgotten producer begins anywhere":     {{base: 9, records: 2, forgotten: true}, {base: 11, records: 1}},
		"sequences follow":                         {{base: 0, records: 3}, {base: 3, records: 2}, {base: 5, records: 1}},
		"a gap":                                    {{base: 0, records: 3}, {base: 4, records: 1, want: OutOfOrderSequence}, {base: 3, records: 1}},
		"a gap is not excused by what is known":    {{base: 0, records: 3}, {base: 4, records: 1, forgotten: true, want: OutOfOrderSequence}},
		"a duplicate":                              {{base: 0, records: 3}, {base: 3, records: 1}, {base: 0, records: 3, want: Duplicate, wantOffset: 0}, {base: 3, records: 1, want: Duplicate, wantOffset: 1}},
		"a part of an old batch":                   {{base: 0, records: 3}, {base: 0, records: 2, want: OutOfOrderSequence}, {base: 1, records: 2, want: OutOfOrderSequence}},
		"the sixth newest is too old":              {{base: 0, records: 1}, {base: 1, records: 1}, {base: 2, records: 1}, {base: 3, records: 1}, {base: 4, records: 1}, {base: 5, records: 1}, {base: 0, records: 1, want: OutOfOrderSequence}, {base: 1, records: 1, want: Duplicate, wantOffset: 1}},
		"the sequence wraps between batches":       {{base: 0, records: last}, {base: last, records: 1}, {base: 0, records: 1}, {base: 1, records: 1}},
		"the sequence wraps within a batch":        {{base: 0, records: last}, {base: last, records: 3}, {base: last, records: 3, want: Duplicate, wantOffset: 1}, {base: 2, records: 1}},
		"a higher epoch begins at 0":               {{base: 0, records: 3}, {epoch: 1, base: 3, records: 1, want: OutOfOrderSequence}, {epoch: 1, base: 0, records: 1}, {epoch: 1, base: 1, records: 1}},
		"a lower epoch is refused":                 {{epoch: 4, base: 0, records: 3}, {epoch: 3, base: 3, records: 1, want: InvalidProducerEpoch}, {epoch: 3, base: 0, records: 3, want: InvalidProducerEpoch}},
		"a duplicate of a past epoch is no more":   {{base: 0, records: 3}, {epoch: 1, base: 0, records: 3}, {epoch: 1, base: 0, records: 3, want: Duplicate, wantOffset: 1}},
		"the first epoch known may be any":         {{epoch: 7, base: 0, records: 1}, {epoch: 7, base: 1, records: 1}},
		"after a refusal the successor is refused": {{base: 0, records: 1}, {base: 2, records: 1, want: OutOfOrderSequence}, {base: 3, records: 1, want: OutOfOrderSequence}},
	} {
		t.Run(name, func(t *testing.T) {
			var s ProducerState
			appended := int64(0) // each batch's number among those appended is its offset
			for i, b := range batches {
				got, original := s.Check(b.epoch, b.base, b.records, b.forgotten)
				if got != b.want {
					t.Fatalf("batch %d: outcome %d, want %d", i, got, b.want)
				}
				if (original != nil) != (got == Duplicate) || (original != nil && original.BaseOffset != b.wantOffset) {
					t.Errorf("batch %d: original %+v", i, original)
				}
				if got == Committed {
					s.Append(b.epoch, ProducerEntry{b.base, LastSequence(b.base, b.records), appended, -1})
					appended++
				}
			}
		})
	}
}

// history is the naive model of ProducerState: every batch ever accepted, with
// its sequences written out.
type history struct {
	epochs    []int16
	sequences [][]int32
}

func (h *history) check(epoch int16, sequences []int32) (CommitOutcome, int) {
	n := len(h.epochs)
	if n == 0 || epoch > h.epochs[n-1] {
		if sequences[0] == 0 {
			return Committed, 0
		}
		return OutOfOrderSequence, 0
	}
	if epoch < h.epochs[n-1] {
		return InvalidProducerEpoch, 0
	}
	for i := max(0, n-5); i < n; i++ {
		if h.epochs[i] == epoch && slices.Equal(h.sequences[i], sequences) {
			return Duplicate, i
		}
	}
	if sequences[0] == following(h.sequences[n-1][len(h.sequences[n-1])-1]) {
		return Committed, 0
	}
	return OutOfOrderSequence, 0
}

func following(sequence int32) int32 {
	if sequence == math.MaxInt32 {
		return 0
	}
	return sequence + 1
}

// spell writes out the sequences of a batch.
func spell(base, records int32) []int32 {
	out := []int32{base}
	for len(out) < int(records) {
		out = append(out, following(out[len(out)-1]))
	}
	return out
}

func TestProducerStateAnswersAsItsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			s    ProducerState
			h    history
			near = rapid.Bool().Draw(t, "begins near the wrap")
		)
		for range rapid.IntRange(1, 40).Draw(t, "batches") {
			epoch := rapid.SampledFrom([]int16{0, 0, 0, 0, 1, 2}).Draw(t, "epoch")
			records := rapid.Int32Range(1, 4).Draw(t, "records")
			base := int32(0)
			if n := len(h.sequences); n > 0 {
				newest := h.sequences[n-1]
				base = following(newest[len(newest)-1])
				switch rapid.IntRange(0, 4).Draw(t, "kind") {
				case 0:
					old := rapid.SampledFrom(h.sequences).Draw(t, "old batch")
					base, records = old[0], int32(len(old))
				case 1:
					base = rapid.Int32Range(0, 20).Draw(t, "base")
				}
			} else if near {
				// The only way there is a past that was forgotten.
				base = rapid.Int32Range(math.MaxInt32-10, math.MaxInt32).Draw(t, "base")
				s.Append(epoch, ProducerEntry{base, base, 0, -1})
				h.epochs, h.sequences = append(h.epochs, epoch), append(h.sequences, []int32{base})
				continue
			}
			sequences := spell(base, records)
			want, original := h.check(epoch, sequences)
			got, entry := s.Check(epoch, base, records, false)
			if got != want {
				t.Fatalf("epoch %d, %d records from %d: outcome %d, the model's %d", epoch, records, base, got, want)
			}
			if got == Duplicate && entry.BaseOffset != int64(original) {
				t.Fatalf("duplicate of batch %d, the model's %d", entry.BaseOffset, original)
			}
			if got == Committed {
				s.Append(epoch, ProducerEntry{base, sequences[records-1], int64(len(h.epochs)), -1})
				h.epochs, h.sequences = append(h.epochs, epoch), append(h.sequences, sequences)
			}
		}
	})
}
