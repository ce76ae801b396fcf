package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/protocol"
)

// DeleteRecords, v0 to v2. KIP-107. Any agent does it: the log start is a
// column of the partition's row.
func (b *Broker) deleteRecords(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.DeleteRecordsRequest)
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		ctx, cancel := requestTimeout(ctx, r.TimeoutMillis)
		defer cancel()
		resp := r.ResponseKind().(*kmsg.DeleteRecordsResponse)
		resolve := b.resolve(ctx)
		for _, t := range r.Topics {
			answer := kmsg.NewDeleteRecordsResponseTopic()
			answer.Topic = t.Topic
			for _, p := range t.Partitions {
				low, err := b.deleteRecordsOf(ctx, resolve, topicRef{name: t.Topic}, p)
				answer.Partitions = append(answer.Partitions, kmsg.DeleteRecordsResponseTopicPartition{
					Partition: p.Partition, LowWatermark: low, ErrorCode: errorCode(err),
				})
			}
			resp.Topics = append(resp.Topics, answer)
		}
		return resp
	})
}

func (b *Broker) deleteRecordsOf(ctx context.Context, resolve *resolver, ref topicRef, p kmsg.DeleteRecordsRequestTopicPartition) (low int64, err error) {
	t, key, err := resolve.partition(ref, p.Partition)
	if err != nil {
		return -1, err
	}
	switch {
	case t.Config.Compact && !t.Config.Delete:
		return -1, kerr.PolicyViolation
	case p.Offset < -1: // -1 is the high watermark
		return -1, kerr.OffsetOutOfRange
	}
	err = untilKnown(ctx, func() error {
		low, err = b.Store.DeleteRecords(ctx, key, p.Offset)
		return err
	})
	if err != nil {
		return -1, err
	}
	b.Reader.LogStart(key, low)
	b.Log.Info("records deleted", "topic", t.Name, "partition", p.Partition, "log_start_offset", low)
	return low, nil
}
