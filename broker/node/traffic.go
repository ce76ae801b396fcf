package node

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/partition"
	"github.com/streamhouse/streamhouse/broker/traffic"
	"github.com/streamhouse/streamhouse/protocol"
	"github.com/streamhouse/streamhouse/segment/objstore"
)

// newMeter makes the meter of the agent's traffic.
func (n *Node) newMeter(requests *objstore.Metrics) *traffic.Meter {
	return traffic.New(traffic.Config{
		Zone: n.cfg.Self.Zone, Zones: n.cfg.Zones.Zones(), ZoneOf: n.zones.Of,
		Agents: n.zonesAlive, Requests: requests.Answered, Prices: n.cfg.Prices,
	}, n.env.Registry)
}

// zonesAlive has the zone of each agent that is heard of.
func (n *Node) zonesAlive() (zones []string) {
	view := n.Topology.Snapshot()
	for _, a := range view.Agents() {
		if view.Heard(a) {
			zones = append(zones, a.Zone)
		}
	}
	return zones
}

// served counts a request of a client.
func (n *Node) served(req *protocol.Request, in, out int) {
	n.Traffic.Served(req.ClientID, req.Conn.RemoteAddr, in, out, req.Key == kmsg.Produce.Int16())
}

// wrote takes in what a client appends.
func (n *Node) wrote(req *protocol.Request, appends []partition.Append) {
	zone, _ := n.zones.Of(req.ClientID, req.Conn.RemoteAddr)
	for i := range appends {
		n.Writers.Wrote(appends[i].Key, zone, len(appends[i].Batch.Batch))
	}
}
