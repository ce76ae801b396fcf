package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

func TestMetadata(t *testing.T) {
	bothStores(t, func(t *testing.T, s stores) {
		a := startAgent(t, s, func(s *Settings) { s.Kafka.Configs["num.partitions"], s.AvailabilityZone = "3", "zone-a" })
		w := dial(t, a.addr)
		one, two := makeTopic(w, "one", 1), makeTopic(w, "two", 2)
		request := func(create bool, topics ...kmsg.MetadataRequestTopic) *kmsg.MetadataRequest {
			r := kmsg.NewPtrMetadataRequest()
			r.AllowAutoTopicCreation, r.Topics = create, topics
			return r
		}
		byName := func(n string) kmsg.MetadataRequestTopic { return kmsg.MetadataRequestTopic{Topic: &n} }

		t.Run("all and none", func(t *testing.T) {
			for _, test := range []struct {
				version int16
				topics  []kmsg.MetadataRequestTopic
				want    []string
			}{
				{0, []kmsg.MetadataRequestTopic{}, []string{"one", "two"}},
				{1, nil, []string{"one", "two"}},
				{1, []kmsg.MetadataRequestTopic{}, nil},
				{12, nil, []string{"one", "two"}},
				{13, []kmsg.MetadataRequestTopic{}, nil},
			} {
				r := request(false)
				r.Topics = test.topics
				resp := ask[*kmsg.MetadataResponse](w, test.version, r)
				var got []string
				for _, topic := range resp.Topics {
					got = append(got, *topic.Topic)
				}
				if !slices.Equal(got, test.want) {
					t.Errorf("v%d, %v asked for: %v, want %v", test.version, test.topics, got, test.want)
				}
			}
		})
		t.Run("the cluster", func(t *testing.T) {
			resp := ask[*kmsg.MetadataResponse](w, 12, request(false))
			if len(resp.Brokers) != 1 || *resp.Brokers[0].Rack != "zone-a" || resp.ControllerID != resp.Brokers[0].NodeID || resp.ClusterID == nil {
				t.Errorf("%+v", resp)
			}
			if got := leaderAddress(w, one, 0); got != a.addr {
				t.Errorf("leader is at %s, the agent at %s", got, a.addr)
			}
		})
		t.Run("by id", func(t *testing.T) {
			unknown := uuid.New()
			resp := ask[*kmsg.MetadataResponse](w, 12, request(true, kmsg.MetadataRequestTopic{TopicID: two.id}, kmsg.MetadataRequestTopic{TopicID: unknown}))
			if got := resp.Topics[0]; str(got.Topic) != "two" || len(got.Partitions) != 2 || got.TopicID != two.id {
				t.Errorf("%+v", got)
			}
			wantCode(t, "unknown id", resp.Topics[1].ErrorCode, kerr.UnknownTopicID)
			if got := resp.Topics[1]; got.Topic != nil || got.TopicID != unknown {
				t.Errorf("%+v", got)
			}
		})
		t.Run("names", func(t *testing.T) {
			for name, want := range map[string]*kerr.Error{
				"nope": kerr.UnknownTopicOrPartition, "no pe": kerr.InvalidTopicException, "": kerr.InvalidTopicException,
				"..": kerr.InvalidTopicException, strings.Repeat("x", 250): kerr.InvalidTopicException,
			} {
				resp := ask[*kmsg.MetadataResponse](w, 12, request(false, byName(name), byName(name)))
				if len(resp.Topics) != 1 {
					t.Errorf("%q asked for twice is answered %d times", name, len(resp.Topics))
				}
				wantCode(t, name, resp.Topics[0].ErrorCode, want)
			}
		})
		t.Run("automatic creation", func(t *testing.T) {
			resp := ask[*kmsg.MetadataResponse](w, 12, request(true, byName("auto"), byName("not valid")))
			if got := resp.Topics[0]; got.ErrorCode != 0 || len(got.Partitions) != 3 || got.TopicID == uuid.Nil {
				t.Errorf("%+v", got)
			}
			wantCode(t, "invalid name", resp.Topics[1].ErrorCode, kerr.InvalidTopicException)
			resp = ask[*kmsg.MetadataResponse](w, 3, request(false, byName("auto-v3"))) // could not say no before v4
			wantCode(t, "v3", resp.Topics[0].ErrorCode, nil)
			mustProduce(w, topic{name: "auto"}, 2, batchtest.Of("record"))
		})
	})
}

func TestAutomaticCreationCanBeOff(t *testing.T) {
	t.Parallel()
	a := startAgent(t, embeddedStores(t), func(s *Settings) { s.Kafka.AutoCreateTopics = false })
	w := dial(t, a.addr)
	r := kmsg.NewPtrMetadataRequest()
	r.AllowAutoTopicCreation = true
	r.Topics = []kmsg.MetadataRequestTopic{{Topic: kmsg.StringPtr("auto")}}
	wantCode(t, "off", ask[*kmsg.MetadataResponse](w, 12, r).Topics[0].ErrorCode, kerr.UnknownTopicOrPartition)
}

func TestCreateTopics(t *testing.T) {
	t.Parallel()
	a := startAgent(t, embeddedStores(t), func(s *Settings) { s.Kafka.Configs["num.partitions"] = "4" })
	w := dial(t, a.addr)
	makeTopic(w, "there", 1)
	config := func(name, value string) []kmsg.CreateTopicsRequestTopicConfig {
		return []kmsg.CreateTopicsRequestTopicConfig{{Name: name, Value: &value}}
	}
	assign := func(partitions ...int32) (all []kmsg.CreateTopicsRequestTopicReplicaAssignment) {
		for _, p := range partitions {
			all = append(all, kmsg.CreateTopicsRequestTopicReplicaAssignment{Partition: p, Replicas: []int32{a.node.Agent.Self().NodeID}})
		}
		return all
	}
	for _, test := range []struct {
		name  string
		topic kmsg.CreateTopicsRequestTopic
		want  *kerr.Error
		parts int32
	}{
		{"defaults", kmsg.CreateTopicsRequestTopic{NumPartitions: -1, ReplicationFactor: -1}, nil, 4},
		{"counts", kmsg.CreateTopicsRequestTopic{NumPartitions: 7, ReplicationFactor: 3}, nil, 7},
		{"no partitions", kmsg.CreateTopicsRequestTopic{NumPartitions: 0, ReplicationFactor: 1}, kerr.InvalidPartitions, 0},
		{"negative", kmsg.CreateTopicsRequestTopic{NumPartitions: -2, ReplicationFactor: 1}, kerr.InvalidPartitions, 0},
		{"too many", kmsg.CreateTopicsRequestTopic{NumPartitions: 1 << 30, ReplicationFactor: 1}, kerr.PolicyViolation, 0},
		{"no replicas", kmsg.CreateTopicsRequestTopic{NumPartitions: 1, ReplicationFactor: 0}, kerr.InvalidReplicationFactor, 0},
		{"assignment", kmsg.CreateTopicsRequestTopic{NumPartitions: -1, ReplicationFactor: -1, ReplicaAssignment: assign(1, 0)}, nil, 2},
		{"assignment with a gap", kmsg.CreateTopicsRequestTopic{NumPartitions: -1, ReplicationFactor: -1, ReplicaAssignment: assign(0, 2)}, kerr.InvalidReplicaAssignment, 0},
		{"assignment and counts", kmsg.CreateTopicsRequestTopic{NumPartitions: 2, ReplicationFactor: 2, ReplicaAssignment: assign(0, 1)}, kerr.InvalidRequest, 0},
		{"config", kmsg.CreateTopicsRequestTopic{NumPartitions: 1, ReplicationFactor: 1, Configs: config("retention.ms", "1000")}, nil, 1},
		{"bad config", kmsg.CreateTopicsRequestTopic{NumPartitions: 1, ReplicationFactor: 1, Configs: config("retention.ms", "soon")}, kerr.InvalidConfig, 0},
		{"unknown config", kmsg.CreateTopicsRequestTopic{NumPartitions: 1, ReplicationFactor: 1, Configs: config("retention", "1")}, kerr.InvalidConfig, 0},
		{"null config", kmsg.CreateTopicsRequestTopic{NumPartitions: 1, ReplicationFactor: 1, Configs: []kmsg.CreateTopicsRequestTopicConfig{{Name: "retention.ms"}}}, kerr.InvalidConfig, 0},
		{"there", kmsg.CreateTopicsRequestTopic{Topic: "there", NumPartitions: 1, ReplicationFactor: 1}, kerr.TopicAlreadyExists, 0},
		{"bad name", kmsg.CreateTopicsRequestTopic{Topic: "a/b", NumPartitions: 1, ReplicationFactor: 1}, kerr.InvalidTopicException, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.topic.Topic == "" {
				test.topic.Topic = strings.ReplaceAll(test.name, " ", "-")
			}
			for _, validateOnly := range []bool{true, false} {
				r := kmsg.NewPtrCreateTopicsRequest()
				r.Topics, r.ValidateOnly = []kmsg.CreateTopicsRequestTopic{test.topic}, validateOnly
				got := ask[*kmsg.CreateTopicsResponse](w, 7, r).Topics[0]
				wantCode(t, fmt.Sprint("validate only: ", validateOnly), got.ErrorCode, test.want)
				if (got.ErrorMessage != nil) != (test.want != nil) {
					t.Errorf("message %s", str(got.ErrorMessage))
				}
				if test.want == nil && (got.NumPartitions != test.parts || got.ReplicationFactor != 1 || len(got.Configs) == 0) {
					t.Errorf("%+v", got)
				}
				if given := got.TopicID != uuid.Nil; given != (test.want == nil) {
					t.Errorf("topic id %s, validate only %v", got.TopicID, validateOnly)
				}
				_, m := metadataOf(w, test.topic.Topic)
				if there := m.ErrorCode == 0; there != (test.name == "there" || test.want == nil && !validateOnly) {
					t.Errorf("there: %v, validate only %v", there, validateOnly)
				}
			}
		})
	}
	t.Run("duplicates", func(t *testing.T) {
		twice := kmsg.CreateTopicsRequestTopic{Topic: "twice", NumPartitions: 1, ReplicationFactor: 1}
		once := kmsg.CreateTopicsRequestTopic{Topic: "once", NumPartitions: 1, ReplicationFactor: 1}
		r := kmsg.NewPtrCreateTopicsRequest()
		r.Topics = []kmsg.CreateTopicsRequestTopic{twice, once, twice}
		resp := ask[*kmsg.CreateTopicsResponse](w, 7, r)
		if len(resp.Topics) != 2 {
			t.Fatalf("%+v", resp)
		}
		wantCode(t, "twice", resp.Topics[0].ErrorCode, kerr.InvalidRequest)
		wantCode(t, "once", resp.Topics[1].ErrorCode, nil)
	})
}

func TestDeleteTopics(t *testing.T) {
	bothStores(t, func(t *testing.T, s stores) {
		a := startAgent(t, s)
		w := dial(t, a.addr)
		remove := func(version int16, topics ...kmsg.DeleteTopicsRequestTopic) []kmsg.DeleteTopicsResponseTopic {
			r := kmsg.NewPtrDeleteTopicsRequest()
			r.Topics = topics
			for _, t := range topics {
				if t.Topic != nil {
					r.TopicNames = append(r.TopicNames, *t.Topic)
				}
			}
			return ask[*kmsg.DeleteTopicsResponse](w, version, r).Topics
		}
		byName := func(n string) kmsg.DeleteTopicsRequestTopic { return kmsg.DeleteTopicsRequestTopic{Topic: &n} }
		byID := func(id uuid.UUID) kmsg.DeleteTopicsRequestTopic { return kmsg.DeleteTopicsRequestTopic{TopicID: id} }

		one, two := makeTopic(w, "one", 1), makeTopic(w, "two", 1)
		mustProduce(w, one, 0, batchtest.Of("old"))
		wantCode(t, "v1", remove(1, byName("one"))[0].ErrorCode, nil)
		if got := remove(6, byID(two.id))[0]; got.ErrorCode != 0 || str(got.Topic) != "two" {
			t.Errorf("by id: %+v", got)
		}
		for name, test := range map[string]struct {
			topics []kmsg.DeleteTopicsRequestTopic
			want   *kerr.Error
		}{
			"gone name":    {[]kmsg.DeleteTopicsRequestTopic{byName("one")}, kerr.UnknownTopicOrPartition},
			"gone id":      {[]kmsg.DeleteTopicsRequestTopic{byID(two.id)}, kerr.UnknownTopicID},
			"both":         {[]kmsg.DeleteTopicsRequestTopic{{Topic: &one.name, TopicID: one.id}}, kerr.InvalidRequest},
			"neither":      {[]kmsg.DeleteTopicsRequestTopic{{}}, kerr.InvalidRequest},
			"a name twice": {[]kmsg.DeleteTopicsRequestTopic{byName("x"), byName("x")}, kerr.InvalidRequest},
			"an id twice":  {[]kmsg.DeleteTopicsRequestTopic{byID(one.id), byID(one.id)}, kerr.InvalidRequest},
		} {
			got := remove(6, test.topics...)
			if len(got) != 1 {
				t.Fatalf("%s: %+v", name, got)
			}
			wantCode(t, name, got[0].ErrorCode, test.want)
		}

		if a.holds(one, 0) {
			t.Error("the agent holds a lease of the deleted topic")
		}

		// A topic of the same name is another one: nothing of the old is left.
		again := makeTopic(w, "one", 1)
		if again.id == one.id {
			t.Error("the topic has the id of the old one")
		}
		if n := mustProduce(w, again, 0, batchtest.Of("new")); n != 0 {
			t.Errorf("first offset %d", n)
		}
		if got := values(readLog(w, again, 0)); !slices.Equal(got, []string{"new"}) {
			t.Errorf("log %q", got)
		}
		wantCode(t, "fetch by the old id", fetchOne(w, fetchRequest(13, topic{id: one.id}, 0, 0)).ErrorCode, kerr.UnknownTopicID)
	})
}

func TestCreatePartitions(t *testing.T) {
	t.Parallel()
	a := startAgent(t, embeddedStores(t))
	w := dial(t, a.addr)
	tp := makeTopic(w, "grow", 2)
	grow := func(validateOnly bool, topics ...kmsg.CreatePartitionsRequestTopic) []kmsg.CreatePartitionsResponseTopic {
		r := kmsg.NewPtrCreatePartitionsRequest()
		r.Topics, r.ValidateOnly = topics, validateOnly
		return ask[*kmsg.CreatePartitionsResponse](w, 3, r).Topics
	}
	to := func(n int32) kmsg.CreatePartitionsRequestTopic {
		return kmsg.CreatePartitionsRequestTopic{Topic: "grow", Count: n}
	}
	assigned := to(4)
	assigned.Assignment = []kmsg.CreatePartitionsRequestTopicAssignment{{Replicas: []int32{1}}}
	for _, test := range []struct {
		name         string
		topics       []kmsg.CreatePartitionsRequestTopic
		validateOnly bool
		want         *kerr.Error
		now          int
	}{
		{"fewer", []kmsg.CreatePartitionsRequestTopic{to(1)}, false, kerr.InvalidPartitions, 2},
		{"as many", []kmsg.CreatePartitionsRequestTopic{to(2)}, false, kerr.InvalidPartitions, 2},
		{"too many", []kmsg.CreatePartitionsRequestTopic{to(1 << 30)}, false, kerr.InvalidPartitions, 2},
		{"unknown", []kmsg.CreatePartitionsRequestTopic{{Topic: "nope", Count: 3}}, false, kerr.UnknownTopicOrPartition, 2},
		{"twice", []kmsg.CreatePartitionsRequestTopic{to(3), to(4)}, false, kerr.InvalidRequest, 2},
		{"short assignment", []kmsg.CreatePartitionsRequestTopic{assigned}, false, kerr.InvalidReplicaAssignment, 2},
		{"validate only", []kmsg.CreatePartitionsRequestTopic{to(3)}, true, nil, 2},
		{"more", []kmsg.CreatePartitionsRequestTopic{to(3)}, false, nil, 3},
	} {
		got := grow(test.validateOnly, test.topics...)
		if len(got) != 1 {
			t.Fatalf("%s: %+v", test.name, got)
		}
		wantCode(t, test.name, got[0].ErrorCode, test.want)
		if _, m := metadataOf(w, "grow"); len(m.Partitions) != test.now {
			t.Errorf("%s: %d partitions, want %d", test.name, len(m.Partitions), test.now)
		}
	}
	mustProduce(w, tp, 2, batchtest.Of("record"))
}

func TestDescribeTopicPartitionsPages(t *testing.T) {
	t.Parallel()
	a := startAgent(t, embeddedStores(t))
	w := dial(t, a.addr)
	for i, n := range []int32{3, 1, 5} {
		makeTopic(w, fmt.Sprint("t", i), n)
	}
	describe := func(limit int32, cursor *kmsg.DescribeTopicPartitionsRequestCursor, names ...string) *kmsg.DescribeTopicPartitionsResponse {
		r := kmsg.NewPtrDescribeTopicPartitionsRequest()
		r.ResponsePartitionLimit, r.Cursor = limit, cursor
		for _, n := range names {
			r.Topics = append(r.Topics, kmsg.DescribeTopicPartitionsRequestTopic{Topic: n})
		}
		return ask[*kmsg.DescribeTopicPartitionsResponse](w, 0, r)
	}
	for _, names := range [][]string{nil, {"t2", "t0", "t1", "t0"}} {
		for limit := int32(1); limit <= 10; limit++ {
			var got []string
			var cursor *kmsg.DescribeTopicPartitionsRequestCursor
			for {
				resp := describe(limit, cursor, names...)
				n := int32(0)
				for _, topic := range resp.Topics {
					wantCode(t, *topic.Topic, topic.ErrorCode, nil)
					for _, p := range topic.Partitions {
						got = append(got, fmt.Sprintf("%s-%d", *topic.Topic, p.Partition))
						n++
					}
				}
				if n > limit {
					t.Fatalf("%d partitions in a page of %d", n, limit)
				}
				if resp.NextCursor == nil {
					break
				}
				cursor = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: resp.NextCursor.Topic, Partition: resp.NextCursor.Partition}
			}
			want := []string{"t0-0", "t0-1", "t0-2", "t1-0", "t2-0", "t2-1", "t2-2", "t2-3", "t2-4"}
			if !slices.Equal(got, want) {
				t.Errorf("topics %v in pages of %d: %v", names, limit, got)
			}
		}
	}
	resp := describe(10, nil, "nope", "not valid")
	wantCode(t, "unknown", resp.Topics[0].ErrorCode, kerr.UnknownTopicOrPartition)
	wantCode(t, "invalid", resp.Topics[1].ErrorCode, kerr.InvalidTopicException)
	resp = describe(10, &kmsg.DescribeTopicPartitionsRequestCursor{Topic: "t0", Partition: -1}, "t0")
	wantCode(t, "negative cursor", resp.Topics[0].ErrorCode, kerr.InvalidRequest)
}

func TestDescribeCluster(t *testing.T) {
	t.Parallel()
	s := sharedStores(t)
	first := startAgent(t, s, named("first"))
	startAgent(t, s, named("second"), func(s *Settings) { s.AvailabilityZone = "zone-b" })
	w := dial(t, first.addr)
	r := kmsg.NewPtrDescribeClusterRequest()
	r.EndpointType = 1
	eventually(t, "both agents are listed", func() bool { return len(ask[*kmsg.DescribeClusterResponse](w, 2, r).Brokers) == 2 })
	resp := ask[*kmsg.DescribeClusterResponse](w, 2, r)
	if resp.ClusterID == "" || resp.ControllerID != resp.Brokers[0].NodeID || str(resp.Brokers[1].Rack) != "zone-b" {
		t.Errorf("%+v", resp)
	}
	r.EndpointType = 2
	wantCode(t, "controllers", ask[*kmsg.DescribeClusterResponse](w, 1, r).ErrorCode, kerr.UnsupportedEndpointType)
}
