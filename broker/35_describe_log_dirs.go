package broker

import (
	"context"
	"slices"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/protocol"
)

// DescribeLogDirs, v1 to v5. KIP-113, KIP-827 (total and usable bytes: an object
// store has no end, -1), KIP-1066 (cordoned directories: none).
//
// There is one directory, the object store. Each agent shows the partitions that
// clients of that zone are told it leads, so that a partition is counted once over
// the agents that they are told of. Sizes
// are those of the records that can be read: one statement for all topics.
func (b *Broker) describeLogDirs(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.DescribeLogDirsRequest)
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		resp := r.ResponseKind().(*kmsg.DescribeLogDirsResponse)
		dir := kmsg.NewDescribeLogDirsResponseDir()
		dir.Dir, dir.TotalBytes, dir.UsableBytes = b.LogDir, -1, -1
		led := b.ledPartitions(b.adminView(ctx), b.zoneOf(req), r)
		var ids []uuid.UUID
		for _, t := range led {
			ids = append(ids, t.ID)
		}
		sizes, err := b.Store.LogSizes(ctx, ids)
		if dir.ErrorCode = readErrorCode(err); err == nil {
			dir.Topics = logDirTopics(led, sizes)
		}
		resp.Dirs = append(resp.Dirs, dir)
		return resp
	})
}

// ledTopic is a topic with the partitions of it that this agent leads.
type ledTopic struct {
	*topology.Topic
	partitions []int32
}

// ledPartitions finds those that the request asks for: all, if it names none.
// What is not there is left out, as in Kafka.
func (b *Broker) ledPartitions(view *topology.Snapshot, zone string, r *kmsg.DescribeLogDirsRequest) []ledTopic {
	var asked []ledTopic
	if r.Topics == nil {
		for _, t := range view.Topics() {
			all := make([]int32, t.Partitions)
			for p := range all {
				all[p] = int32(p)
			}
			asked = append(asked, ledTopic{t, all})
		}
	}
	for _, a := range r.Topics {
		if t := view.TopicByName(a.Topic); t != nil {
			slices.Sort(a.Partitions)
			asked = append(asked, ledTopic{t, slices.Compact(a.Partitions)})
		}
	}
	for i := range asked {
		t := &asked[i]
		t.partitions = slices.DeleteFunc(t.partitions, func(p int32) bool {
			leader, _, ok := b.leaderFor(view, zone, lease.Key{TopicID: t.ID, Partition: p})
			return p < 0 || p >= t.Partitions || !ok || leader.NodeID != b.NodeID
		})
	}
	return slices.DeleteFunc(asked, func(t ledTopic) bool { return len(t.partitions) == 0 })
}

// logDirTopics leaves out partitions that have been deleted meanwhile.
func logDirTopics(led []ledTopic, sizes map[lease.Key]int64) []kmsg.DescribeLogDirsResponseDirTopic {
	var topics []kmsg.DescribeLogDirsResponseDirTopic
	for _, t := range led {
		answer := kmsg.NewDescribeLogDirsResponseDirTopic()
		answer.Topic = t.Name
		for _, p := range t.partitions {
			if size, ok := sizes[lease.Key{TopicID: t.ID, Partition: p}]; ok {
				partition := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
				partition.Partition, partition.Size = p, size
				answer.Partitions = append(answer.Partitions, partition)
			}
		}
		topics = append(topics, answer)
	}
	return topics
}
