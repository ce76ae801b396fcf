package broker

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/group"
	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol"
)

// OffsetFetch, v1 to v10. KIP-320 (leader epochs), KIP-447 (stable offsets),
// KIP-709 (several groups, v8), KIP-848 (member id and epoch, v9; topic ids, v10).
// Without transactions every offset is stable.
//
// Older versions are the newer ones with one group.
func (b *Broker) offsetFetch(_ context.Context, req *protocol.Request) protocol.Reply {
	b.departure.note()
	r := req.Body.(*kmsg.OffsetFetchRequest)
	groups := r.Groups
	if r.Version < 8 {
		groups = []kmsg.OffsetFetchRequestGroup{oneGroup(r)}
	}
	pending := make([]group.Pending[[]metadata.CommittedOffset], len(groups))
	for i := range groups {
		pending[i] = b.Groups.Fetch(group.FetchRequest{
			Group: groups[i].Group, MemberID: orEmpty(groups[i].MemberID), Epoch: groups[i].MemberEpoch,
		})
	}
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		answers := make([]kmsg.OffsetFetchResponseGroup, len(groups))
		resolve := b.resolve(ctx)
		for i := range groups {
			answers[i] = kmsg.NewOffsetFetchResponseGroup()
			answers[i].Group = groups[i].Group
			stored, err := pending[i].Wait(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if err == nil {
				answers[i].Topics, err = positions(resolve, &groups[i], stored, r.Version)
			}
			if err != nil {
				answers[i].Topics, answers[i].ErrorCode = nil, offsetFetchCode(err)
			}
		}
		resp := r.ResponseKind().(*kmsg.OffsetFetchResponse)
		if r.Version < 8 {
			answerOneGroup(resp, r, &answers[0])
		} else {
			resp.Groups = answers
		}
		return resp
	})
}

// offsetFetchCode is the code of an error. Clients retry after
// COORDINATOR_NOT_AVAILABLE, but old Java consumers that fetch offsets fail with
// it.
func offsetFetchCode(err error) int16 {
	if errors.Is(err, kerr.CoordinatorNotAvailable) || errors.Is(err, metadata.ErrUnavailable) {
		return kerr.CoordinatorLoadInProgress.Code
	}
	return errorCode(err)
}

// positions answers for the partitions that were asked for, or for all that
// have an offset.
func positions(resolve *resolver, asked *kmsg.OffsetFetchRequestGroup, stored []metadata.CommittedOffset, version int16) ([]kmsg.OffsetFetchResponseGroupTopic, error) {
	if asked.Topics == nil {
		return allPositions(resolve, stored)
	}
	byKey := make(map[lease.Key]*metadata.CommittedOffset, len(stored))
	for i := range stored {
		byKey[stored[i].Key] = &stored[i]
	}
	topics := make([]kmsg.OffsetFetchResponseGroupTopic, 0, len(asked.Topics))
	for _, t := range asked.Topics {
		// A topic that is unknown has no offsets; but that must be certain, since
		// a consumer then starts over.
		topic, err := resolve.topic(groupTopic(version, t.Topic, t.TopicID))
		if err != nil {
			return nil, err
		}
		answer := kmsg.NewOffsetFetchResponseGroupTopic()
		answer.Topic, answer.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			var o *metadata.CommittedOffset
			if topic != nil {
				o = byKey[lease.Key{TopicID: topic.ID, Partition: p}]
			}
			position := position(p, o)
			if topic == nil && version >= topicIDsInGroups {
				position.ErrorCode = kerr.UnknownTopicID.Code
			}
			answer.Partitions = append(answer.Partitions, position)
		}
		topics = append(topics, answer)
	}
	return topics, nil
}

// allPositions answers for all offsets of topics that are there. The offsets
// are in the order of their keys.
func allPositions(resolve *resolver, stored []metadata.CommittedOffset) ([]kmsg.OffsetFetchResponseGroupTopic, error) {
	topics := []kmsg.OffsetFetchResponseGroupTopic{}
	var topic *topology.Topic
	for i := range stored {
		o := &stored[i]
		if i == 0 || o.TopicID != stored[i-1].TopicID {
			var err error
			if topic, err = resolve.topic(topicRef{byID: true, id: o.TopicID}); err != nil {
				return nil, err
			}
			if topic != nil {
				answer := kmsg.NewOffsetFetchResponseGroupTopic()
				answer.Topic, answer.TopicID = topic.Name, topic.ID
				topics = append(topics, answer)
			}
		}
		if topic != nil {
			last := &topics[len(topics)-1]
			last.Partitions = append(last.Partitions, position(o.Partition, o))
		}
	}
	return topics, nil
}

// position is the wire's form of an offset, which may be nil.
func position(p int32, o *metadata.CommittedOffset) kmsg.OffsetFetchResponseGroupTopicPartition {
	answer := kmsg.NewOffsetFetchResponseGroupTopicPartition()
	answer.Partition, answer.Offset, answer.LeaderEpoch, answer.Metadata = p, -1, -1, kmsg.StringPtr("")
	if o != nil {
		answer.Offset, answer.LeaderEpoch, answer.Metadata = o.Offset, o.LeaderEpoch, &o.Metadata
	}
	return answer
}

// oneGroup is a request before v8 as a group of a newer one.
func oneGroup(r *kmsg.OffsetFetchRequest) kmsg.OffsetFetchRequestGroup {
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = r.Group
	if r.Topics == nil && r.Version >= 2 {
		return g
	}
	g.Topics = make([]kmsg.OffsetFetchRequestGroupTopic, len(r.Topics))
	for i, t := range r.Topics {
		g.Topics[i].Topic, g.Topics[i].Partitions = t.Topic, t.Partitions
	}
	return g
}

// answerOneGroup is the inverse for the answer. Before v2 every partition
// carries the error.
func answerOneGroup(resp *kmsg.OffsetFetchResponse, r *kmsg.OffsetFetchRequest, g *kmsg.OffsetFetchResponseGroup) {
	resp.ErrorCode = g.ErrorCode
	for _, t := range g.Topics {
		answer := kmsg.NewOffsetFetchResponseTopic()
		answer.Topic = t.Topic
		for _, p := range t.Partitions {
			answer.Partitions = append(answer.Partitions, kmsg.OffsetFetchResponseTopicPartition{
				Partition: p.Partition, Offset: p.Offset, LeaderEpoch: p.LeaderEpoch, Metadata: p.Metadata, ErrorCode: p.ErrorCode,
			})
		}
		resp.Topics = append(resp.Topics, answer)
	}
	if g.ErrorCode == 0 || r.Version >= 2 {
		return
	}
	for _, t := range r.Topics {
		answer := kmsg.NewOffsetFetchResponseTopic()
		answer.Topic = t.Topic
		for _, p := range t.Partitions {
			answer.Partitions = append(answer.Partitions, kmsg.OffsetFetchResponseTopicPartition{
				Partition: p, Offset: -1, LeaderEpoch: -1, Metadata: kmsg.StringPtr(""), ErrorCode: g.ErrorCode,
			})
		}
		resp.Topics = append(resp.Topics, answer)
	}
}
