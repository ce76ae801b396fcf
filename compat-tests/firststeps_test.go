package compattests

import (
	"strings"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/clients"
	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/compat-tests/scenario"
)

// TestFirstSteps does what a new user does with kcat: produce to a topic that is not there yet, list it, consume, from
// the beginning and from where nothing is.
func TestFirstSteps(t *testing.T) {
	forEachTarget(t, harness.FastStores, func(t *testing.T, target target) {
		ctx := deadline(t, time.Minute)
		kcat := clients.NewKcat(target.bootstrap())
		const topic = "first-steps"
		hello := scenario.Record{Timestamp: scenario.ClientTime, Key: []byte("greeting"), Value: []byte("hello")}
		if _, err := kcat.Produce(ctx, topic, "none", []scenario.Record{hello}); err != nil {
			t.Fatalf("produce: %v", err)
		}
		listing, err := kcat.List(ctx, topic)
		if err != nil {
			t.Fatalf("list: %v", err)
		}
		for _, want := range append(target.bootstrap(), `topic "`+topic+`" with`, "partition 0, leader") {
			if !strings.Contains(listing, want) {
				t.Errorf("the listing lacks %q:\n%s", want, listing)
			}
		}
		read, err := kcat.Read(ctx, topic, scenario.Earliest)
		if err != nil {
			t.Fatalf("consume: %v", err)
		}
		if len(read) != 1 || string(read[0].Key) != "greeting" || string(read[0].Value) != "hello" {
			t.Errorf("consumed %+v, want the one record", read)
		}
		read, err = kcat.ReadReset(ctx, topic, 100)
		if err != nil {
			t.Fatalf("consume beyond the end: %v", err)
		}
		if len(read) != 1 || read[0].Offset != 0 {
			t.Errorf("consumed %+v after a reset, want the one record", read)
		}
	})
}
