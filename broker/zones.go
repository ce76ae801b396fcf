package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol"
)

// A client that does what it is told is never sent to and fro for ever: Metadata, the
// hints of refusals and FindCoordinator name the agents of topology's placement, on
// which agents with equal views agree, and each of these accepts what its clients are
// sent to it with. An agent that was named in error, since views differ for some
// seconds or two agents can't reach each other, refuses with another name than its
// own or accepts; and it sends no client home twice in a row (zone.Homing).

// zoneOf is the zone of a request's client.
func (b *Broker) zoneOf(req *protocol.Request) string {
	zone, _ := b.Zones.Of(req.ClientID, req.Conn.RemoteAddr)
	return zone
}

// leaderFor is the agent that clients of a zone are told to write to and to read from,
// with the leader epoch.
func (b *Broker) leaderFor(view *topology.Snapshot, zone string, k lease.Key) (a metadata.Agent, leaderEpoch int32, ok bool) {
	if holder, leaderEpoch, ok := view.Holder(k); ok {
		return b.inPlaceOf(view, holder, zone, k), leaderEpoch, true
	}
	return view.LeaderFor(zone, k)
}

// inPlaceOf is the agent that clients of a zone are told of instead of a partition's
// holder. This agent is not, if it can't reach the holder: it could not append.
func (b *Broker) inPlaceOf(view *topology.Snapshot, holder metadata.Agent, zone string, k lease.Key) metadata.Agent {
	a := view.InPlaceOf(holder, zone, k)
	if a.NodeID == b.NodeID && holder.NodeID != b.NodeID && !b.Reachable(holder.ID) {
		return holder
	}
	return a
}

// visit is a request of a client that produces or fetches.
type visit struct {
	b    *Broker
	req  *protocol.Request
	zone string
	away bool // the client is known to be of another zone than this agent

	view  *topology.Snapshot // nil until it is wanted
	asked bool               // it is known whether the client is to be sent home
	send  bool
}

func (b *Broker) visit(req *protocol.Request) visit {
	zone, known := b.Zones.Of(req.ClientID, req.Conn.RemoteAddr)
	return visit{b: b, req: req, zone: zone, away: known && zone != b.Zones.Own()}
}

// check refuses a partition that an agent of the client's own zone serves, with
// NOT_LEADER_OR_FOLLOWER.
func (v *visit) check(k lease.Key) error {
	if !v.away || v.asked && !v.send {
		return nil
	}
	if v.view == nil {
		v.view = v.b.living(v.b.Topology.Snapshot())
	}
	home, _, ok := v.view.LeaderFor(v.zone, k)
	if !ok || home.Zone != v.zone || home.NodeID == v.b.NodeID {
		return nil
	}
	if holder, _, held := v.view.Holder(k); held && holder.NodeID == v.b.NodeID && !v.b.Reachable(home.ID) {
		return nil
	}
	if !v.asked {
		v.asked, v.send = true, v.b.homing.Send(v.req.ClientID, v.req.Conn.RemoteAddr)
	}
	if !v.send {
		return nil
	}
	return kerr.NotLeaderForPartition
}
