package main

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

// everyAdminAPI makes requests of the APIs that only administrators use; see everyAPI.
func everyAdminAPI(name string) map[kmsg.Key]func(version int16) kmsg.Request {
	return map[kmsg.Key]func(int16) kmsg.Request{
		kmsg.DescribeACLs: func(int16) kmsg.Request {
			r := kmsg.NewPtrDescribeACLsRequest()
			r.ResourceType, r.Operation, r.PermissionType = kmsg.ACLResourceTypeAny, kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
			return r
		},
		kmsg.CreateACLs: func(int16) kmsg.Request {
			r := kmsg.NewPtrCreateACLsRequest()
			r.Creations = []kmsg.CreateACLsRequestCreation{{
				ResourceType: kmsg.ACLResourceTypeTopic, ResourceName: name, ResourcePatternType: kmsg.ACLResourcePatternTypeLiteral,
				Principal: "User:x", Host: "*", Operation: kmsg.ACLOperationRead, PermissionType: kmsg.ACLPermissionTypeAllow,
			}}
			return r
		},
		kmsg.DeleteACLs: func(int16) kmsg.Request {
			r := kmsg.NewPtrDeleteACLsRequest()
			r.Filters = []kmsg.DeleteACLsRequestFilter{{
				ResourceType: kmsg.ACLResourceTypeAny, ResourcePatternType: kmsg.ACLResourcePatternTypeAny,
				Operation: kmsg.ACLOperationAny, PermissionType: kmsg.ACLPermissionTypeAny,
			}}
			return r
		},
		kmsg.DescribeLogDirs: func(int16) kmsg.Request {
			r := kmsg.NewPtrDescribeLogDirsRequest()
			r.Topics = []kmsg.DescribeLogDirsRequestTopic{{Topic: name, Partitions: []int32{0}}}
			return r
		},
		kmsg.ElectLeaders: func(int16) kmsg.Request {
			r := kmsg.NewPtrElectLeadersRequest()
			r.Topics = []kmsg.ElectLeadersRequestTopic{{Topic: name, Partitions: []int32{0}}}
			return r
		},
		kmsg.AlterPartitionAssignments: func(int16) kmsg.Request {
			r := kmsg.NewPtrAlterPartitionAssignmentsRequest()
			r.Topics = []kmsg.AlterPartitionAssignmentsRequestTopic{{
				Topic: name, Partitions: []kmsg.AlterPartitionAssignmentsRequestTopicPartition{{Replicas: []int32{1}}},
			}}
			return r
		},
		kmsg.ListPartitionReassignments: func(int16) kmsg.Request { return kmsg.NewPtrListPartitionReassignmentsRequest() },
		kmsg.DescribeClientQuotas:       func(int16) kmsg.Request { return kmsg.NewPtrDescribeClientQuotasRequest() },
		kmsg.AlterClientQuotas: func(int16) kmsg.Request {
			r := kmsg.NewPtrAlterClientQuotasRequest()
			r.Entries = []kmsg.AlterClientQuotasRequestEntry{{Entity: []kmsg.AlterClientQuotasRequestEntryEntity{{Type: "user"}}}}
			return r
		},
		kmsg.DescribeUserSCRAMCredentials: func(int16) kmsg.Request {
			r := kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
			r.Users = []kmsg.DescribeUserSCRAMCredentialsRequestUser{{Name: "x"}}
			return r
		},
		kmsg.AlterUserSCRAMCredentials: func(int16) kmsg.Request {
			r := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
			r.Deletions = []kmsg.AlterUserSCRAMCredentialsRequestDeletion{{Name: "x", Mechanism: 1}}
			return r
		},
		kmsg.DescribeProducers: func(int16) kmsg.Request {
			r := kmsg.NewPtrDescribeProducersRequest()
			r.Topics = []kmsg.DescribeProducersRequestTopic{{Topic: name, Partitions: []int32{0}}}
			return r
		},
		kmsg.UnregisterBroker: func(int16) kmsg.Request {
			r := kmsg.NewPtrUnregisterBrokerRequest()
			r.BrokerID = 99
			return r
		},
		kmsg.ListConfigResources: func(int16) kmsg.Request { return kmsg.NewPtrListConfigResourcesRequest() },
	}
}

// adminCodes are the codes with which everyAdminAPI's requests are answered.
var adminCodes = map[kmsg.Key]*kerr.Error{
	kmsg.DescribeACLs:                 kerr.SecurityDisabled,
	kmsg.CreateACLs:                   kerr.SecurityDisabled,
	kmsg.DeleteACLs:                   kerr.SecurityDisabled,
	kmsg.ElectLeaders:                 kerr.ElectionNotNeeded,
	kmsg.AlterClientQuotas:            kerr.InvalidRequest,
	kmsg.DescribeUserSCRAMCredentials: kerr.ResourceNotFound,
	kmsg.AlterUserSCRAMCredentials:    kerr.InvalidRequest,
	kmsg.UnregisterBroker:             kerr.BrokerIDNotRegistered,
}

// logDirs asks an agent for the partitions that it shows, with their sizes; without topics it is asked for all.
func logDirs(w *wire, topics ...kmsg.DescribeLogDirsRequestTopic) map[string]int64 {
	w.t.Helper()
	r := kmsg.NewPtrDescribeLogDirsRequest()
	r.Topics = topics
	resp := ask[*kmsg.DescribeLogDirsResponse](w, 4, r)
	wantCode(w.t, "log dirs", resp.ErrorCode, nil)
	if len(resp.Dirs) != 1 || resp.Dirs[0].Dir == "" || strings.Contains(resp.Dirs[0].Dir, "secret_key=m") ||
		resp.Dirs[0].ErrorCode != 0 || resp.Dirs[0].TotalBytes != -1 || resp.Dirs[0].UsableBytes != -1 {
		w.t.Errorf("%+v", resp.Dirs)
	}
	sizes := map[string]int64{}
	for _, t := range resp.Dirs[0].Topics {
		for _, p := range t.Partitions {
			sizes[fmt.Sprint(t.Topic, "-", p.Partition)] = p.Size
		}
	}
	return sizes
}

func TestLogDirs(t *testing.T) {
	bothStores(t, func(t *testing.T, s stores) {
		w := dial(t, startAgent(t, s).addr)
		tp := makeTopic(w, "sizes", 2)
		one := batchtest.Of("record")
		for range 3 {
			mustProduce(w, tp, 1, one)
		}
		asked := kmsg.DescribeLogDirsRequestTopic{Topic: tp.name, Partitions: []int32{1, 0, 1, -1, 9}}
		for what, got := range map[string]map[string]int64{
			"all":   logDirs(w),
			"asked": logDirs(w, asked, kmsg.DescribeLogDirsRequestTopic{Topic: "nope", Partitions: []int32{0}}),
		} {
			if len(got) != 2 || got["sizes-0"] != 0 || got["sizes-1"] != int64(3*len(one)) {
				t.Errorf("%s: %v", what, got)
			}
		}
		if got := logDirs(w, kmsg.DescribeLogDirsRequestTopic{Topic: "nope", Partitions: []int32{0}}); len(got) != 0 {
			t.Errorf("of an unknown topic: %v", got)
		}
	})
}

// A partition is shown by the agent that Metadata names, and by no other.
func TestLogDirsCountAPartitionOnce(t *testing.T) {
	t.Parallel()
	s := sharedStores(t)
	first, second := startAgent(t, s, named("first")), startAgent(t, s, named("second"))
	w1, w2 := dial(t, first.addr), dial(t, second.addr)
	const partitions = 20
	tp := makeShared(w1, w2, "spread", partitions)
	for p := range int32(partitions / 2) { // the others are led by nobody
		mustProduce(w1, tp, p, batchtest.Of("record"))
	}
	eventually(t, "each partition is shown once, and some by each", func() bool {
		a, b := logDirs(w1), logDirs(w2)
		for p := range a {
			if _, twice := b[p]; twice {
				return false
			}
		}
		return len(a)+len(b) == partitions && len(a) >= partitions/2 && len(b) > 0
	})
}

// What an administrator does at one agent is there when any other is asked.
func TestAdministratorsSeeWhatTheyDid(t *testing.T) {
	t.Parallel()
	s := sharedStores(t)
	w1, w2 := dial(t, startAgent(t, s, named("first")).addr), dial(t, startAgent(t, s, named("second")).addr)
	for i := range 5 {
		tp := makeTopic(w1, fmt.Sprint("made-", i), 1, "retention.ms", "1")
		configs, code := describeConfigs(w2, ofTopic, tp.name, "retention.ms")
		wantCode(t, "describe", code, nil)
		if got := str(configs["retention.ms"].Value); got != "1" {
			t.Errorf("retention.ms=%s", got)
		}
		wantCode(t, "alter", incrementally(w2, false, ofTopic, tp.name, change{opSet, "retention.ms", "2"}), nil)
		configs, _ = describeConfigs(w1, ofTopic, tp.name, "retention.ms")
		if got := str(configs["retention.ms"].Value); got != "2" {
			t.Errorf("retention.ms=%s", got)
		}
	}
}

func TestProducersAreDescribed(t *testing.T) {
	bothStores(t, func(t *testing.T, s stores) {
		w := dial(t, startAgent(t, s).addr)
		tp := makeTopic(w, "producers", 2)
		id := producerID(w)
		mustProduce(w, tp, 0, sequenced(id, 0, 0, "a", "b"))
		mustProduce(w, tp, 0, sequenced(id, 0, 2, "c"))
		r := kmsg.NewPtrDescribeProducersRequest()
		r.Topics = []kmsg.DescribeProducersRequestTopic{
			{Topic: tp.name, Partitions: []int32{0, 1, 9}}, {Topic: "nope", Partitions: []int32{0}}, {Topic: "no pe", Partitions: []int32{0}},
		}
		resp := ask[*kmsg.DescribeProducersResponse](w, 0, r)
		for i, want := range []*kerr.Error{nil, nil, kerr.UnknownTopicOrPartition} {
			wantCode(t, fmt.Sprint(i), resp.Topics[0].Partitions[i].ErrorCode, want)
		}
		wantCode(t, "unknown topic", resp.Topics[1].Partitions[0].ErrorCode, kerr.UnknownTopicOrPartition)
		wantCode(t, "bad name", resp.Topics[2].Partitions[0].ErrorCode, kerr.InvalidTopicException)
		active := resp.Topics[0].Partitions[0].ActiveProducers
		if len(active) != 1 || active[0].ProducerID != id || active[0].ProducerEpoch != 0 || active[0].LastSequence != 2 ||
			active[0].LastTimestamp <= 0 || active[0].CoordinatorEpoch != -1 || active[0].CurrentTxnStartOffset != -1 {
			t.Errorf("%+v", active)
		}
		if idle := resp.Topics[0].Partitions[1].ActiveProducers; len(idle) != 0 {
			t.Errorf("%+v", idle)
		}
	})
}

func TestReplicasAreAgents(t *testing.T) {
	t.Parallel()
	a := startAgent(t, embeddedStores(t))
	w := dial(t, a.addr)
	tp := makeTopic(w, "replicas", 1)
	self := a.node.Agent.Self().NodeID
	for _, test := range []struct {
		name      string
		topic     string
		partition int32
		replicas  []int32
		want      *kerr.Error
	}{
		{"what is there", tp.name, 0, []int32{self}, nil},
		{"cancel", tp.name, 0, nil, kerr.NoReassignmentInProgress},
		{"nobody", tp.name, 0, []int32{}, kerr.InvalidReplicaAssignment},
		{"twice", tp.name, 0, []int32{self, self}, kerr.InvalidReplicaAssignment},
		{"unknown agent", tp.name, 0, []int32{self + 1}, kerr.InvalidReplicaAssignment},
		{"unknown partition", tp.name, 1, []int32{self}, kerr.UnknownTopicOrPartition},
		{"unknown topic", "nope", 0, []int32{self}, kerr.UnknownTopicOrPartition},
	} {
		r := kmsg.NewPtrAlterPartitionAssignmentsRequest()
		r.Topics = []kmsg.AlterPartitionAssignmentsRequestTopic{{
			Topic: test.topic, Partitions: []kmsg.AlterPartitionAssignmentsRequestTopicPartition{{Partition: test.partition, Replicas: test.replicas}},
		}}
		p := ask[*kmsg.AlterPartitionAssignmentsResponse](w, 1, r).Topics[0].Partitions[0]
		wantCode(t, test.name, p.ErrorCode, test.want)
		if (p.ErrorMessage != nil) != (test.want != nil) {
			t.Errorf("%s: message %q", test.name, str(p.ErrorMessage))
		}
	}
	all := kmsg.NewPtrElectLeadersRequest()
	all.Topics = nil
	if got := ask[*kmsg.ElectLeadersResponse](w, 2, all); got.ErrorCode != 0 || len(got.Topics) != 0 {
		t.Errorf("%+v", got)
	}
	some := kmsg.NewPtrElectLeadersRequest()
	some.Topics = []kmsg.ElectLeadersRequestTopic{{Topic: tp.name, Partitions: []int32{0, 1}}, {Topic: "nope", Partitions: []int32{0}}}
	got := ask[*kmsg.ElectLeadersResponse](w, 2, some)
	wantCode(t, "there", got.Topics[0].Partitions[0].ErrorCode, kerr.ElectionNotNeeded)
	wantCode(t, "unknown partition", got.Topics[0].Partitions[1].ErrorCode, kerr.UnknownTopicOrPartition)
	wantCode(t, "unknown topic", got.Topics[1].Partitions[0].ErrorCode, kerr.UnknownTopicOrPartition)
}

// An agent that is gone can be taken off the list; one that runs can't.
func TestUnregister(t *testing.T) {
	t.Parallel()
	s := sharedStores(t)
	a := startAgent(t, s, named("stays"), hasty)
	w := dial(t, a.addr)
	// One that never attended is never buried: it is a fenced one for a while.
	node, err := a.store.Register(t.Context(), metadata.Agent{ID: "gone", Session: uuid.New(), Host: "127.0.0.1", Port: 1})
	if err != nil {
		t.Fatal(err)
	}
	unregister := func(node int32) int16 {
		r := kmsg.NewPtrUnregisterBrokerRequest()
		r.BrokerID = node
		return ask[*kmsg.UnregisterBrokerResponse](w, 0, r).ErrorCode
	}
	wantCode(t, "a running agent", unregister(node), kerr.InvalidRequest)
	described := func(fenced bool) (nodes, marked int) {
		r := kmsg.NewPtrDescribeClusterRequest()
		r.EndpointType, r.IncludeFencedBrokers = 1, fenced
		for _, b := range ask[*kmsg.DescribeClusterResponse](w, 2, r).Brokers {
			nodes++
			if b.IsFenced {
				marked++
			}
		}
		return nodes, marked
	}
	eventually(t, "it is fenced", func() bool {
		nodes, fenced := described(true)
		return nodes == 2 && fenced == 1
	})
	if nodes, _ := described(false); nodes != 1 {
		t.Errorf("%d agents without those that are fenced", nodes)
	}
	wantCode(t, "unregister", unregister(node), nil)
	wantCode(t, "again", unregister(node), kerr.BrokerIDNotRegistered)
	if resp, _ := metadataOf(w, "any"); len(resp.Brokers) != 1 {
		t.Errorf("listed: %+v", resp.Brokers)
	}
}

func TestConfigsOfOtherResources(t *testing.T) {
	bothStores(t, func(t *testing.T, s stores) {
		a := startAgent(t, s)
		w := dial(t, a.addr)
		self := fmt.Sprint(a.node.Agent.Self().NodeID)
		const (
			ofGroup   = kmsg.ConfigResourceTypeGroupConfig
			ofMetrics = kmsg.ConfigResourceTypeClientMetrics
			ofLoggers = kmsg.ConfigResourceTypeBrokerLogger
		)
		for _, step := range []struct {
			name     string
			kind     kmsg.ConfigResourceType
			resource string
			change   change
			want     *kerr.Error
			value    string // afterwards
			source   kmsg.ConfigSource
		}{
			{"group", ofGroup, "g", change{opSet, "consumer.session.timeout.ms", "50000"}, nil, "50000", kmsg.ConfigSourceGroupConfig},
			{"group, too short", ofGroup, "g", change{opSet, "consumer.session.timeout.ms", "1"}, kerr.InvalidConfig, "50000", kmsg.ConfigSourceGroupConfig},
			{"group, back", ofGroup, "g", change{opDelete, "consumer.session.timeout.ms", "-"}, nil, "45000", kmsg.ConfigSourceDefaultConfig},
			{"group, unknown", ofGroup, "g", change{opSet, "nope", "1"}, kerr.InvalidConfig, "", 0},
			{"metrics", ofMetrics, "m", change{opSet, "interval.ms", "1000"}, nil, "1000", kmsg.ConfigSourceClientMetricsConfig},
			{"metrics, unknown", ofMetrics, "m", change{opSet, "nope", "1"}, kerr.InvalidRequest, "", 0},
			{"agent", ofBroker, self, change{opSet, "message.max.bytes", "1234"}, nil, "1234", kmsg.ConfigSourceDynamicBrokerConfig},
			{"agent, fixed", ofBroker, self, change{opSet, "broker.id", "7"}, kerr.InvalidRequest, self, kmsg.ConfigSourceStaticBrokerConfig},
			{"logger", ofLoggers, self, change{opSet, "root", "ERROR"}, nil, "ERROR", kmsg.ConfigSourceDynamicBrokerLoggerConfig},
			{"logger, removed", ofLoggers, self, change{opDelete, "root", "-"}, kerr.InvalidRequest, "ERROR", kmsg.ConfigSourceDynamicBrokerLoggerConfig},
			{"logger, bad level", ofLoggers, self, change{opSet, "root", "LOUD"}, kerr.InvalidConfig, "ERROR", kmsg.ConfigSourceDynamicBrokerLoggerConfig},
			{"logger, unknown", ofLoggers, self, change{opSet, "nope", "INFO"}, kerr.InvalidConfig, "", 0},
		} {
			wantCode(t, step.name, incrementally(w, false, step.kind, step.resource, step.change), step.want)
			got, code := describeConfigs(w, step.kind, step.resource, step.change.name)
			wantCode(t, step.name, code, nil)
			if c := got[step.change.name]; str(c.Value) != step.value && step.value != "" || c.Source != step.source {
				t.Errorf("%s: %s from %v, want %s", step.name, str(c.Value), c.Source, step.value)
			}
		}
		if a.level.Level() != slog.LevelError {
			t.Errorf("the log's level is %v", a.level.Level())
		}
		tp := makeTopic(w, "smaller", 1)
		wantCode(t, "the agent's own limit", produce(w, tp, 0, batchtest.Of(strings.Repeat("x", 2000))).ErrorCode, kerr.MessageTooLarge)

		wantCode(t, "interval", incrementally(w, false, ofGroup, "beats", change{opSet, "consumer.heartbeat.interval.ms", "6000"}), nil)
		join := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		join.Group, join.MemberID, join.RebalanceTimeoutMillis, join.SubscribedTopicNames = "beats", "member", 60_000, []string{tp.name}
		join.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		joined := ask[*kmsg.ConsumerGroupHeartbeatResponse](w, 1, join)
		wantCode(t, "join", joined.ErrorCode, nil)
		if joined.HeartbeatIntervalMillis != 6000 {
			t.Errorf("a member of the group beats every %d ms", joined.HeartbeatIntervalMillis)
		}

		for _, bad := range []struct {
			kind kmsg.ConfigResourceType
			name string
			want *kerr.Error
		}{
			{ofGroup, "", kerr.InvalidRequest},
			{ofGroup, "nul\x00", kerr.InvalidRequest},
			{ofMetrics, "", kerr.InvalidRequest},
			{ofLoggers, "", kerr.InvalidRequest},
			{ofLoggers, "99", kerr.InvalidRequest},
			{ofBroker, "99", kerr.BrokerIDNotRegistered},
			{ofBroker, "-1", kerr.InvalidRequest},
			{ofBroker, "x", kerr.InvalidRequest},
			{ofTopic, "", kerr.InvalidRequest},
			{kmsg.ConfigResourceTypeUnknown, "x", kerr.InvalidRequest},
		} {
			wantCode(t, fmt.Sprintf("%v %q", bad.kind, bad.name), incrementally(w, true, bad.kind, bad.name), bad.want)
		}
		listed := func(version int16, kinds ...int8) (names []string, code int16) {
			r := kmsg.NewPtrListConfigResourcesRequest()
			r.ResourceTypes = kinds
			resp := ask[*kmsg.ListConfigResourcesResponse](w, version, r)
			for _, c := range resp.ConfigResources {
				names = append(names, c.Name)
			}
			return names, resp.ErrorCode
		}
		for _, test := range []struct {
			version int16
			kinds   []int8
			want    string
			code    *kerr.Error
		}{
			{0, nil, "[m]", nil},
			{1, nil, fmt.Sprintf("[smaller %s %[1]s m beats]", self), nil},
			{1, []int8{int8(ofGroup)}, "[beats]", nil},
			{1, []int8{int8(ofTopic), 99}, "[]", kerr.UnsupportedVersion},
		} {
			names, code := listed(test.version, test.kinds...)
			wantCode(t, fmt.Sprint(test.kinds), code, test.code)
			if fmt.Sprint(names) != test.want {
				t.Errorf("v%d of %v: %v, want %s", test.version, test.kinds, names, test.want)
			}
		}
	})
}
