package broker

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/protocol"
)

// AlterPartitionReassignments, v0 to v1. KIP-455, KIP-860 (changes of the
// replication factor). A partition has no replicas that could be moved: what is
// shown as such is the agent that leads it. To ask for what is there is no
// error, since tools write it back.
func (b *Broker) alterPartitionReassignments(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.AlterPartitionAssignmentsRequest)
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		resp := r.ResponseKind().(*kmsg.AlterPartitionAssignmentsResponse)
		resp.AllowReplicationFactorChange = r.AllowReplicationFactorChange
		view, zone := b.adminView(ctx), b.zoneOf(req)
		for _, t := range r.Topics {
			answer := kmsg.NewAlterPartitionAssignmentsResponseTopic()
			answer.Topic = t.Topic
			for _, p := range t.Partitions {
				err := b.reassign(view, zone, t.Topic, p)
				partition := kmsg.NewAlterPartitionAssignmentsResponseTopicPartition()
				partition.Partition, partition.ErrorCode, partition.ErrorMessage = p.Partition, errorCode(err), errorMessage(err)
				answer.Partitions = append(answer.Partitions, partition)
			}
			resp.Topics = append(resp.Topics, answer)
		}
		return resp
	})
}

func (b *Broker) reassign(view *topology.Snapshot, zone, topic string, p kmsg.AlterPartitionAssignmentsRequestTopicPartition) error {
	t := view.TopicByName(topic)
	switch {
	case t == nil:
		return &requestError{kerr.UnknownTopicOrPartition, fmt.Sprintf("Unable to find a topic named %s.", topic)}
	case p.Partition < 0 || p.Partition >= t.Partitions:
		return &requestError{kerr.UnknownTopicOrPartition, fmt.Sprintf("Unable to find partition %s:%d.", topic, p.Partition)}
	case p.Replicas == nil: // cancel
		return &requestError{kerr.NoReassignmentInProgress, "No partition reassignment is in progress."}
	}
	if err := checkReplicas(view, p.Replicas); err != nil {
		return err
	}
	leader, _, _ := b.leaderFor(view, zone, lease.Key{TopicID: t.ID, Partition: p.Partition})
	if !slices.Equal(p.Replicas, []int32{leader.NodeID}) {
		return &requestError{kerr.InvalidReplicaAssignment, "Partitions are not assigned to brokers: " +
			"their records are in object storage, and the agent that holds a partition's lease leads it."}
	}
	return nil
}
