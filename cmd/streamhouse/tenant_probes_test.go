package main

import (
	"maps"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

// tenant is what there is to know of one whom nobody may meet: the names and ids of
// all that it has.
type tenant struct {
	agentGroup string
	node       int32 // its agent
	topic      topic // with records, configs and positions
	producer   int64 // that has written to it

	group, member, instance string // of the classic protocol
	generation              int32
	consumers, consumer     string // of the consumer protocol, with its member
	epoch                   int32
	idle                    string // a group that has nothing but a position
	metrics                 string // a subscription to clients' metrics
}

// forged is the name of a group as the store may have it, where it keeps that of
// the tenant's apart.
func (n *tenant) forged() string { return "\x01" + n.agentGroup + "\x01" + n.group }

// A probe is what is asked of one API about what a tenant has.
type probe struct {
	key kmsg.Key
	// nameless requests name nothing that a tenant has: everybody is answered alike.
	nameless bool
	// reads says that the requests change nothing.
	reads    bool
	requests func(version int16) []kmsg.Request
}

// probes has one of each API that is served, in an order that lets a stranger have
// a topic of the tenant's name at the end.
func (n *tenant) probes() []probe {
	one := everyAPI(n.topic, n.group)
	maps.Copy(one, everyAdminAPI(n.topic.name))
	plain := func(key kmsg.Key) func(int16) []kmsg.Request {
		return func(v int16) []kmsg.Request { return []kmsg.Request{one[key](v)} }
	}
	var all []probe
	for _, key := range []kmsg.Key{
		kmsg.DescribeACLs, kmsg.CreateACLs, kmsg.DeleteACLs, kmsg.DescribeClientQuotas, kmsg.AlterClientQuotas,
		kmsg.DescribeUserSCRAMCredentials, kmsg.AlterUserSCRAMCredentials, kmsg.ListPartitionReassignments,
	} {
		all = append(all, probe{key: key, nameless: true, requests: plain(key)})
	}
	for _, key := range []kmsg.Key{
		kmsg.Fetch, kmsg.ListOffsets, kmsg.OffsetForLeaderEpoch, kmsg.DescribeProducers, kmsg.ListGroups,
		kmsg.ListConfigResources,
	} {
		all = append(all, probe{key: key, reads: true, requests: plain(key)})
	}
	all = append(all,
		probe{key: kmsg.InitProducerID, nameless: true, requests: n.askForIDs},
		probe{key: kmsg.Produce, requests: func(v int16) []kmsg.Request {
			return []kmsg.Request{one[kmsg.Produce](v), produceRequest(v, n.topic, 0, -1, n.sequel())}
		}},
		probe{key: kmsg.DeleteRecords, requests: plain(kmsg.DeleteRecords)},
		probe{key: kmsg.CreatePartitions, requests: plain(kmsg.CreatePartitions)},
	)
	all = append(all, n.askGroups()...)
	all = append(all, n.askConsumers()...)
	all = append(all, n.askCluster()...)
	return append(all, n.askTopics()...)
}

// sequel is the batch that follows those of the tenant's producer.
func (n *tenant) sequel() []byte {
	return batchtest.Build(batchtest.Options{
		Producer: &batchtest.Producer{ID: n.producer, BaseSequence: 1},
		Records:  []batchtest.Record{{Value: []byte("forged"), Timestamp: 1}},
	})
}

func (n *tenant) askForIDs(v int16) []kmsg.Request {
	fresh, again, transaction := kmsg.NewPtrInitProducerIDRequest(), kmsg.NewPtrInitProducerIDRequest(), kmsg.NewPtrInitProducerIDRequest()
	again.ProducerID, again.ProducerEpoch = n.producer, 0
	transaction.TransactionalID = &n.group
	return []kmsg.Request{fresh, again, transaction}
}

// askTopics asks for topics by name, by id and all of them, and makes and deletes
// them.
func (n *tenant) askTopics() []probe {
	name := &n.topic.name
	return []probe{
		{key: kmsg.Metadata, reads: true, requests: func(v int16) []kmsg.Request {
			named, all, byID := kmsg.NewPtrMetadataRequest(), kmsg.NewPtrMetadataRequest(), kmsg.NewPtrMetadataRequest()
			named.Topics = []kmsg.MetadataRequestTopic{{Topic: name}}
			byID.Topics = []kmsg.MetadataRequestTopic{{TopicID: n.topic.id}}
			if v < 10 {
				return []kmsg.Request{named, all}
			}
			return []kmsg.Request{named, all, byID}
		}},
		{key: kmsg.DescribeTopicPartitions, reads: true, requests: func(int16) []kmsg.Request {
			named, all := kmsg.NewPtrDescribeTopicPartitionsRequest(), kmsg.NewPtrDescribeTopicPartitionsRequest()
			named.Topics = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: *name}}
			named.ResponsePartitionLimit, all.ResponsePartitionLimit = 10, 10
			return []kmsg.Request{named, all}
		}},
		{key: kmsg.DescribeLogDirs, reads: true, requests: func(int16) []kmsg.Request {
			named, all := kmsg.NewPtrDescribeLogDirsRequest(), kmsg.NewPtrDescribeLogDirsRequest()
			named.Topics = []kmsg.DescribeLogDirsRequestTopic{{Topic: *name, Partitions: []int32{0}}}
			return []kmsg.Request{named, all}
		}},
		{key: kmsg.ElectLeaders, requests: func(int16) []kmsg.Request {
			named, all := kmsg.NewPtrElectLeadersRequest(), kmsg.NewPtrElectLeadersRequest()
			named.Topics = []kmsg.ElectLeadersRequestTopic{{Topic: *name, Partitions: []int32{0}}}
			return []kmsg.Request{named, all}
		}},
		{key: kmsg.AlterPartitionAssignments, requests: func(int16) []kmsg.Request {
			r := kmsg.NewPtrAlterPartitionAssignmentsRequest()
			r.Topics = []kmsg.AlterPartitionAssignmentsRequestTopic{{Topic: *name, Partitions: []kmsg.AlterPartitionAssignmentsRequestTopicPartition{
				{Partition: 0, Replicas: []int32{n.node}}, {Partition: 1, Replicas: nil},
			}}}
			return []kmsg.Request{r}
		}},
		{key: kmsg.DeleteTopics, requests: func(v int16) []kmsg.Request {
			named, byID := kmsg.NewPtrDeleteTopicsRequest(), kmsg.NewPtrDeleteTopicsRequest()
			named.TopicNames, named.Topics = []string{*name}, []kmsg.DeleteTopicsRequestTopic{{Topic: name}}
			byID.Topics = []kmsg.DeleteTopicsRequestTopic{{TopicID: n.topic.id}}
			if v < 6 {
				return []kmsg.Request{named}
			}
			return []kmsg.Request{byID, named}
		}},
		{key: kmsg.CreateTopics, requests: func(int16) []kmsg.Request {
			there, placed := kmsg.NewPtrCreateTopicsRequest(), kmsg.NewPtrCreateTopicsRequest()
			there.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: *name, NumPartitions: 1, ReplicationFactor: 1}}
			placed.Topics = []kmsg.CreateTopicsRequestTopic{{
				Topic: "placed", NumPartitions: -1, ReplicationFactor: -1,
				ReplicaAssignment: []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Replicas: []int32{n.node}}},
			}}
			return []kmsg.Request{there, placed}
		}},
	}
}

// askCluster asks for what is not of one topic or group.
func (n *tenant) askCluster() []probe {
	return []probe{
		{key: kmsg.ApiVersions, nameless: true, requests: func(v int16) []kmsg.Request {
			r := kmsg.NewPtrApiVersionsRequest()
			r.ClientSoftwareName, r.ClientSoftwareVersion, r.NodeID = "wire", "1", n.node
			return []kmsg.Request{r}
		}},
		{key: kmsg.DescribeCluster, reads: true, requests: func(int16) []kmsg.Request {
			r := kmsg.NewPtrDescribeClusterRequest()
			r.EndpointType, r.IncludeFencedBrokers = 1, true
			return []kmsg.Request{r}
		}},
		{key: kmsg.UnregisterBroker, requests: func(int16) []kmsg.Request {
			r := kmsg.NewPtrUnregisterBrokerRequest()
			r.BrokerID = n.node
			return []kmsg.Request{r}
		}},
		{key: kmsg.DescribeConfigs, reads: true, requests: func(int16) []kmsg.Request {
			r := kmsg.NewPtrDescribeConfigsRequest()
			r.IncludeSynonyms = true
			for _, c := range n.configured() {
				r.Resources = append(r.Resources, kmsg.DescribeConfigsRequestResource{ResourceType: c.kind, ResourceName: c.name})
			}
			return []kmsg.Request{r}
		}},
		{key: kmsg.AlterConfigs, requests: func(int16) []kmsg.Request {
			r := kmsg.NewPtrAlterConfigsRequest()
			for _, c := range n.configured() {
				r.Resources = append(r.Resources, kmsg.AlterConfigsRequestResource{ResourceType: c.kind, ResourceName: c.name, Configs: []kmsg.AlterConfigsRequestResourceConfig{
					{Name: c.key, Value: &c.value},
				}})
			}
			return []kmsg.Request{r}
		}},
		{key: kmsg.IncrementalAlterConfigs, requests: func(int16) []kmsg.Request {
			r := kmsg.NewPtrIncrementalAlterConfigsRequest()
			for _, c := range n.configured() {
				r.Resources = append(r.Resources, kmsg.IncrementalAlterConfigsRequestResource{ResourceType: c.kind, ResourceName: c.name, Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{
					{Name: c.key, Op: kmsg.IncrementalAlterConfigOpDelete},
				}})
			}
			return []kmsg.Request{r}
		}},
	}
}

// configured are resources with a config that the tenant has set, and another value
// of it.
func (n *tenant) configured() []configured {
	const topics, brokers, loggers = kmsg.ConfigResourceTypeTopic, kmsg.ConfigResourceTypeBroker, kmsg.ConfigResourceTypeBrokerLogger
	return []configured{
		{topics, n.topic.name, "retention.ms", "7"},
		{brokers, "", "log.roll.ms", "7"},
		{brokers, text32(n.node), "log.roll.ms", "7"},
		{loggers, text32(n.node), "root", "WARN"},
		{kmsg.ConfigResourceTypeGroupConfig, n.consumers, "consumer.heartbeat.interval.ms", "7000"},
		{kmsg.ConfigResourceTypeGroupConfig, n.forged(), "consumer.heartbeat.interval.ms", "7000"},
		{kmsg.ConfigResourceTypeClientMetrics, n.metrics, "interval.ms", "7000"},
	}
}

type configured struct {
	kind             kmsg.ConfigResourceType
	name, key, value string
}
