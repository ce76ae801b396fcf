package group

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// rebalanceOrComplete goes on after a change of the members: to a rebalance if
// there is none, else to its end if that was the last change it waits for.
func (g *group) rebalanceOrComplete(now time.Duration, reason string) {
	if g.state == PreparingRebalance {
		g.completeJoinIfAll(now)
		return
	}
	g.rebalance(now, reason)
}

// rebalance begins a rebalance.
func (g *group) rebalance(now time.Duration, reason string) {
	g.prepare(now, reason)
	g.awaitJoins(now)
}

// prepare ends the generation. It is followed by awaitJoins, between which a
// join that waits may be set.
func (g *group) prepare(now time.Duration, reason string) {
	for _, mb := range g.members {
		g.setSynced(mb)
		if g.answerSync(mb, kerr.RebalanceInProgress) {
			g.extend(now, mb)
		}
	}
	g.m.timers.cancel(&g.syncTimer)
	g.initial, g.grew = g.state == Empty, false
	g.setState(PreparingRebalance)
	g.m.emit(note{rebalancing, g.id, g.generation, len(g.members), reason})
}

// awaitJoins waits until all members have joined, or for as long as they may
// take.
func (g *group) awaitJoins(now time.Duration) {
	switch {
	case g.initial:
		delay := g.m.cfg.InitialRebalanceDelay
		g.initialEnd = now + max(g.rebalanceTimeout(), delay)
		g.m.timers.schedule(&g.joinTimer, now+delay)
	case g.allJoined():
		g.completeJoin(now)
	default:
		g.m.timers.schedule(&g.joinTimer, now+g.rebalanceTimeout())
	}
}

// completeJoinIfAll ends PreparingRebalance if there is nobody to wait for. The
// first rebalance of an empty group waits for those who are not known yet.
func (g *group) completeJoinIfAll(now time.Duration) {
	if g.state == PreparingRebalance && !g.initial && g.allJoined() {
		g.completeJoin(now)
	}
}

func (g *group) joinDue(now time.Duration) {
	if g.initial && g.grew && now < g.initialEnd {
		g.grew = false
		g.m.timers.schedule(&g.joinTimer, min(now+g.m.cfg.InitialRebalanceDelay, g.initialEnd))
		return
	}
	g.completeJoin(now)
}

// completeJoin makes the next generation of those who have joined. Dynamic
// members that have not are removed; static ones keep their place until their
// session ends.
func (g *group) completeJoin(now time.Duration) {
	g.m.timers.cancel(&g.joinTimer)
	for _, mb := range slices.Clone(g.members) {
		if mb.joining == nil && mb.instance == "" {
			g.remove(mb)
		}
	}
	if len(g.members) > 0 && !g.electLeader() {
		// Only static members are left, and none has joined: their sessions end
		// or they join.
		g.m.timers.schedule(&g.joinTimer, now+g.rebalanceTimeout())
		return
	}
	g.generation++
	g.changed()
	if len(g.members) == 0 {
		g.protocol = ""
		g.setState(Empty)
		g.emptySince = now
		return
	}
	g.protocol = g.vote()
	g.readTopics()
	g.setState(CompletingRebalance)
	for _, mb := range g.members {
		g.answerJoin(mb, g.joined(mb, true), nil)
		g.extend(now, mb)
		mb.isNew = false
	}
	g.awaitSyncs(now)
}

// awaitSyncs waits until all members have asked for their assignment, or for as
// long as they may take.
func (g *group) awaitSyncs(now time.Duration) {
	for _, mb := range g.members {
		mb.unsynced = true
	}
	g.unsynced = len(g.members)
	g.m.timers.schedule(&g.syncTimer, now+g.rebalanceTimeout())
}

// electLeader makes sure that the leader has joined, if anybody has.
func (g *group) electLeader() bool {
	if mb := g.byID[g.leader]; mb != nil && mb.joining != nil {
		return true
	}
	for _, mb := range g.members {
		if mb.joining != nil {
			g.leader = mb.id
			return true
		}
	}
	return false
}

// sync answers a member with its assignment when the leader's is there.
func (m *machine) sync(now time.Duration, c *call, r *SyncRequest) {
	if g := m.consumer(r.Group); g != nil {
		g.classicSync(now, c, r)
		return
	}
	g, mb, err := m.member(&r.Membership)
	switch {
	case err != nil:
	case r.ProtocolType != "" && r.ProtocolType != g.protocolType,
		r.Protocol != "" && r.Protocol != g.protocol:
		err = kerr.InconsistentGroupProtocol
	case g.state == PreparingRebalance:
		err = kerr.RebalanceInProgress
	case assignedBytes(r.Assignments) > maxGroupBytes:
		err = kerr.UnknownServerError // as Kafka, which can't store it either
	}
	if err != nil {
		m.reply(r.Group, c, nil, err)
		return
	}
	g.setSynced(mb)
	if g.unsynced == 0 {
		m.timers.cancel(&g.syncTimer)
	}
	if g.state == Stable {
		m.reply(r.Group, c, g.assignment(mb), nil)
		return
	}
	g.answerSync(mb, kerr.RebalanceInProgress) // of a connection that the client has given up
	mb.syncing = c
	if g.leader == mb.id {
		g.assign(now, r.Assignments)
	}
}

func assignedBytes(assignments []Assignment) (n int) {
	for _, a := range assignments {
		n += len(a.MemberID) + len(a.Data)
	}
	return n
}

// assign takes the leader's assignment: the generation is stable.
func (g *group) assign(now time.Duration, assignments []Assignment) {
	byMember := make(map[string][]byte, len(assignments))
	for _, a := range assignments {
		byMember[a.MemberID] = a.Data
	}
	g.setState(Stable)
	g.changed()
	for _, mb := range g.members {
		mb.assignment = byMember[mb.id]
		if g.answerSync(mb, nil) {
			g.extend(now, mb)
		}
	}
	g.m.emit(note{stable, g.id, g.generation, len(g.members), ""})
}

// syncDue removes the members that did not ask for their assignment in time:
// they would hold partitions that nobody consumes.
func (g *group) syncDue(now time.Duration) {
	for _, mb := range slices.Clone(g.members) {
		if mb.unsynced {
			g.remove(mb)
		}
	}
	g.rebalance(now, "members did not ask for their assignment")
}
