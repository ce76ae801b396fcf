package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/group"
	"github.com/streamhouse/streamhouse/protocol"
)

// OffsetDelete, v0. KIP-496. Offsets of topics that a member is subscribed to
// are not deleted.
func (b *Broker) offsetDelete(ctx context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.OffsetDeleteRequest)
	resp := r.ResponseKind().(*kmsg.OffsetDeleteResponse)
	del := group.DeleteOffsetsRequest{Group: r.Group}
	var answers []*kmsg.OffsetDeleteResponseTopicPartition // of del.Partitions
	resolve := b.resolve(ctx)
	topics := make([]kmsg.OffsetDeleteResponseTopic, len(r.Topics))
	for i, t := range r.Topics {
		topics[i].Topic = t.Topic
		topics[i].Partitions = make([]kmsg.OffsetDeleteResponseTopicPartition, len(t.Partitions))
		for j, p := range t.Partitions {
			answer := &topics[i].Partitions[j]
			answer.Partition = p.Partition
			_, key, err := resolve.partition(topicRef{name: t.Topic}, p.Partition)
			if err != nil {
				answer.ErrorCode = errorCode(err)
				continue
			}
			answers = append(answers, answer)
			del.Partitions = append(del.Partitions, group.Partition{Key: key, Topic: t.Topic})
		}
	}
	return whenDone(b, memberRef{}, b.Groups.DeleteOffsets(del), func(errs []error, err error) kmsg.Response {
		if err != nil {
			resp.ErrorCode = errorCode(err)
			return resp
		}
		resp.Topics = topics
		for i, answer := range answers {
			answer.ErrorCode = errorCode(errs[i])
		}
		return resp
	})
}
