package segment

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// verifyBuffer is how much of a section is in memory while it is checked.
const verifyBuffer = 256 << 10

// Report is what Verify found in a segment.
type Report struct {
	// Footer is the object's footer, nil if it could not be read.
	Footer *Footer
	// Bytes, Batches and Records count what lies in sections without a fault.
	Bytes, Batches, Records int64
	// Damage has one entry for each section with a fault.
	Damage []SectionError
}

// SectionError is the fault of one section.
type SectionError struct {
	// Index is the section's place in the footer.
	Index   int
	Section Section
	Err     error
}

func (e *SectionError) Error() string {
	return fmt.Sprintf("section %d (partition %d of topic %s, %d bytes at %d): %v",
		e.Index, e.Section.Partition, e.Section.TopicID, e.Section.Length, e.Section.Position, e.Err)
}

func (e *SectionError) Unwrap() error { return e.Err }

// Verify reads the whole object of size bytes behind r and checks it: header,
// footer, each section's CRC, and that each section is whole record batches,
// as many and with as many records as the footer says. It uses little memory,
// however large the object is.
//
// A fault in one section does not hide the others: all are in the report, and
// joined in the error, which is ErrCorrupt. If the reader fails, its error is
// returned and the report is of what was read until then.
func Verify(r io.ReaderAt, size int64) (Report, error) {
	var report Report
	f, err := DecodeFooter(r, size)
	if err != nil {
		return report, err
	}
	report.Footer = f
	header := make([]byte, HeaderSize)
	if err := readAt(r, header, 0); err != nil {
		return report, err
	}
	errs := []error{checkHeader(header, f.ID)}
	buf := bufio.NewReaderSize(nil, verifyBuffer)
	for i := range f.Sections {
		s := &f.Sections[i]
		switch err := verifySection(r, s, buf); {
		case err == nil:
			report.Bytes += s.Length
			report.Batches += int64(s.Batches)
			report.Records += int64(s.Records)
		case errors.Is(err, ErrCorrupt):
			report.Damage = append(report.Damage, SectionError{Index: i, Section: *s, Err: err})
			errs = append(errs, &report.Damage[len(report.Damage)-1])
		default:
			return report, err
		}
	}
	return report, errors.Join(errs...)
}

// verifySection streams one section through buf, its checksum and the walk over
// its batches.
func verifySection(r io.ReaderAt, s *Section, buf *bufio.Reader) error {
	sum := crc32.New(castagnoli)
	buf.Reset(io.TeeReader(io.NewSectionReader(r, s.Position, s.Length), sum))
	batches, records, walkErr := walkBatches(buf, s.Length)
	if errors.Is(walkErr, errRead) {
		return walkErr
	}
	// The checksum decides what the fault is called: over damaged bytes, the
	// walk's complaint is only where it stumbled.
	if _, err := io.Copy(io.Discard, buf); err != nil {
		return fmt.Errorf("%w: %w", errRead, err)
	}
	switch {
	case sum.Sum32() != s.CRC:
		return fmt.Errorf("%w: CRC is %08x, must be %08x", ErrCorrupt, sum.Sum32(), s.CRC)
	case walkErr != nil:
		return fmt.Errorf("%w: %w", ErrCorrupt, walkErr)
	case batches != int64(s.Batches) || records != int64(s.Records):
		return fmt.Errorf("%w: %d batches with %d records, must be %d with %d",
			ErrCorrupt, batches, records, s.Batches, s.Records)
	}
	return nil
}

// errRead tells a reader's failure from a fault of the bytes.
var errRead = errors.New("read segment")

// walkBatches counts the batches in the length bytes of r.
func walkBatches(r *bufio.Reader, length int64) (batches, records int64, err error) {
	for left := length; left > 0; {
		if left < minBatchSize {
			return batches, records, fmt.Errorf("%d bytes are left behind the last batch", left)
		}
		header, err := r.Peek(minBatchSize)
		if err != nil {
			return batches, records, fmt.Errorf("%w: %w", errRead, err)
		}
		size, n, err := batchHeader(header)
		if err != nil {
			return batches, records, err
		}
		if size > left {
			return batches, records, fmt.Errorf("batch of %d bytes is cut off after %d", size, left)
		}
		if _, err := r.Discard(int(size)); err != nil {
			return batches, records, fmt.Errorf("%w: %w", errRead, err)
		}
		batches++
		records += int64(n)
		left -= size
	}
	return batches, records, nil
}
