package segment

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Version is the version of the format that this package writes, and the only
// one that it reads.
const Version = 1

// The sizes and limits of the format, in bytes unless said otherwise.
const (
	// HeaderSize is the size of the header. The first section begins behind it.
	HeaderSize = 32
	// TrailerSize is the size of the trailer, an object's last bytes.
	TrailerSize = 32
	// MaxAgentIDLength is the length that an agent's ID may have in UTF-8.
	MaxAgentIDLength = 255
	// MaxSections is how many sections an object may have. It bounds the memory
	// that a footer can make a reader use to about 20 MiB.
	MaxSections = 1 << 18

	footerHeadSize = 58 // without the agent's ID
	entrySize      = 60
	minBatchSize   = 61 // the header of a record batch
	maxFooterSize  = footerHeadSize + MaxAgentIDLength + MaxSections*entrySize
)

var (
	// ErrCorrupt says that bytes are not a whole and undamaged segment.
	ErrCorrupt = errors.New("segment is corrupt")
	// ErrVersion says that a segment has a version that this build does not
	// know. Nothing is wrong with the segment: a newer build wrote it.
	ErrVersion = errors.New("segment has an unknown format version")
	// ErrInvalid says that what was given to an encoder cannot be a segment.
	ErrInvalid = errors.New("invalid segment")
)

// Origin says where a segment comes from. Segments of one session were accepted
// in the order of their sequences.
type Origin struct {
	// AgentID is the ID of the agent that wrote the segment, 1 to
	// MaxAgentIDLength bytes.
	AgentID string `json:"agent_id"`
	// Session is the agent's registration: a restarted agent has another one.
	Session uuid.UUID `json:"session"`
	// Sequence numbers the flushes of the session in the order of acceptance.
	Sequence uint64 `json:"sequence"`
	// CreatedAt is when the flush began, in Unix milliseconds by the agent's
	// clock. It is for people: nothing is ordered or expired by it.
	CreatedAt int64 `json:"created_at_ms"`
}

// Section is one contiguous run of whole record batches of one partition.
type Section struct {
	TopicID   uuid.UUID `json:"topic_id"`
	Partition int32     `json:"partition"`
	// LeaderEpoch is the leadership under which the batches were accepted.
	LeaderEpoch int32 `json:"leader_epoch"`
	// Position and Length are the run's place in the object, in bytes.
	Position int64 `json:"position"`
	Length   int64 `json:"length"`
	// Batches and Records count what is in the run; both are at least 1.
	Batches int32 `json:"batches"`
	Records int32 `json:"records"`
	// MaxTimestamp is the largest timestamp of the records in Unix
	// milliseconds, as the producers sent them, or -1.
	MaxTimestamp int64 `json:"max_timestamp_ms"`
	// CRC is the CRC32C of the run's bytes as they were uploaded, that is with
	// the base offsets and leader epochs that the producers sent.
	CRC uint32 `json:"crc32c"`
}

// End is the position behind the section's last byte.
func (s *Section) End() int64 { return s.Position + s.Length }

// Footer describes a segment.
type Footer struct {
	Version uint16 `json:"version"`
	ID      ID     `json:"id"`
	Origin  Origin `json:"origin"`
	// Length is the encoded footer's own length in bytes. The sections end
	// where the footer begins.
	Length int64 `json:"footer_length"`
	// Sections are in the order of their positions. A partition may have more
	// than one, if its leader epoch changed in between.
	Sections []Section `json:"sections"`
}

// Validate checks that f can be the footer of an object of size bytes: its
// version is known, its origin is named, and its sections tile the space
// between header and footer in order, without gap or overlap, each with
// plausible counts. The encoder holds its own work to it, the decoder what it
// read. It does not look at the sections' bytes; Verify does.
func Validate(f *Footer, size int64) error {
	if f.Version != Version {
		return fmt.Errorf("version %d: %w", f.Version, ErrVersion)
	}
	if f.ID == (ID{}) {
		return errors.New("no segment ID")
	}
	if err := f.Origin.validate(); err != nil {
		return err
	}
	if n := len(f.Sections); n == 0 || n > MaxSections {
		return fmt.Errorf("%d sections, must be 1 to %d", n, MaxSections)
	}
	if f.Length < footerLength(&f.Origin, len(f.Sections)) || f.Length > size-HeaderSize-TrailerSize {
		return fmt.Errorf("footer of %d bytes in an object of %d", f.Length, size)
	}
	position, end := int64(HeaderSize), size-TrailerSize-f.Length
	for i := range f.Sections {
		s := &f.Sections[i]
		if s.Position != position {
			return fmt.Errorf("section %d begins at %d, must be %d", i, s.Position, position)
		}
		if s.Length > end-position {
			return fmt.Errorf("section %d reaches beyond the footer's begin at %d", i, end)
		}
		if err := s.validate(); err != nil {
			return fmt.Errorf("section %d: %w", i, err)
		}
		position += s.Length
	}
	if position != end {
		return fmt.Errorf("%d bytes behind the last section belong to none", end-position)
	}
	return nil
}

func (o *Origin) validate() error {
	if n := len(o.AgentID); n == 0 || n > MaxAgentIDLength || !utf8.ValidString(o.AgentID) {
		return fmt.Errorf("agent ID %.40q: must be 1 to %d bytes of UTF-8", o.AgentID, MaxAgentIDLength)
	}
	if o.Session == (uuid.UUID{}) {
		return errors.New("no session")
	}
	return nil
}

// validate checks a section by itself, apart from its position.
func (s *Section) validate() error {
	switch {
	case s.TopicID == (uuid.UUID{}):
		return errors.New("no topic ID")
	case s.Partition < 0:
		return fmt.Errorf("partition %d", s.Partition)
	case s.LeaderEpoch < 0:
		return fmt.Errorf("leader epoch %d", s.LeaderEpoch)
	case s.Batches < 1 || s.Records < 1:
		return fmt.Errorf("%d batches with %d records", s.Batches, s.Records)
	case s.Length < int64(s.Batches)*minBatchSize:
		return fmt.Errorf("%d batches in %d bytes", s.Batches, s.Length)
	}
	return nil
}

// footerLength is the length of the footer that this version writes.
func footerLength(o *Origin, sections int) int64 {
	return footerHeadSize + int64(len(o.AgentID)) + int64(sections)*entrySize
}
