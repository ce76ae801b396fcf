package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

// ofGroup puts an agent into a group. All agents of a test have the same rule for
// new topics.
func ofGroup(group string) func(*Settings) {
	return func(s *Settings) { s.AgentGroup, s.TopicGroups = group, config.TopicGroups{"billing-": "blue"} }
}

// agentsOfGroups starts an agent of each group on shared stores, and returns a
// connection to each.
func agentsOfGroups(t *testing.T, s stores, groups ...string) (all []*wire) {
	for _, g := range groups {
		all = append(all, dial(t, startAgent(t, s, named("of-"+g), ofGroup(g)).addr))
	}
	return all
}

// createIn asks for a topic in an agent group, or in whichever it is by default.
func createIn(w *wire, name string, group *string) kmsg.CreateTopicsResponseTopic {
	w.t.Helper()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, 1, 1
	if group != nil {
		t.Configs = []kmsg.CreateTopicsRequestTopicConfig{{Name: config.AgentGroup, Value: group}}
	}
	r := kmsg.NewPtrCreateTopicsRequest()
	r.Topics = []kmsg.CreateTopicsRequestTopic{t}
	return ask[*kmsg.CreateTopicsResponse](w, 7, r).Topics[0]
}

// topicsOf are the topics that an agent shows.
func topicsOf(w *wire) (names []string) {
	w.t.Helper()
	for _, t := range ask[*kmsg.MetadataResponse](w, 12, kmsg.NewPtrMetadataRequest()).Topics {
		names = append(names, *t.Topic)
	}
	return names
}

func wantTopics(w *wire, want ...string) {
	w.t.Helper()
	if got := topicsOf(w); !slices.Equal(got, want) {
		w.t.Errorf("topics %v, want %v", got, want)
	}
}

func TestTopicsAreMadeInAgentGroups(t *testing.T) {
	t.Parallel()
	all := agentsOfGroups(t, sharedStores(t), "", "blue", "green")
	plain, blue, green := all[0], all[1], all[2]
	for _, test := range []struct {
		at    *wire
		topic string
		group string // "-": none is asked for
		want  *kerr.Error
	}{
		{plain, "orders", "-", nil},
		{blue, "orders", "-", nil}, // another one
		{blue, "orders", "blue", kerr.TopicAlreadyExists},
		{blue, "own", "blue", nil},
		{blue, "forbidden", "green", kerr.PolicyViolation},
		{blue, "forbidden", "", kerr.PolicyViolation},
		{blue, "malformed", "no group", kerr.InvalidConfig},
		{plain, "audit", "green", nil},
		{plain, "audit", "green", kerr.TopicAlreadyExists},
		{plain, "audit", "", nil},
		{plain, "malformed", strings.Repeat("x", 65), kerr.InvalidConfig},
		{plain, "billing-1", "-", nil},
		{plain, "billing-1", "-", kerr.TopicAlreadyExists},
		{blue, "billing-2", "-", nil},
		{green, "billing-3", "-", kerr.PolicyViolation},
		{green, "billing-3", "green", nil}, // it says so itself
	} {
		group := &test.group
		if test.group == "-" {
			group = nil
		}
		got := createIn(test.at, test.topic, group)
		wantCode(t, fmt.Sprintf("%s in %q", test.topic, test.group), got.ErrorCode, test.want)
		if message := str(got.ErrorMessage); test.at == green && strings.Contains(message, "blue") || test.at == blue && strings.Contains(message, "green") {
			t.Errorf("%s: a client is told of another group: %s", test.topic, message)
		}
		if test.want == nil && test.group != "-" {
			i := slices.IndexFunc(got.Configs, func(c kmsg.CreateTopicsResponseTopicConfig) bool { return c.Name == config.AgentGroup })
			if i < 0 || str(got.Configs[i].Value) != test.group {
				t.Errorf("%s in %q: %+v", test.topic, test.group, got.Configs)
			}
		}
	}
	wantTopics(plain, "audit", "orders")
	wantTopics(blue, "billing-1", "billing-2", "orders", "own")
	wantTopics(green, "audit", "billing-3")

	auto := func(w *wire, name string) int16 {
		r := kmsg.NewPtrMetadataRequest()
		r.AllowAutoTopicCreation, r.Topics = true, []kmsg.MetadataRequestTopic{{Topic: &name}}
		return ask[*kmsg.MetadataResponse](w, 12, r).Topics[0].ErrorCode
	}
	wantCode(t, "in its own group", auto(blue, "billing-4"), nil)
	wantCode(t, "in another group", auto(plain, "billing-5"), kerr.UnknownTopicOrPartition)
	wantCode(t, "in another group, where it may not", auto(green, "billing-6"), kerr.PolicyViolation)
	wantTopics(blue, "billing-1", "billing-2", "billing-4", "billing-5", "orders", "own")
}

func TestTopicsMoveBetweenAgentGroups(t *testing.T) {
	t.Parallel()
	s := sharedStores(t)
	all := agentsOfGroups(t, s, "", "blue")
	plain, blue := all[0], all[1]
	toGroup := func(w *wire, validateOnly bool, name, group string) int16 {
		return incrementally(w, validateOnly, ofTopic, name, change{opSet, config.AgentGroup, group}, change{opSet, "retention.ms", "12345"})
	}
	shown := func(w *wire, name string) string {
		c, _ := describeConfigs(w, ofTopic, name, config.AgentGroup)
		g := c[config.AgentGroup]
		return fmt.Sprintf("%s from %s, read-only %v", str(g.Value), g.Source, g.ReadOnly)
	}
	moved := makeTopic(plain, "moved", 1)
	mustProduce(plain, moved, 0, batchtest.Of("one", "two"))
	makeTopic(plain, "taken", 1)
	makeTopic(blue, "taken", 1)
	makeTopic(blue, "own", 1, "retention.bytes", "12345")

	wantCode(t, "validated", toGroup(plain, true, "moved", "blue"), nil)
	wantCode(t, "malformed", toGroup(plain, false, "moved", "no group"), kerr.InvalidConfig)
	wantCode(t, "its name is taken", toGroup(plain, false, "taken", "blue"), kerr.TopicAlreadyExists)
	wantCode(t, "where it is", toGroup(plain, false, "taken", ""), nil)
	wantTopics(plain, "moved", "taken")
	if got := shown(plain, "taken"); got != " from DEFAULT_CONFIG, read-only false" {
		t.Error(got)
	}

	wantCode(t, "moved", toGroup(plain, false, "moved", "blue"), nil)
	wantTopics(plain, "taken")
	wantTopics(blue, "moved", "own", "taken")
	if got := shown(blue, "moved"); got != "blue from DYNAMIC_TOPIC_CONFIG, read-only true" {
		t.Error(got)
	}
	if c, _ := describeConfigs(blue, ofTopic, "moved", "retention.ms"); str(c["retention.ms"].Value) != "12345" {
		t.Errorf("what was altered with the move: %+v", c)
	}
	wantCode(t, "produced where it was", produce(plain, moved, 0, batchtest.Of("late")).ErrorCode, kerr.UnknownTopicOrPartition)
	wantCode(t, "fetched where it was", fetchOne(plain, fetchRequest(13, moved, 0, 0)).ErrorCode, kerr.UnknownTopicID)
	if base := mustProduce(blue, moved, 0, batchtest.Of("three")); base != 2 {
		t.Errorf("the log goes on at %d", base)
	}
	if got := values(readLog(blue, moved, 0)); !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("moved with the records %v", got)
	}

	for _, group := range []string{"", "green"} {
		wantCode(t, "given away to "+group, toGroup(blue, false, "own", group), kerr.PolicyViolation)
	}
	wantCode(t, "to its own group", toGroup(blue, false, "own", "blue"), nil)
	wantCode(t, "to the default", incrementally(blue, false, ofTopic, "own", change{opDelete, config.AgentGroup, "-"}), nil)
	r := kmsg.NewPtrAlterConfigsRequest()
	r.Resources = []kmsg.AlterConfigsRequestResource{{ResourceType: ofTopic, ResourceName: "own"}}
	wantCode(t, "everything to the default", ask[*kmsg.AlterConfigsResponse](blue, 2, r).Resources[0].ErrorCode, nil)
	wantTopics(blue, "moved", "own", "taken")

	operator := defaultSettings()
	operator.MetadataURL, operator.ObjectURL = s.metadata, s.objects
	if err := moveTopic(t.Context(), operator, "moved", "blue", ""); err != nil {
		t.Fatal(err)
	}
	wantTopics(blue, "own", "taken")
	wantTopics(plain, "moved", "taken")
	if base := mustProduce(plain, moved, 0, batchtest.Of("four")); base != 3 {
		t.Errorf("back again, the log goes on at %d", base)
	}
}

// Two groups have topics and consumer groups of the same names, and clients of
// either find their own.
func TestClientsOfTwoAgentGroups(t *testing.T) {
	t.Parallel()
	s := sharedStores(t)
	const name = "same"
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	ids := map[uuid.UUID]bool{}
	for round := range 2 { // in the second the groups have positions
		for _, group := range []string{"", "blue"} {
			agent := startAgent(t, s, named(fmt.Sprint("of-", group, round)), ofGroup(group))
			_, m := metadataOf(dial(t, agent.addr), name)
			client, err := kgo.NewClient(kgo.SeedBrokers(agent.addr), kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic(name), kgo.MetadataMinAge(10*time.Millisecond),
				kgo.ConsumeTopics(name), kgo.ConsumerGroup(name), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
			if err != nil {
				t.Fatal(err)
			}
			value := fmt.Sprint(group, round)
			if err := client.ProduceSync(ctx, kgo.StringRecord(value)).FirstErr(); err != nil {
				t.Fatal(err)
			}
			fetches := client.PollFetches(ctx)
			if err := fetches.Err(); err != nil {
				t.Fatal(err)
			}
			if got := fetches.Records(); len(got) != 1 || string(got[0].Value) != value || got[0].Offset != int64(round) {
				t.Errorf("%s read %v", value, got)
			}
			if err := client.CommitUncommittedOffsets(ctx); err != nil {
				t.Error(err)
			}
			client.Close()
			if round == 1 {
				ids[m.TopicID] = true
			}
			agent.end()
		}
	}
	if len(ids) != 2 || ids[uuid.Nil] {
		t.Errorf("topics %v", ids)
	}
}
