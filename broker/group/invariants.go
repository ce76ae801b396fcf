package group

import (
	"errors"
	"fmt"
)

// check returns what does not hold between two steps of the machine, though it
// must.
func (m *machine) check() error {
	members := 0
	for id, g := range m.groups {
		n, err := g.check()
		if err != nil {
			return fmt.Errorf("group %s in state %s: %w", id, g.listed().State, err)
		}
		members += n
	}
	if members != m.counts.members {
		return fmt.Errorf("%d members, %d counted", members, m.counts.members)
	}
	return nil
}

// check implements coordinated.
func (g *group) check() (members int, err error) { return len(g.members), g.holds() }

func (g *group) holds() error {
	joining, unsynced := 0, 0
	for _, mb := range g.members {
		if mb.joining != nil {
			joining++
		}
		if mb.unsynced {
			unsynced++
		}
		switch {
		case mb.syncing != nil && g.state != CompletingRebalance:
			return errors.New("a sync waits outside of CompletingRebalance")
		case len(mb.protocols) == 0:
			return errors.New("a member without protocols")
		}
	}
	switch {
	case joining != g.joining || unsynced != g.unsynced:
		return errors.New("miscounted members")
	case joining > 0 && g.state != PreparingRebalance:
		return errors.New("a join waits outside of PreparingRebalance")
	case len(g.members) == 0 && (g.state == Stable || g.state == CompletingRebalance):
		return errors.New("a generation without members")
	case len(g.members) > 0 && g.state == Empty:
		return errors.New("members of an empty group")
	case len(g.members) > 0 && g.byID[g.leader] == nil:
		return errors.New("the leader is no member")
	case len(g.byID) != len(g.members):
		return errors.New("two members with one id")
	}
	return nil
}
