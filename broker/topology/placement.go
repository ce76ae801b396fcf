package topology

import (
	"github.com/cespare/xxhash/v2"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// Whom clients are named, and who should lead what.
//
// Zones are in play for a client whose zone has agents that are heard of. It is named
// agents of that zone only: the holder of a lease if it is there, else one that
// stands in for it, which takes the records in and has the holder sequence them. Where
// no agent has a zone all of this comes down to the holder, or to rendezvous hashing
// over all.
//
// All agents with the same snapshot agree in all of it, so a client that follows what
// it is told comes to an agent that serves it, whomever it asks.

// Holder is the agent that holds the lease of a key, if it is heard of, and the leader
// epoch, -1 if there has been none.
func (s *Snapshot) Holder(k lease.Key) (a metadata.Agent, leaderEpoch int32, ok bool) {
	l, known := s.leaders[k]
	if !known {
		return a, -1, false
	}
	if l.AgentID == "" {
		return a, l.LeaderEpoch, false
	}
	a, ok = s.Agent(l.AgentID)
	return a, l.LeaderEpoch, ok && s.heard(&a)
}

// Leader is the agent that leads a key, or would: the lease's holder while that agent
// is heard of; else the live agent that rendezvous hashing picks, in the zone of the
// holder as far as it is known. ok is false if there is no agent at all.
func (s *Snapshot) Leader(k lease.Key) (a metadata.Agent, leaderEpoch int32, ok bool) {
	return s.CoordinatorFor(s.zoneOfHolder(k), k)
}

// LeaderFor is the agent that clients of a zone are told to produce to and fetch from,
// and the leader epoch that they see, which is the lease's. Whoever is named for a
// lease that nobody holds takes it on the first write: so it is taken in the zone
// that writes. zone may be "". ok is false if there is no agent at all.
func (s *Snapshot) LeaderFor(zone string, k lease.Key) (a metadata.Agent, leaderEpoch int32, ok bool) {
	a, leaderEpoch, ok = s.CoordinatorFor(zone, k)
	if ok && s.apart(zone, a.Zone) { // so a is the holder: others are picked in the zone
		a = s.InPlaceOf(a, zone, k)
	}
	return a, leaderEpoch, ok
}

// CoordinatorFor is the agent that clients of a zone are told to be the coordinator of
// a shard, and the leader epoch: the holder of its lease, wherever it is, since groups
// have no other agent to stand in for it; if it is not heard of, the agent that is to
// take the lease, in the client's zone. ok is false if there is no agent at all.
func (s *Snapshot) CoordinatorFor(zone string, shard lease.Key) (a metadata.Agent, leaderEpoch int32, ok bool) {
	if a, leaderEpoch, ok = s.Holder(shard); ok {
		return a, leaderEpoch, true
	}
	a, ok = s.place(zone, shard, "")
	return a, leaderEpoch, ok
}

// apart says whether clients of a zone are not to be sent to an agent of another.
func (s *Snapshot) apart(zone, other string) bool {
	return zone != other && other != "" && s.alive[zone]
}

// StandIns says whether agents may append for others. They may not while an agent is
// listed that none can call: it may be of a release that can't read such objects.
func (s *Snapshot) StandIns() bool { return !s.mute }

// InPlaceOf is the agent that clients of a zone are named for a key that holder leads:
// holder itself, if it is in the zone, or zones are not in play, or no agent of the
// zone can append to what holder leads.
func (s *Snapshot) InPlaceOf(holder metadata.Agent, zone string, k lease.Key) metadata.Agent {
	if !s.apart(zone, holder.Zone) || !s.StandIns() {
		return holder
	}
	if i := s.standIn(zone, k); i >= 0 {
		return s.agents[i]
	}
	return holder
}

// StandIn is the agent of a zone that clients of the zone are named for a key which is
// led elsewhere. ok is false if no agent of the zone is heard of.
func (s *Snapshot) StandIn(zone string, k lease.Key) (agentID string, ok bool) {
	if !s.alive[zone] {
		return "", false
	}
	if i := s.standIn(zone, k); i >= 0 {
		return s.agents[i].ID, true
	}
	a, ok := s.place(zone, k, "")
	return a.ID, ok
}

// standIn picks among the agents of a zone that can append to what others lead; -1 if
// there is none.
func (s *Snapshot) standIn(zone string, k lease.Key) int {
	return s.best(k, func(a *metadata.Agent) bool { return a.Zone == zone && a.PeerAddress != "" && s.heard(a) })
}

// Owner is the agent that should lead a key among those of the zone in which it is
// led: all agents with the same snapshot agree, and an agent that comes or goes
// changes it for no other keys than its own. Whether the key is to be led in another
// zone is no matter of balance. ok is false if no agent is heard of.
func (s *Snapshot) Owner(k lease.Key) (agentID string, ok bool) {
	a, ok := s.place(s.zoneOfHolder(k), k, "")
	return a.ID, ok && s.heard(&a)
}

// Successor is who should lead a key if an agent were not there: another of its zone
// if there is one. ok is false if no other agent is heard of.
func (s *Snapshot) Successor(k lease.Key, of metadata.Agent) (agentID string, ok bool) {
	a, ok := s.place(of.Zone, k, of.ID)
	return a.ID, ok && s.heard(&a)
}

// zoneOfHolder is the zone of the agent that has the lease of a key, "" if it is not
// listed.
func (s *Snapshot) zoneOfHolder(k lease.Key) string {
	a, _ := s.Agent(s.leaders[k].AgentID)
	return a.Zone
}

// place picks an agent by rendezvous hashing among those of a zone that are heard of;
// if there is none, among all that are heard of; else among all that are listed. But
// never the one of the id without.
func (s *Snapshot) place(zone string, k lease.Key, without string) (picked metadata.Agent, ok bool) {
	i := -1
	if s.alive[zone] {
		i = s.best(k, func(a *metadata.Agent) bool { return a.Zone == zone && s.heard(a) && a.ID != without })
	}
	if i < 0 {
		i = s.best(k, func(a *metadata.Agent) bool { return s.heard(a) && a.ID != without })
	}
	if i < 0 {
		i = s.best(k, func(a *metadata.Agent) bool { return a.ID != without })
	}
	if i < 0 {
		return picked, false
	}
	return s.agents[i], true
}

// best is the place of the agent with the highest rank for a key among those that fit,
// -1 if none does.
func (s *Snapshot) best(k lease.Key, fits func(*metadata.Agent) bool) int {
	best := -1
	var bestRank uint64
	for i := range s.agents {
		if a := &s.agents[i]; fits(a) {
			if rank := rendezvous(k, a.ID); best < 0 || rank >= bestRank {
				best, bestRank = i, rank
			}
		}
	}
	return best
}

// rendezvous is the rank of an agent for a key (highest random weight).
func rendezvous(k lease.Key, agentID string) uint64 {
	var buf [64]byte
	b := append(buf[:0], k.TopicID[:]...)
	b = append(b, byte(k.Partition>>24), byte(k.Partition>>16), byte(k.Partition>>8), byte(k.Partition))
	b = append(b, agentID...)
	return xxhash.Sum64(b)
}

// AgentsFor are the agents that clients of a zone are told of, by node id: those of the
// zone that are heard of, and one of another zone, so that a client whose whole zone
// dies still knows somebody. Coordinators are among them wherever they are, since
// clients look for the address of a coordinator here. A zone without agents, as no
// zone at all, is told of all that are listed.
func (s *Snapshot) AgentsFor(zone string) []metadata.Agent {
	if !s.alive[zone] {
		return s.agents
	}
	told := make([]bool, len(s.agents))
	for shard := range s.shards {
		if a, _, ok := s.Holder(shard); ok {
			told[s.agentAt[a.ID]] = true
		}
	}
	spare, at := true, -1
	var rank uint64
	for i := range s.agents {
		switch a := &s.agents[i]; {
		case !s.heard(a):
		case a.Zone == zone:
			told[i] = true
		case told[i]:
			spare = false
		default:
			if r := xxhash.Sum64String(zone + "\x00" + a.ID); at < 0 || r >= rank {
				at, rank = i, r
			}
		}
	}
	if spare && at >= 0 {
		told[at] = true
	}
	agents := make([]metadata.Agent, 0, len(s.agents))
	for i := range s.agents {
		if told[i] {
			agents = append(agents, s.agents[i])
		}
	}
	return agents
}

// Controller is the node id of the agent that answers for the cluster to clients of a
// zone, chosen so that all agents agree: any agent can do what Kafka's controller
// does. It is the first of the zone that is heard of, or of all if there is none; -1 if
// there is no agent.
func (s *Snapshot) Controller(zone string) int32 {
	for i := range s.agents {
		if a := &s.agents[i]; s.heard(a) && (a.Zone == zone || !s.alive[zone]) {
			return a.NodeID
		}
	}
	if len(s.agents) == 0 {
		return -1
	}
	return s.agents[0].NodeID
}
