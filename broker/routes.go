package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/protocol"
)

// Routes is the one table of what the broker serves and in which versions.
// ApiVersions, which the router adds, the version check and dispatch all read
// it. protocol/SKIPPED.md says what is not here and why.
//
// The lowest versions are those of Apache Kafka 4 (KIP-896), the highest those
// that kmsg has and that are implemented here in full.
func (b *Broker) Routes() []protocol.Route {
	return []protocol.Route{
		{Key: kmsg.Produce.Int16(), MinVersion: 0, MaxVersion: 13, Handle: b.produce},
		{Key: kmsg.Fetch.Int16(), MinVersion: 4, MaxVersion: 18, Handle: b.fetch},
		{Key: kmsg.ListOffsets.Int16(), MinVersion: 1, MaxVersion: 11, Handle: b.listOffsets},
		{Key: kmsg.Metadata.Int16(), MinVersion: 0, MaxVersion: 13, Handle: b.metadata},
		{Key: kmsg.OffsetCommit.Int16(), MinVersion: 2, MaxVersion: 10, Handle: b.offsetCommit},
		{Key: kmsg.OffsetFetch.Int16(), MinVersion: 1, MaxVersion: 10, Handle: b.offsetFetch},
		{Key: kmsg.FindCoordinator.Int16(), MinVersion: 0, MaxVersion: 6, Handle: b.findCoordinator},
		{Key: kmsg.JoinGroup.Int16(), MinVersion: 0, MaxVersion: 9, Handle: b.joinGroup},
		{Key: kmsg.Heartbeat.Int16(), MinVersion: 0, MaxVersion: 4, Handle: b.heartbeat},
		{Key: kmsg.LeaveGroup.Int16(), MinVersion: 0, MaxVersion: 5, Handle: b.leaveGroup},
		{Key: kmsg.SyncGroup.Int16(), MinVersion: 0, MaxVersion: 5, Handle: b.syncGroup},
		{Key: kmsg.DescribeGroups.Int16(), MinVersion: 0, MaxVersion: 6, Handle: b.describeGroups},
		{Key: kmsg.ListGroups.Int16(), MinVersion: 0, MaxVersion: 5, Handle: b.listGroups},
		{Key: kmsg.CreateTopics.Int16(), MinVersion: 2, MaxVersion: 7, Handle: b.createTopics},
		{Key: kmsg.DeleteTopics.Int16(), MinVersion: 1, MaxVersion: 6, Handle: b.deleteTopics},
		{Key: kmsg.DeleteRecords.Int16(), MinVersion: 0, MaxVersion: 2, Handle: b.deleteRecords},
		{Key: kmsg.InitProducerID.Int16(), MinVersion: 0, MaxVersion: 5, Handle: b.initProducerID},
		{Key: kmsg.OffsetForLeaderEpoch.Int16(), MinVersion: 2, MaxVersion: 4, Handle: b.offsetForLeaderEpoch},
		{Key: kmsg.DescribeACLs.Int16(), MinVersion: 1, MaxVersion: 3, Handle: b.describeACLs},
		{Key: kmsg.CreateACLs.Int16(), MinVersion: 1, MaxVersion: 3, Handle: b.createACLs},
		{Key: kmsg.DeleteACLs.Int16(), MinVersion: 1, MaxVersion: 3, Handle: b.deleteACLs},
		{Key: kmsg.DescribeConfigs.Int16(), MinVersion: 1, MaxVersion: 4, Handle: b.describeConfigs},
		{Key: kmsg.AlterConfigs.Int16(), MinVersion: 0, MaxVersion: 2, Handle: b.alterConfigs},
		{Key: kmsg.DescribeLogDirs.Int16(), MinVersion: 1, MaxVersion: 5, Handle: b.describeLogDirs},
		{Key: kmsg.CreatePartitions.Int16(), MinVersion: 0, MaxVersion: 3, Handle: b.createPartitions},
		{Key: kmsg.DeleteGroups.Int16(), MinVersion: 0, MaxVersion: 2, Handle: b.deleteGroups},
		{Key: kmsg.ElectLeaders.Int16(), MinVersion: 0, MaxVersion: 2, Handle: b.electLeaders},
		{Key: kmsg.IncrementalAlterConfigs.Int16(), MinVersion: 0, MaxVersion: 1, Handle: b.incrementalAlterConfigs},
		{Key: kmsg.AlterPartitionAssignments.Int16(), MinVersion: 0, MaxVersion: 1, Handle: b.alterPartitionReassignments},
		{Key: kmsg.ListPartitionReassignments.Int16(), MinVersion: 0, MaxVersion: 0, Handle: b.listPartitionReassignments},
		{Key: kmsg.OffsetDelete.Int16(), MinVersion: 0, MaxVersion: 0, Handle: b.offsetDelete},
		{Key: kmsg.DescribeClientQuotas.Int16(), MinVersion: 0, MaxVersion: 1, Handle: b.describeClientQuotas},
		{Key: kmsg.AlterClientQuotas.Int16(), MinVersion: 0, MaxVersion: 1, Handle: b.alterClientQuotas},
		{Key: kmsg.DescribeUserSCRAMCredentials.Int16(), MinVersion: 0, MaxVersion: 0, Handle: b.describeUserSCRAMCredentials},
		{Key: kmsg.AlterUserSCRAMCredentials.Int16(), MinVersion: 0, MaxVersion: 0, Handle: b.alterUserSCRAMCredentials},
		{Key: kmsg.DescribeCluster.Int16(), MinVersion: 0, MaxVersion: 2, Handle: b.describeCluster},
		{Key: kmsg.DescribeProducers.Int16(), MinVersion: 0, MaxVersion: 0, Handle: b.describeProducers},
		{Key: kmsg.UnregisterBroker.Int16(), MinVersion: 0, MaxVersion: 0, Handle: b.unregisterBroker},
		{Key: kmsg.ListConfigResources.Int16(), MinVersion: 0, MaxVersion: 1, Handle: b.listConfigResources},
		{Key: kmsg.ConsumerGroupHeartbeat.Int16(), MinVersion: 0, MaxVersion: 1, Handle: b.consumerGroupHeartbeat},
		{Key: kmsg.ConsumerGroupDescribe.Int16(), MinVersion: 0, MaxVersion: 1, Handle: b.consumerGroupDescribe},
		{Key: kmsg.DescribeTopicPartitions.Int16(), MinVersion: 0, MaxVersion: 0, Handle: b.describeTopicPartitions},
	}
}
