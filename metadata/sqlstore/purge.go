package sqlstore

import (
	"context"
	"fmt"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// lockPurge ends an INSERT into purges. It waits for a Prune that is at work on
// the partition and may have seen its last row to be removed, and makes the next
// wait for this transaction. Who takes it has no partition locked yet, so that
// commits do not wait as well.
const lockPurge = `ON CONFLICT (topic_id, partition) DO UPDATE SET partition = excluded.partition`

// purgePartitions bounds the partitions of one transaction of purge, which takes a
// round trip for each.
const purgePartitions = 100

// purge removes rows of deleted partitions and of deleted records, until there are
// no more or PruneRows are gone.
func (s *Store) purge(ctx context.Context) (rows int64, err error) {
	for rows < metadata.PruneRows {
		step, err := s.purgeStep(ctx)
		rows += step
		if err != nil || step == 0 {
			return rows, err
		}
	}
	return rows, nil
}

// purgeStep is one transaction of purge. Rows of purges that others have locked
// are left to them: with the lock, a partition that has no more rows to be removed
// will have none until the transaction's end.
func (s *Store) purgeStep(ctx context.Context) (rows int64, err error) {
	err = s.tx(ctx, "purge", func(tx Runner) error {
		rows = 0
		var keys, done []lease.Key
		err := tx.Run(ctx, Stmt{
			SQL: fmt.Sprintf(`SELECT topic_id, partition FROM purges LIMIT %d %s`, purgePartitions, s.d.ForUpdateSkipLocked()),
			Each: func(r Row) error {
				var k lease.Key
				err := r.Scan((*ID)(&k.TopicID), &k.Partition)
				keys = append(keys, k)
				return err
			},
		})
		if err != nil {
			return err
		}
		for _, k := range keys {
			removed, more, err := purgePartition(ctx, tx, k)
			if err != nil {
				return err
			}
			if !more {
				removed++ // the row of purges
				done = append(done, k)
			}
			if rows += removed; rows >= metadata.PruneRows {
				break
			}
		}
		if len(done) == 0 {
			return nil
		}
		topics, partitions := SplitKeys(done, func(k lease.Key) lease.Key { return k })
		return tx.Run(ctx, Stmt{
			SQL: `DELETE FROM purges WHERE (topic_id, partition) IN (
				SELECT i.topic_id, i.partition FROM ` + s.d.Input("i", 1, KeyColumns...) + `)`,
			Args: s.args(nil, topics, partitions),
		})
	})
	if err != nil {
		return 0, err
	}
	return rows, nil
}

// The rows that purgePartition removes: of a partition that is there no more all,
// and else the extents that lie wholly below the log start.
const (
	purgeable = `NOT EXISTS (SELECT 1 FROM partitions WHERE topic_id = $1 AND partition = $2)`
	purgeEnd  = `coalesce((SELECT log_start_offset FROM partitions WHERE topic_id = $1 AND partition = $2), 9223372036854775807)`
)

// purgeStmts remove at most PruneRows rows each, the lowest by the last column of
// a key: an order that leaves the database no plan but to walk the index.
var purgeStmts = [...]string{
	purgeFrom("extents", "base_offset", `base_offset < `+purgeEnd+` AND end_offset <= `+purgeEnd),
	purgeFrom("producers", "producer_id", purgeable),
	purgeFrom("leader_epochs", "leader_epoch", purgeable),
	purgeFrom("group_offsets", "group_id", purgeable),
}

func purgeFrom(table, column, condition string) string {
	return fmt.Sprintf(`DELETE FROM %[1]s WHERE topic_id = $1 AND partition = $2 AND %[2]s IN (
		SELECT %[2]s FROM %[1]s WHERE topic_id = $1 AND partition = $2 AND %[3]s ORDER BY %[2]s LIMIT %[4]d)`,
		table, column, condition, metadata.PruneRows)
}

// purgePartition removes rows of one partition, and says whether there may be more.
func purgePartition(ctx context.Context, tx Runner, k lease.Key) (rows int64, more bool, err error) {
	var (
		affected [len(purgeStmts)]int64
		stmts    [len(purgeStmts)]Stmt
	)
	for i, text := range purgeStmts {
		stmts[i] = Stmt{SQL: text, Args: []any{k.TopicID[:], k.Partition}, Affected: &affected[i]}
	}
	if err := tx.Run(ctx, stmts[:]...); err != nil {
		return 0, false, err
	}
	for _, n := range affected {
		rows += n
		more = more || n == metadata.PruneRows
	}
	return rows, more, nil
}
