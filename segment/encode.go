package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/google/uuid"
)

var (
	headerMagic  = [8]byte{0x89, 'S', 'H', 'S', 'E', 'G', '\r', '\n'}
	trailerMagic = [8]byte{0x89, 'S', 'H', 'E', 'N', 'D', '\r', '\n'}
	castagnoli   = crc32.MakeTable(crc32.Castagnoli)
)

// Encoder builds one segment in memory. The bytes depend on nothing but the
// arguments, so that equal input makes equal objects. An Encoder is for one
// goroutine and one object.
type Encoder struct {
	footer Footer
	buf    []byte
	sealed bool
}

// NewEncoder begins the segment id. The hints say how many sections and how
// many bytes of batches will be added: if they are right, the object is
// allocated once and exactly; if not, it is still right, and copied as it grows.
func NewEncoder(id ID, origin Origin, sectionsHint, bytesHint int) *Encoder {
	size := HeaderSize + bytesHint + int(footerLength(&origin, sectionsHint)) + TrailerSize
	e := &Encoder{
		footer: Footer{Version: Version, ID: id, Origin: origin, Sections: make([]Section, 0, sectionsHint)},
		buf:    make([]byte, 0, size),
	}
	e.buf = appendHeader(e.buf, id)
	return e
}

// Add appends one section. Each element of batches is one or more whole record
// batches; their bytes are copied. records is their record count together, and
// maxTimestamp their largest timestamp in Unix milliseconds, or -1.
//
// A partition's sections are to be added in the order of acceptance. An error
// is ErrInvalid and leaves the encoder as it was.
func (e *Encoder) Add(topicID uuid.UUID, partition, leaderEpoch int32, batches [][]byte, records int32, maxTimestamp int64) (Section, error) {
	s := Section{
		TopicID: topicID, Partition: partition, LeaderEpoch: leaderEpoch,
		Position: int64(len(e.buf)), Records: records, MaxTimestamp: maxTimestamp,
	}
	if err := e.add(&s, batches); err != nil {
		e.buf = e.buf[:s.Position]
		return Section{}, fmt.Errorf("%w: partition %d of topic %s: %w", ErrInvalid, partition, topicID, err)
	}
	e.footer.Sections = append(e.footer.Sections, s)
	return s, nil
}

func (e *Encoder) add(s *Section, batches [][]byte) error {
	if e.sealed {
		return errors.New("the segment is finished")
	}
	if len(e.footer.Sections) == MaxSections {
		return fmt.Errorf("the segment has %d sections already", MaxSections)
	}
	var counted, records int64
	for _, b := range batches {
		n, r, err := countBatches(b)
		if err != nil {
			return err
		}
		counted += n
		records += r
		// Summed up right behind the copy, while the bytes are in the cache.
		e.buf = append(e.buf, b...)
		s.CRC = crc32.Update(s.CRC, castagnoli, b)
	}
	if records != int64(s.Records) {
		return fmt.Errorf("the batches have %d records, not %d", records, s.Records)
	}
	if counted > math.MaxInt32 {
		return fmt.Errorf("%d batches", counted)
	}
	s.Batches = int32(counted)
	s.Length = int64(len(e.buf)) - s.Position
	return s.validate()
}

// Size is the size in bytes that the object has with the sections so far.
func (e *Encoder) Size() int64 {
	if e.sealed {
		return int64(len(e.buf))
	}
	return int64(len(e.buf)) + footerLength(&e.footer.Origin, len(e.footer.Sections)) + TrailerSize
}

// Bytes finishes the segment and returns the whole object, which is the
// caller's. No section can be added afterwards. An error is ErrInvalid.
func (e *Encoder) Bytes() ([]byte, error) {
	if e.sealed {
		return e.buf, nil
	}
	e.footer.Length = footerLength(&e.footer.Origin, len(e.footer.Sections))
	size := e.Size()
	if err := Validate(&e.footer, size); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	begin := len(e.buf)
	e.buf = appendFooter(e.buf, &e.footer)
	e.buf = appendTrailer(e.buf, crc32.Checksum(e.buf[begin:], castagnoli), uint32(e.footer.Length), size)
	e.sealed = true
	return e.buf, nil
}

func appendHeader(b []byte, id ID) []byte {
	begin := len(b)
	b = append(b, headerMagic[:]...)
	b = binary.BigEndian.AppendUint16(b, Version)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = append(b, id[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[begin:], castagnoli))
}

func appendFooter(b []byte, f *Footer) []byte {
	o := &f.Origin
	b = binary.BigEndian.AppendUint16(b, uint16(footerHeadSize+len(o.AgentID)))
	b = binary.BigEndian.AppendUint16(b, entrySize)
	b = binary.BigEndian.AppendUint32(b, uint32(len(f.Sections)))
	b = append(b, f.ID[:]...)
	b = append(b, o.Session[:]...)
	b = binary.BigEndian.AppendUint64(b, o.Sequence)
	b = binary.BigEndian.AppendUint64(b, uint64(o.CreatedAt))
	b = binary.BigEndian.AppendUint16(b, uint16(len(o.AgentID)))
	b = append(b, o.AgentID...)
	for i := range f.Sections {
		s := &f.Sections[i]
		b = append(b, s.TopicID[:]...)
		b = binary.BigEndian.AppendUint32(b, uint32(s.Partition))
		b = binary.BigEndian.AppendUint32(b, uint32(s.LeaderEpoch))
		b = binary.BigEndian.AppendUint64(b, uint64(s.Position))
		b = binary.BigEndian.AppendUint64(b, uint64(s.Length))
		b = binary.BigEndian.AppendUint32(b, uint32(s.Batches))
		b = binary.BigEndian.AppendUint32(b, uint32(s.Records))
		b = binary.BigEndian.AppendUint64(b, uint64(s.MaxTimestamp))
		b = binary.BigEndian.AppendUint32(b, s.CRC)
	}
	return b
}

func appendTrailer(b []byte, footerCRC, footerLength uint32, size int64) []byte {
	begin := len(b)
	b = binary.BigEndian.AppendUint64(b, uint64(size))
	b = binary.BigEndian.AppendUint32(b, footerLength)
	b = binary.BigEndian.AppendUint32(b, footerCRC)
	b = binary.BigEndian.AppendUint16(b, Version)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b[begin:], castagnoli))
	return append(b, trailerMagic[:]...)
}
