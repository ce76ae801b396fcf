package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// tailGuess is how much of an object's end is read at first. A footer of up to
// 250 sections then costs one read, which may be one request to a bucket.
const tailGuess = 16 << 10

// DecodeFooter reads the footer of the object of size bytes behind r. It reads
// the object's end only, with at most two reads, and allocates no more than the
// footer's place in the object could need.
//
// It returns ErrCorrupt or ErrVersion if the bytes are not a footer that it can
// read, and the reader's own error if that failed.
func DecodeFooter(r io.ReaderAt, size int64) (*Footer, error) {
	if size < HeaderSize+footerHeadSize+TrailerSize {
		return nil, fmt.Errorf("%w: %d bytes are too few", ErrCorrupt, size)
	}
	tail := make([]byte, min(size, tailGuess))
	if err := readAt(r, tail, size-int64(len(tail))); err != nil {
		return nil, err
	}
	t, err := parseTrailer(tail[len(tail)-TrailerSize:], size)
	if err != nil {
		return nil, err
	}
	body := tail[:len(tail)-TrailerSize]
	if n := int(t.footerLength); n <= len(body) {
		body = body[len(body)-n:]
	} else {
		body = make([]byte, n)
		if err := readAt(r, body, size-TrailerSize-int64(n)); err != nil {
			return nil, err
		}
	}
	if sum := crc32.Checksum(body, castagnoli); sum != t.footerCRC {
		return nil, fmt.Errorf("%w: footer has CRC %08x, must be %08x", ErrCorrupt, sum, t.footerCRC)
	}
	f, err := parseFooter(body)
	if err == nil {
		err = Validate(f, size)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: footer: %w", ErrCorrupt, err)
	}
	return f, nil
}

type trailer struct {
	footerLength uint32
	footerCRC    uint32
}

// parseTrailer reads the TrailerSize bytes of b, the end of an object of size
// bytes. The footer's length that it returns fits into the object.
func parseTrailer(b []byte, size int64) (trailer, error) {
	if !bytes.Equal(b[24:], trailerMagic[:]) {
		return trailer{}, fmt.Errorf("%w: no trailer at the end: cut off, or not a segment", ErrCorrupt)
	}
	// The version comes first: what else there is may differ in another one.
	if err := checkVersion(b[16:20]); err != nil {
		return trailer{}, err
	}
	if sum, want := crc32.Checksum(b[:20], castagnoli), binary.BigEndian.Uint32(b[20:]); sum != want {
		return trailer{}, fmt.Errorf("%w: trailer has CRC %08x, must be %08x", ErrCorrupt, sum, want)
	}
	if n := binary.BigEndian.Uint64(b); n != uint64(size) {
		return trailer{}, fmt.Errorf("%w: trailer is of an object of %d bytes, this one has %d", ErrCorrupt, n, size)
	}
	t := trailer{footerLength: binary.BigEndian.Uint32(b[8:]), footerCRC: binary.BigEndian.Uint32(b[12:])}
	if n := int64(t.footerLength); n < footerHeadSize || n > size-HeaderSize-TrailerSize {
		return trailer{}, fmt.Errorf("%w: footer of %d bytes in an object of %d", ErrCorrupt, n, size)
	}
	return t, nil
}

// checkVersion reads the two bytes of the version and the two of the flags, of
// which none is known.
func checkVersion(b []byte) error {
	version, flags := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	if version != Version || flags != 0 {
		return fmt.Errorf("%w: version %d with flags %#x, this build reads %d", ErrVersion, version, flags, Version)
	}
	return nil
}

// parseFooter reads a footer's bytes. It skips fields that it does not know,
// which a later build may have put behind a footer's head and behind the fields
// of an entry.
func parseFooter(b []byte) (*Footer, error) {
	if len(b) < footerHeadSize {
		return nil, fmt.Errorf("%d bytes are too few", len(b))
	}
	head, entry := int(binary.BigEndian.Uint16(b)), int(binary.BigEndian.Uint16(b[2:]))
	count, agentID := int64(binary.BigEndian.Uint32(b[4:])), int(binary.BigEndian.Uint16(b[56:]))
	switch {
	case head < footerHeadSize+agentID || head > len(b):
		return nil, fmt.Errorf("head of %d bytes with an agent ID of %d", head, agentID)
	case entry < entrySize:
		return nil, fmt.Errorf("entries of %d bytes, must be at least %d", entry, entrySize)
	case count > MaxSections || int64(head)+count*int64(entry) != int64(len(b)):
		return nil, fmt.Errorf("%d entries of %d bytes in a footer of %d", count, entry, len(b))
	}
	f := &Footer{
		Version: Version, // the trailer's was checked
		ID:      ID(b[8:24]),
		Length:  int64(len(b)),
		Origin: Origin{
			Session:   ID(b[24:40]),
			Sequence:  binary.BigEndian.Uint64(b[40:]),
			CreatedAt: int64(binary.BigEndian.Uint64(b[48:])),
			AgentID:   string(b[58 : 58+agentID]),
		},
		Sections: make([]Section, count),
	}
	for i := range f.Sections {
		f.Sections[i] = parseEntry(b[head+i*entry:])
	}
	return f, nil
}

func parseEntry(b []byte) Section {
	return Section{
		TopicID:      ID(b[:16]),
		Partition:    int32(binary.BigEndian.Uint32(b[16:])),
		LeaderEpoch:  int32(binary.BigEndian.Uint32(b[20:])),
		Position:     int64(binary.BigEndian.Uint64(b[24:])),
		Length:       int64(binary.BigEndian.Uint64(b[32:])),
		Batches:      int32(binary.BigEndian.Uint32(b[40:])),
		Records:      int32(binary.BigEndian.Uint32(b[44:])),
		MaxTimestamp: int64(binary.BigEndian.Uint64(b[48:])),
		CRC:          binary.BigEndian.Uint32(b[56:]),
	}
}

// checkHeader reads the HeaderSize bytes of b, an object's first ones.
func checkHeader(b []byte, id ID) error {
	if !bytes.Equal(b[:8], headerMagic[:]) {
		return fmt.Errorf("%w: no header at the begin", ErrCorrupt)
	}
	if err := checkVersion(b[8:12]); err != nil {
		return err
	}
	if sum, want := crc32.Checksum(b[:28], castagnoli), binary.BigEndian.Uint32(b[28:]); sum != want {
		return fmt.Errorf("%w: header has CRC %08x, must be %08x", ErrCorrupt, sum, want)
	}
	if got := ID(b[12:28]); got != id {
		return fmt.Errorf("%w: header is of segment %s, footer of %s", ErrCorrupt, got, id)
	}
	return nil
}

// readAt fills b from r at offset.
func readAt(r io.ReaderAt, b []byte, offset int64) error {
	n, err := r.ReadAt(b, offset)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %d bytes at %d, but only %d are there", ErrCorrupt, len(b), offset, n)
	}
	return fmt.Errorf("read %d bytes of the segment at %d: %w", len(b), offset, err)
}
