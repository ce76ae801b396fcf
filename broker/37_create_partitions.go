package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol"
)

// CreatePartitions, v0 to v3. KIP-195. Replica assignments are taken and mean
// nothing, as in CreateTopics.
func (b *Broker) createPartitions(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.CreatePartitionsRequest)
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		ctx, cancel := requestTimeout(ctx, r.TimeoutMillis)
		defer cancel()
		resp := r.ResponseKind().(*kmsg.CreatePartitionsResponse)
		b.refresh(ctx)
		asked := map[string]int{}
		for _, t := range r.Topics {
			asked[t.Topic]++
		}
		for i := range r.Topics {
			t := &r.Topics[i]
			var err error
			switch asked[t.Topic] {
			case 0:
				continue // it was asked for twice, and answered once
			case 1:
				err = b.addPartitions(ctx, t, r.ValidateOnly)
			default:
				err = &requestError{kerr.InvalidRequest, "Duplicate topic name."}
			}
			asked[t.Topic] = 0
			answer := kmsg.NewCreatePartitionsResponseTopic()
			answer.Topic, answer.ErrorCode, answer.ErrorMessage = t.Topic, errorCode(err), errorMessage(err)
			resp.Topics = append(resp.Topics, answer)
		}
		if !r.ValidateOnly {
			b.refresh(ctx)
		}
		return resp
	})
}

func (b *Broker) addPartitions(ctx context.Context, t *kmsg.CreatePartitionsRequestTopic, validateOnly bool) error {
	view := b.Topology.Snapshot()
	topic := view.TopicByName(t.Topic)
	if topic == nil {
		return metadata.ErrUnknownTopic
	}
	switch {
	case t.Count < topic.Partitions:
		return &requestError{kerr.InvalidPartitions, fmt.Sprintf("The topic %s currently has %d partition(s); %d would not be an increase.", t.Topic, topic.Partitions, t.Count)}
	case t.Count == topic.Partitions:
		return &requestError{kerr.InvalidPartitions, fmt.Sprintf("Topic already has %d partition(s).", topic.Partitions)}
	case t.Assignment != nil && len(t.Assignment) != int(t.Count-topic.Partitions):
		return &requestError{kerr.InvalidReplicaAssignment, fmt.Sprintf("Attempted to add %d additional partition(s), but only %d assignment(s) were specified.", t.Count-topic.Partitions, len(t.Assignment))}
	}
	var assignment [][]int32
	for _, a := range t.Assignment {
		assignment = append(assignment, a.Replicas)
	}
	if err := checkAssignment(view, assignment); err != nil {
		return err
	}
	if err := checkPartitionCount(t.Count); err != nil || validateOnly {
		return err
	}
	tried := false
	err := untilKnown(ctx, func() error {
		err := b.Store.AddPartitions(ctx, topic.ID, t.Count)
		if tried && errors.Is(err, metadata.ErrInvalidPartitions) {
			return nil // the first try, whose outcome was unknown, did it
		}
		tried = true
		return err
	})
	if err == nil {
		b.Log.Info("partitions added", "topic", t.Topic, "partitions", t.Count)
	}
	return err
}
