package broker

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/group"
	"github.com/streamhouse/streamhouse/broker/group/assignor"
	"github.com/streamhouse/streamhouse/protocol"
)

// ConsumerGroupHeartbeat, v0 and v1. KIP-848 (the consumer protocol, with regular
// expressions in v1), KIP-1082 (the client makes its member id, v1).
func (b *Broker) consumerGroupHeartbeat(ctx context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.ConsumerGroupHeartbeatRequest)
	resp := r.ResponseKind().(*kmsg.ConsumerGroupHeartbeatResponse)
	if err := checkConsumerHeartbeat(r); err != nil {
		resp.ErrorCode, resp.ErrorMessage = errorCode(err), errorMessage(err)
		return protocol.Now(resp)
	}
	b.awaitTopics(ctx, r)
	pending := b.Groups.ConsumerHeartbeat(group.ConsumerHeartbeatRequest{
		Group: r.Group, MemberID: r.MemberID, Epoch: r.MemberEpoch,
		InstanceID: orEmpty(r.InstanceID), Rack: orEmpty(r.RackID),
		ClientID: req.ClientID, ClientHost: clientHost(req.Conn.RemoteAddr),
		RebalanceTimeout: time.Duration(r.RebalanceTimeoutMillis) * time.Millisecond,
		Topics:           r.SubscribedTopicNames, Regex: r.SubscribedTopicRegex, Assignor: orEmpty(r.ServerAssignor),
		Owned: ownedPartitions(r.Topics),
	})
	return whenDone(b, memberRef{r.Group, r.MemberID}, pending, func(h group.ConsumerHeartbeatResponse, err error) kmsg.Response {
		if err != nil {
			resp.ErrorCode, resp.ErrorMessage = errorCode(err), errorMessage(err)
			return resp
		}
		resp.MemberID, resp.MemberEpoch = &h.MemberID, h.Epoch
		resp.HeartbeatIntervalMillis = int32(h.Interval.Milliseconds())
		if h.Assignment != nil {
			resp.Assignment = new(kmsg.ConsumerGroupHeartbeatResponseAssignment)
			for _, id := range h.Assignment.Topics() {
				resp.Assignment.Topics = append(resp.Assignment.Topics, kmsg.ConsumerGroupHeartbeatResponseAssignmentTopic{
					TopicID: id, Partitions: h.Assignment[id],
				})
			}
		}
		return resp
	})
}

// awaitTopics makes this agent know topics that were created a moment ago
// elsewhere. Without those of a new subscription the member would have nothing
// until its next heartbeat. Whoever joins may upgrade a classic group, the members
// of which may own partitions of topics that this agent has not heard of: it must
// not give them away. Heartbeats of members at rest name no topics.
func (b *Broker) awaitTopics(ctx context.Context, r *kmsg.ConsumerGroupHeartbeatRequest) {
	view := b.Topology.Snapshot()
	unknown := func(name string) bool { return view.TopicByName(name) == nil }
	if r.MemberEpoch == group.JoinEpoch || slices.ContainsFunc(r.SubscribedTopicNames, unknown) {
		b.currentView(ctx)
	}
}

// checkConsumerHeartbeat refuses what Kafka's
// throwIfConsumerGroupHeartbeatRequestIsInvalid does, in its order.
func checkConsumerHeartbeat(r *kmsg.ConsumerGroupHeartbeatRequest) error {
	invalid := func(message string) error { return &requestError{kerr.InvalidRequest, message} }
	blank := func(s *string) bool { return s != nil && strings.TrimSpace(*s) == "" }
	joins := r.MemberEpoch == group.JoinEpoch
	switch {
	case (r.Version >= 1 || !joins) && blank(&r.MemberID):
		return invalid("MemberId can't be empty.")
	case blank(&r.Group):
		return invalid("GroupId can't be empty.")
	case blank(r.InstanceID):
		return invalid("InstanceId can't be empty.")
	case blank(r.RackID):
		return invalid("RackId can't be empty.")
	case joins && r.RebalanceTimeoutMillis == -1:
		return invalid("RebalanceTimeoutMs must be provided in first request.")
	case joins && (r.Topics == nil || len(r.Topics) > 0):
		return invalid("TopicPartitions must be empty when (re-)joining.")
	case joins && r.SubscribedTopicNames == nil && r.SubscribedTopicRegex == nil:
		return invalid("Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.")
	case r.MemberEpoch == group.LeaveStaticEpoch && r.InstanceID == nil:
		return invalid("InstanceId can't be null.")
	case r.MemberEpoch < group.LeaveStaticEpoch:
		return invalid("MemberEpoch is invalid.")
	}
	return nil
}

// ownedPartitions is nil if the member has not said what it owns.
func ownedPartitions(topics []kmsg.ConsumerGroupHeartbeatRequestTopic) assignor.Partitions {
	if topics == nil {
		return nil
	}
	owned := make(assignor.Partitions, len(topics))
	for _, t := range topics {
		id := uuid.UUID(t.TopicID)
		owned[id] = append(owned[id], t.Partitions...)
	}
	return owned
}
