package batch_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/protocol/batch"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

func TestValidateKeepsTheClientsBytes(t *testing.T) {
	for _, codec := range codecs {
		b := batchtest.Build(batchtest.Options{Records: records(100, 1000), Codec: codec})
		client := bytes.Clone(b)
		v, err := batch.Validate(client, kafkaDefaults())
		if err != nil {
			t.Fatalf("%v: %v", codec, err)
		}
		if !bytes.Equal(v.Batch, b) || &v.Batch[0] != &client[0] {
			t.Errorf("%v: the batch was changed or copied", codec)
		}
		v.Batch = nil
		want := batch.Validated{
			RecordCount: 100, MaxTimestamp: now.UnixMilli() + 99, OffsetOfMaxTimestamp: 99,
			ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, LastSequence: -1,
		}
		if diff := cmp.Diff(want, v); diff != "" {
			t.Errorf("%v (-want +got):\n%s", codec, diff)
		}
	}
}

func TestValidateReportsTheProducer(t *testing.T) {
	v, err := batch.Validate(batchtest.Build(batchtest.Options{
		Records:       records(4, 10),
		Producer:      &batchtest.Producer{ID: 0, Epoch: 0, BaseSequence: math.MaxInt32 - 1},
		Transactional: true,
	}), kafkaDefaults())
	if err != nil {
		t.Fatal(err)
	}
	v.Batch = nil
	want := batch.Validated{
		RecordCount: 4, MaxTimestamp: now.UnixMilli() + 3, OffsetOfMaxTimestamp: 3,
		BaseSequence: math.MaxInt32 - 1, LastSequence: 1, Transactional: true,
	}
	if diff := cmp.Diff(want, v); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The positions of the header's fields that the tests change.
const (
	atLength, atMagic, atCRC, atAttributes, atLastOffsetDelta = 8, 16, 17, 21, 23
	atMaxTimestamp, atProducerID, atCount                     = 35, 43, 57
)

func TestValidateRefusesHeaders(t *testing.T) {
	good := batchtest.Build(batchtest.Options{Records: records(3, 100)})
	idempotent := batchtest.Build(batchtest.Options{Records: records(3, 100), Producer: &batchtest.Producer{ID: 9}})
	put := func(b batch.Batch, at int, v ...byte) []byte {
		c := bytes.Clone(b)
		copy(c[at:], v)
		return c
	}
	seal := func(b []byte) []byte { return batchtest.Seal(b) }
	codec5 := seal(put(good, atAttributes, 0, 5))
	zstd := batchtest.Build(batchtest.Options{Records: records(3, 100), Codec: batch.CodecZstd})

	for _, tc := range []struct {
		name  string
		bytes []byte
		rules func(*batch.Rules)
		want  *kerr.Error
	}{
		{"null records", nil, nil, kerr.InvalidRecord},
		{"empty records", []byte{}, nil, kerr.InvalidRecord},
		{"one byte", []byte{0}, nil, kerr.InvalidRecord},
		{"less than the magic", good[:16], nil, kerr.InvalidRecord},
		{"a truncated batch", good[:len(good)-1], nil, kerr.InvalidRecord},
		{"a negative length", put(good, atLength, 0xff, 0xff, 0xff, 0xff), nil, kerr.CorruptMessage},
		{"a length below any format's", put(good, atLength, 0, 0, 0, 13), nil, kerr.CorruptMessage},
		{"a length within the header", put(good, atLength, 0, 0, 0, 48), nil, kerr.CorruptMessage},
		{"magic 0", put(good, atMagic, 0), nil, kerr.InvalidRecord},
		{"magic 1", put(good, atMagic, 1), nil, kerr.InvalidRecord},
		{"magic 3", put(good, atMagic, 3), nil, kerr.CorruptMessage},
		{"a negative magic", put(good, atMagic, 0xff), nil, kerr.CorruptMessage},
		{"two batches", append(bytes.Clone(good), good...), nil, kerr.InvalidRecord},
		{"a byte behind the batch", append(bytes.Clone(good), 0), nil, kerr.InvalidRecord},
		{"a base offset", batchtest.Build(batchtest.Options{Records: records(1, 1), BaseOffset: 1}), nil, kerr.InvalidRecord},
		{"more than max.message.bytes", good, func(r *batch.Rules) { r.MaxMessageBytes = int32(len(good)) - 1 }, kerr.MessageTooLarge},
		{"another CRC", put(good, atCRC, 1, 2, 3, 4), nil, kerr.CorruptMessage},
		{"a flipped bit", put(good, len(good)-1, ^good[len(good)-1]), nil, kerr.CorruptMessage},
		{"zstd below Produce 7", zstd, func(r *batch.Rules) { r.AllowZstd = false }, kerr.UnsupportedCompressionType},
		{"an unknown codec", codec5, nil, kerr.UnsupportedCompressionType},
		{"no records", batchtest.Build(batchtest.Options{}), nil, kerr.InvalidRecord},
		{"a count of 0", seal(put(good, atCount, 0, 0, 0, 0)), nil, kerr.InvalidRecord},
		{"a negative count", seal(put(good, atCount, 0xff, 0xff, 0xff, 0xff)), nil, kerr.InvalidRecord},
		{"a count below the deltas", seal(put(good, atCount, 0, 0, 0, 2)), nil, kerr.InvalidRecord},
		{"a last offset delta below the count", seal(put(good, atLastOffsetDelta, 0, 0, 0, 1)), nil, kerr.InvalidRecord},
		{"a negative last offset delta", seal(put(good, atLastOffsetDelta, 0xff, 0xff, 0xff, 0xff)), nil, kerr.InvalidRecord},
		{
			"count and delta that overflow",
			seal(put(put(good, atCount, 0x80, 0, 0, 0), atLastOffsetDelta, 0x7f, 0xff, 0xff, 0xff)),
			nil, kerr.InvalidRecord,
		},
		{
			"count and delta above the records",
			seal(put(put(good, atCount, 0x7f, 0xff, 0xff, 0xff), atLastOffsetDelta, 0x7f, 0xff, 0xff, 0xfe)),
			nil, kerr.InvalidRecord,
		},
		{"a control batch", batchtest.Build(batchtest.Options{Records: records(1, 1), Control: true}), nil, kerr.InvalidRecord},
		{"a transaction without producer id", batchtest.Build(batchtest.Options{Records: records(1, 1), Transactional: true}), nil, kerr.InvalidRecord},
		{"a producer id without sequence", seal(put(idempotent, atProducerID+10, 0xff, 0xff, 0xff, 0xff)), nil, kerr.InvalidRecord},
		{"a producer id without epoch", seal(put(idempotent, atProducerID+8, 0xff, 0xff)), nil, kerr.InvalidRecord},
		{"a negative producer id", seal(put(idempotent, atProducerID, 0x80)), nil, kerr.InvalidRecord},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rules := kafkaDefaults()
			if tc.rules != nil {
				tc.rules(rules)
			}
			code, refused := refusal(t, tc.bytes, rules)
			if code != tc.want || refused.Code != tc.want.Code || refused.Reason == "" || len(refused.RecordErrors) > 0 {
				t.Errorf("%v: %+v, want %v", code, refused, tc.want)
			}
		})
	}
}

// rawRecord builds a record of which every part may be wrong.
type rawRecord struct {
	length       int64 // added to the right one
	offsetDelta  int64
	key, value   int64 // lengths written; the bytes are min(0, length) zeros
	headers      int64 // count written
	headerBytes  []byte
	lengthVarint []byte // instead of the length, if not nil
}

func (r rawRecord) encode() []byte {
	body := []byte{0, 0} // attributes, timestamp delta
	body = binary.AppendVarint(body, r.offsetDelta)
	for _, n := range []int64{r.key, r.value} {
		body = binary.AppendVarint(body, n)
		body = append(body, make([]byte, max(0, min(n, 100)))...)
	}
	body = append(binary.AppendVarint(body, r.headers), r.headerBytes...)
	length := binary.AppendVarint(nil, int64(len(body))+r.length)
	if r.lengthVarint != nil {
		length = r.lengthVarint
	}
	return append(length, body...)
}

func TestValidateParsesEveryRecord(t *testing.T) {
	header := func(key, value int64) []byte {
		b := append(binary.AppendVarint(nil, key), make([]byte, max(0, min(key, 100)))...)
		return append(binary.AppendVarint(b, value), make([]byte, max(0, min(value, 100)))...)
	}
	endless := bytes.Repeat([]byte{0xff}, 10)
	for _, tc := range []struct {
		name    string
		record  rawRecord
		trailer []byte
		ok      bool
	}{
		{name: "the smallest record", record: rawRecord{}, ok: true},
		{name: "a null key and value", record: rawRecord{key: -1, value: -1}, ok: true},
		{name: "headers", record: rawRecord{headers: 2, headerBytes: append(header(3, 4), header(0, -1)...)}, ok: true},
		{name: "another offset delta", record: rawRecord{offsetDelta: 1}},
		{name: "a negative offset delta", record: rawRecord{offsetDelta: -1}},
		{name: "a length too short", record: rawRecord{length: -1}},
		{name: "a length too long", record: rawRecord{length: 1}, trailer: []byte{0}},
		{name: "a negative length", record: rawRecord{length: -100}},
		{name: "a length behind the batch", record: rawRecord{length: 1 << 30}},
		{name: "a key behind the batch", record: rawRecord{key: 1 << 30}},
		{name: "a value behind the batch", record: rawRecord{value: math.MaxInt32}},
		{name: "more headers than there are", record: rawRecord{headers: 2, headerBytes: header(1, 1)}},
		{name: "fewer headers than there are", record: rawRecord{headers: 1, headerBytes: append(header(1, 1), header(1, 1)...)}},
		{name: "headers without end", record: rawRecord{headers: math.MaxInt32}},
		{name: "a negative count of headers", record: rawRecord{headers: -1}},
		{name: "a header without key", record: rawRecord{headers: 1, headerBytes: header(-1, 1)}},
		{name: "a header key behind the batch", record: rawRecord{headers: 1, headerBytes: header(1<<20, 0)}},
		{name: "a varint without end", record: rawRecord{lengthVarint: endless}},
		{name: "a varint of more than 32 bits", record: rawRecord{lengthVarint: []byte{0x8e, 0x80, 0x80, 0x80, 0x10}}},
		{name: "a byte behind the records", trailer: []byte{0}},
		{name: "a record too many", trailer: rawRecord{offsetDelta: 1}.encode()},
	} {
		raw := append(tc.record.encode(), tc.trailer...)
		for _, codec := range codecs {
			compressed, err := batch.Compress(codec, 0, raw)
			if err != nil {
				t.Fatal(err)
			}
			b := batchtest.Build(batchtest.Options{Records: records(1, 1), Codec: codec})
			_, err = batch.Validate(withRecords(b, compressed), kafkaDefaults())
			if (err == nil) != tc.ok {
				t.Errorf("%s, %v: %v", tc.name, codec, err)
			}
			if err != nil && err.(*batch.Error).Code != kerr.InvalidRecord.Code {
				t.Errorf("%s, %v: %v", tc.name, codec, err)
			}
		}
	}
}

func TestValidateNamesRecordsWithoutKey(t *testing.T) {
	rs := records(4, 10)
	rs[1].Key, rs[3].Key = nil, nil
	rs[2].Key = []byte{}
	for _, codec := range codecs {
		rules := kafkaDefaults()
		rules.Compacted = true
		b := batchtest.Build(batchtest.Options{Records: rs, Codec: codec})
		code, refused := refusal(t, b, rules)
		if code != kerr.InvalidRecord || indexes(refused) != "1 3" {
			t.Errorf("%v: %v, records %s", codec, code, indexes(refused))
		}
		rules.Compacted = false
		if _, err := batch.Validate(b, rules); err != nil {
			t.Errorf("%v: not compacted: %v", codec, err)
		}
	}
}

func indexes(e *batch.Error) string {
	var s []string
	for _, r := range e.RecordErrors {
		s = append(s, string(rune('0'+r.BatchIndex)))
		if r.Message == "" {
			s = append(s, "without message")
		}
	}
	return strings.Join(s, " ")
}

func TestValidateBoundsTimestamps(t *testing.T) {
	ms := now.UnixMilli()
	for _, tc := range []struct {
		name          string
		before, after time.Duration
		timestamps    []int64
		want          string // indexes refused
	}{
		{"at the bounds", time.Second, time.Minute, []int64{ms - 1000, ms + 60_000}, ""},
		{"behind the bounds", time.Second, time.Minute, []int64{ms - 1001, ms, ms + 60_001}, "0 2"},
		{"none", 0, 0, []int64{-1, ms}, ""},
		{"unbounded", batch.Unbounded, batch.Unbounded, []int64{math.MinInt64 / 2, 0, math.MaxInt64 / 2}, ""},
		{"Kafka's defaults in ms", batch.Millis(math.MaxInt64), batch.Millis(3_600_000), []int64{0, ms + 3_600_000, ms + 3_600_001}, "2"},
	} {
		rs := make([]batchtest.Record, len(tc.timestamps))
		for i, ts := range tc.timestamps {
			rs[i] = batchtest.Record{Timestamp: ts}
		}
		rules := kafkaDefaults()
		rules.TimestampBeforeMax, rules.TimestampAfterMax = tc.before, tc.after
		b := batchtest.Build(batchtest.Options{Records: rs})
		if tc.want == "" {
			if _, err := batch.Validate(b, rules); err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
			continue
		}
		code, refused := refusal(t, b, rules)
		if code != kerr.InvalidTimestamp || indexes(refused) != tc.want {
			t.Errorf("%s: %v, records %q", tc.name, code, indexes(refused))
		}
	}
}

func TestOneBadTimestampDecidesTheCode(t *testing.T) {
	rules := kafkaDefaults()
	rules.Compacted = true
	b := batchtest.Build(batchtest.Options{Records: []batchtest.Record{
		{Timestamp: 1}, {Key: []byte("k"), Timestamp: math.MaxInt64},
	}})
	code, refused := refusal(t, b, rules)
	if code != kerr.InvalidTimestamp || indexes(refused) != "0 1" {
		t.Errorf("%v, records %s", code, indexes(refused))
	}
}

func TestRecordErrorsAreBounded(t *testing.T) {
	rules := kafkaDefaults()
	rules.Compacted = true
	_, refused := refusal(t, batchtest.Build(batchtest.Options{Records: make([]batchtest.Record, 5000)}), rules)
	if n := len(refused.RecordErrors); n != 100 || !strings.Contains(refused.Reason, "5000") {
		t.Errorf("%d record errors, %s", n, refused.Reason)
	}
}

func TestMalformedRecordsComeBeforeRecordErrors(t *testing.T) {
	rules := kafkaDefaults()
	rules.Compacted = true
	b := batchtest.Build(batchtest.Options{Records: make([]batchtest.Record, 2)})
	code, refused := refusal(t, withRecords(b, append(bytes.Clone(b.Records()), 0)), rules)
	if code != kerr.InvalidRecord || len(refused.RecordErrors) != 0 {
		t.Errorf("%v %+v", code, refused)
	}
}

func TestProducersMustNotSetLogAppendTime(t *testing.T) {
	for _, topic := range []bool{false, true} {
		b := batchtest.Build(batchtest.Options{Records: records(2, 5)})
		b.StampLogAppendTime(now.UnixMilli())
		rules := kafkaDefaults()
		rules.LogAppendTime = topic
		code, refused := refusal(t, b, rules)
		if code != kerr.InvalidTimestamp || indexes(refused) != "0 1" {
			t.Errorf("topic with LogAppendTime %v: %v, records %s", topic, code, indexes(refused))
		}
	}
}

func TestLogAppendTimeReplacesTimestamps(t *testing.T) {
	for _, codec := range codecs {
		rs := records(3, 50)
		rs[0].Timestamp = math.MaxInt64 / 2 // not checked
		rules := kafkaDefaults()
		rules.LogAppendTime = true
		v, err := batch.Validate(batchtest.Build(batchtest.Options{Records: rs, Codec: codec}), rules)
		if err != nil {
			t.Fatalf("%v: %v", codec, err)
		}
		if err := v.Batch.CheckCRC(); err != nil {
			t.Errorf("%v: %v", codec, err)
		}
		if v.MaxTimestamp != now.UnixMilli() || v.OffsetOfMaxTimestamp != 0 {
			t.Errorf("%v: max timestamp %d at %d", codec, v.MaxTimestamp, v.OffsetOfMaxTimestamp)
		}
		got, err := batchtest.Records(v.Batch)
		if err != nil {
			t.Fatal(err)
		}
		for i := range rs {
			rs[i].Timestamp = now.UnixMilli()
		}
		if diff := cmp.Diff(rs, got, sameBytes); diff != "" {
			t.Errorf("%v (-want +got):\n%s", codec, diff)
		}
	}
}

func TestWrongMaxTimestampIsCorrected(t *testing.T) {
	for _, codec := range codecs {
		right := batchtest.Build(batchtest.Options{Records: records(3, 50), Codec: codec})
		wrong := bytes.Clone(right)
		copy(wrong[atMaxTimestamp:], []byte{0, 0, 0, 0, 0, 0, 0, 1})
		v, err := batch.Validate(batchtest.Seal(wrong), kafkaDefaults())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(v.Batch, right) || v.MaxTimestamp != right.MaxTimestamp() {
			t.Errorf("%v: header\n%x, want\n%x", codec, v.Batch[:batch.HeaderSize], right[:batch.HeaderSize])
		}
	}
}

func TestRecordsWithoutTimestamps(t *testing.T) {
	v, err := batch.Validate(batchtest.Build(batchtest.Options{
		Records: []batchtest.Record{{Timestamp: -1}, {Timestamp: -1}},
	}), kafkaDefaults())
	if err != nil || v.MaxTimestamp != batch.NoTimestamp || v.OffsetOfMaxTimestamp != 0 {
		t.Errorf("%+v, %v", v, err)
	}
}
