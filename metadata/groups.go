package metadata

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"hash/fnv"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
)

// GroupShards is the number of coordinator shards of an agent group. Fixed for the
// life of a cluster: the shard rows are made when its store is first opened for the
// agent group.
const GroupShards = 16

// GroupShard returns the lease key of the coordinator shard of a consumer group,
// whose name means something within an agent group only.
func GroupShard(agentGroup, group string) lease.Key {
	h := fnv.New32a()
	h.Write([]byte(group))
	return GroupShardKey(agentGroup, int32(h.Sum32()%GroupShards))
}

// GroupShardKey returns the lease key of the n-th coordinator shard of an agent group:
// a partition of a reserved topic id, which is no topic that anyone can list. Eight
// zero bytes, which no random id has, tell it from those of topics.
func GroupShardKey(agentGroup string, n int32) lease.Key {
	topic := uuid.UUID{15: 1}
	if agentGroup != DefaultAgentGroup {
		hash := sha256.Sum256([]byte(agentGroup))
		copy(topic[8:], hash[:])
	}
	return lease.Key{TopicID: topic, Partition: n}
}

// IsShard says whether the key is a coordinator's shard, of any agent group, and no
// partition.
func IsShard(k lease.Key) bool { return binary.BigEndian.Uint64(k.TopicID[:8]) == 0 }

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

// OffsetDelete forgets positions of one group.
type OffsetDelete struct {
	Group string
	Keys  []lease.Key
}

// GroupRecord is what a group's coordinator must not forget.
type GroupRecord struct {
	Group string
	// Record is text that the coordinator can read again. It is empty of a group
	// that has positions and nothing else.
	Record string
}

// StoredGroup is a group as it was stored last.
type StoredGroup struct {
	GroupRecord
	Age time.Duration // since it was stored, by the store's clock
}

// GroupWrite is what changes at once in the groups of a shard: first groups are
// deleted, with all their positions, then positions; then positions are
// committed, and then groups stored.
type GroupWrite struct {
	Delete        []string
	DeleteOffsets []OffsetDelete
	Commit        []OffsetCommit
	Save          []GroupRecord
}

// OldOffsets are the positions of a group that may have expired.
type OldOffsets struct {
	// Total is how many positions the group has.
	Total int
	// Old are those of them that have the age which was asked for.
	Old []OldOffset
	// Gone are positions in partitions that are there no more, and which nothing
	// else shows: of a commit that crossed the deletion of its topic.
	Gone []lease.Key
}

// OldOffset is a position that may have expired.
type OldOffset struct {
	lease.Key
	Topic string // its name
}

// Groups stores groups and their positions.
type Groups interface {
	// WriteGroups makes a change in one transaction and one round trip, if the
	// agent leads the shard in that term; ErrFenced otherwise, also if there is
	// nothing to change. All groups must be of the shard. A position in a
	// partition that is there no more is dropped.
	WriteGroups(ctx context.Context, agentID string, shard lease.Term, w *GroupWrite) error
	// LoadGroups returns all groups of a shard, by name.
	LoadGroups(ctx context.Context, shard lease.Key) ([]StoredGroup, error)
	// FetchOffsets returns all positions of the groups, in the order asked.
	FetchOffsets(ctx context.Context, groups []string) ([][]CommittedOffset, error)
	// OldOffsets returns, in the order asked, the positions of the groups that
	// were committed at least that long ago, by the store's clock.
	OldOffsets(ctx context.Context, groups []string, age time.Duration) ([]OldOffsets, error)
}
