package protocol

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// kmsg decodes what it is told: an array's count may be as large as the bytes
// that are left, whatever an element weighs, and a count of tagged fields is a
// loop of up to 2^32 steps, run to its end even after the bytes ran out. A frame
// of twenty bytes would so cost a minute of CPU. So a body is walked by its
// layout first: everything that is counted must be there, and what decoding will
// allocate is bounded.
//
// What follows a body is ignored, by kmsg as by Kafka: when librdkafka asks for
// the metadata of all topics, three bytes do (its issue 5049).
//
// Layouts are derived from kmsg itself (derive.go): the protocol's schema is
// stated in one place.

const (
	// maxExpansion is how many bytes of Go values one byte of a body may become,
	// beyond a freeExpansion that no small body exceeds. Clients' requests stay
	// under 4.
	maxExpansion  = 8
	freeExpansion = 64 << 10
	// maxDecoded bounds the Go values of one body, large as it may be: a million
	// partitions take less.
	maxDecoded = 64 << 20
	// tagWeight is about what kmsg's map of unknown tagged fields takes for one.
	tagWeight = 64
)

var (
	errShort    = errors.New("it ends too early")
	errTrailing = errors.New("bytes follow its end")
	errLength   = errors.New("a length out of range")
	errExpands  = errors.New("it decodes to too much memory")
)

// layout is the wire form of a struct at one version.
type layout struct {
	flexible bool
	fields   []field  // in wire order
	tagged   []tagged // tagged fields that kmsg knows; any other is skipped
}

// tagged is a field in a struct's tagged section (KIP-482).
type tagged struct {
	tag uint32
	field
}

// field is one field on the wire.
type field struct {
	kind fieldKind
	size int     // kindFixed: bytes on the wire
	mem  int     // kindArray, kindOptional: bytes of Go memory for each element
	elem *field  // kindArray
	of   *layout // kindStruct, kindOptional
}

type fieldKind uint8

const (
	kindFixed    fieldKind = iota // integers, floats, UUIDs; neighbours are merged
	kindString                    // nullable or not: 16-bit length, compact if flexible
	kindBytes                     // nullable or not: 32-bit length, compact if flexible
	kindArray                     // nullable or not: 32-bit count, compact if flexible
	kindStruct                    // its fields, and its tagged fields if flexible
	kindOptional                  // a byte, -1 for null, else a struct
)

// check says whether body begins with a whole message of the layout that is
// safe to decode. It returns what follows the message, and into how many bytes of
// Go values the message decodes, its strings and bytes not counted.
func (l *layout) check(body []byte) (rest []byte, decoded int, err error) {
	budget := min(freeExpansion+maxExpansion*len(body), maxDecoded)
	w := walker{buf: body, flexible: l.flexible, budget: budget}
	err = w.structure(l)
	return w.buf, budget - w.budget, err
}

// walker goes over a message without decoding it. buf is what is left.
type walker struct {
	buf      []byte
	flexible bool
	budget   int // bytes of Go values that may still be allocated
}

func (w *walker) structure(l *layout) error {
	for i := range l.fields {
		if err := w.field(&l.fields[i]); err != nil {
			return err
		}
	}
	if !l.flexible {
		return nil
	}
	return w.tags(l.tagged)
}

func (w *walker) field(f *field) error {
	var n int
	var err error
	switch f.kind {
	case kindFixed:
		n = f.size
	case kindString:
		n, err = w.length16()
	case kindBytes:
		n, err = w.length32()
	case kindArray:
		return w.array(f)
	case kindStruct:
		return w.structure(f.of)
	case kindOptional:
		var present []byte
		if present, err = w.span(1); err != nil || int8(present[0]) < 0 {
			return err
		}
		if err = w.spend(f.mem); err != nil {
			return err
		}
		return w.structure(f.of)
	}
	if err == nil {
		_, err = w.span(n)
	}
	return err
}

func (w *walker) array(f *field) error {
	n, err := w.length32()
	if err != nil {
		return err
	}
	// Every element takes a byte at least, so the product can't overflow once
	// this holds.
	if n > len(w.buf) {
		return errShort
	}
	if err := w.spend(n * f.mem); err != nil {
		return err
	}
	if f.elem.kind == kindFixed {
		_, err := w.span(n * f.elem.size)
		return err
	}
	for range n {
		if err := w.field(f.elem); err != nil {
			return err
		}
	}
	return nil
}

// tags walks a section of tagged fields, of which those in known have a layout.
func (w *walker) tags(known []tagged) error {
	n, err := w.uvarint()
	if err != nil {
		return err
	}
	if int(n) > len(w.buf) {
		return errShort
	}
	for range n {
		tag, err := w.uvarint()
		if err != nil {
			return err
		}
		size, err := w.uvarint()
		if err != nil {
			return err
		}
		value, err := w.span(int(size))
		if err != nil {
			return err
		}
		i := slices.IndexFunc(known, func(t tagged) bool { return t.tag == tag })
		if i < 0 {
			if err := w.spend(tagWeight); err != nil {
				return err
			}
			continue
		}
		inner := walker{buf: value, flexible: true, budget: w.budget}
		if err := inner.field(&known[i].field); err != nil {
			return err
		}
		if len(inner.buf) > 0 {
			return fmt.Errorf("%w: %d in tagged field %d", errTrailing, len(inner.buf), tag)
		}
		w.budget = inner.budget
	}
	return nil
}

// length16 reads the length of a string, length32 that of bytes or an array. Null
// is length 0.
func (w *walker) length16() (int, error) {
	if w.flexible {
		return w.compact()
	}
	b, err := w.span(2)
	if err != nil {
		return 0, err
	}
	return length(int(int16(uint16(b[0])<<8 | uint16(b[1]))))
}

func (w *walker) length32() (int, error) {
	if w.flexible {
		return w.compact()
	}
	b, err := w.span(4)
	if err != nil {
		return 0, err
	}
	return length(int(int32(uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]))))
}

func (w *walker) compact() (int, error) {
	n, err := w.uvarint()
	if err != nil {
		return 0, err
	}
	return length(int(n) - 1)
}

func length(n int) (int, error) {
	if n < -1 || n > math.MaxInt32 {
		return 0, fmt.Errorf("%w: %d", errLength, n)
	}
	return max(n, 0), nil
}

// uvarint reads an unsigned varint of 32 bits.
func (w *walker) uvarint() (uint32, error) {
	var x uint64
	for i, b := range w.buf {
		if i == 5 {
			break
		}
		x |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			if x > math.MaxUint32 {
				break
			}
			w.buf = w.buf[i+1:]
			return uint32(x), nil
		}
	}
	if len(w.buf) < 5 {
		return 0, errShort
	}
	return 0, fmt.Errorf("%w: varint", errLength)
}

func (w *walker) span(n int) ([]byte, error) {
	if n > len(w.buf) {
		return nil, errShort
	}
	b := w.buf[:n]
	w.buf = w.buf[n:]
	return b, nil
}

func (w *walker) spend(n int) error {
	w.budget -= n
	if w.budget < 0 {
		return errExpands
	}
	return nil
}
