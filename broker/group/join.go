package group

import (
	"cmp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// join follows Kafka's GroupMetadataManager.classicGroupJoin in what it checks,
// in which order.
func (m *machine) join(now time.Duration, c *call, r *JoinRequest) {
	r.Protocols = distinct(r.Protocols)
	old := m.consumer(r.Group)
	if old != nil && len(old.members) > 0 {
		old.classicJoin(now, c, r)
		return
	}
	g := m.classic(r.Group)
	if g == nil {
		if r.MemberID != "" {
			m.reply(r.Group, c, nil, kerr.UnknownMemberID)
			return
		}
		if old != nil {
			old.discard()
		}
		g = m.newGroup(now, r.Group)
		if old != nil {
			g.changed() // it has other members now, and the same positions
		}
		defer g.discardIfBlank()
	}
	_, pending := g.pending[r.MemberID]
	switch {
	case !g.accepts(r.MemberID):
		g.reject(now, r.MemberID)
		m.reply(r.Group, c, nil, kerr.GroupMaxSizeReached)
	case !g.fits(r):
		m.reply(r.Group, c, nil, kerr.GroupMaxSizeReached)
	case !g.supports(r.ProtocolType, r.Protocols):
		m.reply(r.Group, c, nil, kerr.InconsistentGroupProtocol)
	case r.MemberID == "" && g.static[r.InstanceID] != nil:
		g.replaceStatic(now, c, r)
	case r.MemberID == "" && r.InstanceID == "" && r.KnownMemberID:
		g.giveMemberID(now, c, r)
	case r.MemberID == "" || pending && r.InstanceID == "":
		mb := g.add(now, c, r, cmp.Or(r.MemberID, r.newMemberID))
		g.rebalanceOrComplete(now, "member "+mb.id+" joins"+because(r))
	default:
		g.rejoin(now, c, r)
	}
}

// distinct drops protocols that were named before.
func distinct(protocols []Protocol) []Protocol {
	seen := make(map[string]bool, len(protocols))
	return slices.DeleteFunc(protocols, func(p Protocol) bool {
		again := seen[p.Name]
		seen[p.Name] = true
		return again
	})
}

// because is a client's reason, for the log.
func because(r *JoinRequest) string {
	if r.Reason == "" {
		return ""
	}
	return ": " + brief(r.Reason)
}

// maxReason is how many bytes of a client's reason are logged (KIP-800).
const maxReason = 255

func brief(reason string) string { return reason[:min(len(reason), maxReason)] }

// accepts says whether there is room for the member.
func (g *group) accepts(id string) bool {
	mb, limit := g.byID[id], g.m.cfg.MaxSize
	switch g.state {
	case PreparingRebalance:
		// The members that are not back yet don't count, and so the last to come
		// back are the ones for whom there is no room.
		return mb != nil && mb.joining != nil || g.joining < limit
	case CompletingRebalance, Stable:
		return mb != nil || len(g.members) < limit
	}
	return true
}

// reject forgets somebody for whom there is no room.
func (g *group) reject(now time.Duration, id string) {
	g.removePending(id)
	if mb := g.byID[id]; mb != nil {
		g.remove(mb)
	}
	g.completeJoinIfAll(now)
}

// giveMemberID tells a client to join with a member id, so that one that
// retries without having seen an answer leaves no member behind (KIP-394).
func (g *group) giveMemberID(now time.Duration, c *call, r *JoinRequest) {
	if len(g.pending) >= g.m.cfg.MaxSize {
		g.reply(c, nil, kerr.GroupMaxSizeReached)
		return
	}
	id := r.newMemberID
	t := &timer{fire: func(now time.Duration) {
		delete(g.pending, id)
		if g.state == PreparingRebalance && g.allJoined() {
			g.completeJoin(now)
		}
		g.discardIfBlank()
	}}
	g.pending[id] = t
	g.m.timers.schedule(t, now+r.SessionTimeout)
	g.reply(c, JoinResponse{MemberID: id}, kerr.MemberIDRequired)
}

// rejoin is a join by a member.
func (g *group) rejoin(now time.Duration, c *call, r *JoinRequest) {
	mb, err := g.member(r.MemberID, r.InstanceID)
	switch {
	case err != nil:
		g.reply(c, nil, err)
	case g.state == PreparingRebalance,
		!mb.same(r.Protocols),
		// The leader knows of reasons that don't show in its metadata, such as
		// more partitions.
		g.state == Stable && g.leader == mb.id:
		g.rejoinNext(now, c, r, mb)
	default:
		// It has missed the answer to its join.
		g.reply(c, g.joined(mb, g.state == CompletingRebalance), nil)
	}
}

// rejoinNext makes a member wait for the next generation.
func (g *group) rejoinNext(now time.Duration, c *call, r *JoinRequest, mb *member) {
	if g.state == PreparingRebalance {
		g.update(mb, c, r)
		g.completeJoinIfAll(now)
		return
	}
	g.prepare(now, "member "+mb.id+" joins again"+because(r))
	g.update(mb, c, r)
	g.awaitJoins(now)
}

// replaceStatic gives a static member that starts again a new id, and fences
// who has the old one (KIP-345). In a stable group it gets its old assignment
// back, and nobody else notices.
func (g *group) replaceStatic(now time.Duration, c *call, r *JoinRequest) {
	mb, leader := g.static[r.InstanceID], g.leader
	g.answerJoin(mb, JoinResponse{}, kerr.FencedInstanceID)
	g.answerSync(mb, kerr.FencedInstanceID)
	delete(g.byID, mb.id)
	if g.leader == mb.id {
		g.leader = r.newMemberID
	}
	mb.id = r.newMemberID
	g.byID[mb.id] = mb
	mb.clientID, mb.clientHost, mb.isNew = r.ClientID, r.ClientHost, false
	g.extend(now, mb)

	switch g.state {
	case Stable:
		g.refreshStatic(now, c, r, mb, leader)
	case CompletingRebalance:
		// The leader may be assigning to the old id.
		g.prepare(now, "static member "+mb.instance+" starts again"+because(r))
		g.update(mb, c, r)
		g.awaitJoins(now)
	default:
		g.update(mb, c, r)
		g.completeJoinIfAll(now)
	}
}

// refreshStatic answers a static member that starts again in a stable group,
// unless its protocols change the group's. leader is the leader's id before.
func (g *group) refreshStatic(now time.Duration, c *call, r *JoinRequest, mb *member, leader string) {
	g.support(mb, -1)
	mb.protocols = r.Protocols
	mb.sessionTimeout, mb.rebalanceTimeout = r.SessionTimeout, r.RebalanceTimeout
	g.support(mb, 1)
	if g.vote() != g.protocol {
		g.prepare(now, "static member "+mb.instance+" changes the protocol"+because(r))
		g.setJoining(mb, c)
		g.awaitJoins(now)
		return
	}
	g.extend(now, mb)
	g.changed()
	answer := g.joined(mb, r.CanSkipAssignment)
	answer.SkipAssignment = r.CanSkipAssignment && g.leader == mb.id
	if !r.CanSkipAssignment {
		answer.LeaderID = leader // its old id, lest it assign anew
	}
	g.reply(c, answer, nil)
}

// joined is a member's place in the generation. The leader is told of all
// members if it is to assign.
func (g *group) joined(mb *member, assign bool) JoinResponse {
	answer := JoinResponse{
		MemberID: mb.id, Generation: g.generation,
		ProtocolType: g.protocolType, Protocol: g.protocol, LeaderID: g.leader,
	}
	if assign && g.leader == mb.id {
		answer.Members = make([]JoinedMember, len(g.members))
		for i, o := range g.members {
			answer.Members[i] = JoinedMember{MemberID: o.id, InstanceID: o.instance, Metadata: g.metadata(o)}
		}
	}
	return answer
}

// leave takes a member, or a member id that was given out, out of a group. The
// group may be nil.
func (g *group) leave(l LeavingMember) error {
	switch {
	case g == nil:
		return kerr.UnknownMemberID
	case l.MemberID == "":
		mb := g.static[l.InstanceID]
		if mb == nil {
			return kerr.UnknownMemberID
		}
		g.remove(mb)
		return nil
	case g.pending[l.MemberID] != nil:
		g.removePending(l.MemberID)
		return nil
	}
	mb, err := g.member(l.MemberID, l.InstanceID)
	if err != nil {
		return err
	}
	g.remove(mb)
	return nil
}

// sessionDue removes a member that was not heard of. Who waits for a rebalance
// sends nothing, and is given time; but not a new member, whose client may never
// have learned of its membership.
func (g *group) sessionDue(now time.Duration, mb *member) {
	if !mb.isNew && (mb.joining != nil || mb.syncing != nil) {
		return
	}
	g.remove(mb)
	switch {
	case g.state == PreparingRebalance && g.allJoined():
		g.completeJoin(now)
	case g.state != PreparingRebalance:
		g.rebalance(now, "member "+mb.id+" was not heard of for its session timeout")
	}
}
