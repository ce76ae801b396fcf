package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/streamhouse/streamhouse/metadata"
)

// errCorrupt says that a BLOB is not one that this package wrote.
var errCorrupt = errors.New("corrupt value in the database")

// varints reads numbers one after the other; the first error sticks.
type varints struct {
	b   []byte
	err error
}

func (v *varints) next() int64 {
	n, size := binary.Varint(v.b)
	if size <= 0 {
		v.b, v.err = nil, errCorrupt
		return 0
	}
	v.b = v.b[size:]
	return n
}

func encodeResults(results []metadata.CommitResult) []byte {
	b := make([]byte, 0, 8*len(results))
	for _, r := range results {
		b = binary.AppendVarint(b, int64(r.Outcome))
		b = binary.AppendVarint(b, r.BaseOffset)
		b = binary.AppendVarint(b, r.AppendTime)
		b = binary.AppendVarint(b, r.LogStartOffset)
	}
	return b
}

func decodeResults(b []byte, batches int) ([]metadata.CommitResult, error) {
	v := varints{b: b}
	results := make([]metadata.CommitResult, batches)
	for i := range results {
		results[i] = metadata.CommitResult{
			Outcome:        metadata.CommitOutcome(v.next()),
			BaseOffset:     v.next(),
			AppendTime:     v.next(),
			LogStartOffset: v.next(),
		}
	}
	if v.err == nil && len(v.b) > 0 {
		v.err = errCorrupt
	}
	return results, v.err
}

func encodeEntries(entries []metadata.ProducerEntry) []byte {
	b := make([]byte, 0, 24*len(entries))
	for _, e := range entries {
		b = binary.AppendVarint(b, int64(e.BaseSequence))
		b = binary.AppendVarint(b, int64(e.LastSequence))
		b = binary.AppendVarint(b, e.BaseOffset)
		b = binary.AppendVarint(b, e.AppendTime)
	}
	return b
}

func decodeEntries(b []byte) ([]metadata.ProducerEntry, error) {
	v := varints{b: b}
	entries := make([]metadata.ProducerEntry, 0, metadata.ProducerWindow)
	for len(v.b) > 0 {
		entries = append(entries, metadata.ProducerEntry{
			BaseSequence: int32(v.next()),
			LastSequence: int32(v.next()),
			BaseOffset:   v.next(),
			AppendTime:   v.next(),
		})
	}
	return entries, v.err
}

// NewestSequence implements sqlstore.Dialect.
func (dialect) NewestSequence() (string, func(*int32) any) {
	return `p.entries`, func(sequence *int32) any { return (*newestSequence)(sequence) }
}

// newestSequence scans the last sequence of a producer's newest batch.
type newestSequence int32

// Scan implements sql.Scanner.
func (s *newestSequence) Scan(src any) error {
	b, ok := src.([]byte)
	if !ok {
		return fmt.Errorf("a producer's entries of type %T: %w", src, errCorrupt)
	}
	entries, err := decodeEntries(b)
	if err == nil && len(entries) == 0 {
		err = errCorrupt
	}
	if err != nil {
		return err
	}
	*s = newestSequence(entries[len(entries)-1].LastSequence)
	return nil
}
