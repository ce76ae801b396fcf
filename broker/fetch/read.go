package fetch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol/batch"
)

// read turns plans into bytes. Partitions are read in parallel; each has its
// part of the limit before, from what the plans say.
func (r *Reader) read(ctx context.Context, reqs []Request, plans []plan, o Options) []Result {
	results := make([]Result, len(plans))
	var group errgroup.Group
	group.SetLimit(r.cfg.ConcurrentGets)
	left, first := o.MaxBytes, true
	for i := range plans {
		p, q, res := &plans[i], &reqs[i], &results[i]
		res.Watermarks, res.Err = p.marks, p.err
		allowed := min(int64(q.MaxBytes), left)
		if p.err != nil || len(p.extents) == 0 || allowed <= 0 && !first {
			continue
		}
		a := assembly{r: r, view: p.view, request: q, allowed: max(allowed, 0), atLeastOne: first}
		left -= min(a.allowed, p.bytes)
		first = false
		group.Go(func() error {
			r.assemble(ctx, &a, p.extents, o, res)
			return nil
		})
	}
	_ = group.Wait() // errors are the partitions' own
	return results
}

// assemble reads one partition. A plan whose object is gone is made again once:
// the log may have moved on.
func (r *Reader) assemble(ctx context.Context, a *assembly, extents []metadata.Extent, o Options, res *Result) {
	err := a.take(ctx, extents)
	if errors.Is(err, errObjectMissing) && len(a.out) == 0 {
		var fresh plan
		if fresh, err = r.replan(ctx, a, o); err == nil {
			res.Watermarks = fresh.marks
			if err = a.take(ctx, fresh.extents); errors.Is(err, errObjectMissing) && len(a.out) == 0 {
				r.metrics.dataLoss.Inc()
				r.log.Error("an object that the index names is missing: records are lost or the bucket was changed from outside",
					"topic_id", a.request.Key.TopicID, "partition", a.request.Key.Partition, "offset", a.request.Offset, "error", err)
			}
		}
	}
	res.Records = a.out
	if err == nil || len(a.out) > 0 {
		return // what was read is whole; the next fetch meets the error
	}
	switch {
	case errors.Is(err, errObjectMissing):
		err = fmt.Errorf("%w: %w", ErrStorage, err)
	case errors.Is(err, ErrCorrupt):
		r.metrics.corrupt.Inc()
	}
	res.Err = err
	if !errors.Is(err, ErrOffsetOutOfRange) && ctx.Err() == nil {
		r.log.Warn("cannot read records", "topic_id", a.request.Key.TopicID, "partition", a.request.Key.Partition,
			"offset", a.request.Offset, "error", err)
	}
}

// replan asks the index for one partition again.
func (r *Reader) replan(ctx context.Context, a *assembly, o Options) (plan, error) {
	plans := []plan{{view: a.view}}
	reqs := []Request{*a.request}
	ask := []metadata.ReadRequest{{Key: a.request.Key, Offset: a.request.Offset, MaxBytes: a.allowed}}
	r.ask(ctx, reqs, ask, []int{0}, plans)
	plans[0].limit(a.request.Offset, o)
	return plans[0], plans[0].err
}

// assembly builds the records of one partition.
type assembly struct {
	r          *Reader
	view       *view
	request    *Request
	allowed    int64 // bytes
	atLeastOne bool  // one batch is returned even if it is larger

	out []byte
	end int64 // where the last extent was left, relative to its start
}

// take appends whole batches of the extents until nothing more is allowed.
func (a *assembly) take(ctx context.Context, extents []metadata.Extent) error {
	sequential := a.view.sequential(a.request.Offset)
	if a.out == nil {
		var planned int64
		for i := range extents {
			planned += extents[i].Length
		}
		a.out = make([]byte, 0, min(a.allowed, planned))
	}
	for i := range extents {
		e := &extents[i]
		more, err := a.extent(ctx, e)
		if err != nil || !more {
			if sequential && err == nil {
				a.r.readAhead(extents[i:], a.end)
			}
			return err
		}
	}
	return nil
}

// extent appends batches of one extent, from the one that contains the offset
// on, and remembers where it stopped. more is false if the limit was reached.
func (a *assembly) extent(ctx context.Context, e *metadata.Extent) (more bool, err error) {
	position, at := a.view.recall(e.BaseOffset, a.request.Offset)
	position, at, size, err := a.seek(ctx, e, position, at)
	if err != nil || position == e.Length {
		return err == nil, err
	}
	take := min(e.Length-position, a.allowed-int64(len(a.out)))
	if len(a.out) == 0 && a.atLeastOne {
		take = max(take, size)
	}
	if take < size {
		return false, nil
	}
	from := len(a.out)
	used, end, err := a.copyBatches(ctx, e, position, take, at)
	if errors.Is(err, ErrCorrupt) && e.ObjectSize > 0 {
		// Once more from the store itself: the fault may be this cache's.
		a.out = a.out[:from]
		a.r.blocks.forget(spanOf(e, position, position+take))
		used, end, err = a.copyBatches(ctx, e, position, take, at)
	}
	if err != nil {
		a.out = a.out[:from]
		return false, err
	}
	position += used
	a.end = position
	a.view.remember(hint{offset: end, base: e.BaseOffset, position: position})
	if position == e.Length && end != e.EndOffset {
		a.out = a.out[:from]
		return false, fmt.Errorf("%w: extent at %d ends at %d, not at %d", ErrCorrupt, e.BaseOffset, end, e.EndOffset)
	}
	return position == e.Length, nil
}

// seek moves on to the batch that contains the offset, reading headers only.
// It returns the batch's place, its first offset and its size.
func (a *assembly) seek(ctx context.Context, e *metadata.Extent, position, at int64) (_, _, size int64, err error) {
	var header [batch.HeaderSize]byte
	for position < e.Length {
		if e.Length-position < batch.HeaderSize {
			return 0, 0, 0, fmt.Errorf("%w: a batch is cut off", ErrCorrupt)
		}
		b, err := a.bytes(ctx, header[:0], e, position, position+batch.HeaderSize)
		if err != nil {
			return 0, 0, 0, err
		}
		h := batch.Batch(b)
		size = batchSize(h)
		if size < batch.HeaderSize || size > e.Length-position || h.LastOffsetDelta() < 0 {
			return 0, 0, 0, fmt.Errorf("%w: a batch header is not one", ErrCorrupt)
		}
		next := at + int64(h.LastOffsetDelta()) + 1
		if next > a.request.Offset {
			break
		}
		position, at = position+size, next
	}
	return position, at, size, nil
}

// copyBatches appends up to take bytes from position on, cut to whole batches,
// which it checks and stamps. It returns the bytes used and the offset behind.
func (a *assembly) copyBatches(ctx context.Context, e *metadata.Extent, position, take, at int64) (used, end int64, err error) {
	from := len(a.out)
	if a.out, err = a.bytes(ctx, a.out, e, position, position+take); err != nil {
		return 0, 0, err
	}
	rest := a.out[from:]
	for len(rest) > 0 {
		b, tail, err := batch.Next(rest)
		if errors.Is(err, batch.ErrTruncated) && position+take < e.Length {
			break // not whole: left for the next fetch
		}
		if err == nil {
			err = b.CheckCRC()
		}
		if err != nil {
			return 0, 0, fmt.Errorf("%w: batch at offset %d: %w", ErrCorrupt, at, err)
		}
		b.Stamp(at, e.LeaderEpoch)
		if e.AppendTime >= 0 {
			b.StampLogAppendTime(e.AppendTime)
		}
		at += int64(b.LastOffsetDelta()) + 1
		rest = tail
	}
	a.out = a.out[:len(a.out)-len(rest)]
	return int64(len(a.out) - from), at, nil
}

// bytes appends a range of the extent.
func (a *assembly) bytes(ctx context.Context, dst []byte, e *metadata.Extent, from, to int64) ([]byte, error) {
	if e.ObjectSize == 0 {
		if to > int64(len(e.Inline)) {
			return dst, fmt.Errorf("%w: inline extent is shorter than the index says", ErrCorrupt)
		}
		return append(dst, e.Inline[from:to]...), nil
	}
	return a.r.blocks.read(ctx, dst, spanOf(e, from, to))
}

// batchSize is the size of the whole batch that begins with the header.
func batchSize(header batch.Batch) int64 {
	const lengthAt, lengthEnd = 8, 12
	return lengthEnd + int64(int32(binary.BigEndian.Uint32(header[lengthAt:])))
}

// readAhead has the blocks behind a sequential reader loaded: the first extent
// from a position on, and those that follow.
func (r *Reader) readAhead(extents []metadata.Extent, from int64) {
	if r.cfg.ReadAheadBlocks < 0 {
		return
	}
	left := int64(r.cfg.ReadAheadBlocks) * r.cfg.BlockBytes
	for i := range extents {
		e := &extents[i]
		if e.ObjectSize == 0 || from >= e.Length {
			from = 0
			continue
		}
		s := spanOf(e, from, min(e.Length, from+left))
		from = 0
		select {
		case r.ahead <- s:
		default: // the loaders are busy enough
			return
		}
		if left -= s.to - s.from; left <= 0 {
			return
		}
	}
}

// loadAhead is one loader of read-aheads; it ends with ctx.
func (r *Reader) loadAhead(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-r.ahead:
			if _, err := r.blocks.load(ctx, s); err != nil && ctx.Err() == nil {
				r.log.Debug("read-ahead failed; the reader itself will try again", "object", s.object, "error", err)
			}
		}
	}
}
