package compattests

import (
	"fmt"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
)

// What a window of a zoned load may carry from zone to zone.
const (
	// zonedClientBytes is for what clients ask the one agent of another zone that they are told of: Metadata, mostly.
	zonedClientBytes = 64 << 10
	// zonedControl is the part of the payload that agents may send each other. What they send when there is nothing to do
	// comes on top in the quick version, which may take any time.
	zonedControl = 0.01
	// zonedAgain is the part of what a zone got of the bucket that it may have got before: half of it, were nothing shared.
	// Where time is short, agents ask again what was not answered soon, and do not wait for each other: the quick version
	// allows for that, and does not judge short windows, in which one such request counts for much.
	zonedAgain, zonedAgainQuickly = 0.05, 0.25
	// zonedLong is how many records of each zone for each partition a long window has: 45 MiB. In the quick version it
	// is zonedLongQuickly: 18 MiB.
	zonedLong, zonedLongQuickly = 40, 16
)

// TestZones counts what passes between three zones of two agents each, of which each has a producer that writes to all
// partitions and a consumer that reads them all: no record crosses a zone, when all is well, when an agent is dead, and
// when a whole zone has come back. In between, nothing is lost, with whole zones away.
func TestZones(t *testing.T) {
	all := slow(t)
	long, short := zonedLongQuickly, 8 // in the longest window, and in what else is written
	if all {
		long, short = 5*zonedLong, zonedLong
	} else {
		t.Parallel()
	}
	cluster := harness.StartZonedCluster(t, harness.FastStores(t))
	l := startZonedLoad(t, cluster, all)
	l.settle(t, "at first")
	if !all {
		l.measureIdle(t)
	}
	l.measure(t, "in peace", long)

	first, second := cluster.Agents[0], cluster.Agents[1]
	l.writeThrough(t, short, func() { kill(t, first) })
	l.settle(t, "without an agent")
	l.measure(t, "without an agent", short)

	if all { // the zone dies at once
		launch(deadline(t, time.Minute), t, first)
		l.settle(t, "with the agent back")
	}
	l.writeThrough(t, short, func() {
		kill(t, second)
		if all {
			kill(t, first)
		}
	})
	l.write(deadline(t, time.Minute), t, short)

	ctx := deadline(t, time.Minute)
	launch(ctx, t, first)
	launch(ctx, t, second)
	l.settle(t, "with the zone back")
	l.measure(t, "with the zone back", short)
	l.finish(t)
}

// writeThrough is write, with something that happens in the middle.
func (l *zonedLoad) writeThrough(t *testing.T, each int, what func()) {
	t.Helper()
	ctx := deadline(t, time.Minute)
	wrote := make(chan error, 1)
	go func() { wrote <- l.tryWrite(ctx, each) }()
	if err := l.awaitAcks(ctx, each*zonedWidth); err != nil { // a third of them
		t.Error(err)
	}
	what()
	begun := time.Now()
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	t.Logf("the rest was acknowledged and read %s after that", time.Since(begun).Round(time.Millisecond))
}

// settle writes a little, time and again, until no record crosses a zone.
func (l *zonedLoad) settle(t *testing.T, when string) {
	t.Helper()
	ctx := deadline(t, time.Minute)
	for begun := time.Now(); ; {
		before := l.cluster.Flows()
		if err := l.tryWrite(ctx, 1); err != nil {
			t.Fatalf("%s: %v: %s", when, err, l.cluster.Flows().Since(before))
		}
		if l.cluster.Flows().Since(before).Sum(harness.Flow.Crosses).Marks == 0 {
			t.Logf("%s: no record crosses a zone after %s", when, time.Since(begun).Round(time.Millisecond))
			return
		}
	}
}

// controls tells the flows between agents of different zones.
func controls(f harness.Flow) bool {
	return (f.Kind == harness.Peers || f.Kind == harness.Watchers) && f.Crosses()
}

// measureIdle counts what agents send when there is nothing to do.
func (l *zonedLoad) measureIdle(t *testing.T) {
	t.Helper()
	before, begun := l.cluster.Flows(), time.Now()
	pause(t.Context(), time.Second)
	l.idle = float64(l.cluster.Flows().Since(before).Sum(controls).Bytes) / time.Since(begun).Seconds()
	t.Logf("idle: agents of different zones exchange %.0f bytes a second", l.idle)
}

// measure counts what a write has flow.
func (l *zonedLoad) measure(t *testing.T, when string, each int) {
	t.Helper()
	zones := l.cluster.Zones
	objects := func() (use []harness.ObjectUse) {
		for _, zone := range zones {
			use = append(use, l.cluster.Objects(zone))
		}
		return use
	}
	flows, had, begun := l.cluster.Flows(), objects(), time.Now()
	l.write(deadline(t, 2*time.Minute), t, each)
	took := time.Since(begun)
	flows = l.cluster.Flows().Since(flows)
	payload := int64(len(zones) * each * zonedWidth * zonedValueSize)

	clients := flows.Sum(func(f harness.Flow) bool { return f.Kind == harness.Clients && f.Crosses() })
	peers := flows.Sum(func(f harness.Flow) bool { return f.Kind == harness.Peers && f.Crosses() })
	watchers := flows.Sum(func(f harness.Flow) bool { return f.Kind == harness.Watchers && f.Crosses() })
	marks := flows.Sum(harness.Flow.Crosses).Marks
	part := func(bytes int64) string {
		return fmt.Sprintf("%d bytes (%.3f %%)", bytes, 100*float64(bytes)/float64(payload))
	}
	t.Logf("%s: %.1f MiB in %s. Across zones: clients %s, peers %s, watchers %s, records %d; with the database %s\n%s", when,
		float64(payload)/(1<<20), took.Round(time.Millisecond), part(clients.Bytes), part(peers.Bytes), part(watchers.Bytes), marks,
		part(flows.Sum(func(f harness.Flow) bool { return f.Kind == harness.Databases }).Bytes), flows)
	if marks > 0 {
		t.Errorf("%s: records crossed zones, or went into the database", when)
	}
	if clients.Bytes > zonedClientBytes {
		t.Errorf("%s: clients and agents of other zones exchanged %d bytes", when, clients.Bytes)
	}
	if control := flows.Sum(controls).Bytes; float64(control) > zonedControl*float64(payload)+l.idle*took.Seconds() {
		t.Errorf("%s: agents of different zones exchanged %s", when, part(control))
	}
	again := zonedAgain
	if !l.all {
		again = zonedAgainQuickly
	}
	for i, use := range objects() {
		use = use.Since(had[i])
		t.Logf("%s: zone %s: %s", when, zones[i], use)
		if each >= zonedLongQuickly && float64(use.GotAgain) > again*float64(use.GetBytes) {
			t.Errorf("%s: zone %s got from the bucket what it had got before", when, zones[i])
		}
	}
}
