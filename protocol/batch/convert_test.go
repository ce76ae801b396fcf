package batch_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/protocol/batch"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

var conversions = map[batch.CompressionType]batch.Codec{
	batch.CompressionUncompressed: batch.CodecNone,
	batch.CompressionGzip:         batch.CodecGzip,
	batch.CompressionSnappy:       batch.CodecSnappy,
	batch.CompressionLz4:          batch.CodecLz4,
	batch.CompressionZstd:         batch.CodecZstd,
}

func TestConversionKeepsRecordsAndProducer(t *testing.T) {
	rs := records(50, 3000)
	rs[7].Value = text(200_000)
	rs[8].Headers = []batchtest.Header{{Key: "h", Value: []byte("v")}, {Key: "null"}}
	for _, source := range codecs {
		for compression, target := range conversions {
			t.Run(fmt.Sprintf("%v to %v", source, target), func(t *testing.T) {
				b := batchtest.Build(batchtest.Options{
					Records: rs, Codec: source, Transactional: true,
					Producer: &batchtest.Producer{ID: 3, Epoch: 4, BaseSequence: 5},
				})
				client := bytes.Clone(b)
				rules := kafkaDefaults()
				rules.CompressionType = compression
				v, err := batch.Validate(client, rules)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(client, b) {
					t.Error("the client's bytes were changed")
				}
				if shares := &v.Batch[0] == &client[0]; shares != (source == target) {
					t.Errorf("shares the client's bytes: %v", shares)
				}
				if _, rest, err := batch.Next(v.Batch); err != nil || len(rest) > 0 {
					t.Errorf("%d bytes behind the batch, %v", len(rest), err)
				}
				if err := v.Batch.CheckCRC(); err != nil {
					t.Error(err)
				}
				got, err := batchtest.Records(v.Batch)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(rs, got, sameBytes); diff != "" {
					t.Errorf("records (-want +got):\n%s", diff)
				}
				// All of the header but length, CRC and codec.
				want := bytes.Clone(b[:batch.HeaderSize])
				copy(want[atLength:], v.Batch[atLength:atLength+4])
				copy(want[atCRC:], v.Batch[atCRC:atCRC+4])
				want[atAttributes+1] = 1<<4 | byte(target)
				if !bytes.Equal(v.Batch[:batch.HeaderSize], want) {
					t.Errorf("header %x, want %x", v.Batch[:batch.HeaderSize], want)
				}
			})
		}
	}
}

func TestConvertedBatchesObeyMaxMessageBytes(t *testing.T) {
	b := batchtest.Build(batchtest.Options{Records: records(100, 1000), Codec: batch.CodecZstd})
	for compression := range conversions {
		rules := kafkaDefaults()
		rules.CompressionType = compression
		v, err := batch.Validate(bytes.Clone(b), rules)
		if err != nil {
			t.Fatal(err)
		}
		rules.MaxMessageBytes = int32(len(v.Batch))
		if len(v.Batch) < len(b) { // it must get in first
			continue
		}
		if _, err := batch.Validate(bytes.Clone(b), rules); err != nil {
			t.Errorf("%s: exactly as large as allowed: %v", compression, err)
		}
		rules.MaxMessageBytes--
		if code, _ := refusal(t, b, rules); code != kerr.MessageTooLarge {
			t.Errorf("%s: %v", compression, code)
		}
	}
}

func TestConversionWithLogAppendTime(t *testing.T) {
	rules := kafkaDefaults()
	rules.CompressionType, rules.LogAppendTime = batch.CompressionGzip, true
	v, err := batch.Validate(batchtest.Of("a", "b"), rules)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Batch.CheckCRC(); err != nil {
		t.Error(err)
	}
	if v.Batch.TimestampType() != batch.LogAppendTime || v.Batch.Codec() != batch.CodecGzip || v.Batch.MaxTimestamp() != now.UnixMilli() {
		t.Errorf("attributes %#x, max timestamp %d", v.Batch.Attributes(), v.Batch.MaxTimestamp())
	}
}

func TestConversionRefusesBadRecordsFirst(t *testing.T) {
	b := batchtest.Build(batchtest.Options{Records: records(20, 1000), Codec: batch.CodecGzip})
	raw, err := batch.Decompress(batch.CodecGzip, b.Records(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	b = withRecords(b, compress(t, batch.CodecGzip, append(raw, 0)))
	rules := kafkaDefaults()
	rules.CompressionType = batch.CompressionUncompressed
	rules.MaxMessageBytes = int32(len(b)) // too few for the outcome
	if code, _ := refusal(t, b, rules); code != kerr.InvalidRecord {
		t.Errorf("%v", code)
	}
}
