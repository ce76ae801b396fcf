package metadata

import (
	"context"
	"hash/fnv"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
)

// GroupShards is the number of coordinator shards. Fixed for the life of a
// cluster: the shard rows are made when its store is first opened.
const GroupShards = 16

// groupShardTopic is the reserved topic id under whose partitions the group
// coordinators' shards are leased. It is no topic that anyone can list.
var groupShardTopic = uuid.UUID{15: 1}

// GroupShard returns the lease key of the coordinator shard of a group.
func GroupShard(group string) lease.Key {
	h := fnv.New32a()
	h.Write([]byte(group))
	return GroupShardKey(int32(h.Sum32() % GroupShards))
}

// GroupShardKey returns the lease key of the n-th coordinator shard.
func GroupShardKey(n int32) lease.Key { return lease.Key{TopicID: groupShardTopic, Partition: n} }

// IsShard says whether the key is a coordinator's shard and no partition.
func IsShard(k lease.Key) bool { return k.TopicID == groupShardTopic }

// CommittedOffset is a group's position in a partition.
type CommittedOffset struct {
	lease.Key
	Offset      int64
	LeaderEpoch int32 // of the record before; -1 if the client did not say
	Metadata    string
}

// OffsetCommit stores positions of one group.
type OffsetCommit struct {
	Group   string
	Offsets []CommittedOffset
}

// Offsets stores the positions of consumer groups.
type Offsets interface {
	// CommitOffsets stores the positions of one or more groups of a shard in
	// one transaction, if the agent leads the shard in that term; ErrFenced
	// otherwise.
	CommitOffsets(ctx context.Context, agentID string, shard lease.Term, commits []OffsetCommit) error
	// FetchOffsets returns all positions of the groups, in the order asked.
	FetchOffsets(ctx context.Context, groups []string) ([][]CommittedOffset, error)
	// DeleteOffsets forgets positions under the same fence; nil keys means all
	// of the group.
	DeleteOffsets(ctx context.Context, agentID string, shard lease.Term, group string, keys []lease.Key) error
	// ListGroups returns the names of all groups that have positions.
	ListGroups(ctx context.Context) ([]string, error)
}
