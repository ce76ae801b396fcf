package agent_test

import (
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamhouse/streamhouse/broker/agent"
	"github.com/streamhouse/streamhouse/metadata"
)

// An agent whose id another process has taken ends, unless it is on its way out:
// then it finishes its drain.
func TestSupersededAgentEnds(t *testing.T) {
	for name, draining := range map[string]bool{"serving": false, "draining": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &register{err: metadata.ErrSuperseded}
				a, err := agent.Start(t.Context(), agent.Config{HeartbeatInterval: 20 * time.Second, RequestTimeout: time.Second}, r,
					metadata.Agent{ID: "a"}, agent.NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
				if err != nil {
					t.Fatal(err)
				}
				if draining {
					a.Drain()
				}
				if err := a.Run(t.Context()); errors.Is(err, metadata.ErrSuperseded) == draining {
					t.Errorf("Run returned %v", err)
				}
				if r.beats != 1 {
					t.Errorf("%d heartbeats, want 1", r.beats)
				}
			})
		})
	}
}
