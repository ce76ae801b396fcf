package main

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// consumerMember is a member of a group of the consumer protocol, on a connection
// of its own.
type consumerMember struct {
	*wire
	group, id string
	epoch     int32
	interval  int32 // of its heartbeats, in ms
	owned     []kmsg.ConsumerGroupHeartbeatRequestTopic
}

// beat sends a heartbeat that says all, and takes on what it is told at once.
func (m *consumerMember) beat(topic string) error {
	m.t.Helper()
	r := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	r.Group, r.MemberID, r.MemberEpoch, r.RebalanceTimeoutMillis = m.group, m.id, m.epoch, 10_000
	r.SubscribedTopicNames = []string{topic}
	r.Topics = append([]kmsg.ConsumerGroupHeartbeatRequestTopic{}, m.owned...)
	resp := ask[*kmsg.ConsumerGroupHeartbeatResponse](m.wire, 1, r)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return err
	}
	m.epoch, m.interval, m.owned = resp.MemberEpoch, resp.HeartbeatIntervalMillis, nil
	for _, t := range resp.Assignment.Topics {
		m.owned = append(m.owned, kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: t.TopicID, Partitions: t.Partitions})
	}
	return nil
}

// partitions is how many the member owns.
func (m *consumerMember) partitions() (n int) {
	for _, t := range m.owned {
		n += len(t.Partitions)
	}
	return n
}

// A member has its partitions at once, although its topic was created a moment ago
// at an agent that does not coordinate its group.
func TestConsumerOfANewTopic(t *testing.T) {
	t.Parallel()
	s := sharedStores(t)
	agents := []*isolated{startIsolated(t, s, named("first")), startIsolated(t, s, named("second"))}
	w := []*wire{dial(t, agents[0].addr), dial(t, agents[1].addr)}
	const group = "consumers"
	here := agreedCoordinator(t, w, agents, group)
	first := &consumerMember{wire: w[here], group: group, id: "first"}
	makeShared(w[0], w[1], "old", 1)
	eventually(t, "the agent coordinates the group", func() bool { return first.beat("old") == nil })

	tp := makeTopic(w[1-here], "new", 4)
	second := &consumerMember{wire: w[here], group: group, id: "second"}
	if err := second.beat(tp.name); err != nil {
		t.Fatal(err)
	}
	if n := second.partitions(); n != 4 {
		t.Errorf("the member has %d partitions of the new topic", n)
	}
}

// Members of the consumer protocol go on with another coordinator in the same
// epoch and with what they own.
func TestConsumersSurviveTheirCoordinator(t *testing.T) {
	t.Parallel()
	s := sharedStores(t)
	agents := []*isolated{
		startIsolated(t, s, named("first"), hasty),
		startIsolated(t, s, named("second"), hasty),
	}
	w := []*wire{dial(t, agents[0].addr), dial(t, agents[1].addr)}
	tp := makeShared(w[0], w[1], "consumers", 4)
	const group = "consumers"
	here := agreedCoordinator(t, w, agents, group)
	there := 1 - here
	members := []*consumerMember{{group: group, id: "a"}, {group: group, id: "b"}}
	beats := func(agent int, done func() bool) func() bool {
		return func() bool {
			for _, m := range members {
				err := m.beat(tp.name)
				if err != nil && !errors.Is(err, kerr.NotCoordinator) && !errors.Is(err, kerr.CoordinatorNotAvailable) {
					t.Fatalf("heartbeat of %s to agent %d: %v", m.id, agent, err)
				}
				if err != nil {
					return false
				}
			}
			return done()
		}
	}
	for _, m := range members {
		m.wire = dial(t, agents[here].addr)
	}
	eventually(t, "they share", beats(here, func() bool { return members[0].partitions() == 2 && members[1].partitions() == 2 }))
	eventually(t, "they are in one epoch", beats(here, func() bool { return members[0].epoch == members[1].epoch }))
	epoch := members[0].epoch
	agents[here].kill()

	for _, m := range members {
		m.wire = dial(t, agents[there].addr)
	}
	eventually(t, "they go on", beats(there, func() bool { return true }))
	for _, m := range members {
		if m.epoch != epoch || m.partitions() != 2 {
			t.Errorf("%s is in epoch %d with %d partitions, and was in %d with 2", m.id, m.epoch, m.partitions(), epoch)
		}
	}
}

// Coordinators do what they were started with, and what was set on the group since.
func TestSettingsOfGroups(t *testing.T) {
	a := startAgent(t, embeddedStores(t), func(s *Settings) {
		s.Kafka.Configs["group.consumer.max.size"] = "1"
		s.Kafka.Configs["group.consumer.heartbeat.interval.ms"] = "6000"
	})
	w := dial(t, a.addr)
	tp := makeTopic(w, "t", 1)
	first, second := &consumerMember{wire: w, group: "g", id: "a"}, &consumerMember{wire: w, group: "g", id: "b"}
	if err := first.beat(tp.name); err != nil || first.interval != 6000 {
		t.Errorf("the first member beats every %d ms, %v", first.interval, err)
	}
	if err := second.beat(tp.name); !errors.Is(err, kerr.GroupMaxSizeReached) {
		t.Errorf("the second member: %v", err)
	}
	wantCode(t, "set", incrementally(w, false, kmsg.ConfigResourceTypeGroupConfig, "g", change{opSet, "consumer.heartbeat.interval.ms", "7000"}), nil)
	if err := first.beat(tp.name); err != nil || first.interval != 7000 {
		t.Errorf("the first member beats every %d ms, %v", first.interval, err)
	}
}
