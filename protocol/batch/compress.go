package batch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// A compressor writes what every Kafka client can read.
type compressor interface {
	Reset(w io.Writer)
	io.WriteCloser
}

// encoding is a codec at a level in the terms of the library, of which there are
// few: it is the key under which compressors are pooled.
type encoding struct {
	codec Codec
	level int
}

// compressors maps an encoding to its *sync.Pool of compressors.
var compressors sync.Map

// encodingOf translates the level of compression.gzip.level, compression.lz4.level
// and compression.zstd.level (KIP-390); 0 is the codec's default, and what is out
// of range is brought into it.
func encodingOf(codec Codec, level int) encoding {
	e := encoding{codec: codec}
	switch codec {
	case CodecGzip:
		e.level = gzip.DefaultCompression
		if level > 0 {
			e.level = min(level, gzip.BestCompression)
		}
	case CodecLz4:
		e.level = int(lz4.Fast)
		// Kafka's default, 9, means the fast compressor too; its levels go to
		// 17, the library's to 9.
		if level > 0 && level != 9 {
			levels := [...]lz4.CompressionLevel{
				lz4.Level1, lz4.Level2, lz4.Level3, lz4.Level4,
				lz4.Level5, lz4.Level6, lz4.Level7, lz4.Level8, lz4.Level9,
			}
			e.level = int(levels[min(level, len(levels))-1])
		}
	case CodecZstd:
		e.level = int(zstd.SpeedDefault)
		if level != 0 {
			e.level = int(zstd.EncoderLevelFromZstd(level))
		}
	}
	return e
}

// newCompressor makes a compressor; CodecNone has none.
func (e encoding) newCompressor() (compressor, error) {
	switch e.codec {
	case CodecGzip:
		return gzip.NewWriterLevel(nil, e.level)
	case CodecSnappy:
		return new(xerialWriter), nil
	case CodecLz4:
		w := lz4.NewWriter(nil)
		// What Kafka writes: blocks of 64 KiB, independent, no checksums.
		return w, w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false),
			lz4.ConcurrencyOption(1), lz4.CompressionLevelOption(lz4.CompressionLevel(e.level)))
	case CodecZstd:
		// The level's own window, up to 8 MiB, costs encoder and consumers more
		// memory than it saves bytes in batches of about a megabyte.
		return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
			zstd.WithWindowSize(1<<20), zstd.WithEncoderLevel(zstd.EncoderLevel(e.level)))
	}
	return nil, fmt.Errorf("batch: no compressor for %v", e.codec)
}

func (e encoding) get() (compressor, error) {
	pool, _ := compressors.LoadOrStore(e, new(sync.Pool))
	if c, ok := pool.(*sync.Pool).Get().(compressor); ok {
		return c, nil
	}
	return e.newCompressor()
}

func (e encoding) put(c compressor) {
	c.Reset(nil)
	pool, _ := compressors.Load(e)
	pool.(*sync.Pool).Put(c)
}

// Compress returns records in the codec, in the framing that Java clients read.
// The level is that of Kafka's topic configurations, 0 for the codec's default.
// CodecNone returns records itself.
func Compress(codec Codec, level int, records []byte) ([]byte, error) {
	if codec == CodecNone {
		return records, nil
	}
	e := encodingOf(codec, level)
	c, err := e.get()
	if err != nil {
		return nil, err
	}
	defer e.put(c)
	var out bytes.Buffer
	c.Reset(&out)
	if _, err := c.Write(records); err != nil {
		return nil, fmt.Errorf("batch: compress %v: %w", codec, err)
	}
	if err := c.Close(); err != nil {
		return nil, fmt.Errorf("batch: compress %v: %w", codec, err)
	}
	return out.Bytes(), nil
}

// converter rebuilds a batch in another codec from the stream of its records. The
// outcome is bounded; what exceeds the bound is dropped and reported at the end,
// so that errors in the records come first.
type converter struct {
	out      []byte // the batch: header, then what came out so far
	max      int    // of len(out)
	exceeded bool
	encoding encoding
	encoder  compressor // nil for CodecNone
}

// newConverter starts a batch with the header of b. It must be closed.
func newConverter(b Batch, codec Codec, level, maxSize int) (*converter, error) {
	c := &converter{max: maxSize, encoding: encodingOf(codec, level)}
	c.out = append(make([]byte, 0, len(b)), b[:HeaderSize]...)
	if codec == CodecNone {
		return c, nil
	}
	var err error
	if c.encoder, err = c.encoding.get(); err != nil {
		return nil, err
	}
	c.encoder.Reset(boundedWriter{c})
	return c, nil
}

// Write takes bytes of the uncompressed records.
func (c *converter) Write(p []byte) (int, error) {
	if c.encoder == nil {
		return boundedWriter{c}.Write(p)
	}
	return c.encoder.Write(p)
}

// finish returns the batch in its new codec, with its CRC. ok is false if it is
// larger than allowed.
func (c *converter) finish() (b Batch, ok bool, err error) {
	if c.encoder != nil {
		if err := c.encoder.Close(); err != nil {
			return nil, false, fmt.Errorf("batch: compress %v: %w", c.encoding.codec, err)
		}
	}
	if c.exceeded {
		return nil, false, nil
	}
	b = Batch(c.out)
	binary.BigEndian.PutUint32(b[lengthAt:], uint32(len(b)-logOverhead))
	attributes := b.Attributes()&^codecMask | int16(c.encoding.codec)
	binary.BigEndian.PutUint16(b[attributesAt:], uint16(attributes))
	b.setCRC()
	return b, true, nil
}

func (c *converter) close() {
	if c.encoder != nil {
		c.encoding.put(c.encoder)
	}
}

// boundedWriter is the end of the encoder that appends to a converter's batch.
type boundedWriter struct{ c *converter }

func (w boundedWriter) Write(p []byte) (int, error) {
	if w.c.exceeded = w.c.exceeded || len(w.c.out)+len(p) > w.c.max; !w.c.exceeded {
		w.c.out = append(w.c.out, p...)
	}
	return len(p), nil
}

// xerialWriter frames snappy blocks as snappy-java does.
type xerialWriter struct {
	w       io.Writer
	started bool
	block   []byte // uncompressed, less than a whole block
	encoded []byte // scratch: block compressed
	frame   []byte // scratch: what is written at once
}

func (x *xerialWriter) Reset(w io.Writer) {
	x.w, x.started, x.block = w, false, x.block[:0]
}

func (x *xerialWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		step := min(len(p), xerialBlockSize-len(x.block))
		x.block = append(x.block, p[:step]...)
		p = p[step:]
		if len(x.block) == xerialBlockSize {
			if err := x.flush(); err != nil {
				return n - len(p), err
			}
		}
	}
	return n, nil
}

// Close writes the last block, and the header if there was none.
func (x *xerialWriter) Close() error { return x.flush() }

func (x *xerialWriter) flush() error {
	x.frame = x.frame[:0]
	if !x.started {
		x.started = true
		x.frame = append(x.frame, xerialMagic...)
		x.frame = append(x.frame, 0, 0, 0, 1, 0, 0, 0, 1) // version, compatible from
	}
	if len(x.block) > 0 {
		x.encoded = snappy.Encode(x.encoded, x.block)
		x.frame = binary.BigEndian.AppendUint32(x.frame, uint32(len(x.encoded)))
		x.frame = append(x.frame, x.encoded...)
		x.block = x.block[:0]
	}
	_, err := x.w.Write(x.frame)
	return err
}
