package balance

import (
	"math"
	"slices"
	"time"

	"github.com/streamhouse/streamhouse/lease"
)

// The pace of hand-overs for balance.
const (
	calm     = 10 * time.Second // for which the agents must have been the same
	minAge   = 10 * time.Second // of a lease that is handed over
	interval = time.Second      // between two looks
	most     = 10               // leases that one look hands over
	share    = 0.05             // of the leases held, at least one
)

// View is the cluster at an instant.
type View interface {
	// Alive lists the sessions of the agents that are heard of, in order.
	Alive() []string
	// Owner is the agent that should lead a key.
	Owner(k lease.Key) (agentID string, ok bool)
	// StandIn is the agent that clients of a zone produce a key to while its leader is
	// elsewhere; ok is false if no agent of the zone is heard of.
	StandIn(zone string, k lease.Key) (agentID string, ok bool)
	// OtherLeads says whether another agent than that is alive and leads something.
	OtherLeads(agentID string) bool
}

// held is a lease as the plan sees it.
type held struct {
	key         lease.Key
	leaderEpoch int32
	age         time.Duration
}

// planner decides what is handed over. It reads no clock.
type planner struct {
	self  string
	alive []string
	since time.Duration // the instant from which on alive is as it is
}

// plan returns the places in leases of those that are to be handed over at the
// instant now.
func (p *planner) plan(now time.Duration, v View, leases []held) []int {
	if alive := v.Alive(); !slices.Equal(alive, p.alive) {
		p.alive, p.since = alive, now
	}
	if !p.calm(now) {
		return nil
	}
	var moves []int
	for i, h := range leases {
		if owner, ok := v.Owner(h.key); ok && owner != p.self && h.age >= minAge {
			moves = append(moves, i)
		}
	}
	// The same ones each time, if the plan is not carried out.
	slices.SortFunc(moves, func(a, b int) int { return leases[a].key.Compare(leases[b].key) })
	return moves[:min(len(moves), budget(len(leases)))]
}

// calm says whether there are others, and have been the same for a while.
func (p *planner) calm(now time.Duration) bool { return now-p.since >= calm && len(p.alive) > 1 }

// budget is how many of so many leases one look may hand over.
func budget(leases int) int { return min(int(math.Ceil(share*float64(leases))), most) }
