package node

import (
	"net"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/traffic"
	"github.com/streamhouse/streamhouse/protocol"
	"github.com/streamhouse/streamhouse/segment/objstore"
)

// newMeter makes the meter of the agent's traffic.
func (n *Node) newMeter(requests *objstore.Metrics) *traffic.Meter {
	zone := n.cfg.Self.Zone
	return traffic.New(traffic.Config{
		Zone: zone, ZoneOf: func(string, net.Addr) (string, bool) { return zone, false },
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
