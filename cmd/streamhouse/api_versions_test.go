package main

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

// everyAPI makes a request of each API that is served, for any version of it;
// codeOf says how it is answered.
func everyAPI(t topic, group string) map[kmsg.Key]func(version int16) kmsg.Request {
	name := t.name
	return map[kmsg.Key]func(int16) kmsg.Request{
		kmsg.ApiVersions: func(int16) kmsg.Request {
			r := kmsg.NewPtrApiVersionsRequest()
			r.ClientSoftwareName, r.ClientSoftwareVersion = "wire", "1"
			return r
		},
		kmsg.Produce: func(v int16) kmsg.Request {
			return produceRequest(v, t, 0, -1, batchtest.Of("record"))
		},
		kmsg.Fetch: func(v int16) kmsg.Request { return fetchRequest(v, t, 0, 0) },
		kmsg.ListOffsets: func(int16) kmsg.Request {
			r := kmsg.NewPtrListOffsetsRequest()
			r.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: name, Partitions: []kmsg.ListOffsetsRequestTopicPartition{{
				Timestamp: -1, CurrentLeaderEpoch: -1, MaxNumOffsets: 1,
			}}}}
			return r
		},
		kmsg.Metadata: func(v int16) kmsg.Request {
			r := kmsg.NewPtrMetadataRequest()
			r.Topics = []kmsg.MetadataRequestTopic{{Topic: &name}}
			return r
		},
		kmsg.OffsetCommit: func(int16) kmsg.Request {
			r := kmsg.NewPtrOffsetCommitRequest()
			r.Group, r.Generation = group, -1
			r.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: name, TopicID: t.id, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{
				Offset: 1, LeaderEpoch: -1,
			}}}}
			return r
		},
		kmsg.OffsetFetch: func(v int16) kmsg.Request {
			r := kmsg.NewPtrOffsetFetchRequest()
			r.Group = group
			r.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: name, Partitions: []int32{0}}}
			r.Groups = []kmsg.OffsetFetchRequestGroup{{Group: group, MemberEpoch: -1, Topics: []kmsg.OffsetFetchRequestGroupTopic{{
				Topic: name, TopicID: t.id, Partitions: []int32{0},
			}}}}
			return r
		},
		kmsg.FindCoordinator: func(int16) kmsg.Request {
			r := kmsg.NewPtrFindCoordinatorRequest()
			r.CoordinatorKey, r.CoordinatorKeys = group, []string{group}
			return r
		},
		kmsg.JoinGroup: func(v int16) kmsg.Request {
			r := kmsg.NewPtrJoinGroupRequest()
			r.Group, r.ProtocolType, r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = fmt.Sprint("joined-v", v), "consumer", 10_000, 10_000
			r.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range"}}
			return r
		},
		kmsg.Heartbeat: func(int16) kmsg.Request {
			r := kmsg.NewPtrHeartbeatRequest()
			r.Group, r.MemberID = group, "nobody"
			return r
		},
		kmsg.LeaveGroup: func(int16) kmsg.Request {
			r := kmsg.NewPtrLeaveGroupRequest()
			r.Group, r.MemberID = group, "nobody"
			r.Members = []kmsg.LeaveGroupRequestMember{{MemberID: "nobody"}}
			return r
		},
		kmsg.SyncGroup: func(int16) kmsg.Request {
			r := kmsg.NewPtrSyncGroupRequest()
			r.Group, r.MemberID, r.ProtocolType, r.Protocol = group, "nobody", kmsg.StringPtr("consumer"), kmsg.StringPtr("range")
			return r
		},
		kmsg.DescribeGroups: func(int16) kmsg.Request {
			r := kmsg.NewPtrDescribeGroupsRequest()
			r.Groups = []string{group}
			return r
		},
		kmsg.ListGroups: func(int16) kmsg.Request { return kmsg.NewPtrListGroupsRequest() },
		kmsg.CreateTopics: func(v int16) kmsg.Request {
			r := kmsg.NewPtrCreateTopicsRequest()
			r.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: fmt.Sprint(name, "-created-v", v), NumPartitions: 1, ReplicationFactor: 1}}
			return r
		},
		kmsg.DeleteTopics: func(v int16) kmsg.Request { // what CreateTopics created
			created := fmt.Sprint(name, "-created-v", v+1)
			r := kmsg.NewPtrDeleteTopicsRequest()
			r.TopicNames = []string{created}
			r.Topics = []kmsg.DeleteTopicsRequestTopic{{Topic: &created}}
			return r
		},
		kmsg.DeleteRecords: func(int16) kmsg.Request {
			r := kmsg.NewPtrDeleteRecordsRequest()
			r.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: name, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{}}}}
			return r
		},
		kmsg.InitProducerID: func(int16) kmsg.Request { return kmsg.NewPtrInitProducerIDRequest() },
		kmsg.OffsetForLeaderEpoch: func(int16) kmsg.Request {
			r := kmsg.NewPtrOffsetForLeaderEpochRequest()
			r.Topics = []kmsg.OffsetForLeaderEpochRequestTopic{{Topic: name, Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{{
				CurrentLeaderEpoch: -1,
			}}}}
			return r
		},
		kmsg.DescribeConfigs: func(int16) kmsg.Request {
			r := kmsg.NewPtrDescribeConfigsRequest()
			r.IncludeSynonyms, r.IncludeDocumentation = true, true
			r.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: name}}
			return r
		},
		kmsg.AlterConfigs: func(int16) kmsg.Request {
			r := kmsg.NewPtrAlterConfigsRequest()
			r.Resources = []kmsg.AlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: name}}
			return r
		},
		kmsg.CreatePartitions: func(v int16) kmsg.Request {
			r := kmsg.NewPtrCreatePartitionsRequest()
			r.Topics = []kmsg.CreatePartitionsRequestTopic{{Topic: name, Count: 2 + int32(v)}}
			return r
		},
		kmsg.DeleteGroups: func(int16) kmsg.Request {
			r := kmsg.NewPtrDeleteGroupsRequest()
			r.Groups = []string{"no-such-group"}
			return r
		},
		kmsg.IncrementalAlterConfigs: func(int16) kmsg.Request {
			r := kmsg.NewPtrIncrementalAlterConfigsRequest()
			r.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: name}}
			return r
		},
		kmsg.OffsetDelete: func(int16) kmsg.Request {
			r := kmsg.NewPtrOffsetDeleteRequest()
			r.Group = group
			r.Topics = []kmsg.OffsetDeleteRequestTopic{{Topic: name, Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}}}}
			return r
		},
		kmsg.DescribeCluster: func(int16) kmsg.Request {
			r := kmsg.NewPtrDescribeClusterRequest()
			r.EndpointType = 1
			return r
		},
		kmsg.ConsumerGroupHeartbeat: func(v int16) kmsg.Request {
			r := kmsg.NewPtrConsumerGroupHeartbeatRequest()
			r.Group, r.MemberID, r.RebalanceTimeoutMillis = fmt.Sprint("beats-v", v), "member", 10_000
			r.SubscribedTopicNames, r.Topics = []string{name}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
			return r
		},
		kmsg.ConsumerGroupDescribe: func(int16) kmsg.Request {
			r := kmsg.NewPtrConsumerGroupDescribeRequest()
			r.Groups = []string{"no-such-group"}
			return r
		},
		kmsg.DescribeTopicPartitions: func(int16) kmsg.Request {
			r := kmsg.NewPtrDescribeTopicPartitionsRequest()
			r.Topics = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: name}}
			r.ResponsePartitionLimit = 10
			return r
		},
	}
}

// codeOf says which code everyAPI's request is answered with.
func codeOf(key kmsg.Key, version int16) *kerr.Error {
	switch {
	case key == kmsg.Produce && version < 3:
		return kerr.UnsupportedForMessageFormat // magic 0 and 1
	case key == kmsg.JoinGroup && version >= 4:
		return kerr.MemberIDRequired // KIP-394
	case key == kmsg.Heartbeat, key == kmsg.SyncGroup, key == kmsg.LeaveGroup:
		return kerr.UnknownMemberID
	case key == kmsg.DeleteGroups, key == kmsg.ConsumerGroupDescribe:
		return kerr.GroupIDNotFound
	}
	return adminCodes[key]
}

func TestEveryVersionOfEveryAPIIsAnswered(t *testing.T) {
	bothStores(t, func(t *testing.T, s stores) {
		a := startAgent(t, s)
		w := dial(t, a.addr)
		versions := ask[*kmsg.ApiVersionsResponse](w, 0, kmsg.NewPtrApiVersionsRequest())
		apis := everyAPI(makeTopic(w, "every-api", 1), "group")
		maps.Copy(apis, everyAdminAPI("every-api"))
		if len(apis) != len(versions.ApiKeys) {
			t.Errorf("%d APIs are served, this test knows %d", len(versions.ApiKeys), len(apis))
		}
		for _, k := range versions.ApiKeys {
			request := apis[kmsg.Key(k.ApiKey)]
			if request == nil {
				t.Errorf("%s is served and not tested", kmsg.NameForKey(k.ApiKey))
				continue
			}
			for v := k.MinVersion; v <= k.MaxVersion; v++ {
				resp := ask[kmsg.Response](w, v, request(v))
				want, got := int16(0), slices.Max(append(errorsIn(resp), 0)) // none is below 0 here
				if e := codeOf(kmsg.Key(k.ApiKey), v); e != nil {
					want = e.Code
				}
				if got != want {
					t.Errorf("%s v%d: error %v, want %v", kmsg.NameForKey(k.ApiKey), v, kerr.ErrorForCode(got), kerr.ErrorForCode(want))
				}
			}
		}
	})
}

// What is not served ends the connection, but for ApiVersions (KIP-511).
func TestUnknownVersions(t *testing.T) {
	t.Parallel()
	a := startAgent(t, embeddedStores(t))
	w := dial(t, a.addr)
	future := kmsg.NewPtrApiVersionsRequest()
	future.SetVersion(future.MaxVersion())
	if err := w.writeAs(future, 99); err != nil {
		t.Fatal(err)
	}
	future.SetVersion(0) // as it is answered
	resp := w.receive().(*kmsg.ApiVersionsResponse)
	wantCode(t, "ApiVersions v99", resp.ErrorCode, kerr.UnsupportedVersion)
	if len(resp.ApiKeys) == 0 {
		t.Error("no versions to choose from")
	}
	metadata := kmsg.NewPtrMetadataRequest()
	metadata.SetVersion(metadata.MaxVersion())
	if err := w.writeAs(metadata, 99); err != nil {
		t.Fatal(err)
	}
	w.wantClosed()
}

// From v5 on, a client says whom it means to talk to (KIP-1242).
func TestApiVersionsKnowsWhoIsMeant(t *testing.T) {
	t.Parallel()
	a := startAgent(t, embeddedStores(t))
	w := dial(t, a.addr)
	cluster, node := a.node.Topology.Snapshot().ClusterID, a.node.Agent.Self().NodeID
	for _, test := range []struct {
		name    string
		cluster *string
		node    int32
		want    *kerr.Error
	}{
		{"nobody in particular", nil, -1, nil},
		{"this one", &cluster, node, nil},
		{"another node", &cluster, node + 1, kerr.RebootstrapRequired},
		{"another cluster", kmsg.StringPtr("elsewhere"), node, kerr.RebootstrapRequired},
	} {
		r := kmsg.NewPtrApiVersionsRequest()
		r.ClientSoftwareName, r.ClientSoftwareVersion = "wire", "1"
		r.ClusterID, r.NodeID = test.cluster, test.node
		wantCode(t, test.name, ask[*kmsg.ApiVersionsResponse](w, 5, r).ErrorCode, test.want)
	}
}
