package group

import (
	"slices"
	"time"

	"github.com/streamhouse/streamhouse/broker/group/assignor"
	"github.com/streamhouse/streamhouse/lease"
)

// reconcile brings a member a step nearer to its target. owned is what the member
// says that it owns, nil if it does not say; subscription says that it has just
// changed what it subscribes to. It says whether the member is assigned something
// else than before.
//
// A partition goes from one member to another in this order, and so never has two
// owners: it leaves the first one's assignment; the first one owns it no more, by
// its own word; it is free; the second one is assigned it.
//
// This follows Kafka's CurrentAssignmentBuilder.
func (g *consumerGroup) reconcile(now time.Duration, mb *consumerMember, owned assignor.Partitions, subscription bool) (moved bool) {
	switch {
	case mb.state == memberStable && mb.epoch == g.targetEpoch:
		return false
	case mb.state != memberUnrevoked:
		return g.advance(now, mb, mb.epoch, owned)
	case !gaveUp(mb.revoking, owned):
		return subscription && g.unsubscribe(mb)
	}
	g.release(mb.revoking)
	mb.revoking = nil
	return g.advance(now, mb, mb.epoch+1, owned)
}

// gaveUp says whether a member owns none of the partitions any more.
func gaveUp(partitions, owned assignor.Partitions) bool {
	if owned == nil {
		return len(partitions) == 0
	}
	for topic, list := range owned {
		for _, p := range list {
			if partitions.Contains(topic, p) {
				return false
			}
		}
	}
	return true
}

// advance makes a member give up what is not in its target, in the given epoch,
// or, if it has done so, takes it to the target's epoch with all that is free.
func (g *consumerGroup) advance(now time.Duration, mb *consumerMember, epoch int32, owned assignor.Partitions) (moved bool) {
	keep, revoke := split(mb.assigned, func(k lease.Key) bool { return mb.target.Contains(k.TopicID, k.Partition) })
	if !gaveUp(revoke, owned) {
		if mb.classic == nil {
			g.m.timers.schedule(&mb.reaction, now+mb.rebalanceTimeout)
		}
		return g.step(mb, memberUnrevoked, epoch, keep, revoke)
	}
	g.release(revoke)
	if mb.classic == nil {
		g.m.timers.cancel(&mb.reaction)
	}
	free, unreleased := split(mb.target, g.freeFor(mb))
	g.own(mb, free)
	if len(unreleased) > 0 {
		return g.step(mb, memberUnreleased, g.targetEpoch, free, nil)
	}
	return g.step(mb, memberStable, g.targetEpoch, free, nil)
}

// step takes a member to another state, if it is one.
func (g *consumerGroup) step(mb *consumerMember, s memberState, epoch int32, assigned, revoking assignor.Partitions) (moved bool) {
	moved = !mb.assigned.Equal(assigned)
	if !moved && mb.state == s && mb.epoch == epoch && mb.revoking.Equal(revoking) {
		return false
	}
	mb.state, mb.previousEpoch, mb.epoch = s, mb.epoch, epoch
	mb.assigned, mb.revoking = assigned, revoking
	g.changed()
	g.settle()
	return moved
}

// freeFor passes the partitions that nobody but the member owns.
func (g *consumerGroup) freeFor(mb *consumerMember) func(lease.Key) bool {
	return func(k lease.Key) bool { return g.owners[k] == nil || g.owners[k] == mb }
}

// unsubscribe makes a member that has to give something up anyway give up, too,
// what it does not subscribe to any more.
func (g *consumerGroup) unsubscribe(mb *consumerMember) (moved bool) {
	view := g.m.view()
	keep, revoke := split(mb.assigned, func(k lease.Key) bool {
		name, ok := view.Name(k.TopicID)
		return !ok || g.subscribes(mb, name)
	})
	if len(revoke) == 0 {
		return false
	}
	mb.assigned, mb.revoking = keep, union(mb.revoking, revoke)
	g.changed()
	return true
}

// split divides partitions into those that pass and the others.
func split(partitions assignor.Partitions, passes func(lease.Key) bool) (in, out assignor.Partitions) {
	in, out = make(assignor.Partitions), make(assignor.Partitions)
	for topic, list := range partitions {
		for _, p := range list {
			if passes(lease.Key{TopicID: topic, Partition: p}) {
				in[topic] = append(in[topic], p)
			} else {
				out[topic] = append(out[topic], p)
			}
		}
	}
	return in, out
}

func union(a, b assignor.Partitions) assignor.Partitions {
	all := make(assignor.Partitions, len(a)+len(b))
	for _, partitions := range []assignor.Partitions{a, b} {
		for topic, list := range partitions {
			all[topic] = slices.Sorted(slices.Values(slices.Concat(all[topic], list)))
		}
	}
	return all
}
