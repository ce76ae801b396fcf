package batch_test

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/streamhouse/streamhouse/protocol/batch"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

// fuzzLimit bounds what the records of a fuzzed batch may decompress to.
const fuzzLimit = 4 << 20

// FuzzValidate checks that no bytes panic or allocate beyond what the rules allow,
// and that what is accepted can be served, searched and read back by an
// independent decoder. The CRC is made right first, or nothing would get past it.
func FuzzValidate(f *testing.F) {
	for _, codec := range codecs {
		f.Add([]byte(batchtest.Build(batchtest.Options{Records: records(3, 40), Codec: codec})), uint8(0))
		f.Add([]byte(batchtest.Build(batchtest.Options{
			Records:       []batchtest.Record{{Headers: []batchtest.Header{{Key: "k"}}}},
			Codec:         codec,
			Producer:      &batchtest.Producer{ID: 1, Epoch: 2, BaseSequence: 3},
			Transactional: true,
		})), uint8(codec))
	}
	for _, name := range []string{"gzip9", "lz4", "snappy", "zstd22"} {
		b, err := os.ReadFile("testdata/java/" + name + ".bin")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint8(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, target uint8) {
		if len(b) >= batch.HeaderSize {
			b = batchtest.Seal(bytes.Clone(b))
		}
		rules := kafkaDefaults()
		rules.MaxDecompressedBytes = fuzzLimit
		types := []batch.CompressionType{"producer", "gzip", "snappy", "lz4", "zstd", "uncompressed"}
		rules.CompressionType = types[int(target)%len(types)]
		rules.LogAppendTime = target&0x80 != 0
		var v batch.Validated
		var err error
		if allocated := allocatedBy(func() { v, err = batch.Validate(b, rules) }); allocated > 64<<20 {
			t.Fatalf("%d bytes allocated", allocated)
		}
		if err != nil {
			if refused := (*batch.Error)(nil); !errors.As(err, &refused) || refused.Code == 0 {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		v.Batch.Stamp(1<<40, 5)
		first, rest, err := batch.Next(v.Batch)
		if err != nil || len(rest) > 0 || first.CheckCRC() != nil {
			t.Fatalf("accepted, but %d bytes remain, %v, %v", len(rest), err, first.CheckCRC())
		}
		if rs, err := batchtest.Records(v.Batch); err != nil || len(rs) != int(v.RecordCount) {
			t.Fatalf("accepted, but read as %d records, %v", len(rs), err)
		}
		if delta, ts, _, err := batch.FindTimestamp(v.Batch, 0, v.MaxTimestamp); err != nil || ts != v.MaxTimestamp && v.MaxTimestamp >= 0 || delta != v.OffsetOfMaxTimestamp && ts == v.MaxTimestamp && ts >= 0 {
			t.Fatalf("accepted, but the max timestamp is %d at %d, %v, not %d at %d", ts, delta, err, v.MaxTimestamp, v.OffsetOfMaxTimestamp)
		}
	})
}

// FuzzNext checks that any bytes are walked to their end or refused, and that all
// accessors work on what Next returns.
func FuzzNext(f *testing.F) {
	for _, codec := range codecs {
		b := batchtest.Build(batchtest.Options{Records: records(2, 20), Codec: codec})
		f.Add(append(bytes.Clone(b), b...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			first, rest, err := batch.Next(b)
			if err != nil {
				if !errors.Is(err, batch.ErrTruncated) && !errors.Is(err, batch.ErrMalformed) {
					t.Fatal(err)
				}
				return
			}
			if len(first) < batch.HeaderSize || len(first)+len(rest) != len(b) {
				t.Fatalf("%d and %d bytes of %d", len(first), len(rest), len(b))
			}
			_, _ = first.LastSequence(), first.Codec().String()
			_, _, _, _ = batch.FindTimestamp(first, 0, 0)
			_ = first.CheckCRC()
			b = rest
		}
	})
}
