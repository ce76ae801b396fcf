package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/broker/zone"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol"
)

// zonesView is a source that always answers the same.
type zonesView struct {
	Agents  []metadata.Agent
	Leaders []metadata.Leader
}

func (v *zonesView) Topology(context.Context, int64) (*metadata.Topology, error) {
	topic := metadata.Topic{ID: zoneKey(0).TopicID, Name: "topic", Partitions: int32(len(v.Leaders))}
	return &metadata.Topology{Version: 1, Agents: v.Agents, Topics: []metadata.Topic{topic}, Leaders: v.Leaders}, nil
}

// fatal is a test of any kind.
type fatal interface {
	Fatalf(format string, args ...any)
}

// zonesCluster is the agents of a cluster with the same view of it, without the parts
// that do the work.
type zonesCluster struct {
	t       fatal
	view    zonesView
	brokers []*Broker
	cut     map[[2]int32]bool // who can't reach whom
}

func zoneKey(p int32) lease.Key { return lease.Key{TopicID: uuid.UUID{1}, Partition: p} }

// newZonesCluster has an agent for each zone that is named, whose node ids count from
// 1, and the holders of partitions by node id, 0 for nobody.
func newZonesCluster(t fatal, zones []string, holders ...int) *zonesCluster {
	c := &zonesCluster{t: t, cut: map[[2]int32]bool{}}
	for i, z := range zones {
		c.view.Agents = append(c.view.Agents, metadata.Agent{
			ID: fmt.Sprintf("agent-%d", i+1), NodeID: int32(i + 1), Session: uuid.UUID{byte(i + 1)}, Zone: z, PeerAddress: "peer:1",
		})
	}
	for p, holder := range holders {
		l := metadata.Leader{Key: zoneKey(int32(p)), LeaderEpoch: 5}
		if holder > 0 {
			l.AgentID = fmt.Sprintf("agent-%d", holder)
		}
		c.view.Leaders = append(c.view.Leaders, l)
	}
	static, err := config.NewBroker(nil)
	if err != nil {
		t.Fatalf("%v", err)
	}
	log := slog.New(slog.DiscardHandler)
	for i := range c.view.Agents {
		self := &c.view.Agents[i]
		w := topology.NewWatcher(topology.Config{Interval: time.Hour, AgentFresh: time.Minute, Broker: static}, &c.view, log)
		if _, err := w.Refresh(context.Background(), 0); err != nil {
			t.Fatalf("%v", err)
		}
		c.brokers = append(c.brokers, New(Parts{
			NodeID: self.NodeID, AgentID: self.ID, Topology: w, Zones: zone.NewFinder(self.Zone, zone.Map{}), Peers: noPeers{}, Log: log,
			Reachable: func(id string) bool {
				other, ok := w.Snapshot().Agent(id)
				return ok && !c.cut[[2]int32{self.NodeID, other.NodeID}]
			},
		}))
	}
	return c
}

func (c *zonesCluster) at(node int32) *Broker { return c.brokers[node-1] }

// from is a request of a client with that id.
func from(clientID string) *protocol.Request {
	return &protocol.Request{ClientID: clientID, Conn: &protocol.ConnInfo{RemoteAddr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}}}
}

// write is what an agent does with a write: nil if it accepts. It stands for the
// table of partitions.
func (c *zonesCluster) write(b *Broker, clientID string, k lease.Key) error {
	v := b.visit(from(clientID))
	if err := v.check(k); err != nil {
		return err
	}
	view := b.Topology.Snapshot()
	holder, epoch, held := view.Holder(k)
	self, _ := view.Agent(b.AgentID)
	switch {
	case !held || holder.ID == b.AgentID:
		return nil
	case holder.Zone != self.Zone && b.Reachable(holder.ID): // borrowed
		return nil
	}
	return &lease.HeldByOtherError{Key: k, Holder: lease.Holder{AgentID: holder.ID, LeaderEpoch: epoch}}
}

func TestVisitorsAreSentHome(t *testing.T) {
	t.Parallel()
	c := newZonesCluster(t, []string{"a", "b", ""}, 1, 2, 0)
	for _, test := range []struct {
		name, client string
		node         int32
		partition    int32
		home         bool
	}{
		{"at home", "zone=a", 1, 1, false},
		{"of no known zone", "app", 1, 1, false},
		{"at a holder elsewhere", "one,zone=b", 1, 0, true},
		{"at another agent elsewhere", "two,zone=b", 1, 1, true},
		{"where nobody leads", "three,zone=b", 1, 2, true},
		{"at an agent without a zone", "four,zone=b", 3, 0, true},
		{"of a zone without agents", "zone=d", 1, 1, false},
	} {
		v := c.at(test.node).visit(from(test.client))
		err := v.check(zoneKey(test.partition))
		if want := error(nil); test.home && !errors.Is(err, kerr.NotLeaderForPartition) || !test.home && err != want {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	// A holder that can't be reached from there is left its clients.
	c.cut[[2]int32{1, 2}] = true
	v := c.at(1).visit(from("five,zone=b"))
	if err := v.check(zoneKey(0)); err != nil {
		t.Errorf("where home can't be reached: %v", err)
	}
}

func TestHintsNameWhatMetadataNames(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := drawZones(t)
		for p := range c.view.Leaders {
			k := zoneKey(int32(p))
			for _, z := range []string{"", "a", "b", "c"} {
				b := c.brokers[rapid.IntRange(0, len(c.brokers)-1).Draw(t, "agent")]
				view := b.Topology.Snapshot()
				want, epoch, ok := b.leaderFor(view, z, k)
				if !ok {
					t.Fatalf("no leader of %v", k)
				}
				holder, _, held := view.Holder(k)
				hint, named := b.leaderHints(t.Context(), z).leader(k, nil)
				if ownOnly := want.NodeID == b.NodeID && (!held || holder.NodeID == b.NodeID); named == ownOnly {
					t.Fatalf("agent %d names a leader: %v, which is %d, and the holder %d", b.NodeID, named, want.NodeID, holder.NodeID)
				}
				if named && (hint.node != want.NodeID || hint.epoch != epoch) {
					t.Fatalf("agent %d names %+v, Metadata %d in epoch %d", b.NodeID, hint, want.NodeID, epoch)
				}
			}
		}
	})
}

// A lease may have moved since the view was made. What is named then follows from the
// new holder.
func TestHintsOfRefusalsThatAreNewer(t *testing.T) {
	t.Parallel()
	c := newZonesCluster(t, []string{"a", "a", "b"}, 3)
	refusal := func(agent string) error {
		return &lease.HeldByOtherError{Key: zoneKey(0), Holder: lease.Holder{AgentID: agent, LeaderEpoch: 6}}
	}
	h := c.at(1).leaderHints(t.Context(), "a")
	if got, ok := h.leader(zoneKey(0), refusal("agent-2")); !ok || got != (leaderHint{2, 6}) {
		t.Errorf("in the zone: %+v, %v", got, ok)
	}
	h = c.at(2).leaderHints(t.Context(), "b")
	if got, ok := h.leader(zoneKey(0), refusal("agent-1")); !ok || got != (leaderHint{3, 6}) {
		t.Errorf("in another zone: %+v, %v", got, ok)
	}
	if named := h.named(); len(named) != 1 || named[0].NodeID != 3 {
		t.Errorf("addresses: %+v", named)
	}
}

// An agent that leaves names others, one of its zone if there is one.
func TestAnAgentThatLeavesNamesAnother(t *testing.T) {
	t.Parallel()
	c := newZonesCluster(t, []string{"a", "a", "b"}, 3)
	k := zoneKey(0)
	home, _, _ := c.at(3).Topology.Snapshot().LeaderFor("a", k)
	b := c.at(home.NodeID)
	if got, ok := b.leaderHints(t.Context(), "a").leader(k, nil); !ok || got.node != home.NodeID {
		t.Errorf("one that stays: %+v, %v", got, ok)
	}
	got, ok := b.leaderHints(t.Context(), "a").leader(k, fmt.Errorf("draining: %w", lease.ErrReleased))
	if !ok || got.node == home.NodeID || got.node == 3 {
		t.Errorf("one that has released its leases: %+v, %v", got, ok)
	}
	b.Leave()
	if got, ok := b.leaderHints(t.Context(), "a").leader(k, nil); ok {
		t.Errorf("one that leaves: %+v", got)
	}
}

func drawZones(t *rapid.T) *zonesCluster {
	zones := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 6).Draw(t, "zones")
	holders := rapid.SliceOfN(rapid.IntRange(0, len(zones)), 3, 3).Draw(t, "holders")
	return newZonesCluster(t, zones, holders...)
}

// follower is a client that goes where it is sent: where the hints of refusals name a
// leader, or where the Metadata of agents that refused does.
type follower struct {
	id     string
	first  int32 // the agent that it asks first
	hinted bool
}

func drawFollower(t *rapid.T, c *zonesCluster, ids ...string) follower {
	return follower{
		id: rapid.SampledFrom(ids).Draw(t, "client"), first: rapid.Int32Range(1, int32(len(c.brokers))).Draw(t, "first"),
		hinted: rapid.Bool().Draw(t, "hinted"),
	}
}

// lost is more agents than any client has to ask.
const lost = 20

// write has a client write until it is accepted, and returns how many agents it has
// asked, with a tenth of a second between two.
func (f follower) write(ctx context.Context, c *zonesCluster, k lease.Key) int {
	node := f.first
	for asked := 1; asked < lost; asked++ {
		b := c.at(node)
		err := c.write(b, f.id, k)
		if err == nil {
			return asked
		}
		z := b.zoneOf(from(f.id))
		next, _, _ := b.leaderFor(b.Topology.Snapshot(), z, k)
		if node = next.NodeID; f.hinted {
			if hint, ok := b.leaderHints(ctx, z).leader(k, err); ok {
				node = hint.node
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return lost
}

func TestNobodyIsSentToAndFro(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		c := drawZones(rt)
		f := drawFollower(rt, c, "app", "zone=a", "zone=b", "zone=c", "zone=none")
		asked := 0
		synctest.Test(t, func(t *testing.T) { asked = f.write(t.Context(), c, zoneKey(0)) })
		if asked > 3 {
			rt.Fatalf("%+v has asked %d agents", f, asked)
		}
	})
}

// Nor when agents can't reach each other: after some tries clients are served, and are
// then left alone for a while.
func TestNobodyIsSentToAndFroBetweenAgentsThatAreCutOff(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		c := drawZones(rt)
		for _, x := range c.brokers {
			for _, y := range c.brokers {
				c.cut[[2]int32{x.NodeID, y.NodeID}] = rapid.Bool().Draw(rt, "cut")
			}
		}
		f := drawFollower(rt, c, "app", "zone=a", "zone=b", "zone=c")
		first, second := 0, 0
		synctest.Test(t, func(t *testing.T) {
			first = f.write(t.Context(), c, zoneKey(0))
			second = f.write(t.Context(), c, zoneKey(0))
		})
		if first == lost || second > 3 {
			rt.Fatalf("%+v has asked %d agents, and then %d", f, first, second)
		}
	})
}

// The two steps that are promised: whoever is refused, and goes where it is told, is
// accepted there.
func TestWhoIsToldOfAccepts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := drawZones(t)
		for _, b := range c.brokers {
			for p := range c.view.Leaders {
				for _, client := range []string{"zone=a", "zone=b", "zone=c"} {
					told, _, _ := b.leaderFor(b.Topology.Snapshot(), b.zoneOf(from(client)), zoneKey(int32(p)))
					if err := c.write(c.at(told.NodeID), client, zoneKey(int32(p))); err != nil {
						t.Fatalf("agent %d sends %s to agent %d, which refuses: %v", b.NodeID, client, told.NodeID, err)
					}
				}
			}
		}
	})
}

func TestMetadataListsWhomItNames(t *testing.T) {
	t.Parallel()
	c := newZonesCluster(t, []string{"a", "a", "b", "c", "b"}, 1, 3, 4, 0)
	b := c.at(1)
	view := b.Topology.Snapshot()
	topic := &topology.Topic{Topic: metadata.Topic{ID: zoneKey(0).TopicID, Name: "t", Partitions: 4}}
	for z, want := range map[string]int{"a": 3, "b": 3, "c": 2, "": 5, "d": 5} {
		answer := b.metadataTopic(view, z, topic)
		brokers := metadataBrokers(view, z, nil)
		var listed []int32
		for _, l := range brokers {
			listed = append(listed, l.NodeID)
		}
		if len(listed) != want || !slices.IsSorted(listed) || !slices.Contains(listed, view.Controller(z)) {
			t.Errorf("clients of %q are told of %v, and of the controller %d", z, listed, view.Controller(z))
		}
		for _, p := range answer.Partitions {
			if !slices.Contains(listed, p.Leader) || !slices.Equal(p.Replicas, []int32{p.Leader}) {
				t.Errorf("clients of %q are told of %v, and that %d leads", z, listed, p.Leader)
			}
		}
	}
	// Also of a holder elsewhere, where nobody can append to it.
	for i := range c.view.Agents {
		c.view.Agents[i].PeerAddress = ""
	}
	view, err := b.Topology.Refresh(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	answer := b.metadataTopic(view, "a", topic)
	if brokers := metadataBrokers(view, "a", []kmsg.MetadataResponseTopic{answer}); len(brokers) < 4 {
		t.Errorf("of four leaders and two agents of the zone %v are listed", brokers)
	}
}
