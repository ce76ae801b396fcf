package broker

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/protocol"
)

// ElectLeaders, v0 to v2. KIP-183, KIP-460 (unclean elections). Whoever leads a
// partition is its one replica, and so the preferred one: no election is ever
// needed. If all partitions are asked for, those that need none are not answered.
func (b *Broker) electLeaders(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.ElectLeadersRequest)
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		resp := r.ResponseKind().(*kmsg.ElectLeadersResponse)
		view := b.adminView(ctx)
		for _, t := range r.Topics {
			answer := kmsg.NewElectLeadersResponseTopic()
			answer.Topic = t.Topic
			for _, p := range t.Partitions {
				err := electLeader(view, t.Topic, p)
				partition := kmsg.NewElectLeadersResponseTopicPartition()
				partition.Partition, partition.ErrorCode, partition.ErrorMessage = p, errorCode(err), errorMessage(err)
				answer.Partitions = append(answer.Partitions, partition)
			}
			resp.Topics = append(resp.Topics, answer)
		}
		return resp
	})
}

func electLeader(view *topology.Snapshot, topic string, p int32) error {
	switch t := view.TopicByName(topic); {
	case t == nil:
		return &requestError{kerr.UnknownTopicOrPartition, fmt.Sprintf("No such topic as %s", topic)}
	case p < 0 || p >= t.Partitions:
		return &requestError{kerr.UnknownTopicOrPartition, fmt.Sprintf("No such partition as %s-%d", topic, p)}
	}
	return &requestError{kerr.ElectionNotNeeded, "Leader election not needed for topic partition."}
}
