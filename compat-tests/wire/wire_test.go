package wire

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// encoded returns a valid batch of n records, which parse does not look into.
func encoded(first int64, n int32) []byte {
	batch := kmsg.RecordBatch{FirstOffset: first, Magic: 2, LastOffsetDelta: n - 1, NumRecords: n, Attributes: 3, Records: []byte("records")}
	b := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	return b
}

func TestParse(t *testing.T) {
	two := append(encoded(0, 3), encoded(3, 1)...)
	tests := []struct {
		name  string
		bytes []byte
		want  int
	}{
		{"nothing", nil, 0},
		{"two batches", two, 2},
		{"the second cut off", two[:len(two)-1], 1},
		{"the second's length cut off", two[:len(encoded(0, 3))+5], 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			batches, err := parse(test.bytes)
			if err != nil || len(batches) != test.want {
				t.Fatalf("%d batches, %v, want %d", len(batches), err, test.want)
			}
			for _, b := range batches {
				if Codec(b) != 3 {
					t.Errorf("codec %d, want 3", Codec(b))
				}
			}
		})
	}
}

func TestParseRefusesAnyFlippedBitUnderTheChecksum(t *testing.T) {
	good := encoded(0, 3)
	for i := 16; i < len(good); i++ { // from the magic on, over the checksum itself
		bad := slices.Clone(good)
		bad[i] ^= 1
		if _, err := parse(bad); !errors.Is(err, ErrBadBatch) {
			t.Errorf("byte %d: %v", i, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(append(encoded(0, 3), encoded(3, 1)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		batches, err := parse(b)
		if err != nil && !errors.Is(err, ErrBadBatch) {
			t.Errorf("unexpected kind of error: %v", err)
		}
		if len(batches)*61 > len(b) {
			t.Errorf("%d batches in %d bytes", len(batches), len(b))
		}
	})
}
