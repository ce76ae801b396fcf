package broker

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/protocol"
)

// maxDescribedPartitions is max.request.partition.size.limit of Kafka.
const maxDescribedPartitions = 2000

// DescribeTopicPartitions, v0. KIP-966. Pages through topics in the order of
// their names. There are no replicas to be eligible or offline.
func (b *Broker) describeTopicPartitions(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.DescribeTopicPartitionsRequest)
	resp := r.ResponseKind().(*kmsg.DescribeTopicPartitionsResponse)
	if r.Cursor != nil && r.Cursor.Partition < 0 {
		for _, t := range r.Topics {
			resp.Topics = append(resp.Topics, describeError(t.Topic, kerr.InvalidRequest))
		}
		return protocol.Now(resp)
	}
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		b.describePage(b.describedView(ctx, r), b.zoneOf(req), r, resp)
		return resp
	})
}

func (b *Broker) describedView(ctx context.Context, r *kmsg.DescribeTopicPartitionsRequest) *topology.Snapshot {
	if len(r.Topics) == 0 { // of all
		return b.currentView(ctx)
	}
	return b.viewFor(ctx, func(yield func(topicRef) bool) {
		for _, t := range r.Topics {
			if !yield(topicRef{name: t.Topic}) {
				return
			}
		}
	})
}

// describePage fills in the page of the answer that the request asks for.
func (b *Broker) describePage(view *topology.Snapshot, zone string, r *kmsg.DescribeTopicPartitionsRequest, resp *kmsg.DescribeTopicPartitionsResponse) {
	names, from := describedTopics(view, r)
	left := max(min(r.ResponsePartitionLimit, maxDescribedPartitions), 1)
	for _, name := range names {
		t := view.TopicByName(name)
		if t == nil {
			code := kerr.UnknownTopicOrPartition
			if checkTopicName(name) != nil {
				code = kerr.InvalidTopicException
			}
			resp.Topics = append(resp.Topics, describeError(name, code))
			continue
		}
		if left == 0 {
			resp.NextCursor = describeCursor(name, from)
			break
		}
		to := min(t.Partitions, from+left)
		resp.Topics = append(resp.Topics, b.describePartitions(view, zone, t, from, to))
		left -= max(to-from, 0)
		if to < t.Partitions {
			resp.NextCursor = describeCursor(name, to)
			break
		}
		from = 0
	}
}

// describedTopics returns the names of the topics to describe, in order, and
// the first partition of the first of them.
func describedTopics(view *topology.Snapshot, r *kmsg.DescribeTopicPartitionsRequest) (names []string, from int32) {
	for _, t := range r.Topics {
		names = append(names, t.Topic)
	}
	if len(r.Topics) == 0 {
		for _, t := range view.Topics() {
			names = append(names, t.Name)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if c := r.Cursor; c != nil {
		i, found := slices.BinarySearch(names, c.Topic)
		names = names[i:]
		if found {
			from = c.Partition
		}
	}
	return names, from
}

func describeCursor(topic string, partition int32) *kmsg.DescribeTopicPartitionsResponseNextCursor {
	c := kmsg.NewDescribeTopicPartitionsResponseNextCursor()
	c.Topic, c.Partition = topic, partition
	return &c
}

func describeError(name string, code *kerr.Error) kmsg.DescribeTopicPartitionsResponseTopic {
	d := kmsg.NewDescribeTopicPartitionsResponseTopic()
	d.Topic, d.ErrorCode, d.AuthorizedOperations = &name, code.Code, operationsOnTopic
	return d
}

func (b *Broker) describePartitions(view *topology.Snapshot, zone string, t *topology.Topic, from, to int32) kmsg.DescribeTopicPartitionsResponseTopic {
	d := kmsg.NewDescribeTopicPartitionsResponseTopic()
	d.Topic, d.TopicID, d.AuthorizedOperations = &t.Name, t.ID, operationsOnTopic
	for p := from; p < to; p++ {
		dp := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
		dp.Partition = p
		leader, epoch, ok := b.leaderFor(view, zone, lease.Key{TopicID: t.ID, Partition: p})
		dp.LeaderID, dp.LeaderEpoch = -1, epoch
		// Kafka's tools take null for a list, whatever the schema says.
		dp.EligibleLeaderReplicas, dp.LastKnownELR = []int32{}, []int32{}
		if ok {
			dp.LeaderID, dp.Replicas, dp.ISR = leader.NodeID, []int32{leader.NodeID}, []int32{leader.NodeID}
		} else {
			dp.ErrorCode = kerr.LeaderNotAvailable.Code
		}
		d.Partitions = append(d.Partitions, dp)
	}
	return d
}
