package group

import (
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/lease"
)

// MigrationPolicy says in which directions groups may change their protocol while
// they have members.
type MigrationPolicy string

// The policies.
const (
	MigrateBoth MigrationPolicy = "bidirectional"
	MigrateUp   MigrationPolicy = "upgrade"
	MigrateDown MigrationPolicy = "downgrade"
	MigrateNone MigrationPolicy = "disabled"
)

// asConsumer returns the group of that name as one of the consumer protocol. If it
// is not one, nothing has changed until install. What an empty classic group was is
// forgotten, but for its positions; one of consumers is upgraded.
func (m *machine) asConsumer(id string) (*consumerGroup, error) {
	switch old := m.groups[id].(type) {
	case *consumerGroup:
		return old, nil
	case *group:
		g := m.newConsumerGroup(id)
		return g, g.upgrade(old)
	}
	return m.newConsumerGroup(id), nil
}

// install makes g the machine's group of its name, if it is not. Members of the
// classic group before that wait are told to join again.
func (g *consumerGroup) install(now time.Duration) {
	switch old := g.m.groups[g.id].(type) {
	case *consumerGroup:
		return
	case *group:
		for _, mb := range old.members {
			old.answerJoin(mb, JoinResponse{}, kerr.RebalanceInProgress)
			old.answerSync(mb, kerr.RebalanceInProgress)
		}
		old.discard()
	}
	g.insert()
	for _, mb := range g.members {
		g.m.timers.schedule(&mb.session, now+mb.classic.sessionTimeout)
	}
	g.changed()
}

// upgrade fills a new group with the members of a classic one, each with what it
// was assigned there.
func (g *consumerGroup) upgrade(old *group) error {
	if len(old.members) == 0 {
		return nil
	}
	policy := g.m.cfg.ConsumerMigrationPolicy
	if policy != MigrateBoth && policy != MigrateUp || old.protocolType != consumerProtocol {
		return refuse(kerr.GroupIDNotFound, "Group %s is not a consumer group.", g.id)
	}
	view := g.m.view()
	g.epoch, g.targetEpoch = old.generation, old.generation
	for _, o := range old.members {
		var says kmsg.ConsumerMemberMetadata
		var assignment kmsg.ConsumerMemberAssignment
		if says.ReadFrom(o.protocols[0].Metadata) != nil || len(o.assignment) > 0 && assignment.ReadFrom(o.assignment) != nil {
			return refuse(kerr.GroupIDNotFound, "Cannot upgrade classic group %s to consumer group because the embedded "+
				"consumer protocol is malformed.", g.id)
		}
		if len(assignment.UserData) > 0 {
			return refuse(kerr.GroupIDNotFound, "Cannot upgrade classic group %s to consumer group because an unsupported "+
				"custom assignor is in use. Please refer to the documentation or switch to a default assignor before "+
				"re-attempting the upgrade.", g.id)
		}
		mb := g.newMember(o.id, o.instance)
		mb.clientID, mb.clientHost, mb.rebalanceTimeout = o.clientID, o.clientHost, o.rebalanceTimeout
		mb.classic = &classicMember{sessionTimeout: o.sessionTimeout, protocols: o.protocols}
		mb.epoch, mb.previousEpoch = g.epoch, g.epoch
		mb.says(&says)
		// What the leader gave to two members is the first one's.
		mb.assigned, _ = split(assigned(view, &assignment), func(k lease.Key) bool { return g.owners[k] == nil })
		mb.target = mb.assigned
		g.put(mb)
	}
	// If there is something that nobody has, as in the middle of a rebalance, there
	// is to be another target, as if the topics were new.
	if _, partitions := g.subscribed(view); g.hasOwners(partitions) {
		g.topicsVersion, g.partitions = view.Version(), partitions
	}
	return nil
}

// hasOwners says whether each partition of the topics has an owner.
func (g *consumerGroup) hasOwners(partitions map[uuid.UUID]int32) bool {
	for topic, n := range partitions {
		for p := range n {
			if g.owners[lease.Key{TopicID: topic, Partition: p}] == nil {
				return false
			}
		}
	}
	return true
}

// lastOfProtocol says whether a member is the last one of the consumer protocol.
func (g *consumerGroup) lastOfProtocol(mb *consumerMember) bool {
	return mb.classic == nil && g.classics == len(g.members)-1
}

// mayDowngrade says whether the group, of which all members use the classic
// protocol, may become a classic one.
func (g *consumerGroup) mayDowngrade() bool {
	policy := g.m.cfg.ConsumerMigrationPolicy
	return (policy == MigrateBoth || policy == MigrateDown) && len(g.members) > 0 && len(g.members) <= g.m.cfg.MaxSize
}

// downgrade makes the group a classic one, with the target as its assignment. If
// members don't have that, they are to join again for a reason.
func (g *consumerGroup) downgrade(now time.Duration, reason string) {
	g.discard()
	c := g.m.newGroup(now, g.id)
	c.generation, c.protocolType = g.epoch, consumerProtocol
	for _, from := range g.sorted() {
		mb := &member{
			id: from.id, instance: from.instance, clientID: from.clientID, clientHost: from.clientHost,
			sessionTimeout: from.classic.sessionTimeout, rebalanceTimeout: from.rebalanceTimeout,
			protocols: from.classic.protocols, assignment: g.classicAssignment(from, from.target),
		}
		c.insert(mb)
		c.extend(now, mb)
	}
	c.leader, c.protocol = c.members[0].id, c.vote()
	c.readTopics()
	c.setState(Stable)
	c.changed()
	if reason != "" {
		c.rebalance(now, reason)
	}
}
