package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol"
)

// DescribeProducers, v0. KIP-664. Answered from the store by any agent. The time
// that is shown is that of the commit of a producer's last batch.
func (b *Broker) describeProducers(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.DescribeProducersRequest)
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		resp := r.ResponseKind().(*kmsg.DescribeProducersResponse)
		resolve := b.resolve(ctx)
		var keys []lease.Key
		var slots []*kmsg.DescribeProducersResponseTopicPartition
		resp.Topics = make([]kmsg.DescribeProducersResponseTopic, len(r.Topics))
		for i, t := range r.Topics {
			answer := &resp.Topics[i]
			answer.Topic = t.Topic
			answer.Partitions = make([]kmsg.DescribeProducersResponseTopicPartition, len(t.Partitions))
			for j, p := range t.Partitions {
				a := &answer.Partitions[j]
				a.Partition = p
				err := checkTopicName(t.Topic)
				var key lease.Key
				if err == nil {
					_, key, err = resolve.partition(topicRef{name: t.Topic}, p)
				}
				if err != nil {
					a.ErrorCode, a.ErrorMessage = readErrorCode(err), errorMessage(err)
					continue
				}
				keys, slots = append(keys, key), append(slots, a)
			}
		}
		active, err := b.Store.ActiveProducers(ctx, keys)
		for i, a := range slots {
			switch {
			case err != nil:
				a.ErrorCode, a.ErrorMessage = readErrorCode(err), errorMessage(err)
			case active[i] == nil:
				a.ErrorCode, a.ErrorMessage = errorCode(metadata.ErrUnknownTopic), errorMessage(metadata.ErrUnknownTopic)
			default:
				a.ActiveProducers = activeProducers(active[i])
			}
		}
		return resp
	})
}

func activeProducers(active []metadata.ActiveProducer) []kmsg.DescribeProducersResponseTopicPartitionActiveProducer {
	var out []kmsg.DescribeProducersResponseTopicPartitionActiveProducer
	for _, p := range active {
		a := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
		a.ProducerID, a.ProducerEpoch, a.LastSequence, a.LastTimestamp = p.ID, int32(p.Epoch), p.LastSequence, p.LastUse
		a.CoordinatorEpoch, a.CurrentTxnStartOffset = -1, -1
		out = append(out, a)
	}
	return out
}
