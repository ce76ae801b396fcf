package sqlstore

import (
	"context"
	"fmt"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// A shard's offsets are written in one round trip of two statements. The first
// locks the shard's row if the agent leads it, and holds off a take-over until
// the transaction's end; the second looks again, under the lock.
const shardLed = `SELECT 1 FROM partitions p
	WHERE p.topic_id = $1 AND p.partition = $2 AND p.leader_agent_id = $3 AND p.leader_epoch = $4`

// writeAsShard runs a statement whose first arguments are those of shardLed.
func (s *Store) writeAsShard(ctx context.Context, op string, fence []any, shard lease.Term, stmt Stmt) error {
	led := false
	err := Retry(ctx, s.d, op, func() error {
		led = false
		return s.db.Write(ctx,
			Stmt{SQL: shardLed + ` ` + s.d.ForUpdate(), Args: fence, Each: func(Row) error { led = true; return nil }},
			stmt)
	})
	if err == nil && !led {
		return fmt.Errorf("metadata: %s: %w: shard %s in leader epoch %d", op, metadata.ErrFenced, shard.Key, shard.LeaderEpoch)
	}
	return err
}

func shardFence(agentID string, shard lease.Term) []any {
	return []any{shard.TopicID[:], shard.Partition, agentID, shard.LeaderEpoch}
}

// CommitOffsets implements metadata.Offsets. A position in a partition that is
// there no more is dropped.
func (s *Store) CommitOffsets(ctx context.Context, agentID string, shard lease.Term, commits []metadata.OffsetCommit) error {
	in := lastPositions(commits)
	fence := shardFence(agentID, shard)
	return s.writeAsShard(ctx, "commit offsets", fence, shard, Stmt{
		SQL: `INSERT INTO group_offsets
				(group_id, topic_id, partition, committed_offset, leader_epoch, metadata, committed_at)
			SELECT i.group_id, i.topic_id, i.partition, i.committed_offset, i.leader_epoch, i.metadata, ` + s.d.Now() + `
			FROM ` + s.d.Input("i", 5, Column{"group_id", Text}, Column{"topic_id", Bytes}, Column{"partition", Int32},
			Column{"committed_offset", Int64}, Column{"leader_epoch", Int32}, Column{"metadata", Bytes}) + `
			JOIN partitions t ON t.topic_id = i.topic_id AND t.partition = i.partition
			WHERE EXISTS (` + shardLed + `)
			ON CONFLICT (group_id, topic_id, partition) DO UPDATE SET
				committed_offset = excluded.committed_offset, leader_epoch = excluded.leader_epoch,
				metadata = excluded.metadata, committed_at = excluded.committed_at`,
		Args: s.args(fence[:4:4], in.groups, in.topics, in.partitions, in.offsets, in.epochs, in.metadata),
	})
}

// positions are the columns of an input table of committed offsets.
type positions struct {
	groups     []string
	topics     [][]byte
	partitions []int32
	offsets    []int64
	epochs     []int32
	metadata   [][]byte
}

// lastPositions returns the last position of each partition of a group, since
// one statement can change a row only once.
func lastPositions(commits []metadata.OffsetCommit) *positions {
	type row struct {
		group string
		key   lease.Key
	}
	in, at := new(positions), make(map[row]int)
	for _, c := range commits {
		for i := range c.Offsets {
			o := &c.Offsets[i]
			r := row{c.Group, o.Key}
			n, again := at[r]
			if !again {
				n = len(at)
				at[r] = n
				in.groups = append(in.groups, c.Group)
				in.topics = append(in.topics, o.TopicID[:])
				in.partitions = append(in.partitions, o.Partition)
				in.offsets = append(in.offsets, 0)
				in.epochs = append(in.epochs, 0)
				in.metadata = append(in.metadata, nil)
			}
			in.offsets[n], in.epochs[n], in.metadata[n] = o.Offset, o.LeaderEpoch, []byte(o.Metadata)
		}
	}
	return in
}

// FetchOffsets implements metadata.Offsets. Positions in partitions that are there
// no more are left out, here and in ListGroups: they are there until Prune has
// removed them.
func (s *Store) FetchOffsets(ctx context.Context, groups []string) ([][]metadata.CommittedOffset, error) {
	if len(groups) == 0 {
		return nil, nil
	}
	results := make([][]metadata.CommittedOffset, len(groups))
	err := s.read(ctx, "fetch offsets", Stmt{
		SQL: `SELECT i.ord, g.topic_id, g.partition, g.committed_offset, g.leader_epoch, g.metadata
			FROM ` + s.d.Input("i", 1, Column{"group_id", Text}) + ` JOIN group_offsets g ON g.group_id = i.group_id
			JOIN partitions p ON p.topic_id = g.topic_id AND p.partition = g.partition
			ORDER BY i.ord, g.topic_id, g.partition`,
		Args: s.args(nil, groups),
		Each: func(r Row) error {
			var (
				ord   int64
				o     metadata.CommittedOffset
				bytes []byte
			)
			err := r.Scan(&ord, (*ID)(&o.TopicID), &o.Partition, &o.Offset, &o.LeaderEpoch, &bytes)
			if err != nil {
				return err
			}
			o.Metadata = string(bytes)
			results[ord-1] = append(results[ord-1], o)
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// DeleteOffsets implements metadata.Offsets.
func (s *Store) DeleteOffsets(ctx context.Context, agentID string, shard lease.Term, group string, keys []lease.Key) error {
	fence := shardFence(agentID, shard)
	stmt := Stmt{
		SQL:  `DELETE FROM group_offsets WHERE group_id = $5 AND EXISTS (` + shardLed + `)`,
		Args: append(fence[:4:4], group),
	}
	if keys != nil {
		topics, partitions := SplitKeys(keys, func(k lease.Key) lease.Key { return k })
		stmt.SQL += ` AND (topic_id, partition) IN (SELECT i.topic_id, i.partition FROM ` +
			s.d.Input("i", 6, KeyColumns...) + `)`
		stmt.Args = s.args(stmt.Args, topics, partitions)
	}
	return s.writeAsShard(ctx, "delete offsets", fence, shard, stmt)
}

// ListGroups implements metadata.Offsets.
func (s *Store) ListGroups(ctx context.Context) ([]string, error) {
	var groups []string
	err := s.read(ctx, "list groups", Stmt{
		SQL: `SELECT DISTINCT g.group_id FROM group_offsets g
			JOIN partitions p ON p.topic_id = g.topic_id AND p.partition = g.partition ORDER BY g.group_id`,
		Each: func(r Row) error {
			var g string
			err := r.Scan(&g)
			groups = append(groups, g)
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	return groups, nil
}
