package fetch

import (
	"context"
	"errors"
	"fmt"

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

// locate finds the record in the extent that the index named.
func (r *Reader) locate(ctx context.Context, q ListRequest, found *metadata.TimestampResult, readCommitted bool, res *ListResult) {
	if res.Err = found.Err; res.Err != nil {
		return
	}
	res.Current = found.Watermarks.LeaderEpoch
	e := found.Extent
	if e == nil {
		return
	}
	want := q.Timestamp
	if want == MaxTimestamp {
		want = e.MaxTimestamp
	}
	offset, timestamp, err := r.search(ctx, q, e, want, found.Watermarks.LogStart)
	switch {
	case err != nil:
		res.Err = err
		r.log.Warn("cannot search for a timestamp", "topic_id", q.Key.TopicID, "partition", q.Key.Partition, "error", err)
	case offset < 0:
	case readCommitted && offset >= found.Watermarks.LastStable:
	default:
		res.Offset, res.Timestamp, res.LeaderEpoch = offset, timestamp, e.LeaderEpoch
	}
}

// search scans an extent for the first record at or behind logStart with a
// timestamp of at least want; offset is -1 if there is none.
func (r *Reader) search(ctx context.Context, q ListRequest, e *metadata.Extent, want, logStart int64) (offset, timestamp int64, err error) {
	v := r.views.get(q.Key)
	next := max(e.BaseOffset, logStart)
	for next < e.EndOffset {
		a := assembly{r: r, view: v, request: &Request{Key: q.Key, Offset: next}, allowed: r.cfg.BlockBytes, atLeastOne: true}
		if _, err := a.extent(ctx, e); err != nil {
			if errors.Is(err, errObjectMissing) {
				err = fmt.Errorf("%w: %w", ErrStorage, err)
			}
			return -1, -1, err
		}
		for rest := a.out; len(rest) > 0; {
			b, tail, err := batch.Next(rest)
			if err != nil {
				return -1, -1, fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
			offset, timestamp, ok, err := searchBatch(b, want, logStart)
			if err != nil || ok {
				return offset, timestamp, err
			}
			next, rest = b.LastOffset()+1, tail
		}
	}
	return -1, -1, nil
}

func searchBatch(b batch.Batch, want, logStart int64) (offset, timestamp int64, ok bool, err error) {
	delta, timestamp, ok, err := batch.FindTimestamp(b, want)
	if err != nil {
		return -1, -1, false, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if !ok {
		return -1, -1, false, nil
	}
	return max(b.BaseOffset()+int64(delta), logStart), timestamp, true, nil
}
