package sqlstore

import (
	"context"
	"fmt"

	"github.com/streamhouse/streamhouse/metadata"
)

// Prune implements metadata.Pruner. Rows are locked without waiting for any, so
// that their order is no concern of those who hold locks; what is locked by others
// is left to a later call. That a producer's row goes without its partition's lock
// costs a commit that has just read it no more than batches that have expired.
func (s *Store) Prune(ctx context.Context) (rows int64, err error) {
	var now int64
	err = s.read(ctx, "prune", Stmt{
		SQL:  `SELECT ` + s.d.Now(),
		Each: func(r Row) error { return r.Scan(&now) },
	})
	if err != nil {
		return 0, err
	}
	firstKept := metadata.FirstObjectID(now - metadata.CommitRetention.Milliseconds())
	limit := fmt.Sprintf(` LIMIT %d %s`, metadata.PruneRows, s.d.ForUpdateSkipLocked())
	answered := `WITH old AS MATERIALIZED (
			SELECT object_id FROM objects WHERE results IS NOT NULL AND object_id < $1 ORDER BY object_id` + limit + `)`
	var emptied, inline, producers int64
	err = s.write(ctx, "prune",
		Stmt{
			SQL:      answered + ` DELETE FROM objects WHERE size = 0 AND object_id IN (SELECT object_id FROM old)`,
			Args:     []any{firstKept[:]},
			Affected: &inline,
		},
		Stmt{
			SQL:      answered + ` UPDATE objects SET results = NULL WHERE size > 0 AND object_id IN (SELECT object_id FROM old)`,
			Args:     []any{firstKept[:]},
			Affected: &emptied,
		},
		Stmt{
			SQL: `WITH old AS MATERIALIZED (
					SELECT topic_id, partition, producer_id FROM producers WHERE updated_at < $1` + limit + `)
				DELETE FROM producers
				WHERE (topic_id, partition, producer_id) IN (SELECT topic_id, partition, producer_id FROM old)`,
			Args:     []any{now - metadata.ProducerExpiry.Milliseconds()},
			Affected: &producers,
		})
	if err != nil {
		return 0, err
	}
	purged, err := s.purge(ctx)
	return emptied + inline + producers + purged, err
}
