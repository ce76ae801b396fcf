package broker

import (
	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/broker/group"
	"github.com/streamhouse/streamhouse/broker/topology"
)

// GroupTopics is how consumer groups see the topics of the cluster.
func GroupTopics(w *topology.Watcher) func() group.Topics {
	return func() group.Topics { return groupTopics{w.Snapshot()} }
}

// groupTopics implements group.Topics.
type groupTopics struct{ snapshot *topology.Snapshot }

func (t groupTopics) Version() int64 { return t.snapshot.Version }

func (t groupTopics) Changed() int64 { return t.snapshot.TopicsVersion }

func (t groupTopics) Lookup(name string) (id uuid.UUID, partitions int32, ok bool) {
	topic := t.snapshot.TopicByName(name)
	if topic == nil {
		return uuid.Nil, 0, false
	}
	return topic.ID, topic.Partitions, true
}

func (t groupTopics) Name(id uuid.UUID) (name string, ok bool) {
	topic := t.snapshot.TopicByID(id)
	if topic == nil {
		return "", false
	}
	return topic.Name, true
}

func (t groupTopics) Names() []string {
	topics := t.snapshot.Topics()
	names := make([]string, len(topics))
	for i, topic := range topics {
		names[i] = topic.Name
	}
	return names
}
