package sqlstore

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// A shard's groups are written in one round trip. Its first statement locks the
// shard's row if the agent leads it, and holds off a take-over until the
// transaction's end; each of the others looks again, under the lock.
const shardLed = `SELECT 1 FROM partitions p
	WHERE p.topic_id = $1 AND p.partition = $2 AND p.leader_agent_id = $3 AND p.leader_epoch = $4 AND p.agent_group = $5`

// fenceArgs is how many arguments shardLed has.
const fenceArgs = 5

// WriteGroups implements metadata.Groups.
func (s *Store) WriteGroups(ctx context.Context, agentID string, shard lease.Term, w *metadata.GroupWrite) error {
	fence := []any{shard.TopicID[:], shard.Partition, agentID, shard.LeaderEpoch, s.group}
	led := false
	stmts := []Stmt{{
		SQL: shardLed + ` ` + s.d.ForUpdate(), Args: fence,
		Each: func(Row) error { led = true; return nil },
	}}
	fence = fence[:fenceArgs:fenceArgs]
	if len(w.Delete) > 0 {
		stmts = append(stmts, s.deleteGroups("group_offsets", fence, w.Delete), s.deleteGroups("groups", fence, w.Delete))
	}
	if len(w.DeleteOffsets) > 0 {
		stmts = append(stmts, s.deleteOffsets(fence, w.DeleteOffsets))
	}
	if len(w.Commit) > 0 {
		stmts = append(stmts, s.commitOffsets(fence, w.Commit))
	}
	if len(w.Save) > 0 {
		stmts = append(stmts, s.saveGroups(fence, w.Save))
	}
	err := Retry(ctx, s.d, "write groups", func() error {
		led = false
		return s.db.Write(ctx, stmts...)
	})
	if err == nil && !led {
		return fmt.Errorf("metadata: write groups: %w: shard %s in leader epoch %d", metadata.ErrFenced, shard.Key, shard.LeaderEpoch)
	}
	return err
}

func (s *Store) deleteGroups(table string, fence []any, groups []string) Stmt {
	return Stmt{
		SQL: `DELETE FROM ` + table + ` WHERE group_id IN (
				SELECT i.group_id FROM ` + s.d.Input("i", fenceArgs+1, Column{"group_id", Text}) + `)
			AND EXISTS (` + shardLed + `)`,
		Args: s.args(fence, s.scopedAll(groups)),
	}
}

func (s *Store) deleteOffsets(fence []any, deletes []metadata.OffsetDelete) Stmt {
	var (
		groups []string
		keys   []lease.Key
	)
	for _, d := range deletes {
		for _, k := range d.Keys {
			groups, keys = append(groups, s.scoped(d.Group)), append(keys, k)
		}
	}
	topics, partitions := SplitKeys(keys, func(k lease.Key) lease.Key { return k })
	return Stmt{
		SQL: `DELETE FROM group_offsets WHERE (group_id, topic_id, partition) IN (
				SELECT i.group_id, i.topic_id, i.partition
				FROM ` + s.d.Input("i", fenceArgs+1, Column{"group_id", Text}, Column{"topic_id", Bytes}, Column{"partition", Int32}) + `)
			AND EXISTS (` + shardLed + `)`,
		Args: s.args(fence, groups, topics, partitions),
	}
}

func (s *Store) commitOffsets(fence []any, commits []metadata.OffsetCommit) Stmt {
	in := lastPositions(commits)
	in.groups = s.scopedAll(in.groups)
	return Stmt{
		SQL: `INSERT INTO group_offsets
				(group_id, topic_id, partition, committed_offset, leader_epoch, metadata, committed_at)
			SELECT i.group_id, i.topic_id, i.partition, i.committed_offset, i.leader_epoch, i.metadata, ` + s.d.Now() + `
			FROM ` + s.d.Input("i", fenceArgs+1, Column{"group_id", Text}, Column{"topic_id", Bytes}, Column{"partition", Int32},
			Column{"committed_offset", Int64}, Column{"leader_epoch", Int32}, Column{"metadata", Bytes}) + `
			JOIN partitions t ON t.topic_id = i.topic_id AND t.partition = i.partition AND t.agent_group = $5
			WHERE EXISTS (` + shardLed + `)
			ON CONFLICT (group_id, topic_id, partition) DO UPDATE SET
				committed_offset = excluded.committed_offset, leader_epoch = excluded.leader_epoch,
				metadata = excluded.metadata, committed_at = excluded.committed_at`,
		Args: s.args(fence, in.groups, in.topics, in.partitions, in.offsets, in.epochs, in.metadata),
	}
}

func (s *Store) saveGroups(fence []any, records []metadata.GroupRecord) Stmt {
	groups, texts := make([]string, len(records)), make([]string, len(records))
	for i, r := range records {
		groups[i], texts[i] = s.scoped(r.Group), r.Record
	}
	return Stmt{
		SQL: `INSERT INTO groups (group_id, shard, record, updated_at)
			SELECT i.group_id, CAST($2 AS INTEGER)` + fmt.Sprintf(" + %d", s.firstShard()) + `, i.record, ` + s.d.Now() + `
			FROM ` + s.d.Input("i", fenceArgs+1, Column{"group_id", Text}, Column{"record", Text}) + `
			WHERE EXISTS (` + shardLed + `)
			ON CONFLICT (group_id) DO UPDATE SET
				shard = excluded.shard, record = excluded.record, updated_at = excluded.updated_at`,
		Args: s.args(fence, groups, texts),
	}
}

// firstShard is the number by which rows of groups know the first shard of the agent
// group, so that loading a shard leaves out those of others; but for a few, since the
// numbers of two agent groups may be the same.
func (s *Store) firstShard() int32 {
	if s.group == metadata.DefaultAgentGroup {
		return 0
	}
	topic := metadata.GroupShardKey(s.group, 0).TopicID
	const most = math.MaxInt32 / metadata.GroupShards
	return int32(1+binary.BigEndian.Uint64(topic[8:])%(most-1)) * metadata.GroupShards
}

// LoadGroups implements metadata.Groups. Rows that are older than the table don't
// know their shard.
func (s *Store) LoadGroups(ctx context.Context, shard lease.Key) ([]metadata.StoredGroup, error) {
	var groups []metadata.StoredGroup
	err := s.read(ctx, "load groups", Stmt{
		SQL:  `SELECT group_id, record, ` + s.d.Now() + ` - updated_at FROM groups WHERE shard IN ($1, -1) ORDER BY group_id`,
		Args: []any{s.firstShard() + shard.Partition},
		Each: func(r Row) error {
			var (
				g   metadata.StoredGroup
				key string
				age int64
			)
			if err := r.Scan(&key, &g.Record, &age); err != nil {
				return err
			}
			name, own := s.unscoped(key)
			if own && metadata.GroupShard(s.group, name) == shard {
				g.Group = name
				g.Age = time.Duration(age) * time.Millisecond
				groups = append(groups, g)
			}
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	return groups, nil
}

// FetchOffsets implements metadata.Offsets. Positions in partitions that are there
// no more are left out: they are there until Prune has removed them.
func (s *Store) FetchOffsets(ctx context.Context, groups []string) ([][]metadata.CommittedOffset, error) {
	if len(groups) == 0 {
		return nil, nil
	}
	results := make([][]metadata.CommittedOffset, len(groups))
	err := s.read(ctx, "fetch offsets", Stmt{
		SQL: `SELECT i.ord, g.topic_id, g.partition, g.committed_offset, g.leader_epoch, g.metadata
			FROM ` + s.d.Input("i", 2, Column{"group_id", Text}) + ` JOIN group_offsets g ON g.group_id = i.group_id
			JOIN partitions p ON p.topic_id = g.topic_id AND p.partition = g.partition AND p.agent_group = $1
			ORDER BY i.ord, g.topic_id, g.partition`,
		Args: s.args([]any{s.group}, s.scopedAll(groups)),
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

// OldOffsets implements metadata.Groups.
func (s *Store) OldOffsets(ctx context.Context, groups []string, age time.Duration) ([]metadata.OldOffsets, error) {
	if len(groups) == 0 {
		return nil, nil
	}
	results := make([]metadata.OldOffsets, len(groups))
	offsets := ` FROM ` + s.d.Input("i", 2, Column{"group_id", Text}) + `
		JOIN group_offsets o ON o.group_id = i.group_id
		LEFT JOIN partitions p ON p.topic_id = o.topic_id AND p.partition = o.partition AND p.agent_group = $1`
	args := s.args([]any{s.group}, s.scopedAll(groups))
	old := append(args[:len(args):len(args)], age.Milliseconds())
	err := s.read(ctx, "old offsets",
		Stmt{
			SQL:  `SELECT i.ord, count(p.partition)` + offsets + ` GROUP BY i.ord`,
			Args: args,
			Each: func(r Row) error {
				var ord, total int64
				if err := r.Scan(&ord, &total); err != nil {
					return err
				}
				results[ord-1].Total = int(total)
				return nil
			},
		},
		Stmt{
			SQL: `SELECT i.ord, o.topic_id, o.partition, coalesce(t.name, ''), p.partition IS NULL` + offsets + `
				LEFT JOIN topics t ON t.topic_id = p.topic_id
				WHERE p.partition IS NULL OR o.committed_at <= ` + s.d.Now() + fmt.Sprintf(` - CAST($%d AS BIGINT)`, len(old)) + `
				ORDER BY i.ord, o.topic_id, o.partition`,
			Args: old,
			Each: func(r Row) error {
				var (
					ord  int64
					o    metadata.OldOffset
					gone bool
				)
				if err := r.Scan(&ord, (*ID)(&o.TopicID), &o.Partition, &o.Topic, &gone); err != nil {
					return err
				}
				if res := &results[ord-1]; gone {
					res.Gone = append(res.Gone, o.Key)
				} else {
					res.Old = append(res.Old, o)
				}
				return nil
			},
		})
	if err != nil {
		return nil, err
	}
	return results, nil
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
