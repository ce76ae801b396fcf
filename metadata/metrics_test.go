package metadata_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/streamhouse/streamhouse/metadata"
)

// failing is a store whose heartbeats fail in a given way.
type failing struct {
	metadata.Store
	err error
}

func (f *failing) Heartbeat(ctx context.Context, _ string, _ uuid.UUID) error {
	metadata.CountQueries(ctx, 3)
	return f.err
}

func TestMetricsCountErrorsByClassAndStatements(t *testing.T) {
	reg := prometheus.NewRegistry()
	f := new(failing)
	store := metadata.WithMetrics(f, reg, new(metadata.Silence))
	for _, err := range []error{
		nil,
		fmt.Errorf("x: %w", metadata.ErrSuperseded), // an answer
		fmt.Errorf("x: %w", metadata.ErrUnavailable),
		fmt.Errorf("x: %w: %w", metadata.ErrUnavailable, context.Canceled),
		fmt.Errorf("x: %w: %w", metadata.ErrUnknownOutcome, context.Canceled),
		errors.New("syntax"),
	} {
		f.err = err
		if got := store.Heartbeat(t.Context(), "a", uuid.Nil); !errors.Is(got, err) {
			t.Errorf("got %v, want %v", got, err)
		}
	}
	const want = `
# HELP streamhouse_metadata_store_errors_total Calls of the metadata store that failed.
# TYPE streamhouse_metadata_store_errors_total counter
streamhouse_metadata_store_errors_total{class="canceled",query="Heartbeat"} 1
streamhouse_metadata_store_errors_total{class="fault",query="Heartbeat"} 1
streamhouse_metadata_store_errors_total{class="unavailable",query="Heartbeat"} 1
streamhouse_metadata_store_errors_total{class="unknown_outcome",query="Heartbeat"} 1
# HELP streamhouse_metadata_store_queries_total Statements sent to the database.
# TYPE streamhouse_metadata_store_queries_total counter
streamhouse_metadata_store_queries_total{query="Heartbeat"} 18
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want),
		"streamhouse_metadata_store_errors_total", "streamhouse_metadata_store_queries_total"); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(reg, "streamhouse_metadata_store_query_duration_seconds"); err != nil || n != 1 {
		t.Errorf("%d histograms, %v", n, err)
	}
}
