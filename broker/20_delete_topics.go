package broker

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/topology"
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
		asked := r.Topics
		for _, name := range r.TopicNames { // until v5
			asked = append(asked, kmsg.DeleteTopicsRequestTopic{Topic: &name})
		}
		times := make(map[topicRef]int, len(asked))
		for i := range asked {
			times[deletedRef(&asked[i])]++
		}
		for i := range asked {
			ref := deletedRef(&asked[i])
			if times[ref] == 0 {
				continue // it was asked for twice, and answered once
			}
			resp.Topics = append(resp.Topics, b.answerDelete(ctx, &asked[i], times[ref] > 1))
			times[ref] = 0
		}
		b.refresh(ctx)
		return resp
	})
}

// deletedRef is how the request names a topic.
func deletedRef(t *kmsg.DeleteTopicsRequestTopic) topicRef {
	ref := topicRef{byID: t.TopicID != uuid.Nil, id: t.TopicID}
	if t.Topic != nil {
		ref.name = *t.Topic
	}
	return ref
}

// answerDelete deletes one topic.
func (b *Broker) answerDelete(ctx context.Context, asked *kmsg.DeleteTopicsRequestTopic, twice bool) kmsg.DeleteTopicsResponseTopic {
	answer := kmsg.NewDeleteTopicsResponseTopic()
	answer.Topic, answer.TopicID = asked.Topic, asked.TopicID
	ref := deletedRef(asked)
	t := ref.in(b.Topology.Snapshot())
	var err error
	switch {
	case asked.Topic != nil && ref.byID:
		err = &requestError{kerr.InvalidRequest, "You may not specify both topic name and topic id."}
	case asked.Topic == nil && !ref.byID:
		err = &requestError{kerr.InvalidRequest, "Neither topic name nor id were specified."}
	case twice && ref.byID:
		err = &requestError{kerr.InvalidRequest, "Duplicate topic id."}
	case twice:
		err = &requestError{kerr.InvalidRequest, "Duplicate topic name."}
	case t == nil && ref.byID:
		err = errUnknownTopicID
	case t == nil:
		err = metadata.ErrUnknownTopic
	default:
		answer.Topic, answer.TopicID = &t.Name, t.ID
		err = b.deleteTopic(ctx, t)
	}
	answer.ErrorCode, answer.ErrorMessage = errorCode(err), errorMessage(err)
	return answer
}

func (b *Broker) deleteTopic(ctx context.Context, t *topology.Topic) error {
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
	if err == nil {
		b.Log.Info("topic deleted", "topic", t.Name, "topic_id", t.ID)
	}
	return err
}
