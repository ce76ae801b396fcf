// Package batchtest builds and reads record batches for the tests of other
// packages. It encodes and decodes with franz-go's kmsg, not with package batch,
// so that it serves as an oracle for that package too; only compression is shared.
package batchtest

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/protocol/batch"
)

// Header is a record's header.
type Header struct {
	Key   string
	Value []byte // nil for null
}

// Record is one record of a batch.
type Record struct {
	Key       []byte // nil for null
	Value     []byte // nil for null
	Headers   []Header
	Timestamp int64 // ms since 1970, -1 for none
}

// Producer is what an idempotent or transactional producer puts into a batch.
type Producer struct {
	ID           int64
	Epoch        int16
	BaseSequence int32
}

// Options say what to build. The zero value is a batch without records, which no
// producer sends.
type Options struct {
	Records []Record
	// Codec compresses the records, at the codec's default level.
	Codec batch.Codec
	// Producer is nil for a producer without an id.
	Producer *Producer
	// Transactional and Control set the attributes of these names.
	Transactional, Control bool
	// BaseOffset is 0 in a batch that a client produces. [batch.Batch.Stamp] sets
	// it together with the leader epoch, which is -1 here.
	BaseOffset int64
}

// Of builds a batch of records with these values, without keys, whose timestamps
// are 1, 2, 3...
func Of(values ...string) batch.Batch {
	records := make([]Record, len(values))
	for i, value := range values {
		records[i] = Record{Value: []byte(value), Timestamp: int64(i + 1)}
	}
	return Build(Options{Records: records})
}

// Build builds a batch as a client would. It panics on a codec that does not
// exist.
func Build(o Options) batch.Batch {
	b := kmsg.RecordBatch{
		FirstOffset:          o.BaseOffset,
		PartitionLeaderEpoch: -1,
		Magic:                2,
		LastOffsetDelta:      int32(len(o.Records)) - 1,
		FirstTimestamp:       -1,
		MaxTimestamp:         -1,
		ProducerID:           batch.NoProducerID,
		ProducerEpoch:        -1,
		FirstSequence:        batch.NoSequence,
		NumRecords:           int32(len(o.Records)),
		Attributes:           int16(o.Codec),
	}
	if len(o.Records) > 0 {
		b.FirstTimestamp = o.Records[0].Timestamp
	}
	for i, r := range o.Records {
		b.MaxTimestamp = max(b.MaxTimestamp, r.Timestamp)
		b.Records = appendRecord(b.Records, r, int32(i), r.Timestamp-b.FirstTimestamp)
	}
	if p := o.Producer; p != nil {
		b.ProducerID, b.ProducerEpoch, b.FirstSequence = p.ID, p.Epoch, p.BaseSequence
	}
	if o.Transactional {
		b.Attributes |= 1 << 4
	}
	if o.Control {
		b.Attributes |= 1 << 5
	}
	compressed, err := batch.Compress(o.Codec, 0, b.Records)
	if err != nil {
		panic(err)
	}
	b.Records = compressed
	return Seal(b.AppendTo(nil))
}

func appendRecord(dst []byte, r Record, offsetDelta int32, timestampDelta int64) []byte {
	k := kmsg.Record{
		TimestampDelta64: timestampDelta,
		OffsetDelta:      offsetDelta,
		Key:              r.Key,
		Value:            r.Value,
	}
	for _, h := range r.Headers {
		k.Headers = append(k.Headers, kmsg.Header{Key: h.Key, Value: h.Value})
	}
	k.Length = int32(len(k.AppendTo(nil))) - 1 // a length of 0 takes one byte
	return k.AppendTo(dst)
}

// Seal makes the length and the CRC of b right after b was changed by hand, in
// place. b must have a whole header.
func Seal(b []byte) batch.Batch {
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// Records decodes all records of a batch.
func Records(b batch.Batch) ([]Record, error) {
	raw, err := batch.Decompress(b.Codec(), b.Records(), math.MaxInt64)
	if err != nil {
		return nil, err
	}
	var records []Record
	for range b.RecordCount() {
		length, n := binary.Varint(raw)
		if n <= 0 || length < 0 || length > int64(len(raw)-n) {
			return nil, fmt.Errorf("batchtest: record %d: bad length", len(records))
		}
		var k kmsg.Record
		if err := k.ReadFrom(raw[:n+int(length)]); err != nil {
			return nil, fmt.Errorf("batchtest: record %d: %w", len(records), err)
		}
		raw = raw[n+int(length):]
		r := Record{Key: k.Key, Value: k.Value, Timestamp: b.BaseTimestamp() + k.TimestampDelta64}
		if b.TimestampType() == batch.LogAppendTime {
			r.Timestamp = b.MaxTimestamp()
		}
		for _, h := range k.Headers {
			r.Headers = append(r.Headers, Header{Key: h.Key, Value: h.Value})
		}
		records = append(records, r)
	}
	if len(raw) > 0 {
		return nil, fmt.Errorf("batchtest: %d bytes behind the records", len(raw))
	}
	return records, nil
}
