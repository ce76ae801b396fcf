package balance

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// cluster is a model of agents in zones, of the one lease that they have, and of its
// writers, which write to an agent of their zone. The holder learns from that agent
// what it is to sequence.
type cluster struct {
	now    time.Duration
	agents []*clusterAgent
	holder *clusterAgent
	epoch  int32
	since  time.Duration // when the holder got the lease
	moves  []clusterMove
}

type clusterAgent struct {
	id, zone string
	planner  planner
	follower follower
}

type clusterMove struct {
	at     time.Duration
	reason lease.HandoverReason
	zone   string // to which
}

var clusterKey = lease.Key{TopicID: uuid.UUID{15: 3}, Partition: 7}

// newCluster has as many agents in each of the zones. The first has the lease.
func newCluster(each int, zones ...string) *cluster {
	c := &cluster{}
	for _, zone := range zones {
		for i := range each {
			id := fmt.Sprint(zone, i)
			c.agents = append(c.agents, &clusterAgent{
				id: id, zone: zone, planner: planner{self: id},
				follower: follower{zone: zone, writers: NewWriters(), watched: make(map[lease.Key]*watch)},
			})
		}
	}
	c.give(c.agents[0].id)
	return c
}

func (c *cluster) give(id string) {
	c.holder = c.agents[slices.IndexFunc(c.agents, func(a *clusterAgent) bool { return a.id == id })]
	c.epoch++
	c.since = c.now
}

func (c *cluster) Alive() []string {
	ids := make([]string, len(c.agents))
	for i, a := range c.agents {
		ids[i] = a.id
	}
	return ids
}

func (c *cluster) OtherLeads(string) bool { return true }

// Owner is one of the holder's zone: balance spreads within a zone.
func (c *cluster) Owner(k lease.Key) (string, bool) { return c.StandIn(c.holder.zone, k) }

func (c *cluster) StandIn(zone string, _ lease.Key) (id string, ok bool) {
	var best uint64
	for _, a := range c.agents {
		if rank := xxhash.Sum64String(a.id); a.zone == zone && rank >= best {
			id, best, ok = a.id, rank, true
		}
	}
	return id, ok
}

// write lets a second pass in which zones write, in bytes.
func (c *cluster) write(bytes map[string]int) {
	for zone, n := range bytes {
		at := c.holder.id
		if standIn, ok := c.StandIn(zone, clusterKey); ok && zone != c.holder.zone {
			at = standIn
		}
		for _, a := range c.agents {
			if n > 0 && (a.id == at || a == c.holder) {
				a.follower.writers.wrote(c.now, clusterKey, zone, n)
			}
		}
	}
	holder := c.holder
	for _, a := range c.agents {
		var leases []held
		if a == holder {
			leases = []held{{clusterKey, c.epoch, c.now - c.since}}
		}
		spread := a.planner.plan(c.now, c, leases)
		follow, to := a.follower.plan(c.now, c, leases)
		if !a.planner.calm(c.now) {
			follow = nil
		}
		switch {
		case len(spread) > 0:
			owner, _ := c.Owner(clusterKey)
			c.move(lease.ForBalance, owner)
		case len(follow) > 0:
			c.move(lease.ForWriters, to[clusterKey])
		}
	}
	c.now += interval
}

func (c *cluster) move(reason lease.HandoverReason, to string) {
	c.give(to)
	c.moves = append(c.moves, clusterMove{c.now, reason, c.holder.zone})
}

// followed are the instants at which the lease followed its writers.
func (c *cluster) followed() (at []time.Duration) {
	for _, m := range c.moves {
		if m.reason == lease.ForWriters {
			at = append(at, m.at)
		}
	}
	return at
}

// Whatever writers do, where their zone has agents or not: a lease follows them once
// in five minutes, and balance does not move it to another zone.
func TestALeaseFollowsOnceInFiveMinutes(t *testing.T) {
	t.Parallel()
	zones := []string{"a", "b", "c", "without agents"}
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster(rapid.IntRange(1, 2).Draw(t, "agents"), "a", "b", "c")
		for c.now < 20*time.Minute {
			bytes := make(map[string]int)
			for _, zone := range rapid.SliceOfNDistinct(rapid.SampledFrom(zones), 0, 3, rapid.ID).Draw(t, "zones") {
				bytes[zone] = 1 << rapid.IntRange(0, 24).Draw(t, "bytes")
			}
			for range rapid.IntRange(1, 600).Draw(t, "seconds") {
				zone, moves := c.holder.zone, len(c.moves)
				c.write(bytes)
				for _, m := range c.moves[moves:] {
					if (m.reason == lease.ForBalance) != (m.zone == zone) {
						t.Fatalf("%+v from zone %s", m, zone)
					}
				}
			}
		}
		at := c.followed()
		for i := 1; i < len(at); i++ {
			if at[i]-at[i-1] < settledAge {
				t.Fatalf("followed at %s", at)
			}
		}
	})
}

// Writers of two zones that take turns are a mood.
func TestWritersThatTakeTurnsAreSeldomFollowed(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster(2, "a", "b", "c")
		turns := rapid.SampledFrom([][]string{{"a", "b"}, {"b", "c"}}).Draw(t, "zones")
		n := rapid.IntRange(1<<10, 1<<24).Draw(t, "bytes")
		for c.now < 20*time.Minute {
			zone := turns[int(c.now/time.Minute)%2]
			c.write(map[string]int{zone: n})
		}
		at := c.followed()
		for i := 1; i < len(at); i++ {
			if at[i]-at[i-1] < 5*time.Minute {
				t.Fatalf("followed at %s", at)
			}
		}
	})
}

// Writers that go to another zone for good, at about the same rate, are followed, and
// then nothing moves any more. So are those whose lease came to another zone than
// theirs in the first place.
func TestWritersThatMoveAreFollowed(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster(2, "a", "b", "c")
		rate := rapid.IntRange(4<<10, 16<<20).Draw(t, "bytes a second")
		home := rapid.SampledFrom([]string{"", "a"}).Draw(t, "home")
		if home != "" {
			n := rapid.IntRange(rate/2, 2*rate).Draw(t, "bytes at home")
			for range rapid.IntRange(300, 900).Draw(t, "seconds at home") {
				c.write(map[string]int{home: n})
			}
			if at := c.followed(); len(at) > 0 {
				t.Fatalf("followed at %s", at)
			}
		}
		left := c.now
		for c.now < left+2*time.Minute {
			c.write(map[string]int{"b": rate})
		}
		if at := c.followed(); len(at) != 1 || c.holder.zone != "b" {
			t.Fatalf("followed at %s; they left at %s", at, left)
		}
		moves := len(c.moves)
		for c.now < left+10*time.Minute {
			c.write(map[string]int{"b": rate})
		}
		if len(c.moves) > moves {
			t.Fatalf("%+v", c.moves)
		}
	})
}

// Leases stay that nobody writes, or hardly anybody, or two zones alike, or writers
// whose zone has no agent.
func TestLeasesStay(t *testing.T) {
	for name, bytes := range map[string]map[string]int{
		"nobody writes":  {},
		"hardly anybody": {"b": 100},
		"two zones":      {"a": 1 << 20, "b": 19 << 16},
		"three zones":    {"b": 1 << 20, "c": 1 << 20},
		"no agents":      {"somewhere": 1 << 20},
		"nobody knows":   {"": 1 << 20},
	} {
		c := newCluster(1, "a", "b", "c")
		for c.now < time.Hour {
			c.write(bytes)
		}
		if len(c.moves) > 0 {
			t.Errorf("%s: %+v", name, c.moves)
		}
	}
}

func TestAnAgentWithoutAZoneFollowsNobody(t *testing.T) {
	c := newCluster(1, "", "b")
	for c.now < time.Hour {
		c.write(map[string]int{"b": 1 << 20})
	}
	if len(c.moves) > 0 {
		t.Errorf("%+v", c.moves)
	}
}

func TestWritersDecayAndAreForgotten(t *testing.T) {
	w := NewWriters()
	w.wrote(0, clusterKey, "a", 4000)
	w.wrote(halfLife, clusterKey, "b", 3000)
	if got, want := w.tally(2*halfLife, clusterKey, "a"), (tally{total: 2500, own: 1000, zone: "b", most: 1500}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	for i := range 1000 {
		w.wrote(halfLife, clusterKey, fmt.Sprint("zone ", i), 10)
	}
	if got := w.tally(halfLife, clusterKey, "a"); got.total != 15000 || len(w.stripe(clusterKey).keys[clusterKey].zones) != writerZones {
		t.Errorf("%+v", got)
	}
	const keys = 1000
	for i := range keys {
		w.wrote(time.Minute, lease.Key{Partition: int32(i)}, "a", 1)
	}
	known := func() (n int) {
		for i := range w.stripes {
			n += len(w.stripes[i].keys)
		}
		return n
	}
	for range writersStripes {
		w.sweep(halfLife + forgetAfter + 1)
	}
	if n := known(); n != keys {
		t.Errorf("%d keys are left, want %d", n, keys)
	}
	for range writersStripes {
		w.sweep(time.Minute + forgetAfter + 1)
	}
	if n := known(); n != 0 {
		t.Errorf("%d keys are left", n)
	}
}

func TestRelayedCommitsAreWritten(t *testing.T) {
	w := NewWriters()
	batch := func(partition, length int32) metadata.CommitBatch {
		return metadata.CommitBatch{Key: lease.Key{Partition: partition}, Length: length}
	}
	w.Relayed("b", &metadata.Commit{Objects: []metadata.CommitObject{
		{Batches: []metadata.CommitBatch{batch(1, 100), batch(2, 10)}},
		{Batches: []metadata.CommitBatch{batch(1, 200)}},
	}})
	for partition, want := range map[int32]float64{1: 300, 2: 10} {
		got := w.tally(0, lease.Key{Partition: partition}, "a") // as of before the commit: nothing has decayed
		if got != (tally{total: want, zone: "b", most: want}) {
			t.Errorf("partition %d: %+v", partition, got)
		}
	}
}

func BenchmarkWrote(b *testing.B) {
	w := NewWriters()
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		var k lease.Key
		for p.Next() {
			k.Partition = (k.Partition + 1) % 1000
			w.Wrote(k, "us-east-1a", 1000)
		}
	})
}

// away is a cluster whose clients of zone b write to the agent b0.
type away struct{ world }

func (away) Owner(lease.Key) (string, bool) { return "self", true }

func (away) StandIn(zone string, _ lease.Key) (string, bool) { return zone + "0", zone == "b" }

// The loop hands a lease over to the agent that its writers have.
func TestTheLoopHandsOverToWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		manager := lease.NewManager(grantor{}, "self", lease.DefaultConfig(), lease.NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
		type handOver struct {
			reason lease.HandoverReason
			key    lease.Key
			to     string
		}
		done := make(chan handOver, 10)
		loop := New(Agent{
			ID: "self", Zone: "a", View: func() View { return away{two} }, Leases: manager,
			Bucket: NewBucket(&objects{}), Writers: NewWriters(),
			HandOver: func(_ context.Context, reason lease.HandoverReason, leases []*lease.Lease, to lease.Successor) {
				for _, l := range leases {
					agent, _ := to(l.Key())
					done <- handOver{reason, l.Key(), agent}
					manager.Lose(l, lease.ErrReleased)
				}
			},
			Log: slog.New(slog.DiscardHandler),
		}, prometheus.NewRegistry())
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 2)
		go func() { ended <- manager.Run(ctx) }()
		go func() { ended <- loop.Run(ctx) }()
		for _, a := range manager.Acquire(t.Context(), []lease.Key{{Partition: 0}, {Partition: 1}}) {
			if a.Err != nil {
				t.Fatal(a.Err)
			}
		}
		for begun := time.Now(); time.Since(begun) < 2*time.Minute; time.Sleep(time.Second) {
			loop.Writers.Wrote(lease.Key{Partition: 0}, "a", 1<<20)
			loop.Writers.Wrote(lease.Key{Partition: 1}, "b", 1<<20)
		}
		if got, want := <-done, (handOver{lease.ForWriters, lease.Key{Partition: 1}, "b0"}); got != want || len(done) > 0 {
			t.Errorf("%+v, want %+v, and %d more", got, want, len(done))
		}
		stop()
		for range cap(ended) {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
}
