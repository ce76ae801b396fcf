package batch_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/protocol/batch"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

func compress(t testing.TB, codec batch.Codec, records []byte) []byte {
	t.Helper()
	compressed, err := batch.Compress(codec, 0, records)
	if err != nil {
		t.Fatal(err)
	}
	return compressed
}

var sizes = []int{0, 1, 100, 32 << 10, 64 << 10, 64<<10 + 1, 1 << 20}

func TestCompressRoundTrips(t *testing.T) {
	for _, codec := range codecs {
		for _, level := range []int{-200_000, -1, 0, 1, 3, 6, 9, 10, 17, 22, 1000} {
			want := text(100_000)
			compressed, err := batch.Compress(codec, level, want)
			if err != nil {
				t.Fatalf("%v level %d: %v", codec, level, err)
			}
			got, err := batch.Decompress(codec, compressed, int64(len(want)))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v level %d: %d bytes, %v", codec, level, len(got), err)
			}
		}
	}
}

func TestFranzReadsWhatCompressWrites(t *testing.T) {
	reader := kgo.DefaultDecompressor()
	for _, codec := range codecs {
		for _, size := range sizes[1:] { // a snappy stream of nothing is too short for franz
			want := text(size)
			got, err := reader.Decompress(compress(t, codec, want), kgo.CompressionCodecType(codec))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v: %d bytes of %d, %v", codec, len(got), size, err)
			}
		}
	}
}

func TestDecompressReadsWhatFranzWrites(t *testing.T) {
	for codec, option := range map[batch.Codec]kgo.CompressionCodec{
		batch.CodecGzip:   kgo.GzipCompression(),
		batch.CodecSnappy: kgo.SnappyCompression(), // a bare block
		batch.CodecLz4:    kgo.Lz4Compression(),
		batch.CodecZstd:   kgo.ZstdCompression(),
	} {
		writer, err := kgo.DefaultCompressor(option)
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range sizes {
			want := text(size)
			compressed, _ := writer.Compress(new(bytes.Buffer), want)
			got, err := batch.Decompress(codec, compressed, int64(size))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v: %d bytes of %d, %v", codec, len(got), size, err)
			}
			if size == 0 {
				continue
			}
			if _, err := batch.Decompress(codec, compressed, int64(size)-1); !errors.Is(err, batch.ErrTooLarge) {
				t.Errorf("%v: one byte more than allowed: %v", codec, err)
			}
		}
	}
}

func TestDecompressRefusesWhatIsNotWhole(t *testing.T) {
	for _, codec := range codecs[1:] {
		compressed := compress(t, codec, text(200_000))
		for _, n := range []int{1, 2, 3, 4, 5, 8, 100} {
			if _, err := batch.Decompress(codec, compressed[:len(compressed)-n], 1<<20); err == nil {
				t.Errorf("%v: %d bytes short: no error", codec, n)
			}
			for _, fill := range []byte{0, 1, 0xff} {
				longer := append(bytes.Clone(compressed), bytes.Repeat([]byte{fill}, n)...)
				if _, err := batch.Decompress(codec, longer, 1<<20); err == nil {
					t.Errorf("%v: %d bytes %d behind the end: no error", codec, n, fill)
				}
			}
		}
		if _, err := batch.Decompress(codec, append(bytes.Clone(compressed), compressed...), 1<<20); err == nil && codec != batch.CodecZstd {
			t.Errorf("%v: twice: no error", codec)
		}
	}
}

// Java reads lz4 frames of independent blocks only, and no other kind of frame.
func TestLz4FramesThatJavaCantReadAreRefused(t *testing.T) {
	plain := compress(t, batch.CodecLz4, text(1000))
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0}, plain...)
	dependent := bytes.Clone(plain)
	dependent[4] &^= 1 << 5
	var legacy bytes.Buffer
	w := lz4.NewWriter(&legacy)
	if err := errors.Join(w.Apply(lz4.LegacyOption(true)), write(w, text(1000))); err != nil {
		t.Fatal(err)
	}
	for name, src := range map[string][]byte{"skippable": skippable, "dependent": dependent, "legacy": legacy.Bytes()} {
		if _, err := batch.Decompress(batch.CodecLz4, src, 1<<20); !errors.Is(err, batch.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func write(w interface {
	Write([]byte) (int, error)
	Close() error
}, p []byte,
) error {
	_, err := w.Write(p)
	return errors.Join(err, w.Close())
}

func TestLz4FramesWithAllOptionsAreRead(t *testing.T) {
	want := text(300_000)
	for _, size := range []lz4.BlockSize{lz4.Block64Kb, lz4.Block256Kb, lz4.Block1Mb, lz4.Block4Mb} {
		var b bytes.Buffer
		w := lz4.NewWriter(&b)
		if err := errors.Join(w.Apply(lz4.BlockSizeOption(size), lz4.BlockChecksumOption(true),
			lz4.ChecksumOption(true), lz4.SizeOption(uint64(len(want)))), write(w, want)); err != nil {
			t.Fatal(err)
		}
		got, err := batch.Decompress(batch.CodecLz4, b.Bytes(), int64(len(want)))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("blocks of %v: %d bytes, %v", size, len(got), err)
		}
	}
}

// wideZstd declares a window of 128 MiB, as zstd-jni does at level 22.
func wideZstd(t testing.TB, records []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithWindowSize(128<<20), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithLowerEncoderMem(true))
	if err != nil {
		t.Fatal(err)
	}
	// Two writes, so that the frame does not know its size.
	if _, err := w.Write(records[:len(records)/2]); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Flush(), write(w, records[len(records)/2:])); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestZstdWithAWideWindow(t *testing.T) {
	want := text(5 << 20)
	compressed := wideZstd(t, want)
	var h zstd.Header
	if err := h.Decode(compressed); err != nil || h.WindowSize != 128<<20 {
		t.Fatalf("window %d, %v", h.WindowSize, err)
	}
	got, err := batch.Decompress(batch.CodecZstd, compressed, int64(len(want)))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := batch.Decompress(batch.CodecZstd, compressed, int64(len(want))-1); !errors.Is(err, batch.ErrTooLarge) {
		t.Errorf("one byte more than allowed: %v", err)
	}
}

func TestXerialBlocksThatLie(t *testing.T) {
	header := []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1}
	for name, tail := range map[string][]byte{
		"half a length":        {0, 0},
		"a length behind":      {0, 0, 0, 9, 1, 0, 'x'},
		"a negative length":    {0xff, 0xff, 0xff, 0xff, 1, 0, 'x'},
		"an empty block":       {0, 0, 0, 0},
		"a size that can't be": {0, 0, 0, 8, 0x80, 0x80, 0x80, 0x80, 0x01, 0, 'x', 0},
		"the repeat of s2":     {0, 0, 0, 7, 6, 0x04, 'a', 'b', 0x01, 0x00, 0},
	} {
		if _, err := batch.Decompress(batch.CodecSnappy, append(bytes.Clone(header), tail...), 1<<30); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	old := bytes.Clone(header)
	old[15] = 0
	if _, err := batch.Decompress(batch.CodecSnappy, old, 10); !errors.Is(err, batch.ErrMalformed) {
		t.Errorf("an old version: %v", err)
	}
}

// bombs are 24 MiB of zeros as one record value, compressed.
func bombs(t testing.TB) map[string]batch.Batch {
	t.Helper()
	const size = 24 << 20
	body := binary.AppendVarint([]byte{0, 0, 0, 1}, size)
	body = append(append(body, make([]byte, size)...), 0)
	raw := append(binary.AppendVarint(nil, int64(len(body))), body...)
	bs := make(map[string]batch.Batch)
	build := func(name string, codec batch.Codec, compressed []byte) {
		bs[name] = withRecords(batchtest.Build(batchtest.Options{Records: records(1, 1), Codec: codec}), compressed)
	}
	for _, codec := range codecs[1:] {
		build(codec.String(), codec, compress(t, codec, raw))
	}
	build("wide zstd", batch.CodecZstd, wideZstd(t, raw))
	return bs
}

func TestDecompressionBombs(t *testing.T) {
	for name, b := range bombs(t) {
		rules := kafkaDefaults()
		rules.MaxMessageBytes = 16 << 20
		if code, _ := refusal(t, bytes.Clone(b), rules); code != kerr.MessageTooLarge {
			t.Errorf("%s: %v", name, code)
		}
		// Within the bound it is a record like others, and takes no more memory.
		rules.MaxDecompressedBytes = 100 << 20
		if _, err := batch.Validate(bytes.Clone(b), rules); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if name == "wide zstd" {
			continue
		}
		if allocated := allocatedBy(func() { _, _ = batch.Validate(b, rules) }); allocated > 12<<20 {
			t.Errorf("%s: %d bytes allocated", name, allocated)
		}
	}
}

func allocatedBy(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A frame may claim any size: what it claims must not be allocated.
func TestSizesThatFramesClaimAreNotAllocated(t *testing.T) {
	var lz bytes.Buffer
	w := lz4.NewWriter(&lz)
	if err := w.Apply(lz4.SizeOption(1 << 40)); err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte("x"))
	_ = w.Close() // says that the size is wrong
	var gz bytes.Buffer
	if err := write(gzip.NewWriter(&gz), []byte("x")); err != nil {
		t.Fatal(err)
	}
	binary.LittleEndian.PutUint32(gz.Bytes()[gz.Len()-4:], 1<<31)
	for name, tc := range map[string]struct {
		codec batch.Codec
		src   []byte
	}{
		"lz4":          {batch.CodecLz4, lz.Bytes()},
		"gzip":         {batch.CodecGzip, gz.Bytes()},
		"snappy":       {batch.CodecSnappy, []byte{0xff, 0xff, 0xff, 0xff, 0x07, 0, 'x'}},
		"zstd segment": {batch.CodecZstd, []byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0}},
		"zstd window":  {batch.CodecZstd, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x88, 1, 0, 0}},
	} {
		var err error
		allocated := allocatedBy(func() { _, err = batch.Decompress(tc.codec, tc.src, 16<<20) })
		if allocated > 32<<20 || (err == nil && name != "zstd window") {
			t.Errorf("%s: %d bytes allocated, %v", name, allocated, err)
		}
	}
}
