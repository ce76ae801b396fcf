package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/zone"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

// zoned puts an agent into a zone. Clients of zone a are at 127.0.1.*, those of zone b
// at 127.0.2.*.
func zoned(name string) func(*Settings) {
	return func(s *Settings) {
		s.AvailabilityZone = name
		m, err := zone.ParseMap("a=127.0.1.0/24;b=127.0.2.0/24")
		if err != nil {
			panic(err)
		}
		s.Zones = m
	}
}

// zoneClient is a client of a zone, by its client id or by its address.
type zoneClient struct{ id, ip string }

func (c zoneClient) dial(t testing.TB, addr string) *wire {
	t.Helper()
	d := net.Dialer{Timeout: testTimeout, LocalAddr: &net.TCPAddr{IP: net.ParseIP(c.ip)}}
	conn, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(testTimeout)); err != nil {
		t.Fatal(err)
	}
	return &wire{t: t, id: c.id, conn: conn, in: bufio.NewReader(conn)}
}

// clientsOf are clients of a zone.
func clientsOf(zone string) []zoneClient {
	return []zoneClient{
		{"zone=" + zone, "127.0.0.1"},
		{"app,warpstream_az=" + zone, map[string]string{"a": "127.0.2.9", "b": "127.0.1.9"}[zone]}, // and not of the address's
		{"app", map[string]string{"a": "127.0.1.9", "b": "127.0.2.9"}[zone]},
	}
}

// told is what Metadata tells a client: the zones of the leaders, and of all agents.
func told(w *wire, t topic) (leaders, listed []string) {
	w.t.Helper()
	resp, answer := metadataOf(w, t.name)
	zones := map[int32]string{}
	for _, b := range resp.Brokers {
		zones[b.NodeID] = str(b.Rack)
		listed = append(listed, str(b.Rack))
	}
	if _, ok := zones[resp.ControllerID]; !ok {
		w.t.Errorf("the controller %d is not among %+v", resp.ControllerID, resp.Brokers)
	}
	for _, p := range answer.Partitions {
		leaders = append(leaders, zones[p.Leader])
	}
	slices.Sort(leaders)
	slices.Sort(listed)
	return slices.Compact(leaders), listed
}

// zonesRig is two agents of zone a and one of zone b, and a topic.
type zonesRig struct {
	t      *testing.T
	stores stores
	agents map[string]*testAgent
	topic  topic
}

const zonesPartitions = 32

func newZonesRig(t *testing.T) *zonesRig {
	r := &zonesRig{t: t, stores: sharedStores(t), agents: map[string]*testAgent{}}
	for _, name := range []string{"a1", "a2", "b1"} {
		r.start(name)
	}
	r.topic = makeTopic(dial(t, r.agents["a1"].addr), "zones", zonesPartitions)
	return r
}

// start starts an agent, whose zone its name begins with, and returns when all know it.
func (r *zonesRig) start(name string) {
	r.agents[name] = startAgent(r.t, r.stores, named(name), zoned(name[:1]), func(s *Settings) { s.TopologyInterval = 100 * time.Millisecond })
	for _, a := range r.agents {
		eventually(r.t, "all agents are known", func() bool { return len(a.node.Topology.Snapshot().Agents()) == len(r.agents) })
	}
}

// everyAgentTells waits until each agent tells the clients of a zone that. An agent
// that is slow may be taken for dead by another for a moment.
func (r *zonesRig) everyAgentTells(zone string, leaders []string, listed []string) {
	r.t.Helper()
	for _, c := range clientsOf(zone) {
		for name, a := range r.agents {
			w := c.dial(r.t, a.addr)
			eventually(r.t, fmt.Sprintf("%s tells %+v of leaders in %v and of agents in %v", name, c, leaders, listed), func() bool {
				lead, list := told(w, r.topic)
				return slices.Equal(lead, leaders) && slices.Equal(list, listed)
			})
			eventually(r.t, fmt.Sprintf("%s describes to %+v agents in %v", name, c, listed), func() bool {
				return slices.Equal(described(w), listed)
			})
			eventually(r.t, fmt.Sprintf("%s names to %+v a coordinator in %v", name, c, leaders), func() bool {
				addr, _ := coordinatorOf(w, "group")
				return slices.ContainsFunc(leaders, func(zone string) bool { return r.at(zone, addr) })
			})
		}
	}
}

// described are the zones of the agents in DescribeCluster.
func described(w *wire) (zones []string) {
	w.t.Helper()
	req := kmsg.NewPtrDescribeClusterRequest()
	req.EndpointType = 1
	for _, b := range ask[*kmsg.DescribeClusterResponse](w, 1, req).Brokers {
		zones = append(zones, str(b.Rack))
	}
	slices.Sort(zones)
	return zones
}

// at says whether an agent of a zone has that address.
func (r *zonesRig) at(zone, addr string) bool {
	for name, a := range r.agents {
		if a.addr == addr {
			return name[:1] == zone
		}
	}
	return false
}

// zoneOf is the zone of an agent, which its name begins with.
func (r *zonesRig) zoneOf(node int32) string {
	for name, a := range r.agents {
		if a.node.Agent.Self().NodeID == node {
			return name[:1]
		}
	}
	return ""
}

func TestClientsAreToldOfTheirZone(t *testing.T) {
	t.Parallel()
	r := newZonesRig(t)
	r.everyAgentTells("a", []string{"a"}, []string{"a", "a", "b"}) // one of them to spare
	r.everyAgentTells("b", []string{"b"}, []string{"a", "b"})
	for name, a := range r.agents {
		all := zoneClient{"zone=none", "127.0.1.9"}.dial(t, a.addr)
		eventually(t, name+" tells who asks for all of all", func() bool { return len(described(all)) == 3 })
		w := dial(t, a.addr)
		eventually(t, name+" tells a client of no known zone of leaders in its own", func() bool {
			lead, _ := told(w, r.topic)
			return slices.Equal(lead, []string{name[:1]})
		})
	}

	// A zone without agents is served by the others, until it has some again.
	gone := r.agents["b1"]
	delete(r.agents, "b1")
	gone.end()
	for _, a := range r.agents {
		eventually(t, "the zone is gone", func() bool { return len(a.node.Topology.Snapshot().Agents()) == 2 })
	}
	r.everyAgentTells("b", []string{"a"}, []string{"a", "a"})
	w := clientsOf("b")[0].dial(t, leaderAddress(clientsOf("b")[0].dial(t, r.agents["a1"].addr), r.topic, 0))
	mustProduce(w, r.topic, 0, batchtest.Of("meanwhile"))
	r.start("b1")
	for _, c := range clientsOf("b") {
		w := c.dial(t, r.agents["a2"].addr)
		eventually(t, fmt.Sprintf("%+v is told that its zone is back", c), func() bool {
			_, m := metadataOf(w, r.topic.name)
			return !slices.ContainsFunc(m.Partitions[1:], func(p kmsg.MetadataResponseTopicPartition) bool { // nobody has written there
				return r.zoneOf(p.Leader) != "b"
			})
		})
	}
}

// A client that has come to another zone is sent home with the name and the address of
// an agent there, and takes the lease there.
func TestClientsAreSentHome(t *testing.T) {
	t.Parallel()
	r := newZonesRig(t)
	a1, b1 := r.agents["a1"], r.agents["b1"]
	home := b1.node.Agent.Self().NodeID
	partition := int32(0) // of which nobody has the lease yet
	for _, c := range clientsOf("b") {
		eventually(t, fmt.Sprintf("%+v is sent home", c), func() bool {
			c.id += ",again" // a client is sent home once
			partition++
			away := c.dial(t, a1.addr)
			away.send(produceRequest(12, r.topic, partition, -1, batchtest.Of("record")))
			resp := away.receive().(*kmsg.ProduceResponse)
			p := resp.Topics[0].Partitions[0]
			return p.ErrorCode == kerr.NotLeaderForPartition.Code && p.CurrentLeader.LeaderID == home &&
				len(resp.Brokers) == 1 && resp.Brokers[0].NodeID == home && str(resp.Brokers[0].Rack) == "b"
		})
		mustProduce(c.dial(t, b1.addr), r.topic, partition, batchtest.Of("record"))
		if !b1.holds(r.topic, partition) {
			t.Error("the lease was not taken in the zone that writes")
		}
	}
	// A client that is known by its rack fetches from a partition that nobody leads.
	for _, version := range []int16{12, 18} {
		c := zoneClient{fmt.Sprint("racked-", version), "127.0.0.1"}
		eventually(t, fmt.Sprintf("a fetch of v%d is sent home", version), func() bool {
			c.id += ",again"
			away := c.dial(t, a1.addr)
			if lead, _ := told(away, r.topic); !slices.Contains(lead, "a") {
				t.Fatalf("before its rack is known, a client is told of leaders in %v", lead)
			}
			req := fetchRequest(version, r.topic, 0, 0)
			req.Rack = "b"
			away.send(req)
			resp := away.receive().(*kmsg.FetchResponse)
			p := resp.Topics[0].Partitions[0]
			named := p.CurrentLeader.LeaderID == home && len(resp.Brokers) == 1
			return p.ErrorCode == kerr.NotLeaderForPartition.Code && named == (version >= 16)
		})
		away, at := c.dial(t, a1.addr), c.dial(t, b1.addr)
		eventually(t, "Metadata knows the rack too", func() bool {
			lead, _ := told(away, r.topic)
			return slices.Equal(lead, []string{"b"})
		})
		wantCode(t, "at home", fetchOne(at, fetchRequest(12, r.topic, 0, 0)).ErrorCode, nil)
	}
}

// Clients of a zone write to and read from agents of it, whoever leads: these have the
// leader sequence what they take in.
func TestAgentsStandInForLeadersElsewhere(t *testing.T) {
	t.Parallel()
	r := newZonesRig(t)
	r.start("b2")
	atHome, other := clientsOf("b")[0], clientsOf("a")[0]
	mustProduce(atHome.dial(t, r.agents["b1"].addr), r.topic, 0, batchtest.Of("0"))
	asked := other.dial(t, r.agents["a1"].addr)
	standIn := ""
	var epoch int32
	eventually(t, "clients of the other zone are told of an agent of theirs", func() bool {
		_, m := metadataOf(asked, r.topic.name)
		standIn, epoch = leaderAddress(asked, r.topic, 0), m.Partitions[0].LeaderEpoch
		return r.at("a", standIn) && epoch >= 0
	})
	w := other.dial(t, standIn)
	if p := produceUntilTaken(w, r.topic, 0, batchtest.Of("1")); p.BaseOffset != 1 {
		t.Errorf("a record of the other zone is at %d", p.BaseOffset)
	}
	if got := values(readLog(w, r.topic, 0)); !slices.Equal(got, []string{"0", "1"}) || !r.agents["b1"].holds(r.topic, 0) {
		t.Errorf("log %q; the leader leads: %v", got, r.agents["b1"].holds(r.topic, 0))
	}
	direct := other
	eventually(t, "one that writes to the leader is sent home", func() bool {
		direct.id += ",again"
		at := direct.dial(t, r.agents["b1"].addr)
		at.send(produceRequest(12, r.topic, 0, -1, []byte("no records, should they be taken here")))
		resp := at.receive().(*kmsg.ProduceResponse)
		p := resp.Topics[0].Partitions[0]
		return p.ErrorCode == kerr.NotLeaderForPartition.Code && p.CurrentLeader.LeaderEpoch == epoch &&
			r.zoneOf(p.CurrentLeader.LeaderID) == "a"
	})

	// When another agent leads, who stands in says so, and names itself.
	gone := r.agents["b1"]
	delete(r.agents, "b1")
	gone.end()
	produceUntilTaken(w, r.topic, 0, batchtest.Of("2"))
	if got := values(readLog(w, r.topic, 0)); !slices.Equal(got, []string{"0", "1", "2"}) {
		t.Errorf("log %q", got)
	}
	eventually(t, "a fetch in the old leader epoch is told of the new one", func() bool {
		req := fetchRequest(18, r.topic, 0, 0)
		req.Topics[0].Partitions[0].CurrentLeaderEpoch = epoch
		w.send(req)
		resp := w.receive().(*kmsg.FetchResponse)
		p := resp.Topics[0].Partitions[0]
		return p.ErrorCode == kerr.NotLeaderForPartition.Code && p.CurrentLeader.LeaderEpoch == epoch+1 &&
			len(resp.Brokers) == 1 && net.JoinHostPort(resp.Brokers[0].Host, fmt.Sprint(resp.Brokers[0].Port)) == standIn
	})
}

// Members of a group in several zones have one coordinator, which clients find that
// look for it among the agents that they are told of.
func TestGroupsOverZones(t *testing.T) {
	t.Parallel()
	r := newZonesRig(t)
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	consumed := make(chan string)
	var members sync.WaitGroup
	defer members.Wait()
	for _, z := range []string{"a", "b"} {
		c, err := kgo.NewClient(kgo.SeedBrokers(r.agents[z+"1"].addr), kgo.ClientID("app,zone="+z), kgo.ConsumeTopics(r.topic.name),
			kgo.ConsumerGroup("group"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DefaultProduceTopic(r.topic.name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		if err := c.ProduceSync(ctx, kgo.StringRecord("from "+z)).FirstErr(); err != nil {
			t.Fatalf("produce in zone %s: %v", z, err)
		}
		members.Go(func() {
			for ctx.Err() == nil {
				c.PollFetches(ctx).EachRecord(func(record *kgo.Record) {
					select {
					case consumed <- string(record.Value):
					case <-ctx.Done():
					}
				})
			}
		})
	}
	got := map[string]bool{}
	for len(got) < 2 {
		select {
		case value := <-consumed:
			got[value] = true
		case <-ctx.Done():
			t.Fatalf("consumed %v", got)
		}
	}
	cancel()
}
