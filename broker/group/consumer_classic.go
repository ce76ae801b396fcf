package group

import (
	"cmp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/group/assignor"
)

// What follows is the classic protocol, as it is spoken to a group of the consumer
// protocol while members move from one to the other (KIP-848). A member is told to
// join again when its assignment changes. Its join says what it owns, and is
// answered at once: the member leads nothing, and nobody waits for it. Its sync
// gets what the coordinator assigned to it.

// classicJoin follows Kafka's GroupMetadataManager.classicGroupJoinToConsumerGroup.
func (g *consumerGroup) classicJoin(now time.Duration, c *call, r *JoinRequest) {
	id := cmp.Or(r.MemberID, r.newMemberID)
	says, err := g.mayJoin(r)
	switch {
	case err != nil:
		g.reply(c, nil, err)
		return
	case r.MemberID == "" && r.InstanceID == "" && r.KnownMemberID:
		g.reply(c, JoinResponse{MemberID: id}, kerr.MemberIDRequired)
		return
	}
	mb, last := g.members[id], false
	switch old := g.static[r.InstanceID]; {
	case old != nil && r.MemberID == "":
		mb, last = old, g.lastOfProtocol(old)
		g.replace(mb, id)
	case mb == nil:
		mb = g.add(id, r.InstanceID)
	}
	subscription := g.updateClassic(mb, r, says)
	g.refresh(subscription, "member "+mb.id+" joins"+because(r))
	var owns assignor.Partitions // not known, if the topics are not
	if view := g.m.view(); !g.outdated(view) {
		owns = owned(view, says)
	}
	g.reconcile(now, mb, owns, subscription)
	g.reply(c, JoinResponse{
		MemberID: mb.id, Generation: mb.epoch, ProtocolType: consumerProtocol, Protocol: r.Protocols[0].Name,
	}, nil)
	g.m.timers.schedule(&mb.session, now+r.SessionTimeout)
	g.m.timers.schedule(&mb.reaction, now+r.RebalanceTimeout) // to sync
	switch {
	case !last || !g.mayDowngrade():
	case g.state == Stable:
		g.downgrade(now, "")
	default:
		g.downgrade(now, "member "+mb.id+" joins"+because(r))
	}
}

// mayJoin refuses who can't be a member by the classic protocol. It returns what
// the others say of themselves.
func (g *consumerGroup) mayJoin(r *JoinRequest) (*kmsg.ConsumerMemberMetadata, error) {
	if len(g.members) >= g.m.cfg.ConsumerMaxSize && g.members[r.MemberID] == nil {
		return nil, kerr.GroupMaxSizeReached
	}
	if !g.fits(cmp.Or(g.members[r.MemberID], g.static[r.InstanceID]), r.bytes()) {
		return nil, kerr.GroupMaxSizeReached
	}
	if r.ProtocolType != consumerProtocol || !slices.ContainsFunc(r.Protocols, g.supports) {
		return nil, kerr.InconsistentGroupProtocol
	}
	if r.MemberID != "" && r.InstanceID != "" {
		if _, err := g.member(r.MemberID, r.InstanceID); err != nil {
			return nil, err
		}
	}
	says := new(kmsg.ConsumerMemberMetadata)
	if says.ReadFrom(r.Protocols[0].Metadata) != nil { // all protocols of a consumer say the same
		return nil, kerr.InconsistentGroupProtocol
	}
	return says, nil
}

// supports says whether all members of the classic protocol have p too.
func (g *consumerGroup) supports(p Protocol) bool {
	for _, mb := range g.members {
		if mb.classic != nil && !slices.ContainsFunc(mb.classic.protocols, func(o Protocol) bool { return o.Name == p.Name }) {
			return false
		}
	}
	return true
}

// updateClassic is update for a member that joins by the classic protocol.
func (g *consumerGroup) updateClassic(mb *consumerMember, r *JoinRequest, says *kmsg.ConsumerMemberMetadata) (subscription bool) {
	mb.clientID, mb.clientHost, mb.rebalanceTimeout = r.ClientID, r.ClientHost, r.RebalanceTimeout
	g.setClassic(mb, &classicMember{sessionTimeout: r.SessionTimeout, protocols: r.Protocols})
	g.changed()
	subscription = mb.says(says)
	g.weigh(mb)
	return subscription
}

// says takes what a member's subscription in the classic protocol says. It says
// whether it subscribes to something else than before.
func (mb *consumerMember) says(s *kmsg.ConsumerMemberMetadata) (subscription bool) {
	if s.Rack != nil {
		mb.rack = *s.Rack
	}
	subscription = mb.subscribe(s.Topics) || mb.regex != ""
	mb.regex = ""
	return subscription
}

// owned are the partitions that a member says it owns, and assigned those that an
// assignment of the classic protocol has. Topics that are gone don't matter.
func owned(view View, s *kmsg.ConsumerMemberMetadata) assignor.Partitions {
	all := make(assignor.Partitions)
	for _, t := range s.OwnedPartitions {
		addNamed(all, view, t.Topic, t.Partitions)
	}
	return all
}

func assigned(view View, a *kmsg.ConsumerMemberAssignment) assignor.Partitions {
	all := make(assignor.Partitions)
	for _, t := range a.Topics {
		addNamed(all, view, t.Topic, t.Partitions)
	}
	return all
}

func addNamed(to assignor.Partitions, view View, topic string, partitions []int32) {
	if id, _, ok := view.Lookup(topic); ok && len(partitions) > 0 {
		to[id] = slices.Compact(slices.Sorted(slices.Values(slices.Concat(to[id], partitions))))
	}
}

// classicMember returns the member of the classic protocol that a request comes
// from.
func (g *consumerGroup) classicMember(r *Membership) (*consumerMember, error) {
	mb, err := g.member(r.MemberID, r.InstanceID)
	switch {
	case err != nil:
		return nil, err
	case mb.classic == nil:
		return nil, kerr.UnknownMemberID
	case mb.epoch != r.Generation:
		return nil, kerr.IllegalGeneration
	}
	return mb, nil
}

// classicSync follows Kafka's classicGroupSyncToConsumerGroup.
func (g *consumerGroup) classicSync(now time.Duration, c *call, r *SyncRequest) {
	mb, err := g.classicMember(&r.Membership)
	switch {
	case err != nil:
	case r.ProtocolType != "" && r.ProtocolType != consumerProtocol,
		r.Protocol != "" && r.Protocol != mb.classic.protocols[0].Name:
		err = kerr.InconsistentGroupProtocol
	case g.epoch > mb.epoch && mb.state != memberUnrevoked, g.outdated(g.m.view()):
		g.awaitJoin(now, mb)
		err = kerr.RebalanceInProgress
	}
	if err != nil {
		g.reply(c, nil, err)
		return
	}
	g.m.timers.cancel(&mb.reaction)
	g.m.timers.schedule(&mb.session, now+mb.classic.sessionTimeout)
	g.reply(c, SyncResponse{
		ProtocolType: consumerProtocol, Protocol: mb.classic.protocols[0].Name,
		Assignment: g.classicAssignment(mb, mb.assigned),
	}, nil)
}

// classicAssignment is an assignment in the form that the classic protocol's
// members give it.
func (g *consumerGroup) classicAssignment(mb *consumerMember, partitions assignor.Partitions) []byte {
	var says kmsg.ConsumerMemberMetadata
	_ = says.ReadFrom(mb.classic.protocols[0].Metadata) // was read when it came
	assignment := kmsg.NewConsumerMemberAssignment()
	assignment.Version = says.Version
	for _, p := range named(g.m.view(), partitions) {
		assignment.Topics = append(assignment.Topics, kmsg.ConsumerMemberAssignmentTopic{Topic: p.Topic, Partitions: p.Partitions})
	}
	return assignment.AppendTo(nil)
}

// classicHeartbeat follows Kafka's classicGroupHeartbeatToConsumerGroup. A member
// joins again when there is a new epoch; when it has to give something up; and when
// all that it waits for is free.
func (g *consumerGroup) classicHeartbeat(now time.Duration, r *HeartbeatRequest) error {
	mb, err := g.classicMember(&r.Membership)
	if err != nil {
		return err
	}
	g.m.timers.schedule(&mb.session, now+mb.classic.sessionTimeout)
	if mb.epoch < g.epoch || mb.state == memberUnrevoked || mb.state == memberUnreleased && !g.waits(mb) {
		g.awaitJoin(now, mb)
		return kerr.RebalanceInProgress
	}
	return nil
}

// awaitJoin gives a member its rebalance timeout to join again, or what is left of
// it if it was told before.
func (g *consumerGroup) awaitJoin(now time.Duration, mb *consumerMember) {
	if !mb.reaction.queued {
		g.m.timers.schedule(&mb.reaction, now+mb.rebalanceTimeout)
	}
}

// waits says whether others own what the member is to have.
func (g *consumerGroup) waits(mb *consumerMember) bool {
	_, others := split(mb.target, g.freeFor(mb))
	return len(others) > 0
}

// classicLeave takes a member of either protocol out, as administrators ask for it
// in this way too. The group may become a classic one by that.
func (g *consumerGroup) classicLeave(now time.Duration, l LeavingMember) error {
	id := l.MemberID
	if mb := g.static[l.InstanceID]; mb != nil && id == "" {
		id = mb.id // an administrator names no more than the instance
	}
	mb, err := g.member(id, l.InstanceID)
	if err != nil {
		return err
	}
	g.fence(now, mb, cmp.Or(brief(l.Reason), "member "+mb.id+" leaves"))
	return nil
}
