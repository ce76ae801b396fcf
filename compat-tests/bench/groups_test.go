package bench

import (
	"slices"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
)

// TestGroupLoads runs each load of groups for a moment, so that the benchmark still works when it is wanted.
func TestGroupLoads(t *testing.T) {
	agent := harness.Embedded(t)
	load := Load{Address: agent.Address(), Topic: "groups", Partitions: 20}
	if err := AwaitCoordinators(t.Context(), load.Address); err != nil {
		t.Fatal(err)
	}
	if err := CreateTopics(t.Context(), load.Address, load.Partitions, load.Topic); err != nil {
		t.Fatal(err)
	}
	t.Run("classic rebalances", func(t *testing.T) {
		joins, leaves, err := ClassicRebalances(t.Context(), load, 5, 2)
		if err != nil || len(joins) != 2 || len(leaves) != 2 {
			t.Fatalf("joins %v, leaves %v, %v", joins, leaves, err)
		}
	})
	t.Run("consumer rebalances", func(t *testing.T) {
		joins, leaves, err := ConsumerRebalances(t.Context(), load, 5, 2)
		if err != nil || len(joins) != 2 || len(leaves) != 2 {
			t.Fatalf("joins %v, leaves %v, %v", joins, leaves, err)
		}
		for _, r := range slices.Concat(joins, leaves) {
			if r.Rounds == 0 || r.Took == 0 {
				t.Errorf("joins %v, leaves %v", joins, leaves)
			}
		}
	})
	t.Run("many groups", func(t *testing.T) {
		groups, err := FormGroups(t.Context(), load, 6, 3, 2)
		if err != nil {
			t.Fatal(err)
		}
		defer groups.Close()
		took, err := groups.Commit(50 * time.Millisecond)
		if err != nil || len(took) < 6*3 || !slices.IsSorted(took) {
			t.Errorf("commits %v, %v", took, err)
		}
		// 18 members, two heartbeats each.
		took, err = groups.Rest(t.Context(), 100*time.Millisecond, 200*time.Millisecond)
		if err != nil || len(took) != 36 || !slices.IsSorted(took) {
			t.Errorf("heartbeats %v, %v", took, err)
		}
	})
}
