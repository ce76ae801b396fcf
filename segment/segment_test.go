package segment_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/segment"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// batch returns the bytes of a record batch, of which only the header's length,
// magic and record count are real.
func batch(records int32, body int) []byte {
	b := make([]byte, 61+body)
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	b[16] = 2
	binary.BigEndian.PutUint32(b[57:], uint32(records))
	for i := range body {
		b[61+i] = byte(i)
	}
	return b
}

var (
	testID     = uuid.MustParse("01932b6a-7c00-7000-8000-00000000002a")
	testTopic  = uuid.MustParse("a1a2a3a4-a5a6-47a8-a9aa-abacadaeafb0")
	testOrigin = segment.Origin{
		AgentID:   "agent-1",
		Session:   uuid.MustParse("5e551010-0000-4000-8000-000000000001"),
		Sequence:  7,
		CreatedAt: 1731600000123,
	}
)

// example is the object of FORMAT.md.
func example(t testing.TB) []byte {
	t.Helper()
	e := segment.NewEncoder(testID, testOrigin, 2, 61+5+61+61+3)
	for _, s := range []struct {
		partition int32
		batches   [][]byte
		records   int32
	}{{0, [][]byte{batch(2, 5)}, 2}, {3, [][]byte{batch(1, 0), batch(4, 3)}, 5}} {
		if _, err := e.Add(testTopic, s.partition, 9, s.batches, s.records, 1731599999999); err != nil {
			t.Fatal(err)
		}
	}
	object, err := e.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return object
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got), rewrite it with -update:\n%s", file, diff)
	}
}

// hexdump is like `hexdump -C`, without the text.
func hexdump(b []byte) string {
	var s strings.Builder
	for i := 0; i < len(b); i += 16 {
		fmt.Fprintf(&s, "%04x  % x\n", i, b[i:min(i+16, len(b))])
	}
	return s.String()
}

// TestGolden pins the bytes of the format, and with them that encoding does not
// depend on anything but its input.
func TestGolden(t *testing.T) {
	object := example(t)
	dump := hexdump(object)
	golden(t, "example.hex", dump)
	format, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(format), "```\n"+dump+"```") {
		t.Error("FORMAT.md does not show testdata/example.hex")
	}

	f, err := segment.DecodeFooter(bytes.NewReader(object), int64(len(object)))
	if err != nil {
		t.Fatal(err)
	}
	var text, json strings.Builder
	if err := errors.Join(segment.Dump(&text, f), segment.DumpJSON(&json, f)); err != nil {
		t.Fatal(err)
	}
	golden(t, "example.txt", text.String())
	golden(t, "example.json", json.String())
}

func TestEncoderAllocatesOnce(t *testing.T) {
	b := batch(10, 1<<20)
	batches := [][]byte{b}
	const sections = 8
	allocs := testing.AllocsPerRun(10, func() {
		e := segment.NewEncoder(testID, testOrigin, sections, sections*len(b))
		for p := range int32(sections) {
			if _, err := e.Add(testTopic, p, 0, batches, 10, -1); err != nil {
				t.Fatal(err)
			}
		}
		size := e.Size()
		object, err := e.Bytes()
		if err != nil || len(object) != cap(object) || int64(len(object)) != size {
			t.Fatalf("%d bytes in a capacity of %d, Size said %d, error %v", len(object), cap(object), size, err)
		}
	})
	if allocs > 3 { // the object, its sections, the encoder
		t.Errorf("%.0f allocations", allocs)
	}
}

func TestEncoderRefuses(t *testing.T) {
	one := [][]byte{batch(1, 0)}
	magic1 := batch(1, 0)
	magic1[16] = 1
	tooLong := batch(1, 0)
	tooLong[11]++
	tooShort := batch(1, 10)
	tooShort[11]--
	negative := batch(-1, 0)
	for name, add := range map[string]func(e *segment.Encoder) error{
		"no topic":           func(e *segment.Encoder) error { _, err := e.Add(uuid.UUID{}, 0, 0, one, 1, 0); return err },
		"negative partition": func(e *segment.Encoder) error { _, err := e.Add(testTopic, -1, 0, one, 1, 0); return err },
		"negative epoch":     func(e *segment.Encoder) error { _, err := e.Add(testTopic, 0, -1, one, 1, 0); return err },
		"no batches":         func(e *segment.Encoder) error { _, err := e.Add(testTopic, 0, 0, nil, 0, 0); return err },
		"empty batches":      func(e *segment.Encoder) error { _, err := e.Add(testTopic, 0, 0, [][]byte{{}}, 0, 0); return err },
		"no records": func(e *segment.Encoder) error {
			_, err := e.Add(testTopic, 0, 0, [][]byte{batch(0, 0)}, 0, 0)
			return err
		},
		"wrong count": func(e *segment.Encoder) error { _, err := e.Add(testTopic, 0, 0, one, 2, 0); return err },
		"cut header": func(e *segment.Encoder) error {
			_, err := e.Add(testTopic, 0, 0, [][]byte{one[0][:60]}, 1, 0)
			return err
		},
		"magic 1":          func(e *segment.Encoder) error { _, err := e.Add(testTopic, 0, 0, [][]byte{magic1}, 1, 0); return err },
		"length too long":  func(e *segment.Encoder) error { _, err := e.Add(testTopic, 0, 0, [][]byte{tooLong}, 1, 0); return err },
		"length too short": func(e *segment.Encoder) error { _, err := e.Add(testTopic, 0, 0, [][]byte{tooShort}, 1, 0); return err },
		"negative records": func(e *segment.Encoder) error {
			_, err := e.Add(testTopic, 0, 0, [][]byte{negative}, -1, 0)
			return err
		},
		"second is bad": func(e *segment.Encoder) error {
			_, err := e.Add(testTopic, 0, 0, [][]byte{one[0], magic1}, 2, 0)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := segment.NewEncoder(testID, testOrigin, 1, 0)
			before := e.Size()
			if err := add(e); !errors.Is(err, segment.ErrInvalid) {
				t.Errorf("got %v, want ErrInvalid", err)
			}
			if e.Size() != before {
				t.Errorf("the encoder kept something of it")
			}
			if _, err := e.Bytes(); !errors.Is(err, segment.ErrInvalid) {
				t.Errorf("an object without sections: got %v, want ErrInvalid", err)
			}
			if _, err := e.Add(testTopic, 0, 0, one, 1, 0); err != nil {
				t.Errorf("a good section afterwards: %v", err)
			}
			object, err := e.Bytes()
			if err != nil {
				t.Fatalf("Bytes: %v", err)
			}
			if _, err := segment.Verify(bytes.NewReader(object), int64(len(object))); err != nil {
				t.Errorf("Verify: %v", err)
			}
			if _, err := e.Add(testTopic, 0, 0, one, 1, 0); !errors.Is(err, segment.ErrInvalid) {
				t.Errorf("Add to a finished segment: got %v, want ErrInvalid", err)
			}
		})
	}
}

func TestEncoderRefusesOrigin(t *testing.T) {
	for name, change := range map[string]func(id *segment.ID, o *segment.Origin){
		"no ID":         func(id *segment.ID, _ *segment.Origin) { *id = segment.ID{} },
		"no agent":      func(_ *segment.ID, o *segment.Origin) { o.AgentID = "" },
		"long agent":    func(_ *segment.ID, o *segment.Origin) { o.AgentID = strings.Repeat("a", 256) },
		"agent in bits": func(_ *segment.ID, o *segment.Origin) { o.AgentID = "\xff" },
		"no session":    func(_ *segment.ID, o *segment.Origin) { o.Session = uuid.UUID{} },
	} {
		id, origin := testID, testOrigin
		change(&id, &origin)
		e := segment.NewEncoder(id, origin, 1, 61)
		if _, err := e.Add(testTopic, 0, 0, [][]byte{batch(1, 0)}, 1, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Bytes(); !errors.Is(err, segment.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
}

func drawID(t *rapid.T, label string) uuid.UUID {
	id := uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, label))
	id[0] |= 1 // not the nil one
	return id
}

// TestRoundTrip: what was added comes back, from any position, and the whole
// object is sound; the hints change nothing.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := drawID(t, "id")
		origin := segment.Origin{
			AgentID:   rapid.StringN(1, 60, segment.MaxAgentIDLength).Draw(t, "agent"),
			Session:   drawID(t, "session"),
			Sequence:  rapid.Uint64().Draw(t, "sequence"),
			CreatedAt: rapid.Int64().Draw(t, "created"),
		}
		e := segment.NewEncoder(id, origin, rapid.IntRange(0, 5).Draw(t, "hint"), rapid.IntRange(0, 4096).Draw(t, "bytes hint"))
		var want []segment.Section
		var data [][]byte
		for i := range rapid.IntRange(1, 400).Draw(t, "sections") {
			var batches [][]byte
			var records int32
			for range rapid.IntRange(1, 4).Draw(t, "batches") {
				n := rapid.Int32Range(1, 1000).Draw(t, "records")
				records += n
				batches = append(batches, batch(n, rapid.IntRange(0, 300).Draw(t, "body")))
			}
			s, err := e.Add(drawID(t, "topic"), rapid.Int32Range(0, math.MaxInt32).Draw(t, "partition"),
				rapid.Int32Range(0, math.MaxInt32).Draw(t, "epoch"), batches, records, rapid.Int64().Draw(t, "timestamp"))
			if err != nil {
				t.Fatalf("Add %d: %v", i, err)
			}
			want = append(want, s)
			data = append(data, bytes.Join(batches, nil))
		}
		size := e.Size()
		object, err := e.Bytes()
		if err != nil {
			t.Fatalf("Bytes: %v", err)
		}
		if int64(len(object)) != size {
			t.Fatalf("the object has %d bytes, Size said %d", len(object), size)
		}
		report, err := segment.Verify(bytes.NewReader(object), size)
		if err != nil {
			t.Fatalf("Verify: %v", err)
		}
		f := report.Footer
		if diff := cmp.Diff(want, f.Sections); diff != "" {
			t.Fatalf("sections (-added +decoded):\n%s", diff)
		}
		if f.ID != id || f.Origin != origin || f.Version != segment.Version {
			t.Fatalf("got %+v, want %s %+v", f, id, origin)
		}
		for i, s := range f.Sections {
			if !bytes.Equal(object[s.Position:s.End()], data[i]) {
				t.Fatalf("section %d is not where the footer says", i)
			}
			if sum := crc32.Checksum(data[i], crc32.MakeTable(crc32.Castagnoli)); sum != s.CRC {
				t.Fatalf("section %d has CRC %x, want %x", i, s.CRC, sum)
			}
		}
	})
}

// TestEveryFlippedBitIsFound flips each bit of an object.
func TestEveryFlippedBitIsFound(t *testing.T) {
	object := example(t)
	size := int64(len(object))
	for i := range object {
		for bit := range 8 {
			object[i] ^= 1 << bit
			if _, err := segment.Verify(bytes.NewReader(object), size); !errors.Is(err, segment.ErrCorrupt) && !errors.Is(err, segment.ErrVersion) {
				t.Errorf("bit %d of byte %d flipped: got %v, want ErrCorrupt or ErrVersion", bit, i, err)
			}
			object[i] ^= 1 << bit
		}
	}
}

func TestEveryTruncationIsFound(t *testing.T) {
	object := example(t)
	for n := range object {
		if _, err := segment.DecodeFooter(bytes.NewReader(object[:n]), int64(n)); !errors.Is(err, segment.ErrCorrupt) {
			t.Errorf("cut to %d bytes: got %v, want ErrCorrupt", n, err)
		}
		// The same, if the store claims the whole size.
		if _, err := segment.Verify(bytes.NewReader(object[:n]), int64(len(object))); !errors.Is(err, segment.ErrCorrupt) {
			t.Errorf("cut to %d bytes of a known size: got %v, want ErrCorrupt", n, err)
		}
	}
	longer := append(bytes.Clone(object), 0)
	if _, err := segment.DecodeFooter(bytes.NewReader(longer), int64(len(longer))); !errors.Is(err, segment.ErrCorrupt) {
		t.Errorf("a byte too many: got %v, want ErrCorrupt", err)
	}
	doubled := append(bytes.Clone(object), object...)
	if _, err := segment.DecodeFooter(bytes.NewReader(doubled), int64(len(doubled))); !errors.Is(err, segment.ErrCorrupt) {
		t.Errorf("two objects in one: got %v, want ErrCorrupt", err)
	}
}

func TestVerifyNamesAllDamage(t *testing.T) {
	object := example(t)
	size := int64(len(object))
	f, err := segment.DecodeFooter(bytes.NewReader(object), size)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range f.Sections {
		object[s.Position+20] ^= 1
	}
	report, err := segment.Verify(bytes.NewReader(object), size)
	if !errors.Is(err, segment.ErrCorrupt) || len(report.Damage) != 2 || report.Records != 0 {
		t.Errorf("got %+v, error %v, want two damaged sections", report, err)
	}
	object[f.Sections[0].Position+20] ^= 1
	report, err = segment.Verify(bytes.NewReader(object), size)
	if !errors.Is(err, segment.ErrCorrupt) || len(report.Damage) != 1 || report.Damage[0].Index != 1 || report.Records != 2 || report.Batches != 1 {
		t.Errorf("got %+v, error %v, want the second section damaged, the first counted", report, err)
	}
}

// TestVerifyWalksBatches: sections whose checksum is right but whose batches
// are not what the footer says, as a faulty writer would make them.
func TestVerifyWalksBatches(t *testing.T) {
	for name, change := range map[string]func(section []byte){
		"magic":         func(s []byte) { s[16] = 1 },
		"length":        func(s []byte) { s[11]++ },
		"short length":  func(s []byte) { s[11]-- },
		"tiny length":   func(s []byte) { s[10], s[11] = 0, 1 },
		"minus length":  func(s []byte) { s[8] = 0xff },
		"record count":  func(s []byte) { s[60]++ },
		"minus records": func(s []byte) { s[57] = 0xff },
	} {
		object := example(t)
		section := object[segment.HeaderSize : segment.HeaderSize+66]
		change(section)
		resum(object, 0, section)
		report, err := segment.Verify(bytes.NewReader(object), int64(len(object)))
		if !errors.Is(err, segment.ErrCorrupt) || len(report.Damage) != 1 {
			t.Errorf("%s: got %+v, error %v, want one damaged section", name, report, err)
		}
		if err != nil && strings.Contains(err.Error(), "CRC") {
			t.Errorf("%s: the checksum was to be right, but: %v", name, err)
		}
	}
}

// resum makes all checksums right after section i of the example has changed.
func resum(object []byte, i int, section []byte) {
	table := crc32.MakeTable(crc32.Castagnoli)
	trailer := object[len(object)-segment.TrailerSize:]
	footer := object[len(object)-segment.TrailerSize-int(binary.BigEndian.Uint32(trailer[8:])) : len(object)-segment.TrailerSize]
	head := int(binary.BigEndian.Uint16(footer))
	entry := footer[head+i*60:]
	binary.BigEndian.PutUint32(entry[56:], crc32.Checksum(section, table))
	binary.BigEndian.PutUint32(trailer[12:], crc32.Checksum(footer, table))
	binary.BigEndian.PutUint32(trailer[20:], crc32.Checksum(trailer[:20], table))
}

func TestVerifyStreamsLargeSections(t *testing.T) {
	e := segment.NewEncoder(testID, testOrigin, 1, 0)
	var batches [][]byte
	for range 40 {
		batches = append(batches, batch(3, 100_000))
	}
	if _, err := e.Add(testTopic, 0, 0, batches, 120, 0); err != nil {
		t.Fatal(err)
	}
	object, err := e.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	report, err := segment.Verify(bytes.NewReader(object), int64(len(object)))
	if err != nil || report.Batches != 40 || report.Records != 120 || report.Bytes != 40*(61+100_000) {
		t.Errorf("got %+v, error %v", report, err)
	}
}

// failing fails the reads of which fails says so.
type failing struct {
	io.ReaderAt
	fails func(offset int64, length int) bool
	err   error
}

func (f failing) ReadAt(b []byte, offset int64) (int, error) {
	if f.fails(offset, len(b)) {
		return 0, f.err
	}
	return f.ReaderAt.ReadAt(b, offset)
}

func TestReaderErrorsAreNotCorruption(t *testing.T) {
	lost := errors.New("connection lost")
	e := segment.NewEncoder(testID, testOrigin, 1, 0)
	if _, err := e.Add(testTopic, 0, 0, [][]byte{batch(1, 100_000)}, 1, 0); err != nil {
		t.Fatal(err)
	}
	object, err := e.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(object))
	for name, fails := range map[string]func(offset int64, length int) bool{
		"footer":  func(offset int64, length int) bool { return offset+int64(length) == size },
		"header":  func(offset int64, _ int) bool { return offset == 0 },
		"section": func(offset int64, _ int) bool { return offset == segment.HeaderSize },
	} {
		r := failing{bytes.NewReader(object), fails, lost}
		if _, err := segment.Verify(r, size); !errors.Is(err, lost) || errors.Is(err, segment.ErrCorrupt) {
			t.Errorf("%s: got %v, want the reader's own error", name, err)
		}
	}
}

// TestEvolution: fields behind those that are known are skipped, another
// version is refused by name.
func TestEvolution(t *testing.T) {
	table := crc32.MakeTable(crc32.Castagnoli)
	object := example(t)
	trailerAt := len(object) - segment.TrailerSize
	footerLength := int(binary.BigEndian.Uint32(object[trailerAt+8:]))
	footerAt := trailerAt - footerLength
	footer := object[footerAt:trailerAt]
	head := int(binary.BigEndian.Uint16(footer))

	// A later build: 5 more bytes in the head, 8 more in each entry.
	var later []byte
	later = append(later, footer[:head]...)
	later = append(later, "later"...)
	for i := range 2 {
		later = append(later, footer[head+i*60:head+(i+1)*60]...)
		later = append(later, "appended"...)
	}
	binary.BigEndian.PutUint16(later, uint16(head+5))
	binary.BigEndian.PutUint16(later[2:], 68)
	newer := append(bytes.Clone(object[:footerAt]), later...)
	trailer := bytes.Clone(object[trailerAt:])
	binary.BigEndian.PutUint64(trailer, uint64(len(newer)+len(trailer)))
	binary.BigEndian.PutUint32(trailer[8:], uint32(len(later)))
	binary.BigEndian.PutUint32(trailer[12:], crc32.Checksum(later, table))
	binary.BigEndian.PutUint32(trailer[20:], crc32.Checksum(trailer[:20], table))
	newer = append(newer, trailer...)
	report, err := segment.Verify(bytes.NewReader(newer), int64(len(newer)))
	if err != nil {
		t.Fatalf("an object with more fields: %v", err)
	}
	if got := report.Footer; got.Origin != testOrigin || len(got.Sections) != 2 || got.Sections[1].Records != 5 {
		t.Errorf("an object with more fields: got %+v", got)
	}

	for name, at := range map[string]int{"version": trailerAt + 17, "flags": trailerAt + 19} {
		other := bytes.Clone(object)
		other[at] = 2
		if _, err := segment.DecodeFooter(bytes.NewReader(other), int64(len(other))); !errors.Is(err, segment.ErrVersion) || errors.Is(err, segment.ErrCorrupt) {
			t.Errorf("another %s: got %v, want ErrVersion", name, err)
		}
	}
}

func TestValidate(t *testing.T) {
	object := example(t)
	size := int64(len(object))
	for name, change := range map[string]func(f *segment.Footer){
		"version":      func(f *segment.Footer) { f.Version = 2 },
		"no sections":  func(f *segment.Footer) { f.Sections = nil },
		"gap":          func(f *segment.Footer) { f.Sections[1].Position++ },
		"overlap":      func(f *segment.Footer) { f.Sections[0].Length++ },
		"rest":         func(f *segment.Footer) { f.Sections = f.Sections[:1] },
		"beyond":       func(f *segment.Footer) { f.Sections[1].Length = math.MaxInt64 },
		"negative":     func(f *segment.Footer) { f.Sections[0].Length = -1 },
		"order":        func(f *segment.Footer) { f.Sections[0], f.Sections[1] = f.Sections[1], f.Sections[0] },
		"no records":   func(f *segment.Footer) { f.Sections[0].Records = 0 },
		"no batches":   func(f *segment.Footer) { f.Sections[0].Batches = 0 },
		"dense":        func(f *segment.Footer) { f.Sections[0].Batches = 2 },
		"footer":       func(f *segment.Footer) { f.Length = size },
		"small footer": func(f *segment.Footer) { f.Length = 10 },
	} {
		f, err := segment.DecodeFooter(bytes.NewReader(object), size)
		if err != nil {
			t.Fatal(err)
		}
		change(f)
		if err := segment.Validate(f, size); err == nil {
			t.Errorf("%s: was not noticed", name)
		}
	}
}

func TestKeys(t *testing.T) {
	id := segment.NewID()
	key := segment.ObjectKey(id)
	if got, err := segment.ParseKey(key); err != nil || got != id {
		t.Errorf("ParseKey(%s): got %s, %v", key, got, err)
	}
	if got, want := segment.ObjectKey(testID), "segments/2a/01932b6a-7c00-7000-8000-00000000002a.seg"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, key := range []string{
		"", "segments/", "segments/2a/x.seg", "segments/2b/01932b6a-7c00-7000-8000-00000000002a.seg",
		"x/segments/2a/01932b6a-7c00-7000-8000-00000000002a.seg", "segments/2a/01932b6a-7c00-7000-8000-00000000002a",
		"segments/2a/01932B6A-7c00-7000-8000-00000000002a.seg", "segments/2a/01932b6a7c007000800000000000002a.seg",
		"segments/2a/{01932b6a-7c00-7000-8000-00000000002a}.seg",
	} {
		if got, err := segment.ParseKey(key); err == nil {
			t.Errorf("ParseKey(%s): got %s, want an error", key, got)
		}
	}
}

// Names and numbers of parts are as FORMAT.md has them, for ever: what is in the
// bucket keeps its name. Neither are IDs of earlier releases split, whatever their
// byte 14 is.
func TestPartsOfAnObject(t *testing.T) {
	golden := uuid.MustParse("01932b6a-7c00-8123-8456-789abcde002a")
	whole := uuid.MustParse("01932b6a-7c00-7123-8456-789abcde072a")
	for _, tc := range []struct {
		id     segment.ID
		part   int
		object segment.ID
		key    string
	}{
		{golden, 0, golden, "segments/2a/01932b6a-7c00-8123-8456-789abcde002a.seg"},
		{segment.Part(golden, 1), 1, golden, "segments/2a/01932b6a-7c00-8123-8456-789abcde002a.seg"},
		{uuid.MustParse("01932b6a-7c00-8123-8456-789abcde3f2a"), 63, golden, "segments/2a/01932b6a-7c00-8123-8456-789abcde002a.seg"},
		{whole, 0, whole, "segments/2a/01932b6a-7c00-7123-8456-789abcde072a.seg"},
		{uuid.Nil, 0, uuid.Nil, "segments/00/00000000-0000-0000-0000-000000000000.seg"},
	} {
		if part, object, key := segment.PartOf(tc.id), segment.Object(tc.id), segment.ObjectKey(tc.id); part != tc.part || object != tc.object || key != tc.key {
			t.Errorf("%s: part %d of %s, %s", tc.id, part, object, key)
		}
	}
	if _, err := segment.ParseKey("segments/2a/01932b6a-7c00-8123-8456-789abcde012a.seg"); err == nil {
		t.Error("a part was taken for an object")
	}
	before := time.Now().UnixMilli()
	id := segment.NewID()
	made := int64(binary.BigEndian.Uint64(id[:8]) >> 16)
	if segment.Object(id) != id || id.Version() != 8 || id.Variant() != uuid.RFC4122 || made < before || made > time.Now().UnixMilli() {
		t.Errorf("new ID is %s, made at %d", id, made)
	}
	for n := range segment.MaxParts {
		part := segment.Part(id, n)
		if segment.PartOf(part) != n || segment.Object(part) != id || segment.ObjectKey(part) != segment.ObjectKey(id) {
			t.Errorf("part %d of %s is %s", n, id, part)
		}
	}
}

func TestNewIDsDifferAndRise(t *testing.T) {
	seen := make(map[segment.ID]bool)
	prefixes := make(map[string]bool)
	last := segment.ID{}
	for range 10_000 {
		id := segment.NewID()
		if seen[id] || bytes.Compare(id[:], last[:]) <= 0 {
			t.Fatalf("%s after %s", id, last)
		}
		seen[id], last = true, id
		prefixes[segment.ObjectKey(id)[:len("segments/00")]] = true
	}
	if len(prefixes) != 256 {
		t.Errorf("10,000 keys fall under %d prefixes, want 256", len(prefixes))
	}
}

// FuzzDecodeFooter: no bytes make the decoder panic or use more memory than the
// object's own size gives reason for, and what it accepts is valid.
func FuzzDecodeFooter(f *testing.F) {
	f.Add(example(f))
	f.Add(example(f)[100:])
	f.Add(bytes.Repeat([]byte{0xff}, 300))
	f.Fuzz(func(t *testing.T, object []byte) {
		size := int64(len(object))
		footer, err := segment.DecodeFooter(bytes.NewReader(object), size)
		if err != nil {
			if !errors.Is(err, segment.ErrCorrupt) && !errors.Is(err, segment.ErrVersion) {
				t.Fatalf("an error of neither kind: %v", err)
			}
			return
		}
		if err := segment.Validate(footer, size); err != nil {
			t.Fatalf("accepted an invalid footer: %v", err)
		}
		if int64(len(footer.Sections)) > size/60 {
			t.Fatalf("%d sections from %d bytes", len(footer.Sections), size)
		}
	})
}

// FuzzDecodeFooterResummed is FuzzDecodeFooter behind the checksums: the footer
// is any bytes, under a trailer that vouches for them.
func FuzzDecodeFooterResummed(f *testing.F) {
	object := example(f)
	f.Add(object[len(object)-segment.TrailerSize-185:len(object)-segment.TrailerSize], int64(191))
	f.Add([]byte{}, int64(0))
	f.Fuzz(func(t *testing.T, footer []byte, data int64) {
		table := crc32.MakeTable(crc32.Castagnoli)
		size := segment.HeaderSize + data&0xffff + int64(len(footer)) + segment.TrailerSize
		trailer := bytes.Clone(object[len(object)-segment.TrailerSize:])
		binary.BigEndian.PutUint64(trailer, uint64(size))
		binary.BigEndian.PutUint32(trailer[8:], uint32(len(footer)))
		binary.BigEndian.PutUint32(trailer[12:], crc32.Checksum(footer, table))
		binary.BigEndian.PutUint32(trailer[20:], crc32.Checksum(trailer[:20], table))
		whole := bytes.Join([][]byte{make([]byte, size-int64(len(footer))-segment.TrailerSize), footer, trailer}, nil)
		decoded, err := segment.DecodeFooter(bytes.NewReader(whole), size)
		if err == nil {
			err = segment.Validate(decoded, size)
			if err != nil {
				t.Fatalf("accepted an invalid footer: %v", err)
			}
			_, _ = segment.Verify(bytes.NewReader(whole), size) // it must not panic
		} else if !errors.Is(err, segment.ErrCorrupt) {
			t.Fatalf("an error of another kind: %v", err)
		}
	})
}

func BenchmarkEncoder(b *testing.B) {
	for _, shape := range []struct{ sections, batches, size int }{{1, 8, 1 << 20}, {64, 4, 16 << 10}, {1000, 1, 4 << 10}} {
		b.Run(fmt.Sprintf("%dx%dx%dKiB", shape.sections, shape.batches, shape.size>>10), func(b *testing.B) {
			batches := make([][]byte, shape.batches)
			for i := range batches {
				batches[i] = batch(100, shape.size)
			}
			data := shape.sections * shape.batches * len(batches[0])
			b.SetBytes(int64(data))
			b.ReportAllocs()
			for b.Loop() {
				e := segment.NewEncoder(testID, testOrigin, shape.sections, data)
				for p := range shape.sections {
					if _, err := e.Add(testTopic, int32(p), 0, batches, int32(shape.batches)*100, 0); err != nil {
						b.Fatal(err)
					}
				}
				if _, err := e.Bytes(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecodeFooter(b *testing.B) {
	e := segment.NewEncoder(testID, testOrigin, 0, 0)
	for p := range int32(200) {
		if _, err := e.Add(testTopic, p, 0, [][]byte{batch(1, 100)}, 1, 0); err != nil {
			b.Fatal(err)
		}
	}
	object, err := e.Bytes()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := segment.DecodeFooter(bytes.NewReader(object), int64(len(object))); err != nil {
			b.Fatal(err)
		}
	}
}
