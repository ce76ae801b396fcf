package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/fetch"
	"github.com/streamhouse/streamhouse/protocol"
)

// ListOffsets, v1 to v11. KIP-79 (by timestamp), KIP-207 (leader epoch),
// KIP-734 (max timestamp), KIP-405 and KIP-1005 (tiered storage).
//
// Of the tiered timestamps, the earliest local offset is the log start, for
// every record is as near as any other; nothing is the last tiered offset.
const (
	earliestLocal         = -4
	latestTiered          = -5
	earliestPendingUpload = -6
)

// oldestWith is the first version that has each of the timestamps with a meaning
// of their own. Others below zero are refused.
var oldestWith = map[int64]int16{
	fetch.Latest: 1, fetch.Earliest: 1, fetch.MaxTimestamp: 7,
	earliestLocal: 8, latestTiered: 9, earliestPendingUpload: 11,
}

func (b *Broker) listOffsets(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.ListOffsetsRequest)
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		resp := r.ResponseKind().(*kmsg.ListOffsetsResponse)
		resolve := b.resolve(ctx)
		twice := namedTwice(r)
		var reqs []fetch.ListRequest
		var slots []listSlot
		resp.Topics = make([]kmsg.ListOffsetsResponseTopic, len(r.Topics))
		for i := range r.Topics {
			t := &r.Topics[i]
			answer := &resp.Topics[i]
			answer.Topic = t.Topic
			answer.Partitions = make([]kmsg.ListOffsetsResponseTopicPartition, len(t.Partitions))
			for j, p := range t.Partitions {
				a := &answer.Partitions[j]
				*a = kmsg.NewListOffsetsResponseTopicPartition()
				a.Partition, a.Timestamp, a.Offset, a.LeaderEpoch = p.Partition, -1, -1, -1
				if twice[named{t.Topic, p.Partition}] {
					a.ErrorCode = kerr.InvalidRequest.Code
					continue
				}
				_, key, err := resolve.partition(topicRef{name: t.Topic}, p.Partition)
				if err != nil {
					a.ErrorCode = readErrorCode(err)
					continue
				}
				if p.Timestamp < 0 && (oldestWith[p.Timestamp] == 0 || r.Version < oldestWith[p.Timestamp]) {
					a.ErrorCode = kerr.UnsupportedVersion.Code
					continue
				}
				slots = append(slots, listSlot{a, p.CurrentLeaderEpoch, p.Timestamp})
				reqs = append(reqs, fetch.ListRequest{Key: key, Timestamp: listTimestamp(p.Timestamp)})
			}
		}
		for i, res := range b.Reader.ListOffsets(ctx, reqs, r.IsolationLevel == 1) {
			slots[i].fill(&res)
		}
		return resp
	})
}

// named is a partition by its topic's name.
type named struct {
	topic     string
	partition int32
}

// namedTwice has true for the partitions that the request names more than once.
// They are refused, as in Kafka.
func namedTwice(r *kmsg.ListOffsetsRequest) map[named]bool {
	twice := map[named]bool{}
	for i := range r.Topics {
		for j := range r.Topics[i].Partitions {
			n := named{r.Topics[i].Topic, r.Topics[i].Partitions[j].Partition}
			_, twice[n] = twice[n]
		}
	}
	return twice
}

// listTimestamp maps the timestamps of tiered storage to what they mean here.
func listTimestamp(ts int64) int64 {
	switch ts {
	case earliestLocal, latestTiered, earliestPendingUpload:
		return fetch.Earliest
	}
	return ts
}

// listSlot is where a partition's answer goes.
type listSlot struct {
	answer    *kmsg.ListOffsetsResponseTopicPartition
	epoch     int32 // that the client believes in
	timestamp int64 // that it asked for
}

func (s *listSlot) fill(res *fetch.ListResult) {
	if s.answer.ErrorCode = readErrorCode(res.Err); s.answer.ErrorCode != 0 {
		return
	}
	if s.answer.ErrorCode = checkLeaderEpoch(s.epoch, res.Current); s.answer.ErrorCode != 0 {
		return
	}
	if s.timestamp == latestTiered || s.timestamp == earliestPendingUpload {
		return // nothing is tiered, and nothing waits to be
	}
	s.answer.Offset, s.answer.Timestamp, s.answer.LeaderEpoch = res.Offset, res.Timestamp, res.LeaderEpoch
}
