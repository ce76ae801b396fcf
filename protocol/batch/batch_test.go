package batch_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/streamhouse/streamhouse/protocol/batch"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

func TestAccessorsReadTheHeader(t *testing.T) {
	b := batchtest.Build(batchtest.Options{
		Records: []batchtest.Record{
			{Value: []byte("a"), Timestamp: 50},
			{Value: []byte("b"), Timestamp: 70},
			{Value: []byte("c"), Timestamp: 60},
		},
		Codec:         batch.CodecSnappy,
		Producer:      &batchtest.Producer{ID: 1 << 40, Epoch: 7, BaseSequence: math.MaxInt32},
		Transactional: true,
		Control:       true,
		BaseOffset:    1 << 41,
	})
	type header struct {
		BaseOffset, LastOffset, BaseTimestamp, MaxTimestamp, ProducerID int64
		LeaderEpoch, LastOffsetDelta, BaseSequence, LastSequence, Count int32
		Attributes, ProducerEpoch                                       int16
		Magic                                                           int8
		CRC                                                             uint32
		Codec                                                           batch.Codec
		TimestampType                                                   batch.TimestampType
		Transactional, Control                                          bool
	}
	got := header{
		b.BaseOffset(), b.LastOffset(), b.BaseTimestamp(), b.MaxTimestamp(), b.ProducerID(),
		b.PartitionLeaderEpoch(), b.LastOffsetDelta(), b.BaseSequence(), b.LastSequence(), b.RecordCount(),
		b.Attributes(), b.ProducerEpoch(), b.Magic(), b.CRC(), b.Codec(), b.TimestampType(),
		b.IsTransactional(), b.IsControl(),
	}
	want := header{
		BaseOffset: 1 << 41, LastOffset: 1<<41 + 2, BaseTimestamp: 50, MaxTimestamp: 70, ProducerID: 1 << 40,
		LeaderEpoch: -1, LastOffsetDelta: 2, BaseSequence: math.MaxInt32, LastSequence: 1, Count: 3,
		Attributes: 0x32, ProducerEpoch: 7, Magic: 2, CRC: binary.BigEndian.Uint32(b[17:]), Codec: batch.CodecSnappy,
		TimestampType: batch.CreateTime, Transactional: true, Control: true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	if len(b) != batch.HeaderSize+len(b.Records()) {
		t.Errorf("%d bytes, %d of them records", len(b), len(b.Records()))
	}
}

func TestStampLeavesTheCRCValid(t *testing.T) {
	b := batchtest.Of("x", "y")
	crc := b.CRC()
	b.Stamp(math.MaxInt64, math.MaxInt32)
	if b.BaseOffset() != math.MaxInt64 || b.PartitionLeaderEpoch() != math.MaxInt32 {
		t.Errorf("offset %d, epoch %d", b.BaseOffset(), b.PartitionLeaderEpoch())
	}
	if err := b.CheckCRC(); err != nil || b.CRC() != crc {
		t.Errorf("CRC %#x, was %#x: %v", b.CRC(), crc, err)
	}
}

func TestStampLogAppendTimeKeepsTheRecords(t *testing.T) {
	b := batchtest.Build(batchtest.Options{
		Records: []batchtest.Record{{Value: []byte("x"), Timestamp: 10}, {Timestamp: 20}},
		Codec:   batch.CodecZstd,
	})
	before := bytes.Clone(b)
	b.StampLogAppendTime(15)
	if b.TimestampType() != batch.LogAppendTime || b.MaxTimestamp() != 15 || b.BaseTimestamp() != 10 {
		t.Errorf("type %d, max %d, base %d", b.TimestampType(), b.MaxTimestamp(), b.BaseTimestamp())
	}
	if err := b.CheckCRC(); err != nil {
		t.Error(err)
	}
	if b.Codec() != batch.CodecZstd || !bytes.Equal(b.Records(), batch.Batch(before).Records()) {
		t.Error("the codec or the records changed")
	}
}

func TestCheckCRCFindsEveryFlippedBit(t *testing.T) {
	b := batchtest.Of("value")
	for i := 17 * 8; i < len(b)*8; i++ {
		b[i/8] ^= 1 << (i % 8)
		if err := b.CheckCRC(); !errors.Is(err, batch.ErrCRC) {
			t.Errorf("bit %d: %v", i, err)
		}
		b[i/8] ^= 1 << (i % 8)
	}
}

func TestNextWalksBatches(t *testing.T) {
	one, two := batchtest.Of("1"), batchtest.Of("2", "3")
	first, rest, err := batch.Next(append(bytes.Clone(one), two...))
	if err != nil || !bytes.Equal(first, one) || !bytes.Equal(rest, two) {
		t.Fatalf("first %x, rest %x, %v", first, rest, err)
	}
	if cap(first) != len(first) {
		t.Errorf("an append to the first batch would run into the second")
	}
	second, rest, err := batch.Next(rest)
	if err != nil || !bytes.Equal(second, two) || len(rest) != 0 {
		t.Fatalf("second %x, rest %x, %v", second, rest, err)
	}
}

func TestNextRefuses(t *testing.T) {
	whole := batchtest.Of("value")
	changed := func(at int, v ...byte) []byte {
		b := bytes.Clone(whole)
		copy(b[at:], v)
		return b
	}
	for name, tc := range map[string]struct {
		bytes []byte
		want  error
	}{
		"nothing":              {nil, batch.ErrTruncated},
		"half a header":        {whole[:30], batch.ErrTruncated},
		"half a batch":         {whole[:len(whole)-1], batch.ErrTruncated},
		"a negative length":    {changed(8, 0xff, 0xff, 0xff, 0xff), batch.ErrMalformed},
		"a short length":       {changed(8, 0, 0, 0, 48), batch.ErrMalformed},
		"the largest length":   {changed(8, 0x7f, 0xff, 0xff, 0xff), batch.ErrTruncated},
		"magic 1":              {changed(16, 1), batch.ErrMalformed},
		"a magic to come":      {changed(16, 3), batch.ErrMalformed},
		"a length behind ends": {changed(8, 0, 0, 1, 0), batch.ErrTruncated},
	} {
		if _, _, err := batch.Next(tc.bytes); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

func TestAddSequenceWrapsToZero(t *testing.T) {
	for _, tc := range []struct{ seq, n, want int32 }{
		{0, 0, 0},
		{5, 3, 8},
		{math.MaxInt32 - 1, 1, math.MaxInt32},
		{math.MaxInt32, 1, 0},
		{math.MaxInt32 - 2, 5, 2},
		{math.MaxInt32, math.MaxInt32, math.MaxInt32 - 1},
	} {
		if got := batch.AddSequence(tc.seq, tc.n); got != tc.want {
			t.Errorf("AddSequence(%d, %d) = %d, want %d", tc.seq, tc.n, got, tc.want)
		}
	}
}
