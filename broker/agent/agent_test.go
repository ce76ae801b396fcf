package agent_test

import (
	"context"
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
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := a.Run(ctx); errors.Is(err, metadata.ErrSuperseded) == draining {
					t.Errorf("Run returned %v", err)
				}
				if r.beats != 1 {
					t.Errorf("%d heartbeats, want 1", r.beats)
				}
			})
		})
	}
}

// rig is an agent that runs in a bubble.
type rig struct {
	*register
	agent   *agent.Agent
	doubted int
	stop    context.CancelFunc
	ended   chan error
}

// started runs an agent until stop, with heartbeats that do not come by themselves.
func started(t *testing.T) *rig {
	r := &rig{register: &register{challenges: make(chan struct{}), cuts: make(chan error)}, ended: make(chan error, 1)}
	cfg := agent.Config{HeartbeatInterval: time.Hour, RequestTimeout: time.Second, Doubt: func() { r.doubted++ }}
	var err error
	r.agent, err = agent.Start(t.Context(), cfg, r, metadata.Agent{ID: "a"}, agent.NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	go func() { r.ended <- r.agent.Run(ctx) }()
	synctest.Wait()
	return r
}

// end stops the agent, which must not have ended by itself.
func (r *rig) end(t *testing.T) {
	t.Helper()
	r.stop()
	if err := <-r.ended; err != nil {
		t.Errorf("Run returned %v", err)
	}
}

func TestAChallengeIsAnsweredAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t)
		r.challenges <- struct{}{}
		synctest.Wait()
		if r.beats != 1 || r.doubted != 0 {
			t.Errorf("%d heartbeats, doubted %d times", r.beats, r.doubted)
		}
		r.end(t)
	})
}

// An agent that was buried and lives doubts its leases, registers again, attends
// anew, and goes on.
func TestABuriedAgentRegistersAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t)
		r.err = metadata.ErrBuried
		r.challenges <- struct{}{} // whatever makes it ask
		synctest.Wait()
		if r.registered != 2 || r.doubted != 1 || r.attended != 2 {
			t.Errorf("registered %d times, doubted %d times, attended %d times", r.registered, r.doubted, r.attended)
		}
		if err := r.agent.HealthCheck(); err != nil {
			t.Error(err)
		}
		r.end(t)
	})
}

// An agent that withdrew stays off the register whatever it is asked, and is on it
// again when it returns. That is no burial, and its leases are in no doubt.
func TestAnAgentThatWithdrewReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t)
		if err := r.agent.Withdraw(t.Context()); err != nil {
			t.Error(err)
		}
		r.err, r.age = metadata.ErrBuried, time.Hour // of a session that has ended
		r.challenges <- struct{}{}
		if _, err := r.agent.Listed(r).Topology(t.Context(), 0); err != nil {
			t.Error(err)
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if r.beats != 0 || r.registered != 1 {
			t.Errorf("%d heartbeats, registered %d times", r.beats, r.registered)
		}
		r.agent.Return()
		synctest.Wait()
		if r.beats != 1 || r.registered != 2 || r.attended != 2 || r.doubted != 0 {
			t.Errorf("%d heartbeats, registered %d times, attended %d times, doubted %d times", r.beats, r.registered, r.attended, r.doubted)
		}
		r.end(t)
	})
}

// Who attends and is told that its session has ended finds out by a heartbeat.
func TestAttendingFindsTheEndOfTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t)
		r.err = metadata.ErrBuried
		r.cuts <- metadata.ErrBuried
		synctest.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		if r.registered != 2 || r.attended != 2 || r.agent.CutOff() {
			t.Errorf("registered %d times, attended %d times, cut off: %t", r.registered, r.attended, r.agent.CutOff())
		}
		r.end(t)
	})
}

// A lost sign of life is taken up again; if that lasts, the agent says so.
func TestALostSignOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t)
		r.away.Store(true)
		r.cuts <- metadata.ErrUnavailable
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !r.agent.CutOff() {
			t.Error("not cut off")
		}
		r.away.Store(false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if r.agent.CutOff() || r.beats != 0 {
			t.Errorf("cut off: %t, after %d heartbeats", r.agent.CutOff(), r.beats)
		}
		r.end(t)
	})
}
