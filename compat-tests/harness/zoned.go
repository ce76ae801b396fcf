package harness

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/compat-tests/process"
	"github.com/streamhouse/streamhouse/internal/testdb"
)

// zoneAgents is how many agents each zone of a ZonedCluster has.
const zoneAgents = 2

// ZonedCluster is a cluster in three availability zones, each of which has two agents and a part of the loopback network
// of its own, so that addresses tell zones: agents and clients are dialed, and dial others, from addresses of their
// zone. All links between them are counted.
type ZonedCluster struct {
	Stores Stores
	// Zones are the names of the zones.
	Zones []string
	// Agents are in the order of their zones.
	Agents  []*LinkedAgent
	traffic *traffic
	objects map[string]*objectUse // by zone
}

// Flows are what has flowed on the links so far.
func (c *ZonedCluster) Flows() Flows { return c.traffic.read() }

// Objects is what a zone has asked of the bucket so far.
func (c *ZonedCluster) Objects(zone string) ObjectUse { return c.objects[zone].read() }

// In returns the agents of a zone.
func (c *ZonedCluster) In(zone string) []*LinkedAgent {
	return slices.DeleteFunc(slices.Clone(c.Agents), func(a *LinkedAgent) bool { return a.Zone != zone })
}

// Seeds are the addresses of all agents.
func (c *ZonedCluster) Seeds() []string {
	var seeds []string
	for _, a := range c.Agents {
		seeds = append(seeds, a.Address())
	}
	return seeds
}

// Client are the options of a client in a zone.
func (c *ZonedCluster) Client(zone string) []kgo.Opt {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(zoneHost(slices.Index(c.Zones, zone), clientHost))}}
	return []kgo.Opt{
		kgo.Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		}),
	}
}

// NoZone is the client id of clients that are told of all agents: there is no such zone.
const NoZone = zoneTag + "none"

// clientHost is the last byte of the address of a zone's clients.
const clientHost = 100

// zoneHost is an address in a zone: all of 127.0.0.0/8 is this machine.
func zoneHost(zone, host int) string { return fmt.Sprintf("127.0.%d.%d", 11+zone, host) }

func (c *ZonedCluster) zoneOf(address net.Addr) string {
	tcp, ok := address.(*net.TCPAddr)
	if !ok {
		return ""
	}
	for i, zone := range c.Zones {
		if ip := tcp.IP.To4(); ip != nil && strings.HasPrefix(ip.String()+".", fmt.Sprintf("127.0.%d.", 11+i)) {
			return zone
		}
	}
	return ""
}

// StartZonedCluster is LinkedCluster in three zones.
func StartZonedCluster(t testing.TB, stores Stores, env ...string) *ZonedCluster {
	t.Helper()
	c := &ZonedCluster{Stores: stores, Zones: []string{"a", "b", "c"}, objects: make(map[string]*objectUse)}
	c.traffic = newTraffic(c.zoneOf)
	var subnets []string
	for i, zone := range c.Zones {
		c.objects[zone] = newObjectUse()
		subnets = append(subnets, zone+"="+zoneHost(i, 0)+"/24")
	}
	env = append(slices.Clip(env), "STREAMHOUSE_ZONES="+strings.Join(subnets, ";"))
	var agents []*Agent
	for i := range c.Zones {
		for n := range zoneAgents {
			a := c.prepare(t, i, n+1, env)
			c.Agents = append(c.Agents, a)
			agents = append(agents, a.Agent)
		}
	}
	stopAfter(t, agents...) // and not what was made before, which they need
	t.Cleanup(func() {
		for _, a := range c.Agents {
			a.Heal()
		}
	})
	start(t, agents...)
	return c
}

// prepare makes the nth agent of a zone, and its links.
func (c *ZonedCluster) prepare(t testing.TB, zone, n int, env []string) *LinkedAgent {
	t.Helper()
	host, name := zoneHost(zone, n), c.Zones[zone]
	free := func() string {
		address, err := process.FreeAddressOf(host)
		if err != nil {
			t.Fatal(err)
		}
		return address
	}
	agent, err := newAgent(fmt.Sprintf("%s%d", name, n), t.TempDir(), env, nil)
	if err != nil {
		t.Fatal(err)
	}
	agent.address = free()
	listener := free()
	between := func(server string, watch func(net.Addr) func(testdb.Direction, []byte)) Link {
		return newLinkWith(t, server, testdb.ProxyOptions{Listen: host + ":0", KeepSource: true, Watch: watch})
	}
	peers := between(listener, c.traffic.watch(Peers, name))
	a := &LinkedAgent{
		Agent: agent,
		Kafka: between(agent.address, c.traffic.watchKafka(name)),
		Postgres: DatabaseLink{newLinkWith(t, c.Stores.Metadata, testdb.ProxyOptions{
			Watch: c.traffic.watchDatabase(name),
		})},
		S3:    newBucketLink(t, c.Stores.Objects, c.objects[name]),
		Zone:  name,
		Peers: &peers,
	}
	agent.flags = []string{
		"--advertised-address", a.Kafka.Address(),
		"--metadata-url", a.Postgres.proxy.URL(), "--object-url", a.S3.proxy.URL(),
	}
	agent.env = append(slices.Clip(env), "STREAMHOUSE_AVAILABILITY_ZONE="+name,
		"STREAMHOUSE_PEER_ADDRESS="+listener, "STREAMHOUSE_PEER_ADVERTISED_ADDRESS="+peers.Address())
	return a
}
