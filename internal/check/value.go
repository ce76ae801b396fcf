package check

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
)

// ErrCorrupt tells that a value is not one that Value made.
var ErrCorrupt = errors.New("corrupt value")

const idSize = 4 + 8

// Value returns the value of the record id: the id, then noise that follows from it, size bytes in all (at least 12).
func Value(id ID, size int) []byte {
	b := make([]byte, 0, size+8)
	b = binary.BigEndian.AppendUint32(b, uint32(id.Producer))
	b = binary.BigEndian.AppendUint64(b, uint64(id.Sequence))
	noise := rand.NewPCG(uint64(id.Producer), uint64(id.Sequence))
	for len(b) < size {
		b = binary.BigEndian.AppendUint64(b, noise.Uint64())
	}
	return b[:size]
}

// ParseValue returns the id of the record whose value this is. Every byte must be as Value made it.
func ParseValue(value []byte) (ID, error) {
	if len(value) < idSize {
		return ID{}, fmt.Errorf("%w: %d bytes", ErrCorrupt, len(value))
	}
	id := ID{
		Producer: int32(binary.BigEndian.Uint32(value)),
		Sequence: int64(binary.BigEndian.Uint64(value[4:])),
	}
	if !bytes.Equal(value, Value(id, len(value))) {
		return ID{}, fmt.Errorf("%w: what follows the id of record %d of producer %d", ErrCorrupt, id.Sequence, id.Producer)
	}
	return id, nil
}
