package balance

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamhouse/streamhouse/lease"
)

// An agent that nobody reaches hands over, withdraws and says so; it comes back, and
// stays away for longer each time if nobody reaches it then either.
func TestAnAgentThatNobodyReachesStaysAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		isolated := make(chan struct{}, 1)
		withdrew, returned := make(chan time.Time, 1), make(chan time.Time, 1)
		reg := prometheus.NewRegistry()
		loop := New(Agent{
			ID: "self", View: func() View { return two }, Bucket: NewBucket(&objects{}), Writers: NewWriters(), Isolated: isolated,
			Leases: lease.NewManager(nil, "self", lease.Config{}, lease.NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler)),
			HandOver: func(_ context.Context, reason lease.HandoverReason, _ []*lease.Lease, _ lease.Successor) {
				if reason != lease.ForReach {
					t.Errorf("handed over for %s", reason)
				}
			},
			Withdraw: func(context.Context) { withdrew <- time.Now() },
			Return:   func() { returned <- time.Now() },
			Log:      slog.New(slog.DiscardHandler),
		}, reg)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- loop.Run(ctx) }()

		absence := func(want time.Duration) {
			t.Helper()
			isolated <- struct{}{}
			begun := <-withdrew
			if loop.HealthCheck() == nil {
				t.Error("the agent is ready")
			}
			if took := (<-returned).Sub(begun); took < want || took > want+probeInterval {
				t.Errorf("away for %s, want %s", took, want)
			}
			synctest.Wait()
			if err := loop.HealthCheck(); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Hour)
		for _, want := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, maxAbsence, maxAbsence} {
			absence(want)
		}
		time.Sleep(relapse)
		absence(minAbsence)
		isolated <- struct{}{}
		<-withdrew
		stop() // while it is away
		if err := <-ended; err != nil || len(returned) > 0 {
			t.Errorf("Run returned %v", err)
		}
	})
}
