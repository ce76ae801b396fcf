package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/group"
	"github.com/streamhouse/streamhouse/protocol"
)

// ConsumerGroupDescribe, v0 and v1. KIP-848, KIP-1099 (the type of members, v1).
func (b *Broker) consumerGroupDescribe(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.ConsumerGroupDescribeRequest)
	pending := make([]group.Pending[group.ConsumerDescription], len(r.Groups))
	for i, id := range r.Groups {
		pending[i] = b.Groups.ConsumerDescribe(id)
	}
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		resp := r.ResponseKind().(*kmsg.ConsumerGroupDescribeResponse)
		for i, id := range r.Groups {
			d, err := pending[i].Wait(ctx)
			if ctx.Err() != nil {
				return nil
			}
			answer := kmsg.NewConsumerGroupDescribeResponseGroup()
			if err == nil {
				answer = describedConsumerGroup(&d)
			}
			answer.Group, answer.ErrorCode, answer.ErrorMessage = id, errorCode(err), errorMessage(err)
			answer.AuthorizedOperations = authorizedOperations(r.IncludeAuthorizedOperations && err == nil, operationsOnGroup)
			resp.Groups = append(resp.Groups, answer)
		}
		return resp
	})
}

// Types of members on the wire (KIP-1099).
const (
	memberTypeClassic  = 0
	memberTypeConsumer = 1
)

func describedConsumerGroup(d *group.ConsumerDescription) kmsg.ConsumerGroupDescribeResponseGroup {
	g := kmsg.NewConsumerGroupDescribeResponseGroup()
	g.State, g.Epoch, g.AssignmentEpoch, g.AssignorName = d.State.String(), d.Epoch, d.TargetEpoch, d.Assignor
	for i := range d.Members {
		m := &d.Members[i]
		member := kmsg.NewConsumerGroupDescribeResponseGroupMember()
		member.MemberID, member.InstanceID, member.RackID = m.MemberID, orNull(m.InstanceID), orNull(m.Rack)
		member.MemberEpoch, member.ClientID, member.ClientHost = m.Epoch, m.ClientID, m.ClientHost
		member.SubscribedTopics, member.SubscribedTopicRegex = m.Topics, &m.Regex
		member.Assignment.TopicPartitions = describedPartitions(m.Assigned)
		member.TargetAssignment.TopicPartitions = describedPartitions(m.Target)
		member.MemberType = memberTypeConsumer
		if m.Classic {
			member.MemberType = memberTypeClassic
		}
		g.Members = append(g.Members, member)
	}
	return g
}

func describedPartitions(list []group.NamedPartitions) []kmsg.AssignmentTopicPartition {
	topics := make([]kmsg.AssignmentTopicPartition, len(list))
	for i, p := range list {
		topics[i] = kmsg.AssignmentTopicPartition{TopicID: p.TopicID, Topic: p.Topic, Partitions: p.Partitions}
	}
	return topics
}
