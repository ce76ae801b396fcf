package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/group"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol"
)

// OffsetCommit, v2 to v10. KIP-320 (leader epochs), KIP-345 (static members),
// KIP-848 (member epochs, v9; topic ids, v10). A retention time (v2 to v4) is not
// honoured: offsets.retention.minutes is.
//
// The commit is begun on the connection's goroutine, so that two of one client
// are stored in their order.
func (b *Broker) offsetCommit(ctx context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.OffsetCommitRequest)
	resp := r.ResponseKind().(*kmsg.OffsetCommitResponse)
	commit := group.CommitRequest{
		Membership: group.Membership{
			Group: r.Group, MemberID: r.MemberID, InstanceID: orEmpty(r.InstanceID), Generation: r.Generation,
		},
		MemberEpochs: r.Version >= 9,
	}
	var answers []*kmsg.OffsetCommitResponseTopicPartition // of commit.Offsets
	resolve := b.resolve(ctx)
	resp.Topics = make([]kmsg.OffsetCommitResponseTopic, len(r.Topics))
	for i, t := range r.Topics {
		topic := &resp.Topics[i]
		topic.Topic, topic.TopicID = t.Topic, t.TopicID
		topic.Partitions = make([]kmsg.OffsetCommitResponseTopicPartition, len(t.Partitions))
		for j, p := range t.Partitions {
			answer := &topic.Partitions[j]
			answer.Partition = p.Partition
			_, key, err := resolve.partition(groupTopic(r.Version, t.Topic, t.TopicID), p.Partition)
			if err != nil {
				answer.ErrorCode = errorCode(err)
				continue
			}
			answers = append(answers, answer)
			commit.Offsets = append(commit.Offsets, metadata.CommittedOffset{
				Key: key, Offset: p.Offset, LeaderEpoch: p.LeaderEpoch, Metadata: orEmpty(p.Metadata),
			})
		}
	}
	if len(answers) == 0 && len(r.Topics) > 0 {
		return protocol.Now(resp)
	}
	return whenDone(b, memberRef{r.Group, r.MemberID}, b.Groups.Commit(commit), func(errs []error, err error) kmsg.Response {
		for i, answer := range answers {
			if err != nil {
				answer.ErrorCode = errorCode(err)
			} else {
				answer.ErrorCode = errorCode(errs[i])
			}
		}
		return resp
	})
}
