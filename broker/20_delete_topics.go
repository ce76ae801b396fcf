package broker

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol"
)

// DeleteTopics, v1 to v6. KIP-516 (by topic id from v6).
func (b *Broker) deleteTopics(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.DeleteTopicsRequest)
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		ctx, cancel := requestTimeout(ctx, r.TimeoutMillis)
		defer cancel()
		resp := r.ResponseKind().(*kmsg.DeleteTopicsResponse)
		b.refresh(ctx)
		for _, name := range r.TopicNames {
			resp.Topics = append(resp.Topics, b.deleteTopic(ctx, &name, uuid.Nil))
		}
		for _, t := range r.Topics {
			resp.Topics = append(resp.Topics, b.deleteTopic(ctx, t.Topic, t.TopicID))
		}
		b.refresh(ctx)
		return resp
	})
}

func (b *Broker) deleteTopic(ctx context.Context, name *string, id uuid.UUID) kmsg.DeleteTopicsResponseTopic {
	answer := kmsg.NewDeleteTopicsResponseTopic()
	answer.Topic, answer.TopicID = name, id
	if name != nil && id != uuid.Nil {
		answer.ErrorCode = kerr.InvalidRequest.Code
		answer.ErrorMessage = kmsg.StringPtr("Cannot specify both topic name and topic ID.")
		return answer
	}
	ref := topicRef{id: id}
	if name != nil {
		ref.name = *name
	}
	t := ref.in(b.Topology.Snapshot())
	if t == nil {
		answer.ErrorCode = kerr.UnknownTopicOrPartition.Code
		if name == nil {
			answer.ErrorCode = kerr.UnknownTopicID.Code
		}
		return answer
	}
	answer.Topic, answer.TopicID = &t.Name, t.ID
	// Of a delete whose outcome was unknown, a second try may find the topic gone.
	tried := false
	err := untilKnown(ctx, func() error {
		err := b.Store.DeleteTopic(ctx, t.ID)
		if tried && errors.Is(err, metadata.ErrUnknownTopic) {
			return nil
		}
		tried = true
		return err
	})
	if err != nil {
		answer.ErrorCode, answer.ErrorMessage = errorCode(err), errorMessage(err)
		return answer
	}
	b.Log.Info("topic deleted", "topic", t.Name, "topic_id", t.ID)
	return answer
}
