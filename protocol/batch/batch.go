package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

// HeaderSize is the length in bytes of a batch without its records.
const HeaderSize = recordsAt

// Byte positions of the header's fields; doc.go has the table.
const (
	baseOffsetAt      = 0
	lengthAt          = 8
	leaderEpochAt     = 12
	magicAt           = 16
	crcAt             = 17
	attributesAt      = 21
	lastOffsetDeltaAt = 23
	baseTimestampAt   = 27
	maxTimestampAt    = 35
	producerIDAt      = 43
	producerEpochAt   = 51
	baseSequenceAt    = 53
	recordCountAt     = 57
	recordsAt         = 61
)

// logOverhead is the number of bytes that the length field does not count: the
// base offset and the length itself.
const logOverhead = leaderEpochAt

const (
	codecMask         = 0x07
	logAppendTimeFlag = 0x08
	transactionalFlag = 0x10
	controlFlag       = 0x20
)

const (
	// NoTimestamp is the timestamp of a record that has none.
	NoTimestamp int64 = -1
	// NoProducerID is the producer id of a batch of a producer that is neither
	// idempotent nor transactional.
	NoProducerID int64 = -1
	// NoSequence is the base sequence of such a batch.
	NoSequence int32 = -1
)

// Errors of bytes that should have been whole, valid batches. They are returned
// wrapped.
var (
	// ErrTruncated says that the bytes end before the batch does.
	ErrTruncated = errors.New("batch: truncated")
	// ErrMalformed says that the bytes are no batch of format v2, or that its
	// records are not what the header says.
	ErrMalformed = errors.New("batch: malformed")
	// ErrCRC says that the batch's bytes do not match its checksum.
	ErrCRC = errors.New("batch: CRC mismatch")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// TimestampType says what the timestamps of a batch's records mean.
type TimestampType int8

// The values that Kafka gives the timestamp types.
const (
	// CreateTime timestamps were set by the producer, one a record.
	CreateTime TimestampType = 0
	// LogAppendTime is the broker's clock at the append: every record of the
	// batch has the batch's max timestamp.
	LogAppendTime TimestampType = 1
)

// Batch is exactly one whole batch of format v2: 12 bytes and as many more as its
// length field says. [Next] and [Validate] make values for which that holds; the
// accessors rely on it. A Batch shares the bytes that it was made from.
type Batch []byte

// Next returns the first batch of b and the bytes behind it. An empty b is a
// caller's error and reported as [ErrTruncated]. It checks bounds and magic only:
// the CRC is [Batch.CheckCRC]'s. The batch's capacity ends with the batch, so
// that an append never runs into its neighbour.
func Next(b []byte) (first Batch, rest []byte, err error) {
	if len(b) < HeaderSize {
		return nil, nil, fmt.Errorf("%w: %d bytes, a header has %d", ErrTruncated, len(b), HeaderSize)
	}
	size := int64(int32(binary.BigEndian.Uint32(b[lengthAt:]))) + logOverhead
	if size < HeaderSize {
		return nil, nil, fmt.Errorf("%w: %d bytes long, a header has %d", ErrMalformed, size, HeaderSize)
	}
	if magic := int8(b[magicAt]); magic != 2 {
		return nil, nil, fmt.Errorf("%w: magic %d", ErrMalformed, magic)
	}
	if size > int64(len(b)) {
		return nil, nil, fmt.Errorf("%w: %d bytes of %d", ErrTruncated, len(b), size)
	}
	return Batch(b[:size:size]), b[size:], nil
}

// BaseOffset is the offset of the batch's first record as produced. Compaction
// may have removed that record, never the offset.
func (b Batch) BaseOffset() int64 { return b.int64(baseOffsetAt) }

// PartitionLeaderEpoch is the epoch of the leader that committed the batch, -1 in
// a produced one.
func (b Batch) PartitionLeaderEpoch() int32 { return b.int32(leaderEpochAt) }

// Magic is the format's version, 2.
func (b Batch) Magic() int8 { return int8(b[magicAt]) }

// CRC is the checksum that the header carries.
func (b Batch) CRC() uint32 { return binary.BigEndian.Uint32(b[crcAt:]) }

// Attributes are the batch's flags; the accessors below take them apart.
func (b Batch) Attributes() int16 { return b.int16(attributesAt) }

// Codec is how the records are compressed. Values above [CodecZstd] are possible
// in bytes that were not validated.
func (b Batch) Codec() Codec { return Codec(b.Attributes() & codecMask) }

// TimestampType says where the records' timestamps come from.
func (b Batch) TimestampType() TimestampType {
	if b.Attributes()&logAppendTimeFlag != 0 {
		return LogAppendTime
	}
	return CreateTime
}

// IsTransactional says whether the batch belongs to a transaction.
func (b Batch) IsTransactional() bool { return b.Attributes()&transactionalFlag != 0 }

// IsControl says whether the batch holds a transaction marker, not records.
func (b Batch) IsControl() bool { return b.Attributes()&controlFlag != 0 }

// LastOffsetDelta is the last offset minus the base offset.
func (b Batch) LastOffsetDelta() int32 { return b.int32(lastOffsetDeltaAt) }

// LastOffset is the offset of the batch's last record as produced.
func (b Batch) LastOffset() int64 { return b.BaseOffset() + int64(b.LastOffsetDelta()) }

// BaseTimestamp is what the records' timestamp deltas count from, in ms since
// 1970. It is the create time of the first record, whatever the timestamp type.
func (b Batch) BaseTimestamp() int64 { return b.int64(baseTimestampAt) }

// MaxTimestamp is the largest timestamp of the batch's records in ms since 1970,
// or -1 if they have none.
func (b Batch) MaxTimestamp() int64 { return b.int64(maxTimestampAt) }

// ProducerID identifies an idempotent or transactional producer; see
// [NoProducerID].
func (b Batch) ProducerID() int64 { return b.int64(producerIDAt) }

// ProducerEpoch is the producer's epoch, -1 without a producer id.
func (b Batch) ProducerEpoch() int16 { return b.int16(producerEpochAt) }

// BaseSequence is the sequence number of the first record; see [NoSequence].
func (b Batch) BaseSequence() int32 { return b.int32(baseSequenceAt) }

// LastSequence is the sequence number of the last record, or [NoSequence].
func (b Batch) LastSequence() int32 {
	if b.BaseSequence() < 0 {
		return NoSequence
	}
	return AddSequence(b.BaseSequence(), b.LastOffsetDelta())
}

// RecordCount is the number of records in the batch; after compaction it may be
// less than the offsets that the batch spans.
func (b Batch) RecordCount() int32 { return b.int32(recordCountAt) }

// Records are the bytes behind the header, compressed by [Batch.Codec].
func (b Batch) Records() []byte { return b[recordsAt:] }

// AddSequence is the sequence number n records after seq. Sequences wrap from
// 2^31-1 to 0. Both arguments must not be negative.
func AddSequence(seq, n int32) int32 { return int32((uint32(seq) + uint32(n)) & math.MaxInt32) }

// Stamp writes the offset and the leader epoch that the commit assigned. The CRC
// does not cover them. It writes in place: b must be the caller's private copy.
func (b Batch) Stamp(baseOffset int64, leaderEpoch int32) {
	binary.BigEndian.PutUint64(b[baseOffsetAt:], uint64(baseOffset))
	binary.BigEndian.PutUint32(b[leaderEpochAt:], uint32(leaderEpoch))
}

// StampLogAppendTime gives all records of the batch the broker's time, ms since
// 1970, as message.timestamp.type=LogAppendTime asks: it sets the attribute and
// the max timestamp and recomputes the CRC. The base timestamp and the records
// stay as they are. It writes in place: b must be the caller's private copy.
func (b Batch) StampLogAppendTime(ms int64) { b.setMaxTimestamp(LogAppendTime, ms) }

// setMaxTimestamp writes the timestamp type and the max timestamp, and the CRC if
// either changed.
func (b Batch) setMaxTimestamp(t TimestampType, ms int64) {
	if b.TimestampType() == t && b.MaxTimestamp() == ms {
		return
	}
	attributes := b.Attributes() &^ logAppendTimeFlag
	if t == LogAppendTime {
		attributes |= logAppendTimeFlag
	}
	binary.BigEndian.PutUint16(b[attributesAt:], uint16(attributes))
	binary.BigEndian.PutUint64(b[maxTimestampAt:], uint64(ms))
	b.setCRC()
}

// CheckCRC compares the batch's bytes with its checksum; the error is [ErrCRC].
func (b Batch) CheckCRC() error {
	if got := b.computeCRC(); got != b.CRC() {
		return fmt.Errorf("%w: stored %#08x, computed %#08x", ErrCRC, b.CRC(), got)
	}
	return nil
}

func (b Batch) computeCRC() uint32 { return crc32.Checksum(b[attributesAt:], castagnoli) }

func (b Batch) setCRC() { binary.BigEndian.PutUint32(b[crcAt:], b.computeCRC()) }

func (b Batch) int16(at int) int16 { return int16(binary.BigEndian.Uint16(b[at:])) }
func (b Batch) int32(at int) int32 { return int32(binary.BigEndian.Uint32(b[at:])) }
func (b Batch) int64(at int) int64 { return int64(binary.BigEndian.Uint64(b[at:])) }
