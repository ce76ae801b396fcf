package broker

import (
	"context"
	"errors"
	"iter"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol"
)

// Metadata, v0 to v13. KIP-430 (authorized operations), KIP-516 (topic ids),
// KIP-4 (cluster id, automatic creation), KIP-1102 (top-level error).
//
// Every partition has one replica, the agent that serves it: the durability is
// the object store's. Clients are told of agents of their own zone
// (topology.Snapshot.LeaderFor, AgentsFor), on which all agents agree, whether
// anybody holds a partition's lease or not: so LEADER_NOT_AVAILABLE is answered only
// while no agent is alive.
func (b *Broker) metadata(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.MetadataRequest)
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		resp := r.ResponseKind().(*kmsg.MetadataResponse)
		resp.AuthorizedOperations = authorizedOperations(r.IncludeClusterAuthorizedOperations, operationsOnCluster)
		b.Peers.Settle(ctx)
		var view *topology.Snapshot
		if asksForAll(r) {
			view = b.currentView(ctx)
		} else {
			view = b.viewFor(ctx, metadataRefs(r))
		}
		zone := b.zoneOf(req)
		resp.Topics, view = b.metadataTopics(ctx, r, b.living(view), zone)
		for i := range resp.Topics {
			t := &resp.Topics[i]
			t.AuthorizedOperations = authorizedOperations(r.IncludeTopicAuthorizedOperations && t.Topic != nil, operationsOnTopic)
		}
		resp.Brokers = metadataBrokers(view, zone, resp.Topics)
		resp.ClusterID = kmsg.StringPtr(view.ClusterID)
		resp.ControllerID = view.Controller(zone)
		return resp
	})
}

// metadataBrokers are the agents that clients of the zone are told of, and all that
// are named as leaders.
func metadataBrokers(view *topology.Snapshot, zone string, topics []kmsg.MetadataResponseTopic) []kmsg.MetadataResponseBroker {
	told := make(map[int32]bool)
	for _, a := range view.AgentsFor(zone) {
		told[a.NodeID] = true
	}
	for i := range topics {
		for _, p := range topics[i].Partitions {
			told[p.Leader] = true
		}
	}
	brokers := make([]kmsg.MetadataResponseBroker, 0, len(told))
	for _, a := range view.Agents() {
		if told[a.NodeID] {
			brokers = append(brokers, metadataBroker(a))
		}
	}
	return brokers
}

func asksForAll(r *kmsg.MetadataRequest) bool {
	return r.Topics == nil || r.Version == 0 && len(r.Topics) == 0
}

// metadataRefs are the topics that the request asks for by name or id.
func metadataRefs(r *kmsg.MetadataRequest) iter.Seq[topicRef] {
	return func(yield func(topicRef) bool) {
		for i := range r.Topics {
			if !yield(metadataRef(&r.Topics[i])) {
				return
			}
		}
	}
}

func metadataRef(asked *kmsg.MetadataRequestTopic) topicRef {
	ref := topicRef{byID: asked.TopicID != uuid.Nil, id: asked.TopicID}
	if !ref.byID && asked.Topic != nil {
		ref.name = *asked.Topic
	}
	return ref
}

// metadataTopics answers for the topics that were asked for. It may create
// some, and returns the view that has them.
func (b *Broker) metadataTopics(ctx context.Context, r *kmsg.MetadataRequest, view *topology.Snapshot, zone string) ([]kmsg.MetadataResponseTopic, *topology.Snapshot) {
	var answers []kmsg.MetadataResponseTopic
	if asksForAll(r) {
		for _, t := range view.Topics() {
			answers = append(answers, b.metadataTopic(view, zone, t))
		}
		return answers, view
	}
	mayCreate := (r.AllowAutoTopicCreation || r.Version < 4) && view.Broker.AutoCreateTopics()
	answered := make(map[topicRef]bool, len(r.Topics))
	for ref := range metadataRefs(r) {
		if answered[ref] {
			continue
		}
		answered[ref] = true
		t, err := ref.in(view), error(nil)
		if t == nil && !ref.byID && mayCreate {
			if t, err = b.autoCreate(ctx, ref.name); err == nil {
				view = b.living(b.Topology.Snapshot())
			}
		}
		switch {
		case t != nil:
			answers = append(answers, b.metadataTopic(view, zone, t))
		case err != nil:
			answers = append(answers, metadataError(ref, errorCode(err)))
		case ref.byID:
			answers = append(answers, metadataError(ref, kerr.UnknownTopicID.Code))
		case checkTopicName(ref.name) != nil:
			answers = append(answers, metadataError(ref, kerr.InvalidTopicException.Code))
		default:
			answers = append(answers, metadataError(ref, kerr.UnknownTopicOrPartition.Code))
		}
	}
	return answers, view
}

// autoCreate makes a topic that a client asked for with the broker's defaults.
func (b *Broker) autoCreate(ctx context.Context, name string) (*topology.Topic, error) {
	if err := checkTopicName(name); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	current := b.Topology.Snapshot()
	group, err := b.groupOfNew(current, name, nil)
	if err != nil {
		return nil, err
	}
	topic := metadata.NewTopic{ID: uuid.New(), Name: name, Partitions: current.Broker.NumPartitions(), AgentGroup: group}
	if err := b.createTopic(ctx, topic); err != nil && !errors.Is(err, metadata.ErrTopicExists) {
		return nil, err
	}
	view, err := b.Topology.Refresh(ctx, 0)
	if err != nil {
		return nil, err
	}
	t := view.TopicByName(name)
	if t == nil { // deleted meanwhile, or of another agent group
		return nil, metadata.ErrUnknownTopic
	}
	b.Log.Info("topic created automatically", "topic", name, "partitions", t.Partitions)
	return t, nil
}

func metadataError(ref topicRef, code int16) kmsg.MetadataResponseTopic {
	m := kmsg.NewMetadataResponseTopic()
	m.ErrorCode, m.TopicID = code, ref.id
	if !ref.byID {
		m.Topic = &ref.name
	}
	return m
}

func (b *Broker) metadataTopic(view *topology.Snapshot, zone string, t *topology.Topic) kmsg.MetadataResponseTopic {
	m := kmsg.NewMetadataResponseTopic()
	m.Topic, m.TopicID = &t.Name, t.ID
	for p := range t.Partitions {
		mp := kmsg.NewMetadataResponseTopicPartition()
		mp.Partition = p
		leader, epoch, ok := b.leaderFor(view, zone, lease.Key{TopicID: t.ID, Partition: p})
		mp.LeaderEpoch = epoch
		if ok {
			mp.Leader = leader.NodeID
			mp.Replicas = []int32{leader.NodeID}
			mp.ISR = mp.Replicas
		} else {
			mp.Leader, mp.ErrorCode = -1, kerr.LeaderNotAvailable.Code
		}
		m.Partitions = append(m.Partitions, mp)
	}
	return m
}
