package broker

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol"
)

// CreateTopics, v2 to v7. KIP-464 (defaults by -1), KIP-525 (configs in the
// answer), KIP-516 (topic ids). A replication factor of any size is taken,
// since clients ask for 3 by habit, and answered with the 1 that it is.
func (b *Broker) createTopics(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.CreateTopicsRequest)
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		ctx, cancel := requestTimeout(ctx, r.TimeoutMillis)
		defer cancel()
		resp := r.ResponseKind().(*kmsg.CreateTopicsResponse)
		asked := map[string]int{}
		for _, t := range r.Topics {
			asked[t.Topic]++
		}
		tooMany := checkTotalPartitions(r, b.Topology.Snapshot().Broker.NumPartitions())
		for i := range r.Topics {
			t := &r.Topics[i]
			switch times := asked[t.Topic]; {
			case times == 0:
				continue // it was asked for twice, and answered once
			case tooMany != nil:
				resp.Topics = append(resp.Topics, createTopicError(t.Topic, tooMany))
			case times == 1:
				resp.Topics = append(resp.Topics, b.createOne(ctx, t, r.ValidateOnly))
			default:
				resp.Topics = append(resp.Topics, createTopicError(t.Topic, &requestError{kerr.InvalidRequest, "Duplicate topic name."}))
			}
			asked[t.Topic] = 0
		}
		if !r.ValidateOnly {
			b.refresh(ctx)
		}
		return resp
	})
}

// checkTotalPartitions bounds the partitions of all topics of a request as Kafka
// does.
func checkTotalPartitions(r *kmsg.CreateTopicsRequest, byDefault int32) error {
	total := int64(0)
	for i := range r.Topics {
		switch t := &r.Topics[i]; {
		case len(t.ReplicaAssignment) > 0:
			total += int64(len(t.ReplicaAssignment))
		case t.NumPartitions == -1:
			total += int64(byDefault)
		default:
			total += max(int64(t.NumPartitions), 0) // what is below is refused on its own
		}
	}
	if total > config.MaxPartitions {
		return &requestError{kerr.PolicyViolation, "Excessively large number of partitions per request."}
	}
	return nil
}

// createOne validates and creates one topic.
func (b *Broker) createOne(ctx context.Context, t *kmsg.CreateTopicsRequestTopic, validateOnly bool) kmsg.CreateTopicsResponseTopic {
	view := b.Topology.Snapshot()
	topic, err := b.newTopic(view, t)
	switch {
	case err != nil || validateOnly:
		if topic.AgentGroup == nil && b.view(ctx).TopicByName(t.Topic) != nil { // that is said first
			err = metadata.ErrTopicExists
		}
	default:
		err = b.createTopic(ctx, topic)
	}
	if err != nil {
		return createTopicError(t.Topic, topicExists(err, t.Topic))
	}
	if !validateOnly {
		b.Log.Info("topic created", "topic", topic.Name, "topic_id", topic.ID, "partitions", topic.Partitions)
	}
	answer := kmsg.NewCreateTopicsResponseTopic()
	answer.Topic, answer.TopicID, answer.NumPartitions, answer.ReplicationFactor = topic.Name, topic.ID, topic.Partitions, 1
	for _, e := range describeNew(view, &topic) {
		c := kmsg.NewCreateTopicsResponseTopicConfig()
		c.Name, c.Value, c.ReadOnly, c.Source = e.Name, e.Value, e.ReadOnly, int8(e.Source)
		answer.Configs = append(answer.Configs, c)
	}
	return answer
}

// newTopic turns a request into a topic, by Kafka's rules. Errors are a
// *requestError or config.ErrInvalid.
func (b *Broker) newTopic(view *topology.Snapshot, t *kmsg.CreateTopicsRequestTopic) (metadata.NewTopic, error) {
	topic := metadata.NewTopic{ID: uuid.New(), Name: t.Topic, Partitions: t.NumPartitions}
	err := checkTopicName(t.Topic)
	if err == nil {
		topic.AgentGroup, err = b.groupOfNew(view, t.Topic, askedGroup(t))
	}
	if err != nil {
		return topic, err
	}
	switch {
	case len(t.ReplicaAssignment) > 0:
		if t.NumPartitions != -1 || t.ReplicationFactor != -1 {
			return topic, &requestError{kerr.InvalidRequest, "A manual partition assignment was specified, but numPartitions or replicationFactor was not set to -1."}
		}
		partitions, err := assigned(t.ReplicaAssignment)
		if err != nil {
			return topic, err
		}
		if err := checkAssignment(view, partitions); err != nil {
			return topic, err
		}
		topic.Partitions = int32(len(t.ReplicaAssignment))
	case t.ReplicationFactor != -1 && t.ReplicationFactor <= 0:
		return topic, &requestError{kerr.InvalidReplicationFactor, "Replication factor must be larger than 0, or -1 to use the default value."}
	case t.NumPartitions == -1:
		topic.Partitions = view.Broker.NumPartitions()
	}
	if err := checkPartitionCount(topic.Partitions); err != nil {
		return topic, err
	}
	for _, c := range t.Configs {
		if c.Value == nil {
			return topic, &requestError{kerr.InvalidConfig, fmt.Sprintf("Null value not supported for topic configs: %s", c.Name)}
		}
		if c.Name == config.AgentGroup {
			continue // no value among the others
		}
		if topic.Configs == nil {
			topic.Configs = map[string]string{}
		}
		topic.Configs[c.Name] = *c.Value
	}
	return topic, view.Broker.CheckTopic(topic.Configs)
}

// assigned are the replicas by partition, which are counted from 0 without a gap.
func assigned(assignment []kmsg.CreateTopicsRequestTopicReplicaAssignment) ([][]int32, error) {
	partitions := make([][]int32, len(assignment))
	seen := make([]bool, len(assignment))
	for _, a := range assignment {
		if a.Partition < 0 || int(a.Partition) >= len(partitions) {
			return nil, &requestError{kerr.InvalidReplicaAssignment, "partitions should be a consecutive 0-based integer sequence"}
		}
		if seen[a.Partition] {
			return nil, &requestError{kerr.InvalidReplicaAssignment, fmt.Sprintf("Found multiple manual partition assignments for partition %d", a.Partition)}
		}
		partitions[a.Partition], seen[a.Partition] = a.Replicas, true
	}
	return partitions, nil
}

func createTopicError(name string, err error) kmsg.CreateTopicsResponseTopic {
	t := kmsg.NewCreateTopicsResponseTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, -1, -1
	t.ErrorCode, t.ErrorMessage = errorCode(err), errorMessage(err)
	return t
}

// topicExists words ErrTopicExists as Kafka does.
func topicExists(err error, name string) error {
	if errorCode(err) == kerr.TopicAlreadyExists.Code {
		return &requestError{kerr.TopicAlreadyExists, fmt.Sprintf("Topic '%s' already exists.", name)}
	}
	return err
}
