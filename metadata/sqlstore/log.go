package sqlstore

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment"
)

// DeleteRecords implements metadata.Log. Extents that lie wholly below the new
// log start are left to Prune.
func (s *Store) DeleteRecords(ctx context.Context, key lease.Key, offset int64) (logStart int64, err error) {
	of := []any{key.TopicID[:], key.Partition}
	err = s.tx(ctx, "delete records", func(tx Runner) error {
		var high int64
		logStart = -1
		err := tx.Run(ctx,
			Stmt{SQL: `INSERT INTO purges (topic_id, partition) VALUES ($1, $2) ` + lockPurge, Args: of},
			Stmt{
				SQL: `SELECT log_start_offset, high_watermark FROM partitions
					WHERE topic_id = $1 AND partition = $2 AND agent_group = $3 ` + s.d.ForUpdate(),
				Args: append(of[:2:2], s.group),
				Each: func(r Row) error { return r.Scan(&logStart, &high) },
			})
		to := offset
		if to == -1 {
			to = high
		}
		switch {
		case err != nil:
			return err
		case logStart < 0:
			return refuse(unknownPartition(key))
		case to < 0 || to > high:
			return refuse(fmt.Errorf("%w: %d, with the high watermark at %d", metadata.ErrOffsetOutOfRange, offset, high))
		case to <= logStart:
			return nil
		}
		logStart = to
		return tx.Run(ctx, Stmt{
			SQL:  `UPDATE partitions SET log_start_offset = $3 WHERE topic_id = $1 AND partition = $2`,
			Args: append(of[:2:2], to),
		})
	})
	if err != nil {
		return -1, err
	}
	return logStart, nil
}

// LogSizes implements metadata.Log. The sum is a subquery of its own for each
// partition, which looks for the log's first extent once: a join would do that
// for every extent.
func (s *Store) LogSizes(ctx context.Context, topics []uuid.UUID) (map[lease.Key]int64, error) {
	ids := make([][]byte, len(topics))
	for i := range topics {
		ids[i] = topics[i][:]
	}
	sizes := make(map[lease.Key]int64)
	err := s.read(ctx, "log sizes", Stmt{
		SQL: `SELECT p.topic_id, p.partition, CAST(coalesce((
				SELECT sum(e.length) FROM extents e
				WHERE e.topic_id = p.topic_id AND e.partition = p.partition AND ` + alive("e") + `), 0) AS BIGINT)
			FROM ` + s.d.Input("i", 2, Column{"topic_id", Bytes}) + `
			JOIN partitions p ON p.topic_id = i.topic_id AND p.agent_group = $1`,
		Args: s.args([]any{s.group}, ids),
		Each: func(r Row) error {
			var (
				k    lease.Key
				size int64
			)
			err := r.Scan((*ID)(&k.TopicID), &k.Partition, &size)
			sizes[k] = size
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	return sizes, nil
}

// AllocateProducerIDs implements metadata.Producers. Ids come from a row and
// not from a sequence, which runs ahead of what is committed and may fall back
// when a log is lost.
func (s *Store) AllocateProducerIDs(ctx context.Context, count int64) (first int64, err error) {
	err = s.write(ctx, "allocate producer ids",
		Stmt{
			SQL:  `UPDATE cluster SET next_producer_id = next_producer_id + $1 RETURNING next_producer_id - $1`,
			Args: []any{count},
			Each: func(r Row) error { return r.Scan(&first) },
		},
		Stmt{
			SQL: `INSERT INTO producer_id_blocks (first_id, end_id, allocated_at)
				SELECT next_producer_id - $1, next_producer_id, ` + s.d.Now() + ` FROM cluster`,
			Args: []any{count},
		})
	return first, err
}

// ActiveProducers implements metadata.Producers.
func (s *Store) ActiveProducers(ctx context.Context, keys []lease.Key) ([][]metadata.ActiveProducer, error) {
	topics, partitions := SplitKeys(keys, func(k lease.Key) lease.Key { return k })
	input, args := s.d.Input("i", 2, KeyColumns...), s.args([]any{s.group}, topics, partitions)
	sequence, into := s.d.NewestSequence()
	active := make([][]metadata.ActiveProducer, len(keys))
	err := s.read(ctx, "active producers",
		Stmt{
			SQL: `SELECT i.ord FROM ` + input + `
				JOIN partitions t ON t.topic_id = i.topic_id AND t.partition = i.partition AND t.agent_group = $1`,
			Args: args,
			Each: func(r Row) error {
				var ord int64
				err := r.Scan(&ord)
				active[ord-1] = []metadata.ActiveProducer{}
				return err
			},
		},
		Stmt{
			SQL: `SELECT i.ord, p.producer_id, p.producer_epoch, p.updated_at, ` + sequence + ` FROM ` + input + `
				JOIN partitions t ON t.topic_id = i.topic_id AND t.partition = i.partition AND t.agent_group = $1
				JOIN producers p ON p.topic_id = i.topic_id AND p.partition = i.partition
				WHERE p.updated_at > ` + s.d.Now() + fmt.Sprintf(" - %d", metadata.ProducerExpiry.Milliseconds()) + `
				ORDER BY i.ord, p.producer_id`,
			Args: args,
			Each: func(r Row) error {
				var (
					ord int64
					p   metadata.ActiveProducer
				)
				if err := r.Scan(&ord, &p.ID, &p.Epoch, &p.LastUse, into(&p.LastSequence)); err != nil {
					return err
				}
				if active[ord-1] != nil { // else it was deleted before the first query, or made after it
					active[ord-1] = append(active[ord-1], p)
				}
				return nil
			},
		})
	if err != nil {
		return nil, err
	}
	return active, nil
}

// ClaimOrphans implements metadata.Objects. Claim and commit insert the same
// key, so that the second of them waits for the first and then yields; to ask
// whether a commit has named an object would miss one in flight.
func (s *Store) ClaimOrphans(ctx context.Context, ids []segment.ID) ([]segment.ID, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	keys := make([][]byte, len(ids))
	for i := range ids {
		keys[i] = ids[i][:]
	}
	slices.SortFunc(keys, bytes.Compare)
	input := s.d.Input("i", 1, Column{"object_id", Bytes})
	args := s.args(nil, keys)
	var claimed []segment.ID
	err := Retry(ctx, s.d, "claim orphans", func() error {
		claimed = nil
		return s.db.Write(ctx,
			Stmt{
				SQL: `INSERT INTO objects (object_id, state, size, created_at)
					SELECT i.object_id, 'deleting', 0, ` + s.d.Now() + ` FROM ` + input + `
					WHERE true ORDER BY i.ord ON CONFLICT DO NOTHING`,
				Args: args,
			},
			Stmt{
				SQL: `SELECT o.object_id FROM ` + input + ` JOIN objects o ON o.object_id = i.object_id
					WHERE o.state = 'deleting'`,
				Args: args,
				Each: func(r Row) error {
					var id segment.ID
					err := r.Scan((*ID)(&id))
					claimed = append(claimed, id)
					return err
				},
			})
	})
	if err != nil {
		return nil, err
	}
	return claimed, nil
}
