package check

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

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
