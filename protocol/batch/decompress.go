package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// ErrTooLarge says that records decompress to more bytes than allowed.
var ErrTooLarge = errors.New("batch: decompressed records too large")

// A decompressor turns the compressed block of one batch into a stream. It reads
// the block to its end: bytes behind the compressed data are an error, since
// clients disagree on what to make of them.
type decompressor interface {
	// open starts on src, of which at most max bytes may come out. The caller
	// enforces max; open may use it to bound what it allocates.
	open(src []byte, max int64) error
	io.Reader
	// close drops all references to src, so that the decompressor can be pooled.
	close()
}

var decompressors = [...]sync.Pool{
	CodecGzip:   {New: func() any { return new(gzipDecompressor) }},
	CodecSnappy: {New: func() any { return new(snappyDecompressor) }},
	CodecLz4:    {New: func() any { return &lz4Decompressor{frame: lz4.NewReader(nil)} }},
	CodecZstd:   {New: func() any { return new(zstdDecompressor) }},
}

// openDecompressor takes a decompressor of the codec from its pool and starts it
// on src. The caller must give it back with release, once.
func openDecompressor(codec Codec, src []byte, max int64) (decompressor, error) {
	if codec <= CodecNone || !codec.known() {
		return nil, fmt.Errorf("%w: %v", ErrMalformed, codec)
	}
	d := decompressors[codec].Get().(decompressor)
	if err := d.open(src, max); err != nil {
		release(codec, d)
		return nil, err
	}
	return d, nil
}

func release(codec Codec, d decompressor) {
	d.close()
	decompressors[codec].Put(d)
}

// Decompress returns the records that src holds in the codec. More than max bytes
// are [ErrTooLarge]; anything else that is wrong with src is an error too. The
// result grows with the bytes that come out, not with what src claims. CodecNone
// returns src itself.
func Decompress(codec Codec, src []byte, max int64) ([]byte, error) {
	if codec == CodecNone {
		if int64(len(src)) > max {
			return nil, fmt.Errorf("%w: %d bytes, %d allowed", ErrTooLarge, len(src), max)
		}
		return src, nil
	}
	d, err := openDecompressor(codec, src, max)
	if err != nil {
		return nil, fmt.Errorf("batch: decompress %v: %w", codec, err)
	}
	defer release(codec, d)
	var out bytes.Buffer
	n, err := out.ReadFrom(io.LimitReader(d, min(max, math.MaxInt64-1)+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("batch: decompress %v: %w", codec, err)
	case n > max:
		return nil, fmt.Errorf("%w: %d bytes allowed", ErrTooLarge, max)
	}
	return out.Bytes(), nil
}

// gzipDecompressor reads one gzip member.
type gzipDecompressor struct {
	src    bytes.Reader
	member gzip.Reader
}

func (d *gzipDecompressor) open(src []byte, _ int64) error {
	d.src.Reset(src)
	if err := d.member.Reset(&d.src); err != nil {
		return noEOF(err)
	}
	d.member.Multistream(false)
	return nil
}

func (d *gzipDecompressor) Read(p []byte) (int, error) {
	n, err := d.member.Read(p)
	if err == io.EOF && d.src.Len() > 0 {
		return n, fmt.Errorf("%w: %d bytes behind the gzip member", ErrMalformed, d.src.Len())
	}
	return n, err
}

func (d *gzipDecompressor) close() { d.src.Reset(nil) }

// lz4Decompressor reads one lz4 frame of independent blocks, which is all that
// Java clients read.
type lz4Decompressor struct {
	src   bytes.Reader
	frame *lz4.Reader
}

func (d *lz4Decompressor) open(src []byte, _ int64) error {
	if err := checkLz4Frame(src); err != nil {
		return err
	}
	d.src.Reset(src)
	d.frame.Reset(&d.src)
	return nil
}

func (d *lz4Decompressor) Read(p []byte) (int, error) { return d.frame.Read(p) }

func (d *lz4Decompressor) close() {
	d.src.Reset(nil)
	d.frame.Reset(nil)
}

// checkLz4Frame walks the blocks of src and says whether it is exactly one lz4
// frame. The reader would go on with a second frame, a skippable or a legacy one,
// and would accept dependent blocks; a Java consumer would not.
func checkLz4Frame(src []byte) error {
	const (
		magic            = 0x184D2204
		blockIndependent = 1 << 5
		blockChecksum    = 1 << 4
		contentSize      = 1 << 3
		contentChecksum  = 1 << 2
		storedFlag       = 1 << 31
	)
	if len(src) < 7 || binary.LittleEndian.Uint32(src) != magic {
		return fmt.Errorf("%w: no lz4 frame", ErrMalformed)
	}
	flags := src[4]
	if flags&blockIndependent == 0 {
		return fmt.Errorf("%w: lz4 frame with dependent blocks", ErrMalformed)
	}
	at, trailer := int64(7), int64(0)
	if flags&contentSize != 0 {
		at += 8
	}
	if flags&contentChecksum != 0 {
		trailer = 4
	}
	for at+4 <= int64(len(src)) {
		size := binary.LittleEndian.Uint32(src[at:])
		at += 4
		if size == 0 {
			if at+trailer != int64(len(src)) {
				return fmt.Errorf("%w: lz4 frame of %d bytes in %d", ErrMalformed, at+trailer, len(src))
			}
			return nil
		}
		at += int64(size &^ storedFlag)
		if flags&blockChecksum != 0 {
			at += 4
		}
	}
	return fmt.Errorf("%w: lz4 frame", ErrTruncated)
}

// xerialMagic begins the framing of snappy-java: the magic, two versions of four
// bytes, then blocks behind their length. Some clients write one bare block
// instead; consumers read both.
var xerialMagic = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

const (
	xerialHeaderSize = 16
	// xerialBlockSize is the size of the blocks that snappy-java writes.
	xerialBlockSize = 32 << 10
	// snappyMaxRatio is more than any snappy block expands: a copy of 64 bytes
	// takes three.
	snappyMaxRatio = 24
	// maxPooledBlock bounds the decoded block that is kept between batches.
	maxPooledBlock = 1 << 20
)

// snappyDecompressor reads snappy blocks, xerial-framed or a bare one.
type snappyDecompressor struct {
	src    []byte // blocks not decoded yet
	max    int64  // bound on the size of a decoded block
	framed bool
	block  []byte // scratch
	unread []byte // the part of block not read yet
}

func (d *snappyDecompressor) open(src []byte, max int64) error {
	d.max = max
	d.framed = len(src) >= xerialHeaderSize && bytes.HasPrefix(src, xerialMagic)
	if !d.framed {
		d.src = src
		return nil
	}
	if compatible := int32(binary.BigEndian.Uint32(src[12:])); compatible < 1 {
		return fmt.Errorf("%w: xerial version %d", ErrMalformed, compatible)
	}
	d.src = src[xerialHeaderSize:]
	return nil
}

func (d *snappyDecompressor) Read(p []byte) (int, error) {
	for len(d.unread) == 0 {
		if len(d.src) == 0 {
			return 0, io.EOF
		}
		if err := d.nextBlock(); err != nil {
			return 0, err
		}
	}
	n := copy(p, d.unread)
	d.unread = d.unread[n:]
	return n, nil
}

func (d *snappyDecompressor) nextBlock() error {
	block := d.src
	if d.framed {
		if len(d.src) < 4 {
			return fmt.Errorf("%w: xerial block", ErrTruncated)
		}
		size := int64(binary.BigEndian.Uint32(d.src))
		if size > int64(len(d.src)-4) {
			return fmt.Errorf("%w: xerial block of %d bytes in %d", ErrTruncated, size, len(d.src)-4)
		}
		block = d.src[4 : 4+size]
	}
	size, err := snappy.DecodedLen(block)
	switch {
	case err != nil:
		return err
	case int64(size) > d.max:
		return ErrTooLarge
	case size > snappyMaxRatio*len(block):
		return snappy.ErrCorrupt
	}
	// The strict decoder refuses what only s2 can read and Java can not.
	decoded, err := snappy.DecodeStrict(d.block, block)
	if err != nil {
		return err
	}
	d.block, d.unread = decoded, decoded
	d.src = d.src[len(block):]
	if d.framed {
		d.src = d.src[4:]
	}
	return nil
}

func (d *snappyDecompressor) close() {
	d.src, d.unread = nil, nil
	if cap(d.block) > maxPooledBlock {
		d.block = nil
	}
}

// maxZstdWindow is the largest window for which a decoder keeps a buffer: what
// RFC 8878 asks every decoder to support and levels up to 19 need.
const maxZstdWindow = 8 << 20

// zstdDecompressor reads zstd frames: as a stream if their windows are small,
// else (levels 20 to 22 of a Java producer declare up to 128 MiB, however small
// the batch) at once into a buffer that grows with the output.
type zstdDecompressor struct {
	src    bytes.Reader
	stream *zstd.Decoder
	wide   *bytes.Reader // the whole output, if it was decoded at once
}

func (d *zstdDecompressor) open(src []byte, max int64) error {
	window, err := checkZstdFrames(src)
	if err != nil {
		return err
	}
	if window > maxZstdWindow {
		out, err := decodeWideZstd(src, max)
		d.wide = bytes.NewReader(out)
		return err
	}
	d.src.Reset(src)
	if d.stream != nil {
		return d.stream.Reset(&d.src)
	}
	// With concurrency 1 the decoder runs in Read and starts no goroutine.
	d.stream, err = zstd.NewReader(&d.src, zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
	return err
}

func (d *zstdDecompressor) Read(p []byte) (int, error) {
	if d.wide != nil {
		return d.wide.Read(p)
	}
	return d.stream.Read(p)
}

func (d *zstdDecompressor) close() {
	d.wide = nil
	d.src.Reset(nil)
	if d.stream != nil {
		_ = d.stream.Reset(nil) // fails only after Close, which nothing calls
	}
}

// checkZstdFrames walks the blocks of src, says whether it is whole frames and
// nothing else, and returns the largest window that one of them needs.
func checkZstdFrames(src []byte) (window uint64, err error) {
	for len(src) > 0 {
		var h zstd.Header
		if err := h.Decode(src); err != nil {
			return 0, noEOF(err)
		}
		if h.Skippable {
			return 0, fmt.Errorf("%w: skippable zstd frame", ErrMalformed)
		}
		size := h.WindowSize
		if h.SingleSegment {
			size = h.FrameContentSize
		}
		window = max(window, size)
		rest, err := skipZstdBlocks(src[h.HeaderSize:])
		if err != nil {
			return 0, err
		}
		if h.HasCheckSum {
			if len(rest) < 4 {
				return 0, fmt.Errorf("%w: zstd checksum", ErrTruncated)
			}
			rest = rest[4:]
		}
		src = rest
	}
	return window, nil
}

// skipZstdBlocks returns what follows a frame's last block.
func skipZstdBlocks(src []byte) ([]byte, error) {
	const typeRLE = 1 // one byte, repeated size times
	for len(src) >= 3 {
		header := uint32(src[0]) | uint32(src[1])<<8 | uint32(src[2])<<16
		size := int(header >> 3)
		if header>>1&3 == typeRLE {
			size = 1
		}
		if src = src[3:]; size > len(src) {
			break
		}
		src = src[size:]
		if header&1 != 0 {
			return src, nil
		}
	}
	return nil, fmt.Errorf("%w: zstd block", ErrTruncated)
}

// wideZstd decodes frames at once. It has no bound on the window, since the output
// itself is the window.
var wideZstd = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecodeAllCapLimit(true))
})

// decodeWideZstd decodes src into a buffer that starts small and quadruples, so
// that it is never much larger than the output or larger than max. One such frame
// is decoded at a time: they are rare, and costly in memory.
func decodeWideZstd(src []byte, max int64) ([]byte, error) {
	const maxBlock = 128 << 10
	d, err := wideZstd()
	if err != nil {
		return nil, err
	}
	for size := min(max, 1<<20); ; size = min(max, 4*size) {
		// With room for one more block, a block that does not fit leaves more
		// than size bytes behind; any other error leaves what it likes.
		out, err := d.DecodeAll(src, make([]byte, 0, size+maxBlock))
		short := int64(len(out)) > size || errors.Is(err, zstd.ErrDecoderSizeExceeded)
		switch {
		case short && size == max:
			return nil, ErrTooLarge
		case err == nil || !short:
			return out, err
		}
	}
}

// noEOF is for reads that must not meet the end of the source, because nothing of
// it was read yet: an EOF would pass for "no records".
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
