package topology_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// failer is a test of any kind.
type failer interface{ Fatal(args ...any) }

// viewOf is an agent's view of a cluster.
func viewOf(t failer, d metadata.Topology) *topology.Snapshot {
	static, err := config.NewBroker(nil)
	if err != nil {
		t.Fatal(err)
	}
	src := &source{answers: []*metadata.Topology{&d}, agents: d.Agents}
	w := topology.NewWatcher(topology.Config{Interval: interval, AgentFresh: fresh, Broker: static, Deleted: func(uuid.UUID) {}},
		src, slog.New(slog.DiscardHandler))
	s, err := w.Refresh(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// in puts an agent into a zone, where it can be reached by the others.
func in(zone string, a metadata.Agent) metadata.Agent {
	a.Zone, a.PeerAddress = zone, fmt.Sprintf("peer-%d:1", a.NodeID)
	return a
}

// mute is an agent of a release that others can't append through.
func mute(a metadata.Agent) metadata.Agent {
	a.PeerAddress = ""
	return a
}

func TestLeadersOfZones(t *testing.T) {
	t.Parallel()
	k := key(1, 0)
	a1, a2, b1, b2, none := in("a", agent(1, 0)), in("a", agent(2, 0)), in("b", agent(3, 0)), in("b", agent(4, 0)), in("", agent(5, 0))
	late := func(a metadata.Agent) metadata.Agent { a.HeartbeatAge = fresh; return a }
	anyOf := func(nodes ...int32) []int32 { return nodes }
	for _, test := range []struct {
		name   string
		agents []metadata.Agent
		holder int32 // 0 is nobody
		zone   string
		want   []int32
	}{
		{"the holder is in the zone", []metadata.Agent{a1, a2, b1}, 2, "a", anyOf(2)},
		{"the holder is elsewhere", []metadata.Agent{a1, a2, b1}, 3, "a", anyOf(1, 2)},
		{"the client has no zone", []metadata.Agent{a1, a2, b1}, 3, "", anyOf(3)},
		{"the client's zone has no agents", []metadata.Agent{a1, a2, b1}, 3, "c", anyOf(3)},
		{"the holder has no zone", []metadata.Agent{a1, none}, 5, "a", anyOf(5)},
		{"the zone's agents are not heard of", []metadata.Agent{late(a1), late(a2), b1}, 3, "a", anyOf(3)},
		{"one of the zone's agents is heard of", []metadata.Agent{late(a1), a2, b1}, 3, "a", anyOf(2)},
		{"the holder takes no appends", []metadata.Agent{a1, a2, mute(b1)}, 3, "a", anyOf(3)},
		{"the zone's agents can't append", []metadata.Agent{mute(a1), mute(a2), b1}, 3, "a", anyOf(3)},
		{"one of the zone's agents can't read what others append", []metadata.Agent{a1, mute(a2), b1}, 3, "a", anyOf(3)},
		{"an agent elsewhere can't read what others append", []metadata.Agent{a1, a2, b1, mute(b2)}, 3, "a", anyOf(3)},
		{"nobody holds it", []metadata.Agent{a1, a2, b1, b2}, 0, "b", anyOf(3, 4)},
		{"nobody holds it, and nobody can append", []metadata.Agent{mute(a1), b1, b2}, 0, "a", anyOf(1)},
		{"nobody holds it, and the zone has no agents", []metadata.Agent{a1, b1}, 0, "c", anyOf(1, 3)},
		{"the holder is dead", []metadata.Agent{late(a1), a2, b1, b2}, 1, "b", anyOf(3, 4)},
		{"the holder is dead, and the zone has no agents", []metadata.Agent{late(a1), a2, b1}, 1, "c", anyOf(2, 3)},
		{"the holder is gone", []metadata.Agent{a2, b1}, 1, "b", anyOf(3)},
		{"nobody is heard of", []metadata.Agent{late(a1), late(b1)}, 3, "a", anyOf(1, 3)},
		{"an agent without a zone is not of the zone", []metadata.Agent{none, a1}, 0, "a", anyOf(1)},
	} {
		l := leader(k, test.holder, 7)
		s := viewOf(t, metadata.Topology{Agents: test.agents, Leaders: []metadata.Leader{l}})
		got, epoch, ok := s.LeaderFor(test.zone, k)
		if !ok || epoch != 7 || !slices.Contains(test.want, got.NodeID) {
			t.Errorf("%s: clients of %q are told of %d in epoch %d, %v; want %v", test.name, test.zone, got.NodeID, epoch, ok, test.want)
		}
	}
	if _, epoch, ok := viewOf(t, metadata.Topology{}).LeaderFor("a", k); ok || epoch != -1 {
		t.Errorf("a leader without agents, in epoch %d", epoch)
	}
}

func TestPlacementStaysInTheZone(t *testing.T) {
	t.Parallel()
	k, shard := key(1, 0), metadata.GroupShardKey("", 3)
	a1, a2, b1, b2 := in("a", agent(1, 0)), in("a", agent(2, 0)), in("b", agent(3, 0)), in("b", agent(4, 0))
	dead := a1
	dead.HeartbeatAge = fresh
	s := viewOf(t, metadata.Topology{
		Agents:  []metadata.Agent{dead, a2, b1, b2},
		Leaders: []metadata.Leader{leader(k, 1, 7)}, Shards: []metadata.Leader{leader(shard, 3, 2)},
	})
	if owner, ok := s.Owner(k); !ok || owner != "agent-2" {
		t.Errorf("the owner is %s, %v", owner, ok)
	}
	if a, epoch, ok := s.Leader(k); !ok || a.NodeID != 2 || epoch != 7 {
		t.Errorf("for a dead leader in zone a: %d in epoch %d, %v", a.NodeID, epoch, ok)
	}
	if next, ok := s.Successor(k, b1); !ok || next != "agent-4" {
		t.Errorf("the successor of one of zone b is %s, %v", next, ok)
	}
	if next, ok := s.Successor(k, a2); !ok || next != "agent-3" && next != "agent-4" {
		t.Errorf("the successor of the last of zone a is %s, %v", next, ok)
	}
	if id, ok := s.StandIn("a", k); !ok || id != "agent-2" {
		t.Errorf("zone a's agent is %s, %v", id, ok)
	}
	if id, ok := s.StandIn("c", k); ok {
		t.Errorf("zone c's agent is %s", id)
	}
	// Nobody stands in for a coordinator.
	if a, epoch, ok := s.CoordinatorFor("a", shard); !ok || a.NodeID != 3 || epoch != 2 {
		t.Errorf("the coordinator is %d in epoch %d, %v", a.NodeID, epoch, ok)
	}
	if a, _, ok := s.CoordinatorFor("b", metadata.GroupShardKey("", 4)); !ok || a.Zone != "b" {
		t.Errorf("the coordinator of a shard that nobody holds is %d, %v", a.NodeID, ok)
	}
}

func TestAgentsOfZones(t *testing.T) {
	t.Parallel()
	late := in("a", agent(7, fresh))
	agents := []metadata.Agent{in("a", agent(2, 0)), in("a", agent(3, 0)), in("b", agent(1, 0)), in("b", agent(4, 0)), in("c", agent(5, 0)), late}
	told := func(s *topology.Snapshot, zone string) (nodes []int32) {
		for _, a := range s.AgentsFor(zone) {
			nodes = append(nodes, a.NodeID)
		}
		return nodes
	}
	s := viewOf(t, metadata.Topology{Agents: agents})
	for zone, own := range map[string][]int32{"a": {2, 3}, "b": {1, 4}, "c": {5}} {
		got := told(s, zone)
		others := slices.DeleteFunc(slices.Clone(got), func(n int32) bool { return slices.Contains(own, n) })
		if len(got) != len(own)+1 || len(others) != 1 || others[0] == 7 || !slices.IsSorted(got) {
			t.Errorf("clients of zone %s are told of %v", zone, got)
		}
		if c := s.Controller(zone); c != own[0] {
			t.Errorf("the controller for zone %s is %d", zone, c)
		}
	}
	for _, zone := range []string{"", "d"} {
		if got := told(s, zone); !slices.Equal(got, []int32{1, 2, 3, 4, 5, 7}) || s.Controller(zone) != 1 {
			t.Errorf("clients of zone %q are told of %v, and the controller %d", zone, got, s.Controller(zone))
		}
	}
	// Coordinators are among them, and one of them is as good as a spare agent.
	shards := []metadata.Leader{leader(metadata.GroupShardKey("", 0), 4, 1), leader(metadata.GroupShardKey("", 1), 2, 1), leader(metadata.GroupShardKey("", 2), 7, 1)}
	s = viewOf(t, metadata.Topology{Agents: agents, Shards: shards})
	if got := told(s, "a"); !slices.Equal(got, []int32{2, 3, 4}) {
		t.Errorf("with a coordinator in another zone: %v", got)
	}
	if got := told(viewOf(t, metadata.Topology{Agents: agents[:2]}), "a"); !slices.Equal(got, []int32{2, 3}) {
		t.Errorf("in the only zone: %v", got)
	}
}

// cluster is any cluster, in which all agents can be reached.
type cluster struct {
	agents  []metadata.Agent
	leaders []metadata.Leader
}

var zones = []string{"a", "b", "c"}

const partitions = 40

func drawCluster(t *rapid.T) cluster {
	var c cluster
	for _, node := range rapid.SliceOfNDistinct(rapid.Int32Range(1, 1000), 1, 9, rapid.ID[int32]).Draw(t, "nodes") {
		a := in(rapid.SampledFrom(zones).Draw(t, "zone"), agent(node, 0))
		if rapid.IntRange(0, 5).Draw(t, "late") == 0 {
			a.HeartbeatAge = fresh
		}
		c.agents = append(c.agents, a)
	}
	for p := range int32(partitions) {
		switch rapid.IntRange(0, 3).Draw(t, "lease") {
		case 0:
		case 1:
			c.leaders = append(c.leaders, leader(key(1, p), 2000, p)) // an agent that is gone
		default:
			c.leaders = append(c.leaders, leader(key(1, p), rapid.SampledFrom(c.agents).Draw(t, "holder").NodeID, p))
		}
	}
	return c
}

func (c cluster) view(t failer) *topology.Snapshot {
	return viewOf(t, metadata.Topology{Agents: c.agents, Leaders: c.leaders})
}

// without is the cluster after the death of an agent.
func (c cluster) without(node int32) cluster {
	c.agents = slices.DeleteFunc(slices.Clone(c.agents), func(a metadata.Agent) bool { return a.NodeID == node })
	return c
}

func (c cluster) alive(zone string) bool {
	return slices.ContainsFunc(c.agents, func(a metadata.Agent) bool { return a.HeartbeatAge < fresh && (zone == "" || a.Zone == zone) })
}

func TestClientsOfAZoneAreToldOfItsAgents(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := drawCluster(t)
		s := c.view(t)
		shuffled := c
		shuffled.agents = rapid.Permutation(c.agents).Draw(t, "order")
		other := shuffled.view(t)
		for _, zone := range zones {
			for p := range int32(partitions) {
				k := key(1, p)
				a, epoch, ok := s.LeaderFor(zone, k)
				b, _, _ := other.LeaderFor(zone, k)
				holder, held, isHeld := s.Holder(k)
				switch {
				case !ok:
					t.Fatalf("nobody is named for %v", k)
				case a.ID != b.ID:
					t.Fatalf("for %v one view names %s, an equal one %s", k, a.ID, b.ID)
				case epoch != held:
					t.Fatalf("%v is in epoch %d, and clients of %s see %d", k, held, zone, epoch)
				case a.HeartbeatAge >= fresh && c.alive(""):
					t.Fatalf("%s is named for %v, and is not heard of while others are", a.ID, k)
				case a.Zone != zone && c.alive(zone):
					t.Fatalf("%s is named to clients of zone %s, which has agents", a.ID, zone)
				case isHeld && holder.Zone == zone && a.ID != holder.ID:
					t.Fatalf("%s is named in place of %s of the same zone", a.ID, holder.ID)
				case isHeld && !c.alive(zone) && a.ID != holder.ID:
					t.Fatalf("%s is named in place of %s to clients of zone %s, which is not there", a.ID, holder.ID, zone)
				}
				told := func(x metadata.Agent) bool { return x.ID == a.ID }
				if !slices.ContainsFunc(s.AgentsFor(zone), told) {
					t.Fatalf("%s is named for %v and is not among the agents for zone %s", a.ID, k, zone)
				}
			}
		}
	})
}

func TestOnlyTheKeysOfADeadAgentMove(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := drawCluster(t)
		dead := rapid.SampledFrom(c.agents).Draw(t, "dead")
		after := c.without(dead.NodeID)
		if len(after.agents) == 0 || !after.alive(dead.Zone) || dead.HeartbeatAge >= fresh {
			return // a zone's last death moves whatever its clients were told
		}
		s, later := c.view(t), after.view(t)
		for p := range int32(partitions) {
			k := key(1, p)
			_, _, held := s.Holder(k)
			for _, zone := range zones {
				was, _, _ := s.LeaderFor(zone, k)
				is, _, _ := later.LeaderFor(zone, k)
				if was.ID != is.ID && was.ID != dead.ID {
					t.Fatalf("clients of %s: %v moved from %s to %s when %s died", zone, k, was.ID, is.ID, dead.ID)
				}
			}
			was, _ := s.Owner(k)
			is, _ := later.Owner(k)
			if holder, _, _ := s.Holder(k); was != is && was != dead.ID && holder.ID != dead.ID && held {
				t.Fatalf("%v moved from owner %s to %s when %s died", k, was, is, dead.ID)
			}
		}
	})
}

// Balance and drains keep leases in their zones, and pick no agent that is not there.
func TestOwnersAndSuccessorsAreInTheZone(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := drawCluster(t)
		s := c.view(t)
		for p := range int32(partitions) {
			k := key(1, p)
			holder, _, held := s.Holder(k)
			if !held {
				continue
			}
			owner, ok := s.Owner(k)
			if o, _ := s.Agent(owner); !ok || o.Zone != holder.Zone || !s.Heard(o) {
				t.Fatalf("%v is held by %s of %s, and owned by %s of %s", k, holder.ID, holder.Zone, o.ID, o.Zone)
			}
			rest := c.without(holder.NodeID)
			next, ok := s.Successor(k, holder)
			n, _ := s.Agent(next)
			switch {
			case ok != rest.alive(""):
				t.Fatalf("a successor of %s: %v", holder.ID, ok)
			case ok && (next == holder.ID || !s.Heard(n)):
				t.Fatalf("%s succeeds %s", next, holder.ID)
			case ok && n.Zone != holder.Zone && rest.alive(holder.Zone):
				t.Fatalf("%s of %s succeeds %s of %s", next, n.Zone, holder.ID, holder.Zone)
			}
		}
	})
}

// Where no agent has a zone, it does not matter what clients say.
func TestWithoutZonesNothingChanges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := drawCluster(t)
		for i := range c.agents {
			c.agents[i].Zone = ""
		}
		s := c.view(t)
		for p := range int32(partitions) {
			want, epoch, ok := s.Leader(key(1, p))
			for _, zone := range []string{"", "a"} {
				if got, e, is := s.LeaderFor(zone, key(1, p)); got != want || e != epoch || is != ok {
					t.Fatalf("to clients of %q %s is named in epoch %d, to others %s in %d", zone, got.ID, e, want.ID, epoch)
				}
				if len(s.AgentsFor(zone)) != len(c.agents) {
					t.Fatalf("clients of %q are told of %v", zone, s.AgentsFor(zone))
				}
			}
		}
	})
}

// A zone's agents share what they are told to lead.
func TestStandInsShare(t *testing.T) {
	t.Parallel()
	agents := []metadata.Agent{in("a", agent(1, 0)), in("a", agent(2, 0)), in("b", agent(3, 0))}
	var leaders []metadata.Leader
	for p := range int32(300) {
		leaders = append(leaders, leader(key(1, p), 3, 1))
	}
	s := viewOf(t, metadata.Topology{Agents: agents, Leaders: leaders})
	count := map[int32]int{}
	for p := range int32(300) {
		a, _, _ := s.LeaderFor("a", key(1, p))
		count[a.NodeID]++
	}
	if count[1]+count[2] != 300 || min(count[1], count[2]) < 100 {
		t.Errorf("of 300 partitions, the agents of the zone have %v", count)
	}
}

func BenchmarkLeaderFor(b *testing.B) {
	var agents []metadata.Agent
	for n := range int32(48) {
		agents = append(agents, in(zones[n%3], agent(n+1, 0)))
	}
	slices.SortFunc(agents, func(x, y metadata.Agent) int { return cmp.Compare(x.NodeID, y.NodeID) })
	k := key(1, 0)
	s := viewOf(b, metadata.Topology{Agents: agents, Leaders: []metadata.Leader{leader(k, 1, 1)}})
	for name, zone := range map[string]string{"holder": "a", "stand-in": "b"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var kept lease.Key
			for b.Loop() {
				kept = k
				s.LeaderFor(zone, kept)
			}
		})
	}
}

// Who leads partitions commits, and nobody else; of other agent groups nothing is known.
func TestCommitting(t *testing.T) {
	t.Parallel()
	late := agent(4, fresh)
	s := viewOf(t, metadata.Topology{
		Agents:  []metadata.Agent{agent(1, 0), agent(2, 0), agent(3, 0), late},
		Sharing: 6,
		Leaders: []metadata.Leader{leader(key(1, 0), 1, 0), leader(key(1, 1), 2, 0), leader(key(1, 2), 2, 0), leader(key(1, 3), 4, 0), leader(key(1, 4), 0, 3)},
		Shards:  []metadata.Leader{leader(metadata.GroupShardKey("", 0), 3, 1)},
	})
	const others = 2 // of other groups
	for id, want := range map[string]int{agent(1, 0).ID: 2 + others, agent(2, 0).ID: 2 + others, agent(3, 0).ID: 3 + others} {
		if n := s.Committing(id); n != want {
			t.Errorf("%s finds %d agents that commit, not %d", id, n, want)
		}
	}
	if n := viewOf(t, metadata.Topology{}).Committing("alone"); n != 1 {
		t.Errorf("an agent alone finds %d", n)
	}
}
