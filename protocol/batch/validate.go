package batch

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Rules are what a topic and a Produce request ask of a batch. The zero value
// refuses every batch: it allows no bytes.
type Rules struct {
	// MaxMessageBytes is max.message.bytes: the largest size in bytes of the
	// batch as produced and, if it is converted, as stored.
	MaxMessageBytes int32
	// MaxDecompressedBytes bounds what the records of a compressed batch may
	// expand to. It bounds time more than memory: see the package's comment.
	MaxDecompressedBytes int64
	// Compacted is true if cleanup.policy contains compact: records need keys.
	Compacted bool
	// LogAppendTime is true if message.timestamp.type is LogAppendTime: Now
	// replaces the records' timestamps, and these are not checked.
	LogAppendTime bool
	// TimestampBeforeMax and TimestampAfterMax bound how far a record's
	// timestamp may lie before and after Now (message.timestamp.before.max.ms
	// and after.max.ms, KIP-937). See [Millis] for values in ms.
	TimestampBeforeMax, TimestampAfterMax time.Duration
	// Now is the broker's time of the append; ms count.
	Now time.Time
	// CompressionType is compression.type: a batch in another codec is converted.
	CompressionType CompressionType
	// CompressionLevel is compression.gzip.level, .lz4.level or .zstd.level
	// (KIP-390), whichever belongs to CompressionType; 0 is the codec's default.
	CompressionLevel int
	// AllowZstd is false below version 7 of Produce (KIP-110).
	AllowZstd bool
}

// Unbounded is a bound on timestamps that no timestamp exceeds.
const Unbounded time.Duration = math.MaxInt64

// Millis is the duration of ms milliseconds, or [Unbounded] if it is longer than a
// Duration can be, as the default of message.timestamp.before.max.ms is.
func Millis(ms int64) time.Duration {
	if ms > int64(Unbounded/time.Millisecond) {
		return Unbounded
	}
	return time.Duration(ms) * time.Millisecond
}

// Validated is a batch that may be stored, and what the commit needs to know of
// it.
type Validated struct {
	// Batch are the bytes to store: those that were validated, unless the codec
	// was converted.
	Batch Batch
	// RecordCount is the number of records and of offsets that the batch takes,
	// at least 1.
	RecordCount int32
	// MaxTimestamp is the batch's max timestamp in ms since 1970, or
	// [NoTimestamp].
	MaxTimestamp int64
	// OffsetOfMaxTimestamp is the index in the batch of the first record with
	// that timestamp, 0 if no record has one.
	OffsetOfMaxTimestamp int32
	// ProducerID is [NoProducerID] or at least 0.
	ProducerID int64
	// ProducerEpoch is at least 0 if there is a producer id.
	ProducerEpoch int16
	// BaseSequence and LastSequence are at least 0 if there is a producer id,
	// else [NoSequence]. LastSequence is the smaller one if they wrapped.
	BaseSequence, LastSequence int32
	// Transactional is true if the batch belongs to a transaction of the producer.
	Transactional bool
}

// Validate checks the records of one partition of a Produce request (from version
// 3: exactly one batch) as Kafka's ProduceRequest, UnifiedLog and LogValidator do,
// in their order, and returns the batch to store. Every record is decompressed and
// parsed. An error is an *[Error].
//
// records must be the caller's to write: where the topic's timestamp type asks for
// it, or where the max timestamp in the header is not that of the records,
// Validate corrects header and CRC in place. The result shares records.
//
// It is stricter than Kafka where Kafka would store what some consumer can't read
// or what it would itself refuse later: bytes behind the batch or behind its
// records, offset deltas other than 0, 1, 2..., a producer id below -1 or without
// an epoch, a transactional batch without producer id, a timestamp type set by the
// producer, compressed data that is not plain frames of its format.
func Validate(records []byte, r *Rules) (Validated, error) {
	b, refused := r.checkBatch(records)
	if refused != nil {
		return Validated{}, refused
	}
	w, stored, refused := r.checkRecords(b)
	if refused != nil {
		return Validated{}, refused
	}
	timestampType := CreateTime
	if r.LogAppendTime {
		timestampType, w.maxTimestamp, w.maxIndex = LogAppendTime, r.Now.UnixMilli(), 0
	}
	stored.setMaxTimestamp(timestampType, w.maxTimestamp)
	v := Validated{
		Batch:                stored,
		RecordCount:          b.RecordCount(),
		MaxTimestamp:         w.maxTimestamp,
		OffsetOfMaxTimestamp: w.maxIndex,
		ProducerID:           b.ProducerID(),
		ProducerEpoch:        b.ProducerEpoch(),
		BaseSequence:         NoSequence,
		LastSequence:         NoSequence,
		Transactional:        b.IsTransactional(),
	}
	if v.ProducerID != NoProducerID {
		v.BaseSequence, v.LastSequence = b.BaseSequence(), b.LastSequence()
	}
	return v, nil
}

// checkBatch checks all that can be seen without looking at the records.
func (r *Rules) checkBatch(records []byte) (Batch, *Error) {
	b, refused := wholeBatch(records)
	if refused != nil {
		return nil, refused
	}
	if b.Codec() == CodecZstd && !r.AllowZstd {
		return nil, refuse(kerr.UnsupportedCompressionType, "zstd needs version 7 of Produce")
	}
	if len(b) < len(records) {
		return nil, refuse(kerr.InvalidRecord, "%d bytes follow the batch: exactly one is allowed", len(records)-len(b))
	}
	if b.BaseOffset() != 0 {
		return nil, refuse(kerr.InvalidRecord, "the base offset is %d, not 0", b.BaseOffset())
	}
	if len(b) > int(r.MaxMessageBytes) {
		return nil, refuse(kerr.MessageTooLarge, "the batch has %d bytes, %d are allowed", len(b), r.MaxMessageBytes)
	}
	if err := b.CheckCRC(); err != nil {
		return nil, refuse(kerr.CorruptMessage, "%v", err)
	}
	if !b.Codec().known() {
		return nil, refuse(kerr.UnsupportedCompressionType, "unknown %v", b.Codec())
	}
	if count := b.RecordCount(); count <= 0 || int64(b.LastOffsetDelta()) != int64(count)-1 {
		return nil, refuse(kerr.InvalidRecord, "the last offset delta is %d, the record count %d", b.LastOffsetDelta(), count)
	}
	if b.IsControl() {
		return nil, refuse(kerr.InvalidRecord, "clients are not allowed to write control records")
	}
	if refused := checkProducer(b); refused != nil {
		return nil, refused
	}
	return b, nil
}

// wholeBatch is the first batch of records. It differs from [Next] in that it
// tells apart, as Kafka's codes do, what is damaged from what is no batch of this
// format.
func wholeBatch(records []byte) (Batch, *Error) {
	const legacyOverhead = 14 // the least that follows the length in formats v0 and v1
	if len(records) == 0 {
		return nil, refuse(kerr.InvalidRecord, "no record batch")
	}
	if len(records) <= magicAt {
		return nil, refuse(kerr.InvalidRecord, "%d bytes are no record batch", len(records))
	}
	size := int64(int32(binary.BigEndian.Uint32(records[lengthAt:]))) + logOverhead
	if size < logOverhead+legacyOverhead {
		return nil, refuse(kerr.CorruptMessage, "the batch's length is %d", size-logOverhead)
	}
	magic := int8(records[magicAt])
	if magic < 0 || magic > 2 {
		return nil, refuse(kerr.CorruptMessage, "unknown magic %d", magic)
	}
	if size > int64(len(records)) {
		return nil, refuse(kerr.InvalidRecord, "the batch has %d bytes, %d are there", size, len(records))
	}
	if magic != 2 {
		return nil, refuse(kerr.InvalidRecord, "magic %d: only record batches with magic 2 are accepted", magic)
	}
	if size < HeaderSize {
		return nil, refuse(kerr.CorruptMessage, "the batch has %d bytes, its header %d", size, HeaderSize)
	}
	return Batch(records[:size:size]), nil
}

func checkProducer(b Batch) *Error {
	id, epoch, sequence := b.ProducerID(), b.ProducerEpoch(), b.BaseSequence()
	switch {
	case id == NoProducerID && b.IsTransactional():
		return refuse(kerr.InvalidRecord, "a transactional batch without producer id")
	case id == NoProducerID:
		return nil
	case id < 0:
		return refuse(kerr.InvalidRecord, "producer id %d", id)
	case sequence < 0:
		return refuse(kerr.InvalidRecord, "sequence %d of producer id %d", sequence, id)
	case epoch < 0:
		return refuse(kerr.InvalidRecord, "epoch %d of producer id %d", epoch, id)
	}
	return nil
}

// checkRecords reads all records and returns what the walk found and the batch to
// store.
func (r *Rules) checkRecords(b Batch) (w walk, stored Batch, refused *Error) {
	records, err := openRecords(b, r.MaxDecompressedBytes)
	if err != nil {
		return w, nil, refuseRecords(err)
	}
	defer records.close()
	w = r.newWalk(b)
	codec := r.CompressionType.target(b.Codec())
	if codec == b.Codec() {
		return w, b, w.run(&records)
	}
	c, err := newConverter(b, codec, r.CompressionLevel, int(r.MaxMessageBytes))
	if err != nil {
		return w, nil, refuse(kerr.UnknownServerError, "%v", err)
	}
	defer c.close()
	if b.Codec() != CodecNone {
		records.copyTo = c
	}
	if refused := w.run(&records); refused != nil {
		return w, nil, refused
	}
	if b.Codec() == CodecNone {
		_, err = c.Write(b.Records())
	}
	stored, ok, finishErr := c.finish()
	switch {
	case err != nil || finishErr != nil:
		return w, nil, refuse(kerr.UnknownServerError, "conversion to %v failed", codec)
	case !ok:
		return w, nil, refuse(kerr.MessageTooLarge, "the batch has more than the %d bytes allowed once it is stored as %v", r.MaxMessageBytes, codec)
	}
	return w, stored, nil
}

// walk is one pass over a batch's records. It reads to the end whatever it finds,
// so that a batch that can't be parsed is refused as that.
type walk struct {
	batch      Batch
	base       int64 // base timestamp
	needKeys   bool
	anyTime    bool  // timestamps are not checked
	from, upTo int64 // the timestamps allowed, if they are checked

	maxTimestamp int64
	maxIndex     int32
	failed       []RecordError
	failures     int // including those that failed has no room for
	badTimes     int
}

func (r *Rules) newWalk(b Batch) walk {
	now := r.Now.UnixMilli()
	w := walk{
		batch: b, base: b.BaseTimestamp(), needKeys: r.Compacted, anyTime: r.LogAppendTime,
		from: math.MinInt64, upTo: math.MaxInt64, maxTimestamp: NoTimestamp,
	}
	if r.TimestampBeforeMax != Unbounded {
		w.from = now - r.TimestampBeforeMax.Milliseconds()
	}
	if r.TimestampAfterMax != Unbounded {
		w.upTo = now + r.TimestampAfterMax.Milliseconds()
	}
	return w
}

func (w *walk) run(records *recordReader) *Error {
	logAppendTime := w.batch.TimestampType() == LogAppendTime
	for i := range w.batch.RecordCount() {
		rec, err := records.next()
		if err != nil {
			return refuseRecords(fmt.Errorf("record %d: %w", i, err))
		}
		if rec.offsetDelta != i {
			return refuse(kerr.InvalidRecord, "record %d has offset delta %d", i, rec.offsetDelta)
		}
		timestamp := w.base + rec.timestampDelta
		if timestamp > w.maxTimestamp {
			w.maxTimestamp, w.maxIndex = timestamp, i
		}
		switch {
		case w.needKeys && !rec.hasKey:
			w.failf(i, "Compacted topic cannot accept message without key")
		case logAppendTime:
			w.badTimes++
			w.failf(i, "Producer should not set timestamp type to LogAppendTime")
		case !w.anyTime && timestamp != NoTimestamp && (timestamp < w.from || timestamp > w.upTo):
			w.badTimes++
			w.failf(i, "Timestamp %d is out of range: it should be within [%d, %d]", timestamp, w.from, w.upTo)
		}
	}
	if err := records.finish(); err != nil {
		return refuseRecords(err)
	}
	return w.refusal()
}

func (w *walk) failf(i int32, format string, args ...any) {
	if w.failures++; len(w.failed) < maxRecordErrors {
		w.failed = append(w.failed, RecordError{BatchIndex: i, Message: fmt.Sprintf(format, args...)})
	}
}

// refusal is the error of the records that were parsed but may not be stored. One
// bad timestamp decides the code.
func (w *walk) refusal() *Error {
	if w.failures == 0 {
		return nil
	}
	refused := refuse(kerr.InvalidRecord, "One or more records have been rejected due to %d record errors", w.failures)
	if w.badTimes > 0 {
		refused = refuse(kerr.InvalidTimestamp, "One or more records have been rejected due to invalid timestamp")
	}
	refused.RecordErrors = w.failed
	return refused
}
