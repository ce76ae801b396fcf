package fetch

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol/batch"
)

// Special timestamps of ListOffsets.
const (
	Latest       = -1
	Earliest     = -2
	MaxTimestamp = metadata.MaxTimestamp // KIP-734
)

// ListRequest asks for the offset of a timestamp in ms, or of Latest, Earliest
// or MaxTimestamp.
type ListRequest struct {
	Key       lease.Key
	Timestamp int64
}

// ListResult is the offset found, or -1 if no record has such a timestamp.
type ListResult struct {
	Offset      int64
	Timestamp   int64 // of the record; -1 for Latest and Earliest
	LeaderEpoch int32 // of the record, or the partition's
	// Current is the partition's leader epoch now.
	Current int32
	Err     error // as Result.Err
}

// ListOffsets always asks the index, so that it is linearizable: Latest is
// beyond every offset acknowledged before, by any agent.
func (r *Reader) ListOffsets(ctx context.Context, reqs []ListRequest, readCommitted bool) []ListResult {
	results := make([]ListResult, len(reqs))
	var keys []lease.Key
	var times []metadata.TimestampRequest
	var keysAt, timesAt []int
	for i, q := range reqs {
		results[i] = ListResult{Offset: -1, Timestamp: -1, LeaderEpoch: -1, Current: -1}
		if q.Timestamp == Latest || q.Timestamp == Earliest {
			keys, keysAt = append(keys, q.Key), append(keysAt, i)
		} else {
			times = append(times, metadata.TimestampRequest{Key: q.Key, Timestamp: q.Timestamp})
			timesAt = append(timesAt, i)
		}
	}
	if len(keys) > 0 {
		marks, err := r.index.Watermarks(ctx, keys)
		for n, i := range keysAt {
			switch {
			case err != nil:
				results[i].Err = err
			case marks[n] == nil:
				results[i].Err = metadata.ErrUnknownTopic
			default:
				results[i].bound(marks[n], reqs[i].Timestamp, readCommitted)
			}
		}
	}
	if len(times) > 0 {
		found, err := r.index.FindTimestamp(ctx, times)
		for n, i := range timesAt {
			if err != nil {
				results[i].Err = err
				continue
			}
			r.locate(ctx, reqs[i], &found[n], readCommitted, &results[i])
		}
	}
	return results
}

// bound answers Latest and Earliest.
func (l *ListResult) bound(m *metadata.Watermarks, timestamp int64, readCommitted bool) {
	l.Current, l.LeaderEpoch = m.LeaderEpoch, m.LeaderEpoch
	switch {
	case timestamp == Earliest:
		l.Offset = m.LogStart
	case readCommitted:
		l.Offset = m.LastStable
	default:
		l.Offset = m.High
	}
}

// record is one that a search has found.
type record struct {
	offset, timestamp int64
	leaderEpoch       int32
}

// locate finds the record in the extent that the index named.
func (r *Reader) locate(ctx context.Context, q ListRequest, found *metadata.TimestampResult, readCommitted bool, res *ListResult) {
	if res.Err = found.Err; res.Err != nil {
		return
	}
	m := &found.Watermarks
	res.Current = m.LeaderEpoch
	if found.Extent == nil {
		return
	}
	rec, ok, err := r.find(ctx, q, found.Extent, m)
	switch {
	case err != nil:
		res.Err = err
		r.log.Warn("cannot search for a timestamp", "topic_id", q.Key.TopicID, "partition", q.Key.Partition, "error", err)
	case ok && !(readCommitted && rec.offset >= m.LastStable):
		res.Offset, res.Timestamp, res.LeaderEpoch = rec.offset, rec.timestamp, rec.leaderEpoch
	}
}

// find searches the extent that the index named, which knows no timestamps of
// records. If the log starts in the midst of that extent, the record that it was
// named for may be deleted: then the search goes on behind it.
func (r *Reader) find(ctx context.Context, q ListRequest, e *metadata.Extent, m *metadata.Watermarks) (rec record, ok bool, err error) {
	want := q.Timestamp
	if want == MaxTimestamp {
		want = e.MaxTimestamp
	}
	rec, ok, err = r.search(ctx, q.Key, e, want, m.LogStart)
	if ok || err != nil || e.BaseOffset >= m.LogStart {
		return rec, ok, err
	}
	if q.Timestamp != MaxTimestamp {
		for x, err := range r.extents(ctx, q.Key, e.EndOffset) {
			if err != nil {
				return rec, false, err
			}
			if x.MaxTimestamp >= want {
				return r.search(ctx, q.Key, x, want, m.LogStart)
			}
		}
		return rec, false, nil
	}
	if rec, ok, err = r.latest(ctx, q.Key, e, m.LogStart); err != nil {
		return rec, false, err
	}
	var later *metadata.Extent
	for x, err := range r.extents(ctx, q.Key, e.EndOffset) {
		if err != nil {
			return rec, false, err
		}
		if (!ok || x.MaxTimestamp > rec.timestamp) && (later == nil || x.MaxTimestamp > later.MaxTimestamp) {
			later = x
		}
	}
	if later != nil {
		return r.search(ctx, q.Key, later, later.MaxTimestamp, m.LogStart)
	}
	return rec, ok, nil
}

// extentsPageBytes is how much of the log one question about extents covers.
const extentsPageBytes = 16 << 20

// extents walks the index from the beginning of an extent on.
func (r *Reader) extents(ctx context.Context, k lease.Key, from int64) iter.Seq2[*metadata.Extent, error] {
	return func(yield func(*metadata.Extent, error) bool) {
		for {
			pages, err := r.index.Read(ctx, []metadata.ReadRequest{{Key: k, Offset: from, MaxBytes: extentsPageBytes}})
			if err == nil {
				err = pages[0].Err
			}
			if err != nil {
				yield(nil, err)
				return
			}
			page := pages[0].Extents
			if len(page) == 0 {
				return
			}
			for i := range page {
				if !yield(&page[i], nil) {
					return
				}
			}
			from = page[len(page)-1].EndOffset
		}
	}
}

// latest finds the first record at or behind logStart with the largest
// timestamp in the extent, by bisection of the timestamp.
func (r *Reader) latest(ctx context.Context, k lease.Key, e *metadata.Extent, logStart int64) (best record, ok bool, err error) {
	low, high := batch.NoTimestamp, e.MaxTimestamp // there is none at or above high
	for want := low; low < high; want = low + (high-low)/2 {
		rec, found, err := r.search(ctx, k, e, want, logStart)
		if err != nil {
			return best, false, err
		}
		if found {
			best, ok, low = rec, true, rec.timestamp+1
		} else {
			high = want
		}
	}
	return best, ok, nil
}

// search scans an extent for the first record at or behind logStart with a
// timestamp of at least want.
func (r *Reader) search(ctx context.Context, k lease.Key, e *metadata.Extent, want, logStart int64) (rec record, ok bool, err error) {
	q := Request{Key: k, Offset: max(e.BaseOffset, logStart)}
	a := assembly{r: r, request: &q, until: math.MaxInt64, allowed: r.cfg.BlockBytes, atLeastOne: true}
	for at := startOf(e); at.position < e.Length; q.Offset = at.offset {
		a.out, a.held = a.out[:0], held{}
		if at, err = a.extent(ctx, e, at); err != nil {
			if errors.Is(err, errObjectMissing) {
				err = fmt.Errorf("%w: %w", ErrStorage, err)
			}
			return rec, false, err
		}
		for rest := a.out; len(rest) > 0; {
			b, tail, err := batch.Next(rest)
			if err != nil {
				return rec, false, fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
			delta, timestamp, ok, err := batch.FindTimestamp(b, int32(max(logStart-b.BaseOffset(), 0)), want)
			if err != nil {
				return rec, false, fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
			if ok {
				return record{b.BaseOffset() + int64(delta), timestamp, e.LeaderEpoch}, true, nil
			}
			rest = tail
		}
	}
	return rec, false, nil
}
