package compattests

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
)

// TestKill9 kills brokers at random moments while idempotent producers and a consumer are at work. Afterwards every
// acknowledged record is in the log once, at the offset that was acknowledged, in its producer's order; offsets are
// dense; nothing that a consumer saw has changed; and every broker serves that same log. Since the producers never
// give up, none may fail.
func TestKill9(t *testing.T) {
	forEachTarget(t, harness.DurableStores, func(t *testing.T, target target) {
		kills := environmentInt(t, "COMPAT_KILLS", 8)
		seed := seed(t)
		random := rand.New(rand.NewPCG(seed, 0))
		load := startLoad(t, target.bootstrap(), "kill9", seed)
		inFlight := 0
		for i := range kills {
			// Each broker in turn, after up to a second's worth of acknowledgements, now and then at once.
			ctx := deadline(t, time.Minute)
			if err := load.awaitAcks(ctx, random.IntN(4)*random.IntN(1000)); err != nil {
				t.Fatalf("before kill %d: %v", i+1, err)
			}
			victim := target.nodes[i%len(target.nodes)]
			inFlight += load.inFlight()
			if err := victim.Kill(); err != nil {
				t.Fatal(err)
			}
			// Every second time the others take its partitions over before it is back: the producers together buffer
			// less than what is awaited, so they can't get there without the partitions of the victim.
			if len(target.nodes) > 1 && i/len(target.nodes)%2 == 0 {
				if err := load.awaitAcks(ctx, 2*loadProducers*loadBuffer); err != nil {
					t.Fatalf("after kill %d: %v", i+1, err)
				}
			}
			if err := victim.Start(ctx); err != nil {
				t.Fatalf("after kill %d: %v", i+1, err)
			}
		}
		if err := load.awaitAcks(deadline(t, time.Minute), 1000); err != nil {
			t.Fatalf("after the last kill: %v", err)
		}
		load.finish(t)
		t.Logf("%d kills met %d records in flight", kills, inFlight)
		if inFlight == 0 {
			t.Error("no kill met a record in flight, so nothing was tested")
		}
	})
}
