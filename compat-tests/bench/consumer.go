package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ConsumerRebalances forms a group of the consumer protocol (KIP-848) and lets a further member join and leave again, so
// many times. A time ends when all members are in one new epoch and have all partitions between them. Heartbeats come
// in rounds: all members send one at once, and the next when all are answered, without the interval that the broker asks
// for. The group's assignments are made without the delay that gathers several reasons into one
// (consumer.assignment.interval.ms=0).
func ConsumerRebalances(ctx context.Context, load Load, members, times int) (joins, leaves []Rebalance, err error) {
	group, err := newConsumerGroup(ctx, "consumer", load)
	if err != nil {
		return nil, nil, err
	}
	conns, err := dialAll(ctx, load.Address, members+1)
	if err != nil {
		return nil, nil, err
	}
	defer closeAll(conns)
	for i, c := range conns[:members] {
		group.members = append(group.members, &consumerMember{conn: c, id: fmt.Sprintf("member-%d", i)})
	}
	if _, err := group.rebalance(ctx, time.Now()); err != nil {
		return nil, nil, fmt.Errorf("form the group: %w", err)
	}
	for n := range times {
		newcomer := &consumerMember{conn: conns[members], id: fmt.Sprintf("newcomer-%d", n)}
		group.members = append(group.members, newcomer)
		join, err := group.rebalance(ctx, time.Now())
		if err != nil {
			return nil, nil, fmt.Errorf("rebalance after a join: %w", err)
		}
		joins = append(joins, join)

		group.members = group.members[:members]
		begin := time.Now()
		if err := group.leave(newcomer); err != nil {
			return nil, nil, err
		}
		leave, err := group.rebalance(ctx, begin)
		if err != nil {
			return nil, nil, fmt.Errorf("rebalance after a leave: %w", err)
		}
		leaves = append(leaves, leave)
	}
	return joins, leaves, nil
}

// consumerGroup is a group of the consumer protocol whose members subscribe to the load's topic.
type consumerGroup struct {
	name    string
	load    Load
	epoch   int32 // of the last rebalance
	members []*consumerMember
}

func newConsumerGroup(ctx context.Context, name string, load Load) (*consumerGroup, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(load.Address))
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	defer client.Close()
	config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	config.Name, config.Value = "consumer.assignment.interval.ms", kmsg.StringPtr("0")
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeGroupConfig, name
	resource.Configs = append(resource.Configs, config)
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	request.Resources = append(request.Resources, resource)
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("configure the group: %w", err)
	}
	for _, altered := range response.Resources {
		if err := kerr.ErrorForCode(altered.ErrorCode); err != nil {
			return nil, fmt.Errorf("configure the group: %w", err)
		}
	}
	return &consumerGroup{name: name, load: load}, nil
}

// rebalance goes through rounds of heartbeats until all members have their final assignment.
func (g *consumerGroup) rebalance(ctx context.Context, begin time.Time) (Rebalance, error) {
	for rounds := 1; ; rounds++ {
		errs := make([]error, len(g.members))
		var wg sync.WaitGroup
		for i, m := range g.members {
			wg.Go(func() { errs[i] = retry(ctx, func() error { return g.beat(m) }) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return Rebalance{}, err
		}
		if epoch := g.settled(); epoch > g.epoch {
			g.epoch = epoch
			return Rebalance{Took: time.Since(begin), Rounds: rounds}, nil
		}
	}
}

// settled returns the epoch that all members are in, if they have all partitions between them, else 0.
func (g *consumerGroup) settled() int32 {
	epoch, partitions := g.members[0].epoch, 0
	for _, m := range g.members {
		if m.epoch != epoch {
			return 0
		}
		for _, topic := range m.owned {
			partitions += len(topic.Partitions)
		}
	}
	if partitions != g.load.Partitions {
		return 0
	}
	return epoch
}

// consumerMember is a member of a group of the consumer protocol.
type consumerMember struct {
	conn  *conn
	id    string
	epoch int32 // 0 before the member has joined
	owned []kmsg.ConsumerGroupHeartbeatRequestTopic
	tell  bool // owned has changed since the last heartbeat
}

// beat sends a heartbeat, and takes and gives up partitions as the answer says.
func (g *consumerGroup) beat(m *consumerMember) error {
	request := g.heartbeat(m, m.epoch)
	switch {
	case m.epoch == 0:
		request.RebalanceTimeoutMillis = int32(rebalanceTimeout.Milliseconds())
		request.SubscribedTopicNames = []string{g.load.Topic}
		request.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	case m.tell:
		request.Topics = m.owned
	}
	response, err := ask[*kmsg.ConsumerGroupHeartbeatResponse](m.conn, request)
	if err != nil {
		return err
	}
	if err := kerr.ErrorForCode(response.ErrorCode); err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	m.epoch, m.tell = response.MemberEpoch, response.Assignment != nil
	if !m.tell {
		return nil
	}
	m.owned = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	for _, assigned := range response.Assignment.Topics {
		topic := kmsg.NewConsumerGroupHeartbeatRequestTopic()
		topic.TopicID, topic.Partitions = assigned.TopicID, assigned.Partitions
		m.owned = append(m.owned, topic)
	}
	return nil
}

func (g *consumerGroup) leave(m *consumerMember) error {
	const leaving = -1
	response, err := ask[*kmsg.ConsumerGroupHeartbeatResponse](m.conn, g.heartbeat(m, leaving))
	if err != nil {
		return err
	}
	if err := kerr.ErrorForCode(response.ErrorCode); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	return nil
}

func (g *consumerGroup) heartbeat(m *consumerMember, epoch int32) *kmsg.ConsumerGroupHeartbeatRequest {
	request := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	request.SetVersion(1)
	request.Group, request.MemberID, request.MemberEpoch = g.name, m.id, epoch
	return request
}
