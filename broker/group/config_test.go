package group

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/broker/group/assignor"
)

// Every setting of groups reaches the coordinator.
func TestConfigIsTheBrokers(t *testing.T) {
	t.Parallel()
	b, err := config.NewBroker(map[string]string{
		"group.min.session.timeout.ms":        "1",
		"group.max.session.timeout.ms":        "2",
		"group.initial.rebalance.delay.ms":    "3",
		"group.max.size":                      "4",
		"offset.metadata.max.bytes":           "5",
		"offsets.retention.minutes":           "6",
		"offsets.retention.check.interval.ms": "7",
		"group.consumer.max.size":             "8",
		"group.consumer.assignors":            "range, uniform",
		"group.consumer.migration.policy":     "UPGRADE",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := DefaultConfig()
	want.MinSessionTimeout, want.MaxSessionTimeout = time.Millisecond, 2*time.Millisecond
	want.InitialRebalanceDelay, want.MaxSize, want.MaxMetadataBytes = 3*time.Millisecond, 4, 5
	want.OffsetsRetention, want.RetentionCheckInterval = 6*time.Minute, 7*time.Millisecond
	want.ConsumerMaxSize, want.ConsumerAssignors, want.ConsumerMigrationPolicy = 8, []string{"range", "uniform"}, MigrateUp
	if diff := cmp.Diff(want, NewConfig(b)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The names that configs may have as values are those that coordinators know.
func TestConfigsNameWhatThereIs(t *testing.T) {
	t.Parallel()
	for name, values := range map[string][]string{
		"group.consumer.assignors":        slices.Collect(maps.Keys(assignor.ByName)),
		"group.consumer.migration.policy": {string(MigrateBoth), string(MigrateUp), string(MigrateDown), string(MigrateNone)},
	} {
		for _, v := range values {
			if _, err := config.NewBroker(map[string]string{name: v}); err != nil {
				t.Error(err)
			}
		}
		_, err := config.NewBroker(map[string]string{name: "other"})
		if !errors.Is(err, config.ErrInvalid) {
			t.Fatalf("%s=other: %v", name, err)
		}
		_, known, _ := strings.Cut(err.Error(), ": String must be one of")
		if got := strings.Count(known, ",") + 1; got != len(values) {
			t.Errorf("%s may be one of %d%s, want %d", name, got, known, len(values))
		}
	}
}
