package batch

import (
	"fmt"
	"io"
	"math"
	"sync"
)

// record is what the walk learns of a record; keys, values and headers are
// stepped over.
type record struct {
	offsetDelta    int32
	timestampDelta int64
	hasKey         bool
}

// recordReader walks the records of one batch, checking that each is exactly as
// long as it says. It reads an uncompressed batch where it lies and a compressed
// one through a window of scratchSize.
//
// Invariant: buf[pos:] are the bytes not consumed yet, and dropped counts those
// that came before buf[0].
type recordReader struct {
	buf     []byte
	pos     int
	dropped int64
	err     error // sticky: the first thing that went wrong

	// The rest is for compressed batches; src is nil otherwise.
	src   decompressor
	codec Codec
	eof   bool
	max   int64 // how many bytes src may yield
	// copyTo receives all bytes that src yields; nil if nobody wants them.
	copyTo  io.Writer
	scratch *[scratchSize]byte
}

const (
	scratchSize  = 64 << 10
	maxVarintLen = 5  // of 32 bits
	maxVarlong   = 10 // of 64 bits
)

var scratches = sync.Pool{New: func() any { return new([scratchSize]byte) }}

// errRecord is the reason of a record that can't be parsed.
var errRecord = fmt.Errorf("%w: record", ErrMalformed)

// openRecords starts on the records of b, which may decompress to max bytes. The
// reader must be closed.
func openRecords(b Batch, max int64) (recordReader, error) {
	r := recordReader{codec: b.Codec(), max: max}
	if r.codec == CodecNone {
		r.buf = b.Records()
		return r, nil
	}
	src, err := openDecompressor(r.codec, b.Records(), max)
	if err != nil {
		return recordReader{}, err
	}
	r.src = src
	r.scratch = scratches.Get().(*[scratchSize]byte)
	r.buf = r.scratch[:0]
	return r, nil
}

func (r *recordReader) close() {
	if r.src != nil {
		release(r.codec, r.src)
		scratches.Put(r.scratch)
		r.src, r.scratch, r.buf = nil, nil, nil
	}
}

// next steps over one record:
//
//	length varint, attributes int8, timestamp delta varlong, offset delta varint,
//	key, value (varint length, negative for null, and bytes),
//	headers (varint count; key and value each)
func (r *recordReader) next() (record, error) {
	length := r.varint()
	end := r.offset() + int64(length)
	r.skip(1)
	rec := record{timestampDelta: r.varlong(), offsetDelta: r.varint()}
	key := r.varint()
	rec.hasKey = key >= 0
	r.skip(key)
	r.skip(r.varint())
	headers := r.varint()
	if headers < 0 {
		r.fail(fmt.Errorf("%w: %d headers", errRecord, headers))
	}
	for ; headers > 0 && r.err == nil; headers-- {
		name := r.varint()
		if name < 0 {
			r.fail(fmt.Errorf("%w: header without a key", errRecord))
		}
		r.skip(name)
		r.skip(r.varint())
	}
	if r.err == nil && r.offset() != end {
		r.fail(fmt.Errorf("%w: %d bytes long, %d declared", errRecord, int64(length)+r.offset()-end, length))
	}
	return rec, r.err
}

// finish checks that nothing follows the last record, neither in the records nor
// behind them in a compressed block.
func (r *recordReader) finish() error {
	r.fill(1)
	if r.err == nil && r.pos < len(r.buf) {
		r.fail(fmt.Errorf("%w: bytes behind the last record", ErrMalformed))
	}
	return r.err
}

// offset counts the bytes consumed.
func (r *recordReader) offset() int64 { return r.dropped + int64(r.pos) }

func (r *recordReader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// varint reads a zigzag varint of 32 bits.
func (r *recordReader) varint() int32 {
	if r.src != nil && len(r.buf)-r.pos < maxVarintLen {
		r.fill(maxVarintLen)
	}
	if r.pos < len(r.buf) && r.buf[r.pos] < 0x80 { // most lengths and counts
		v := r.buf[r.pos]
		r.pos++
		return int32(v>>1) ^ -int32(v&1)
	}
	v := r.uvarint(maxVarintLen)
	if v > math.MaxUint32 {
		r.fail(fmt.Errorf("%w: varint exceeds 32 bits", errRecord))
	}
	return int32(uint32(v)>>1) ^ -int32(v&1)
}

// varlong reads a zigzag varint of 64 bits.
func (r *recordReader) varlong() int64 {
	if r.src != nil && len(r.buf)-r.pos < maxVarlong {
		r.fill(maxVarlong)
	}
	v := r.uvarint(maxVarlong)
	return int64(v>>1) ^ -int64(v&1)
}

// uvarint reads an unsigned varint of at most limit bytes.
func (r *recordReader) uvarint(limit int) uint64 {
	var v uint64
	for i, c := range r.buf[r.pos:min(len(r.buf), r.pos+limit)] {
		if i == maxVarlong-1 && c > 1 {
			break // exceeds 64 bits
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			r.pos += i + 1
			return v
		}
	}
	r.fail(fmt.Errorf("%w: varint", errRecord))
	return 0
}

// skip consumes n bytes; a negative n is a null and takes none.
func (r *recordReader) skip(n int32) {
	if n <= 0 {
		return
	}
	if int(n) <= len(r.buf)-r.pos {
		r.pos += int(n)
		return
	}
	for left := int(n); r.err == nil; r.fill(1) {
		step := min(left, len(r.buf)-r.pos)
		r.pos += step
		if left -= step; left == 0 {
			return
		}
		if r.src == nil || r.eof {
			r.fail(fmt.Errorf("%w: ends before its length", errRecord))
		}
	}
}

// fill makes buf[pos:] at least n bytes long, unless the records end before.
func (r *recordReader) fill(n int) {
	if r.src == nil || r.eof || r.err != nil {
		return
	}
	r.dropped += int64(r.pos)
	r.buf = r.scratch[:copy(r.scratch[:], r.buf[r.pos:])]
	r.pos = 0
	for len(r.buf) < n && !r.eof {
		got, err := r.src.Read(r.scratch[len(r.buf):])
		fresh := r.scratch[len(r.buf) : len(r.buf)+got]
		r.buf = r.scratch[:len(r.buf)+got]
		if r.dropped+int64(len(r.buf)) > r.max {
			r.fail(ErrTooLarge)
			return
		}
		if r.copyTo != nil {
			if _, err := r.copyTo.Write(fresh); err != nil {
				r.fail(err)
				return
			}
		}
		switch {
		case err == io.EOF:
			r.eof = true
		case err != nil:
			r.fail(err)
			return
		}
	}
}
