package batch_test

import (
	"errors"
	"testing"

	"github.com/streamhouse/streamhouse/protocol/batch"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

func stored(codec batch.Codec, timestamps ...int64) batch.Batch {
	rs := make([]batchtest.Record, len(timestamps))
	for i, ts := range timestamps {
		rs[i] = batchtest.Record{Value: []byte("value"), Timestamp: ts}
	}
	return batchtest.Build(batchtest.Options{Records: rs, Codec: codec, BaseOffset: 1000})
}

func TestFindTimestampFindsTheFirstRecord(t *testing.T) {
	for _, codec := range codecs {
		b := stored(codec, 10, 30, 20, 30, 40)
		for _, tc := range []struct {
			ts       int64
			minDelta int32
			delta    int32
			found    int64
			ok       bool
		}{
			{ts: 0, delta: 0, found: 10, ok: true},
			{ts: 10, delta: 0, found: 10, ok: true},
			{ts: 11, delta: 1, found: 30, ok: true},
			{ts: 11, minDelta: 2, delta: 2, found: 20, ok: true},
			{ts: 30, minDelta: 2, delta: 3, found: 30, ok: true},
			{ts: 31, delta: 4, found: 40, ok: true},
			{ts: 41},
			{ts: 0, minDelta: 5},
		} {
			delta, found, ok, err := batch.FindTimestamp(b, tc.minDelta, tc.ts)
			if err != nil || delta != tc.delta || found != tc.found || ok != tc.ok {
				t.Errorf("%v: from %d, at least %d: %d, %d, %v, %v", codec, tc.minDelta, tc.ts, delta, found, ok, err)
			}
		}
	}
}

func TestMaxTimestampRecordIsTheFirstOfThem(t *testing.T) {
	for _, codec := range codecs {
		delta, ts, ok, err := batch.FindTimestamp(stored(codec, 10, 40, 20, 40), 0, 40)
		if err != nil || !ok || delta != 1 || ts != 40 {
			t.Errorf("%v: %d, %d, %v", codec, delta, ts, err)
		}
	}
	if delta, ts, ok, err := batch.FindTimestamp(stored(batch.CodecNone, -1, -1), 0, -1); err != nil || !ok || delta != 0 || ts != -1 {
		t.Errorf("without timestamps: %d, %d, %v", delta, ts, err)
	}
}

func TestTimestampsOfLogAppendTime(t *testing.T) {
	b := stored(batch.CodecGzip, 10, 90)
	b.StampLogAppendTime(50)
	if delta, ts, ok, err := batch.FindTimestamp(b, 0, 45); delta != 0 || ts != 50 || !ok || err != nil {
		t.Errorf("found %d, %d, %v, %v", delta, ts, ok, err)
	}
	if _, _, ok, _ := batch.FindTimestamp(b, 0, 51); ok {
		t.Error("found a create time")
	}
}

func TestSearchHonoursOffsetsThatCompactionKept(t *testing.T) {
	b := stored(batch.CodecNone, 10, 20)
	raw := append(rawRecord{offsetDelta: 3}.encode(), rawRecord{offsetDelta: 7}.encode()...)
	b = withRecords(b, raw)
	b[atLastOffsetDelta+3] = 9
	if delta, ts, ok, err := batch.FindTimestamp(b, 4, 10); delta != 7 || ts != 10 || !ok || err != nil {
		t.Errorf("found %d, %d, %v, %v", delta, ts, ok, err)
	}
	// The record with the max timestamp, 20, is gone.
	if _, _, ok, err := batch.FindTimestamp(b, 0, 20); ok || err != nil {
		t.Errorf("found what is gone, or %v", err)
	}
}

func TestSearchReportsDamage(t *testing.T) {
	for _, codec := range codecs {
		b := stored(codec, 10, 20, 30)
		for i := batch.HeaderSize; i < len(b); i++ {
			b[i] = 0xff
		}
		if _, _, _, err := batch.FindTimestamp(b, 0, 30); err == nil {
			t.Errorf("%v: no error", codec)
		}
	}
	b := stored(batch.CodecNone, 10)
	b[atAttributes+1] = 7
	if _, _, _, err := batch.FindTimestamp(b, 0, 1); !errors.Is(err, batch.ErrMalformed) {
		t.Errorf("unknown codec: %v", err)
	}
}
