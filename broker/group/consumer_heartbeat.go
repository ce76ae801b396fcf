package group

import (
	"cmp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/broker/group/assignor"
)

// consumerHeartbeat takes all that a member of the consumer protocol may want.
func (m *machine) consumerHeartbeat(now time.Duration, c *call, r *ConsumerHeartbeatRequest) {
	var answer ConsumerHeartbeatResponse
	var err error
	if r.Epoch < JoinEpoch {
		answer, err = m.consumerLeave(now, r)
	} else {
		answer, err = m.beat(now, r)
	}
	if err != nil {
		m.reply(r.Group, c, nil, err)
		return
	}
	m.reply(r.Group, c, answer, nil)
}

// beat follows Kafka's GroupMetadataManager.consumerGroupHeartbeat: the member
// comes to be or says what has changed, the target is made anew if it has to be,
// and the member is brought a step nearer to it.
func (m *machine) beat(now time.Duration, r *ConsumerHeartbeatRequest) (ConsumerHeartbeatResponse, error) {
	g, mb, err := m.admit(now, r)
	if err != nil {
		return ConsumerHeartbeatResponse{}, err
	}
	subscription := g.update(mb, r)
	reason := "changes its subscription"
	if r.Epoch == JoinEpoch {
		reason = "joins"
	}
	g.refresh(subscription, "member "+mb.id+" "+reason)
	moved := g.reconcile(now, mb, r.Owned, subscription)
	configs := m.view().Config(g.id)
	m.timers.schedule(&mb.session, now+configs.SessionTimeout)

	answer := ConsumerHeartbeatResponse{MemberID: mb.id, Epoch: mb.epoch, Interval: configs.HeartbeatInterval}
	full := r.RebalanceTimeout >= 0 && (r.Topics != nil || r.Regex != nil) && r.Owned != nil
	if r.Epoch == JoinEpoch || full || moved {
		answer.Assignment = mb.assigned
	}
	return answer, nil
}

// admit finds the member that a heartbeat comes from, or makes one of it. It
// changes nothing if it refuses.
func (m *machine) admit(now time.Duration, r *ConsumerHeartbeatRequest) (*consumerGroup, *consumerMember, error) {
	if r.Epoch == JoinEpoch {
		return m.admitNew(now, r)
	}
	if m.groups[r.Group] == nil {
		return nil, nil, refuse(kerr.GroupIDNotFound, "Consumer group %s not found.", r.Group)
	}
	g, err := m.consumerGroup(r.Group)
	if err != nil {
		return nil, nil, err
	}
	mb, err := g.member(r.MemberID, r.InstanceID)
	if err != nil {
		return nil, nil, err
	}
	if err := mb.knows(r); err != nil {
		return nil, nil, err
	}
	if err := g.checkSize(mb, r); err != nil {
		return nil, nil, err
	}
	return g, mb, g.checkRegex(r)
}

// checkSize refuses a heartbeat that says more than there is room for; mb is nil
// for a new member.
func (g *consumerGroup) checkSize(mb *consumerMember, r *ConsumerHeartbeatRequest) error {
	if g.fits(mb, r.bytes()) {
		return nil
	}
	return refuse(kerr.GroupMaxSizeReached, "The members of the consumer group subscribe to too much.")
}

// knows refuses a member that is not in the epoch that it believes to be in. One
// that is in the epoch before may have missed the answer that told it of the next
// one, and is welcome if it owns nothing that it must not.
func (mb *consumerMember) knows(r *ConsumerHeartbeatRequest) error {
	than := ""
	switch {
	case r.Epoch == mb.epoch:
		return nil
	case r.Epoch > mb.epoch:
		than = "greater"
	case r.Epoch != mb.previousEpoch || r.Owned == nil || !subset(r.Owned, mb.assigned):
		than = "smaller"
	default:
		return nil
	}
	return refuse(kerr.FencedMemberEpoch, "The consumer group member has a %s member epoch (%d) than the one known by the group "+
		"coordinator (%d). The member must abandon all its partitions and rejoin.", than, r.Epoch, mb.epoch)
}

func subset(partitions, of assignor.Partitions) bool {
	for topic, list := range partitions {
		for _, p := range list {
			if !of.Contains(topic, p) {
				return false
			}
		}
	}
	return true
}

// admitNew admits a member that joins, to a group that may come to be by it, or
// change its protocol. A member that is known begins anew: it owns nothing.
//
// Other than in Kafka, a static member may repeat its own join, of which it may
// have missed the answer.
func (m *machine) admitNew(now time.Duration, r *ConsumerHeartbeatRequest) (*consumerGroup, *consumerMember, error) {
	id := cmp.Or(r.MemberID, r.newMemberID)
	g, err := m.asConsumer(r.Group)
	if err != nil {
		return nil, nil, err
	}
	old, known := g.static[r.InstanceID], g.members[id]
	switch err := g.checkRegex(r); {
	case err != nil:
		return nil, nil, err
	case known == nil && len(g.members) >= m.cfg.ConsumerMaxSize:
		return nil, nil, refuse(kerr.GroupMaxSizeReached, "The consumer group has reached its maximum capacity of %d members.", m.cfg.ConsumerMaxSize)
	case old != nil && old.classic == nil && old.epoch != LeaveStaticEpoch && old.id != id:
		return nil, nil, refuse(kerr.UnreleasedInstanceID, "Static member %s with instance id %s cannot join the group because the "+
			"instance id is owned by %s member.", id, r.InstanceID, old.id)
	case known != nil && r.InstanceID != "" && known.instance != r.InstanceID:
		return nil, nil, refuse(kerr.InvalidRequest, "Member %s does not have the instance id %s.", id, r.InstanceID)
	}
	if err := g.checkSize(cmp.Or(old, known), r); err != nil {
		return nil, nil, err
	}
	g.install(now)
	switch {
	case old != nil:
		g.replace(old, id)
		return g, old, nil
	case known != nil:
		return g, known, nil
	}
	return g, g.add(id, r.InstanceID), nil
}

// add makes a member that has nothing yet.
func (g *consumerGroup) add(id, instance string) *consumerMember {
	mb := g.newMember(id, instance)
	g.put(mb)
	g.m.counts.members++
	g.changed()
	return mb
}

// replace gives a static member that starts again its new id. What the old
// process had is waiting for it.
func (g *consumerGroup) replace(mb *consumerMember, id string) {
	g.m.timers.cancel(&mb.reaction)
	delete(g.members, mb.id)
	mb.id, mb.epoch, mb.previousEpoch = id, JoinEpoch, JoinEpoch
	g.members[id] = mb
	g.changed()
}

// update takes what a member says about itself. It says whether the subscription
// is another one.
func (g *consumerGroup) update(mb *consumerMember, r *ConsumerHeartbeatRequest) (subscription bool) {
	changed := mb.clientID != r.ClientID || mb.clientHost != r.ClientHost || mb.classic != nil
	mb.clientID, mb.clientHost = r.ClientID, r.ClientHost
	g.setClassic(mb, nil)
	if r.Rack != "" && r.Rack != mb.rack {
		mb.rack, changed = r.Rack, true
	}
	if r.RebalanceTimeout >= 0 && r.RebalanceTimeout != mb.rebalanceTimeout {
		mb.rebalanceTimeout, changed = r.RebalanceTimeout, true
	}
	if r.Assignor != "" && r.Assignor != mb.assignor {
		mb.assignor, changed = r.Assignor, true
	}
	if r.Regex != nil && *r.Regex != mb.regex {
		mb.regex, subscription = *r.Regex, true
	}
	if r.Topics != nil && mb.subscribe(r.Topics) {
		subscription = true
	}
	if changed || subscription {
		g.weigh(mb)
		g.changed()
	}
	return subscription
}

// subscribe takes the names of topics. It says whether they are others.
func (mb *consumerMember) subscribe(names []string) bool {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	if slices.Equal(names, mb.topics) {
		return false
	}
	mb.topics = names
	return true
}

// consumerLeave takes a member out of its group, or lets its place wait for a
// static member.
func (m *machine) consumerLeave(now time.Duration, r *ConsumerHeartbeatRequest) (ConsumerHeartbeatResponse, error) {
	g, err := m.consumerGroup(r.Group)
	if err != nil {
		return ConsumerHeartbeatResponse{}, err
	}
	mb, err := g.member(r.MemberID, r.InstanceID)
	if err != nil {
		return ConsumerHeartbeatResponse{}, err
	}
	if r.Epoch == LeaveStaticEpoch {
		m.timers.cancel(&mb.reaction)
		g.release(mb.revoking)
		mb.revoking, mb.epoch = nil, LeaveStaticEpoch
		g.changed()
		g.settle()
	} else {
		g.fence(now, mb, "member "+mb.id+" leaves")
	}
	return ConsumerHeartbeatResponse{MemberID: mb.id, Epoch: r.Epoch}, nil
}

// consumer returns the group of that name if it is one of the consumer protocol,
// else nil.
func (m *machine) consumer(id string) *consumerGroup {
	g, _ := m.groups[id].(*consumerGroup)
	return g
}

// consumerGroup is consumer for requests that need one.
func (m *machine) consumerGroup(id string) (*consumerGroup, error) {
	switch g := m.groups[id].(type) {
	case *consumerGroup:
		return g, nil
	case nil:
		return nil, refuse(kerr.GroupIDNotFound, "Group %s not found.", id)
	}
	return nil, refuse(kerr.GroupIDNotFound, "Group %s is not a consumer group.", id)
}
