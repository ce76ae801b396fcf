package broker

import (
	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/broker/group"
	"github.com/streamhouse/streamhouse/broker/topology"
)

// GroupView is how consumer groups see the cluster.
func GroupView(w *topology.Watcher) func() group.View {
	return func() group.View { return groupView{w.Snapshot()} }
}

// groupView implements group.View.
type groupView struct{ snapshot *topology.Snapshot }

func (v groupView) Version() int64 { return v.snapshot.Version }

func (v groupView) Changed() int64 { return v.snapshot.TopicsVersion }

func (v groupView) Lookup(name string) (id uuid.UUID, partitions int32, ok bool) {
	topic := v.snapshot.TopicByName(name)
	if topic == nil {
		return uuid.Nil, 0, false
	}
	return topic.ID, topic.Partitions, true
}

func (v groupView) Name(id uuid.UUID) (name string, ok bool) {
	topic := v.snapshot.TopicByID(id)
	if topic == nil {
		return "", false
	}
	return topic.Name, true
}

func (v groupView) Names() []string {
	topics := v.snapshot.Topics()
	names := make([]string, len(topics))
	for i, topic := range topics {
		names[i] = topic.Name
	}
	return names
}

func (v groupView) Config(group string) *config.Group { return v.snapshot.Group(group) }
