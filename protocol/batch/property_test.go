package batch_test

import (
	"bytes"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/protocol/batch"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

func drawBytes(t *rapid.T, label string) []byte {
	if rapid.IntRange(0, 4).Draw(t, label+" is null") == 0 {
		return nil
	}
	b := rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, label)
	return bytes.Repeat(b, rapid.SampledFrom([]int{1, 1, 1, 10, 10_000}).Draw(t, label+" repeated"))
}

func drawOptions(t *rapid.T) batchtest.Options {
	o := batchtest.Options{Codec: rapid.SampledFrom(codecs).Draw(t, "codec")}
	for range rapid.IntRange(1, 20).Draw(t, "count") {
		r := batchtest.Record{
			Key:       drawBytes(t, "key"),
			Value:     drawBytes(t, "value"),
			Timestamp: rapid.Int64Range(-1, math.MaxInt64/4).Draw(t, "timestamp"),
		}
		for range rapid.IntRange(0, 3).Draw(t, "headers") {
			r.Headers = append(r.Headers, batchtest.Header{Key: rapid.String().Draw(t, "header"), Value: drawBytes(t, "header value")})
		}
		o.Records = append(o.Records, r)
	}
	if rapid.Bool().Draw(t, "idempotent") {
		o.Producer = &batchtest.Producer{
			ID:           rapid.Int64Range(0, math.MaxInt64).Draw(t, "producer id"),
			Epoch:        rapid.Int16Range(0, math.MaxInt16).Draw(t, "epoch"),
			BaseSequence: rapid.Int32Range(0, math.MaxInt32).Draw(t, "sequence"),
		}
		o.Transactional = rapid.Bool().Draw(t, "transactional")
	}
	return o
}

// Whatever a client can build is accepted unchanged, stays valid when it is
// stamped, keeps its records in any codec, and is found by its timestamps.
func TestAnyBatchOfAClient(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := drawOptions(t)
		b := batchtest.Build(o)
		rules := kafkaDefaults()
		rules.TimestampAfterMax = batch.Unbounded
		rules.MaxMessageBytes = math.MaxInt32 // a drawn record may be repeated to above the default

		v, err := batch.Validate(bytes.Clone(b), rules)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(v.Batch, b) {
			t.Fatal("the batch was changed")
		}
		if p := o.Producer; p != nil {
			want := int32((int64(p.BaseSequence) + int64(len(o.Records)) - 1) % (math.MaxInt32 + 1))
			if v.BaseSequence != p.BaseSequence || v.LastSequence != want {
				t.Fatalf("sequences %d to %d, want %d to %d", v.BaseSequence, v.LastSequence, p.BaseSequence, want)
			}
		}
		checkTimestamps(t, o, v)

		rules.CompressionType = rapid.SampledFrom([]batch.CompressionType{"uncompressed", "gzip", "snappy", "lz4", "zstd"}).Draw(t, "target")
		converted, err := batch.Validate(bytes.Clone(b), rules)
		if err != nil {
			t.Fatal(err)
		}
		converted.Batch.Stamp(rapid.Int64().Draw(t, "offset"), rapid.Int32().Draw(t, "leader epoch"))
		if err := converted.Batch.CheckCRC(); err != nil {
			t.Fatal(err)
		}
		got, err := batchtest.Records(converted.Batch)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(o.Records, got, sameBytes); diff != "" {
			t.Fatalf("records (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(v, converted, cmpopts.IgnoreFields(batch.Validated{}, "Batch")); diff != "" {
			t.Fatalf("converted (-want +got):\n%s", diff)
		}
	})
}

func checkTimestamps(t *rapid.T, o batchtest.Options, v batch.Validated) {
	maxIndex := 0
	for i, r := range o.Records {
		if r.Timestamp > o.Records[maxIndex].Timestamp {
			maxIndex = i
		}
	}
	maxTimestamp := o.Records[maxIndex].Timestamp
	if v.MaxTimestamp != maxTimestamp || int(v.OffsetOfMaxTimestamp) != maxIndex {
		t.Fatalf("max timestamp %d at %d, want %d at %d", v.MaxTimestamp, v.OffsetOfMaxTimestamp, maxTimestamp, maxIndex)
	}
	if delta, ts, ok, err := batch.FindTimestamp(v.Batch, 0, v.MaxTimestamp); err != nil || !ok || int(delta) != maxIndex || ts != maxTimestamp {
		t.Fatalf("max timestamp record %d at %d, %v", ts, delta, err)
	}
	wanted := rapid.SampledFrom(o.Records).Draw(t, "wanted").Timestamp + rapid.Int64Range(-1, 1).Draw(t, "beside")
	delta, ts, ok, err := batch.FindTimestamp(v.Batch, 0, wanted)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range o.Records {
		if r.Timestamp >= wanted {
			if !ok || int(delta) != i || ts != r.Timestamp {
				t.Fatalf("at least %d: found %v, %d at %d, want %d at %d", wanted, ok, ts, delta, r.Timestamp, i)
			}
			return
		}
	}
	if ok {
		t.Fatalf("at least %d: found %d at %d, want nothing", wanted, ts, delta)
	}
}

// LogAppendTime is idempotent on a batch that already carries it.
func TestStampLogAppendTimeTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := batchtest.Build(drawOptions(t))
		ms := rapid.Int64Range(0, time.Now().UnixMilli()).Draw(t, "ms")
		b.StampLogAppendTime(ms)
		once := bytes.Clone(b)
		b.StampLogAppendTime(ms)
		if !bytes.Equal(b, once) || b.CheckCRC() != nil {
			t.Fatal("the second stamp changed the batch")
		}
	})
}
