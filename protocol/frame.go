package protocol

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

const (
	// minHeader is the bytes of the shortest request header: key, version and
	// correlation id.
	minHeader = 8
	// firstAlloc is the largest body that is allocated at once, while memory is
	// plentiful. It holds an ordinary Produce (Java's max.request.size is 1 MiB).
	firstAlloc = 1<<20 + 64<<10
	// probe is how much of a larger one is allocated first, and growth by how many
	// times when that is full: a client that puts the batches of many partitions
	// into one request is paid for with one copy of the probe.
	probe  = 128 << 10
	growth = 64
	// scarceGrowth is by how many times a body may grow while memory is scarce. Peers
	// that only claim to send much must not keep it from others.
	scarceGrowth = 4
	// progressBytes is how much of a body must arrive within one read timeout, and how
	// much of replies must be taken within one write timeout.
	progressBytes = 256 << 10
)

var (
	errFrameSize = errors.New("frame size out of bounds")
	errHeader    = errors.New("malformed request header")
)

// frameReader reads frames: a 4-byte big-endian size, and as many bytes.
type frameReader struct {
	br     *bufio.Reader
	max    int          // bytes a frame may have
	extend func() error // renews the deadline for the next piece of a body
}

// size reads a frame's size field and checks it. If the read times out it may be
// called again.
func (f *frameReader) size() (int, error) {
	b, err := f.br.Peek(4)
	if err != nil {
		if errors.Is(err, io.EOF) && len(b) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return 0, err
	}
	size := int32(binary.BigEndian.Uint32(b))
	if size < minHeader || int64(size) > int64(f.max) {
		return 0, fmt.Errorf("%w: %d, allowed are %d to %d%s", errFrameSize, size, minHeader, f.max, guess(b))
	}
	_, err = f.br.Discard(4)
	return int(size), err
}

// guess says what a peer speaks that has put b where a size belongs.
func guess(b []byte) string {
	switch string(b) {
	case "GET ", "HEAD", "POST", "PUT ", "OPTI", "PRI ":
		return " (this looks like HTTP; this port speaks Kafka)"
	}
	if b[0] == 0x16 && b[1] == 0x03 {
		return " (this looks like a TLS handshake; this port speaks plain text: check security.protocol)"
	}
	return ""
}

// begun waits until a body of n bytes is in the buffer, or as much of it as the
// buffer holds. Until then it costs no memory but the connection's own.
func (f *frameReader) begun(n int) error {
	want := min(n, f.br.Size())
	if f.br.Buffered() >= want {
		return nil
	}
	if err := f.extend(); err != nil {
		return err
	}
	_, err := f.br.Peek(want)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// roomy is how large the buffer of a body of n bytes may be while memory is
// plentiful, given that have of them have arrived.
func roomy(n, have int) int {
	switch {
	case have > 0:
		return min(n, growth*have)
	case n > firstAlloc:
		return probe
	}
	return n
}

// scarce is roomy while memory is scarce. have is not 0.
func scarce(n, have int) int { return min(n, scarceGrowth*have) }

// body reads n bytes. Its buffer is as large as room says, given how many bytes
// were read, until it is full.
func (f *frameReader) body(n int, room func(have int) (int, error)) ([]byte, error) {
	var buf []byte
	for read := 0; ; {
		for read < len(buf) {
			piece := buf[read:min(read+progressBytes, len(buf))]
			if f.br.Buffered() < len(piece) {
				if err := f.extend(); err != nil {
					return nil, err
				}
			}
			got, err := io.ReadFull(f.br, piece)
			read += got
			if errors.Is(err, io.EOF) {
				return nil, io.ErrUnexpectedEOF
			}
			if err != nil {
				return nil, err
			}
		}
		if read == n {
			return buf, nil
		}
		size, err := room(read)
		if err != nil {
			return nil, err
		}
		grown := make([]byte, size)
		copy(grown, buf)
		buf = grown
	}
}

// header is what all versions of a request's header share.
type header struct {
	key           int16
	version       int16
	correlationID int32
	tail          []byte // client id, tagged fields, body
}

func parseHeader(frame []byte) (header, error) {
	if len(frame) < minHeader {
		return header{}, fmt.Errorf("%w: %d bytes", errHeader, len(frame))
	}
	return header{
		key:           int16(binary.BigEndian.Uint16(frame)),
		version:       int16(binary.BigEndian.Uint16(frame[2:])),
		correlationID: int32(binary.BigEndian.Uint32(frame[4:])),
		tail:          frame[minHeader:],
	}, nil
}

// rest splits what follows the correlation id into client id (nil if null) and
// body. The client id is of the old encoding in flexible headers too, which then
// end with tagged fields, of which Kafka knows none (KIP-482).
func (h header) rest(flexible bool) (clientID, body []byte, err error) {
	w := walker{buf: h.tail, budget: math.MaxInt} // nothing of a header is kept
	n, err := w.length16()
	if err == nil {
		clientID, err = w.span(n)
	}
	if err == nil && flexible {
		err = w.tags(nil)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errHeader, err)
	}
	return clientID, w.buf, nil
}
