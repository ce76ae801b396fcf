package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol"
)

// OffsetForLeaderEpoch, v2 to v4. KIP-101, KIP-320. Answered from the store by
// any agent: one statement for all partitions.
func (b *Broker) offsetForLeaderEpoch(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.OffsetForLeaderEpochRequest)
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		resp := r.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
		resolve := b.resolve(ctx)
		var reqs []metadata.EpochRequest
		type slot struct {
			answer         *kmsg.OffsetForLeaderEpochResponseTopicPartition
			asked, current int32
		}
		var slots []slot
		resp.Topics = make([]kmsg.OffsetForLeaderEpochResponseTopic, len(r.Topics))
		for i, t := range r.Topics {
			answer := &resp.Topics[i]
			answer.Topic = t.Topic
			answer.Partitions = make([]kmsg.OffsetForLeaderEpochResponseTopicPartition, len(t.Partitions))
			for j, p := range t.Partitions {
				a := &answer.Partitions[j]
				a.Partition, a.LeaderEpoch, a.EndOffset = p.Partition, -1, -1
				_, key, err := resolve.partition(topicRef{name: t.Topic}, p.Partition)
				if err != nil {
					a.ErrorCode = readErrorCode(err)
					continue
				}
				reqs = append(reqs, metadata.EpochRequest{Key: key, LeaderEpoch: p.LeaderEpoch})
				slots = append(slots, slot{a, p.LeaderEpoch, p.CurrentLeaderEpoch})
			}
		}
		ends, err := b.Store.EpochEnds(ctx, reqs)
		for i, s := range slots {
			switch {
			case err != nil:
				s.answer.ErrorCode = readErrorCode(err)
			case ends[i].Err != nil:
				s.answer.ErrorCode = readErrorCode(ends[i].Err)
			default:
				s.answer.ErrorCode = checkLeaderEpoch(s.current, ends[i].Current)
				if s.answer.ErrorCode == 0 && s.asked <= ends[i].Current { // the end of a later one is undefined
					s.answer.LeaderEpoch, s.answer.EndOffset = ends[i].LeaderEpoch, ends[i].EndOffset
				}
			}
		}
		return resp
	})
}

// checkLeaderEpoch compares the leader epoch that a client believes in with
// the one that is (KIP-320); -1 is a client that does not say.
func checkLeaderEpoch(client, current int32) int16 {
	switch {
	case client == -1 || client == current:
		return 0
	case client < current:
		return kerr.FencedLeaderEpoch.Code
	}
	return kerr.UnknownLeaderEpoch.Code
}
