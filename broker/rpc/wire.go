package rpc

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/google/uuid"
)

// errMalformed says that the bytes are not what their sender says that they are.
var errMalformed = errors.New("rpc: malformed message")

// maxTextBytes bounds ids of agents.
const maxTextBytes = 4 << 10

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decoder reads a message. After an error, which is kept, all that it reads is zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail() {
	d.b, d.err = nil, errMalformed
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int32() int32 {
	v := d.varint()
	if v < math.MinInt32 || v > math.MaxInt32 {
		d.fail()
		return 0
	}
	return int32(v)
}

func (d *decoder) int16() int16 {
	v := d.varint()
	if v < math.MinInt16 || v > math.MaxInt16 {
		d.fail()
		return 0
	}
	return int16(v)
}

// count reads how many elements follow that take least bytes each. What follows
// bounds it, so that no more is allocated than was sent.
func (d *decoder) count(least int) int {
	n := d.uvarint()
	if n > uint64(len(d.b)/least) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) id() (id uuid.UUID) {
	if len(d.b) < len(id) {
		d.fail()
		return uuid.UUID{}
	}
	d.b = d.b[copy(id[:], d.b):]
	return id
}

func (d *decoder) text() string {
	n := d.count(1)
	if n > maxTextBytes {
		d.fail()
		return ""
	}
	if d.err != nil {
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

// end is the error of the whole message, which must have been read to its end.
func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		d.fail()
	}
	return d.err
}

// appendFrame appends a message of a stream: its length, then itself.
func appendFrame(b, message []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(message))), message...)
}

// readFrame reads the next message of a stream into buf, which may grow.
func readFrame(r *bufio.Reader, buf []byte) ([]byte, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	if n > maxFrameBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", errMalformed, n, maxFrameBytes)
	}
	if uint64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		return nil, fmt.Errorf("cut off: %w", err)
	}
	return buf, nil
}
