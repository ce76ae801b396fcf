package sqlstore

import (
	"context"
	"fmt"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// watermarkColumns are of a partition p, or of none (LEFT JOIN).
const watermarkColumns = `coalesce(p.log_start_offset, -1), coalesce(p.high_watermark, 0),
	coalesce(p.leader_epoch, 0), coalesce(p.leader_agent_id, '')`

// watermarksRow is where watermarkColumns are scanned to.
type watermarksRow struct{ metadata.Watermarks }

func (w *watermarksRow) dest() []any { return []any{&w.LogStart, &w.High, &w.LeaderEpoch, &w.LeaderID} }

// watermarks returns what was scanned; false if there is no such partition.
// Without transactions all that is committed is stable.
func (w *watermarksRow) watermarks() (metadata.Watermarks, bool) {
	w.LastStable = w.High
	return w.Watermarks, w.LogStart >= 0
}

// extentColumns are of an extent e and its object o, or of none (LEFT JOIN).
const extentColumns = `coalesce(e.base_offset, -1), coalesce(e.end_offset, 0), coalesce(e.leader_epoch, 0),
	coalesce(e.max_timestamp, 0), coalesce(e.append_time, 0), e.object_id,
	coalesce(o.size, 0), coalesce(e.position, 0), coalesce(e.length, 0), e.inline`

// extentRow is where extentColumns are scanned to.
type extentRow struct{ metadata.Extent }

func (e *extentRow) dest() []any {
	return []any{
		&e.BaseOffset, &e.EndOffset, &e.LeaderEpoch, &e.MaxTimestamp, &e.AppendTime, (*ID)(&e.Object),
		&e.ObjectSize, &e.Position, &e.Length, &e.Inline,
	}
}

// alive says of an extent of the partition p that it does not lie wholly below
// the log start: extents that do are there until Prune has removed them. The
// second condition follows from the first, and lets an index begin there.
func alive(extent string) string {
	return extent + `.end_offset > p.log_start_offset AND ` + extent + `.base_offset >= coalesce(
		(SELECT max(b.base_offset) FROM extents b
		WHERE b.topic_id = p.topic_id AND b.partition = p.partition AND b.base_offset <= p.log_start_offset), 0)`
}

// Read implements metadata.Log: one statement, and so one snapshot.
//
// It finds the extent that contains the offset and walks on from the end of
// one to the beginning of the next, for all requests at once, until the bytes
// are enough: its work grows with what it returns, not with the log.
func (s *Store) Read(ctx context.Context, reqs []metadata.ReadRequest) ([]metadata.ReadResult, error) {
	if len(reqs) == 0 {
		return nil, nil
	}
	topics, partitions := SplitKeys(reqs, func(r metadata.ReadRequest) lease.Key { return r.Key })
	offsets, maxBytes := make([]int64, len(reqs)), make([]int64, len(reqs))
	for i := range reqs {
		offsets[i], maxBytes[i] = reqs[i].Offset, reqs[i].MaxBytes
	}
	results := make([]metadata.ReadResult, len(reqs))
	input := s.d.Input("i", 2, append(KeyColumns[:2:2], Column{"from_offset", Int64}, Column{"max_bytes", Int64})...)
	err := s.read(ctx, "read", Stmt{
		SQL: `WITH RECURSIVE
			p AS (
				SELECT i.ord, i.topic_id, i.partition, i.from_offset, i.max_bytes,
					p.log_start_offset, p.high_watermark, p.leader_epoch, p.leader_agent_id
				FROM ` + input + ` LEFT JOIN partitions p
					ON p.topic_id = i.topic_id AND p.partition = i.partition AND p.agent_group = $1
			),
			e AS (
				SELECT p.ord, p.max_bytes - e.length AS budget, e.*
				FROM p JOIN extents e ON e.topic_id = p.topic_id AND e.partition = p.partition
					AND e.base_offset = (SELECT max(x.base_offset) FROM extents x
						WHERE x.topic_id = p.topic_id AND x.partition = p.partition AND x.base_offset <= p.from_offset)
				WHERE p.from_offset >= p.log_start_offset AND p.from_offset < p.high_watermark
				UNION ALL
				SELECT e.ord, e.budget - x.length, x.*
				FROM e JOIN extents x ON x.topic_id = e.topic_id AND x.partition = e.partition AND x.base_offset = e.end_offset
				WHERE e.budget > 0
			)
			SELECT p.ord, ` + watermarkColumns + `, ` + extentColumns + `
			FROM p LEFT JOIN e ON e.ord = p.ord LEFT JOIN objects o ON o.object_id = e.object_id
			ORDER BY p.ord, e.base_offset`,
		Args: s.args([]any{s.group}, topics, partitions, offsets, maxBytes),
		Each: func(r Row) error {
			var (
				ord int64
				w   watermarksRow
				e   extentRow
			)
			if err := r.Scan(append(append([]any{&ord}, w.dest()...), e.dest()...)...); err != nil {
				return err
			}
			res, known := &results[ord-1], false
			if res.Watermarks, known = w.watermarks(); !known {
				*res = metadata.ReadResult{Err: unknownPartition(reqs[ord-1].Key)}
				return nil
			}
			if e.BaseOffset >= 0 {
				res.Extents = append(res.Extents, e.Extent)
			}
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

func unknownPartition(k lease.Key) error {
	return fmt.Errorf("%w: no partition %s", metadata.ErrUnknownTopic, k)
}

// Watermarks implements metadata.Log.
func (s *Store) Watermarks(ctx context.Context, keys []lease.Key) ([]*metadata.Watermarks, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	topics, partitions := SplitKeys(keys, func(k lease.Key) lease.Key { return k })
	results := make([]*metadata.Watermarks, len(keys))
	err := s.read(ctx, "watermarks", Stmt{
		SQL: `SELECT i.ord, ` + watermarkColumns + `
			FROM ` + s.d.Input("i", 2, KeyColumns...) + `
			JOIN partitions p ON p.topic_id = i.topic_id AND p.partition = i.partition AND p.agent_group = $1`,
		Args: s.args([]any{s.group}, topics, partitions),
		Each: func(r Row) error {
			var (
				ord int64
				w   watermarksRow
			)
			if err := r.Scan(append([]any{&ord}, w.dest()...)...); err != nil {
				return err
			}
			marks, _ := w.watermarks()
			results[ord-1] = &marks
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// FindTimestamp implements metadata.Log. It walks the partition's index: a
// request for a timestamp is rare, and an index by time would burden every
// commit.
func (s *Store) FindTimestamp(ctx context.Context, reqs []metadata.TimestampRequest) ([]metadata.TimestampResult, error) {
	if len(reqs) == 0 {
		return nil, nil
	}
	topics, partitions := SplitKeys(reqs, func(r metadata.TimestampRequest) lease.Key { return r.Key })
	stamps := make([]int64, len(reqs))
	results := make([]metadata.TimestampResult, len(reqs))
	for i := range reqs {
		stamps[i] = reqs[i].Timestamp
		results[i].Err = unknownPartition(reqs[i].Key)
	}
	within := ` FROM extents x WHERE x.topic_id = p.topic_id AND x.partition = p.partition AND ` + alive("x")
	err := s.read(ctx, "find timestamp", Stmt{
		SQL: `SELECT i.ord, ` + watermarkColumns + `, ` + extentColumns + `
			FROM ` + s.d.Input("i", 3, append(KeyColumns[:2:2], Column{"stamp", Int64})...) + `
			JOIN partitions p ON p.topic_id = i.topic_id AND p.partition = i.partition AND p.agent_group = $2
			LEFT JOIN extents e ON e.topic_id = p.topic_id AND e.partition = p.partition AND e.base_offset =
				CASE i.stamp WHEN $1
				THEN (SELECT x.base_offset` + within + ` ORDER BY x.max_timestamp DESC, x.base_offset LIMIT 1)
				ELSE (SELECT x.base_offset` + within + ` AND x.max_timestamp >= i.stamp ORDER BY x.base_offset LIMIT 1)
				END
			LEFT JOIN objects o ON o.object_id = e.object_id`,
		Args: s.args([]any{int64(metadata.MaxTimestamp), s.group}, topics, partitions, stamps),
		Each: func(r Row) error {
			var (
				ord int64
				w   watermarksRow
				e   extentRow
			)
			if err := r.Scan(append(append([]any{&ord}, w.dest()...), e.dest()...)...); err != nil {
				return err
			}
			res := &results[ord-1]
			res.Watermarks, _ = w.watermarks()
			res.Err = nil
			if e.BaseOffset >= 0 {
				res.Extent = &e.Extent
			}
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// EpochEnds implements metadata.Log.
func (s *Store) EpochEnds(ctx context.Context, reqs []metadata.EpochRequest) ([]metadata.EpochEnd, error) {
	if len(reqs) == 0 {
		return nil, nil
	}
	topics, partitions := SplitKeys(reqs, func(r metadata.EpochRequest) lease.Key { return r.Key })
	epochs := make([]int32, len(reqs))
	results := make([]metadata.EpochEnd, len(reqs))
	for i := range reqs {
		epochs[i] = reqs[i].LeaderEpoch
		results[i] = metadata.EpochEnd{LeaderEpoch: -1, EndOffset: -1, Current: -1, Err: unknownPartition(reqs[i].Key)}
	}
	const began = ` FROM leader_epochs l WHERE l.topic_id = p.topic_id AND l.partition = p.partition AND l.leader_epoch `
	err := s.read(ctx, "epoch ends", Stmt{
		SQL: `SELECT i.ord, p.leader_epoch,
				coalesce((SELECT max(l.leader_epoch)` + began + `<= i.leader_epoch), -1),
				coalesce((SELECT l.start_offset` + began + `> i.leader_epoch ORDER BY l.leader_epoch LIMIT 1), p.high_watermark)
			FROM ` + s.d.Input("i", 2, append(KeyColumns[:2:2], Column{"leader_epoch", Int32})...) + `
			JOIN partitions p ON p.topic_id = i.topic_id AND p.partition = i.partition AND p.agent_group = $1`,
		Args: s.args([]any{s.group}, topics, partitions, epochs),
		Each: func(r Row) error {
			var (
				ord int64
				end metadata.EpochEnd
			)
			if err := r.Scan(&ord, &end.Current, &end.LeaderEpoch, &end.EndOffset); err != nil {
				return err
			}
			if end.LeaderEpoch < 0 {
				end.EndOffset = -1
			}
			results[ord-1] = end
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}
