package fetch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol/batch"
)

// assembly builds the records of one partition.
type assembly struct {
	r          *Reader
	view       *view
	request    *Request
	result     *Result
	extents    []metadata.Extent // from the one that contains the offset
	until      int64             // no batch from that offset on
	allowed    int64             // bytes
	atLeastOne bool              // one batch is returned even if it is larger

	out    []byte
	behind int64 // bytes of the extents behind the one that is being read
	held   held
	header [batch.HeaderSize]byte // scratch
}

// take appends whole batches of the extents until nothing more is allowed.
func (a *assembly) take(ctx context.Context) error {
	at, sequential := a.view.recall(&a.extents[0], a.request.Offset)
	a.prefetch(at.position)
	a.behind = 0
	for i := range a.extents {
		a.behind += a.extents[i].Length
	}
	last := 0
	for i := range a.extents {
		e := &a.extents[i]
		if i > 0 {
			if a.full() {
				break
			}
			at = startOf(e)
		}
		a.behind -= e.Length
		next, err := a.extent(ctx, e, at)
		if err != nil {
			return err
		}
		at, last = next, i
		if at.position < e.Length {
			break
		}
	}
	a.view.remember(&a.extents[last], at)
	if sequential {
		a.r.readAhead(a.extents[last:], at.position)
	}
	return nil
}

// full says that not even a batch's header is allowed any more.
func (a *assembly) full() bool {
	return len(a.out) > 0 && int64(len(a.out))+batch.HeaderSize > a.allowed
}

// prefetch has all blocks loaded at once that the allowed bytes lie in.
func (a *assembly) prefetch(from int64) {
	left := a.allowed
	for i := range a.extents {
		e := &a.extents[i]
		to := min(e.Length, from+left)
		if from < to {
			if !inline(e) {
				a.r.blocks.load(spanOf(e, from, to), &a.held)
			}
			left -= to - from
		}
		if left <= 0 {
			return
		}
		from = 0
	}
}

// extent appends batches of one extent, from the one that contains the offset
// on, and returns where it stopped. What does not look right is read once more
// from the store itself: the fault may be this cache's.
func (a *assembly) extent(ctx context.Context, e *metadata.Extent, at cursor) (cursor, error) {
	from := len(a.out)
	next, err := a.copyFrom(ctx, e, at)
	if errors.Is(err, ErrCorrupt) && !inline(e) {
		a.out = a.out[:from]
		a.r.blocks.forget(spanOf(e, at.position, e.Length), &a.held)
		next, err = a.copyFrom(ctx, e, at)
	}
	if err != nil {
		a.out = a.out[:from]
		return at, err
	}
	return next, nil
}

// copyFrom is one attempt of extent.
func (a *assembly) copyFrom(ctx context.Context, e *metadata.Extent, at cursor) (cursor, error) {
	at, size, err := a.seek(ctx, e, at)
	if err != nil || at.offset >= a.until {
		return at, err
	}
	take := min(e.Length-at.position, a.allowed-int64(len(a.out)))
	if len(a.out) == 0 && a.atLeastOne {
		take = max(take, size)
	}
	if take < size {
		return at, nil
	}
	if a.out == nil {
		a.out = make([]byte, 0, max(take, min(a.allowed, e.Length-at.position+a.behind)))
	}
	if at, err = a.copyBatches(ctx, e, at, take); err != nil {
		return at, err
	}
	if (at.position == e.Length) != (at.offset == e.EndOffset) {
		return at, fmt.Errorf("%w: extent of offsets %d to %d has %d after %d of %d bytes",
			ErrCorrupt, e.BaseOffset, e.EndOffset, at.offset, at.position, e.Length)
	}
	return at, nil
}

// seek moves on to the batch that contains the offset, reading headers only,
// and returns the batch's size.
func (a *assembly) seek(ctx context.Context, e *metadata.Extent, at cursor) (_ cursor, size int64, err error) {
	for {
		if e.Length-at.position < batch.HeaderSize {
			return at, 0, fmt.Errorf("%w: extent at offset %d ends before offset %d", ErrCorrupt, e.BaseOffset, a.request.Offset)
		}
		header, err := a.bytes(ctx, a.header[:0], e, at.position, at.position+batch.HeaderSize)
		if err != nil {
			return at, 0, err
		}
		h := batch.Batch(header)
		size = sizeOf(h)
		if size < batch.HeaderSize || size > e.Length-at.position || h.LastOffsetDelta() < 0 {
			return at, 0, fmt.Errorf("%w: there is no batch header at offset %d", ErrCorrupt, at.offset)
		}
		next := at.offset + int64(h.LastOffsetDelta()) + 1
		if next > a.request.Offset {
			return at, size, nil
		}
		at = cursor{at.position + size, next}
	}
}

// sizeOf is the size of the whole batch that begins with the header.
func sizeOf(header batch.Batch) int64 {
	const lengthAt, lengthEnd = 8, 12
	return lengthEnd + int64(int32(binary.BigEndian.Uint32(header[lengthAt:])))
}

// copyBatches appends up to take bytes, cut to whole batches, which it checks
// and stamps. It returns the place behind them.
func (a *assembly) copyBatches(ctx context.Context, e *metadata.Extent, at cursor, take int64) (cursor, error) {
	from := len(a.out)
	out, err := a.bytes(ctx, a.out, e, at.position, at.position+take)
	if err != nil {
		return at, err
	}
	a.out = out
	rest := a.out[from:]
	cutOff := at.position+take < e.Length
	for len(rest) > 0 && at.offset < a.until {
		b, tail, err := batch.Next(rest)
		if errors.Is(err, batch.ErrTruncated) && cutOff {
			break // not whole: left for the next fetch
		}
		if err == nil {
			err = b.CheckCRC()
		}
		if err != nil {
			return at, fmt.Errorf("%w: batch at offset %d: %w", ErrCorrupt, at.offset, err)
		}
		b.Stamp(at.offset, e.LeaderEpoch)
		if e.AppendTime >= 0 {
			b.StampLogAppendTime(e.AppendTime)
		}
		at = cursor{at.position + int64(len(b)), at.offset + int64(b.LastOffsetDelta()) + 1}
		rest = tail
	}
	a.out = a.out[:len(a.out)-len(rest)]
	return at, nil
}

// bytes appends a range of the extent.
func (a *assembly) bytes(ctx context.Context, dst []byte, e *metadata.Extent, from, to int64) ([]byte, error) {
	if inline(e) {
		if to > int64(len(e.Inline)) {
			return dst, fmt.Errorf("%w: inline extent is shorter than the index says", ErrCorrupt)
		}
		return append(dst, e.Inline[from:to]...), nil
	}
	return a.r.blocks.read(ctx, dst, spanOf(e, from, to), &a.held)
}
