package agent_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamhouse/streamhouse/broker/agent"
	"github.com/streamhouse/streamhouse/metadata"
)

// register has one agent, which it lists as long as it is heard of.
type register struct {
	self  metadata.Agent
	age   time.Duration // of the last heartbeat
	beats int
	err   error // of heartbeats

	registered int           // times
	attended   int           // times
	away       atomic.Bool   // nobody can attend
	challenges chan struct{} // nil: none
	cuts       chan error    // end the sign of life; nil: never
	isolated   atomic.Bool   // nobody reaches the agent
	looks      atomic.Int64  // whether it is
}

func (r *register) Register(_ context.Context, a metadata.Agent) (int32, error) {
	r.self = a
	r.registered++
	if errors.Is(r.err, metadata.ErrBuried) {
		r.err = nil
	}
	return 1, nil
}

func (r *register) Heartbeat(context.Context, string, uuid.UUID) error {
	r.beats++
	if r.err == nil {
		r.age = 0
	}
	return r.err
}

func (r *register) Deregister(context.Context, string, uuid.UUID) error { return nil }

// Attend holds until its context or the session ends; it is challenged once for
// every element of challenges.
func (r *register) Attend(ctx context.Context, _ string, _ uuid.UUID, s metadata.Signals) error {
	r.attended++
	if r.away.Load() {
		return metadata.ErrUnavailable
	}
	s.Present()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.challenges:
			s.Challenged()
		case err := <-r.cuts:
			return err
		}
	}
}

func (r *register) Challenge(context.Context, string, uuid.UUID) error { return nil }

func (r *register) Report(context.Context, metadata.Report) error { return nil }

func (r *register) Isolated(context.Context, string, uuid.UUID) (bool, error) {
	r.looks.Add(1)
	return r.isolated.Load(), nil
}

func (r *register) Bury(context.Context, string, uuid.UUID, time.Duration) (metadata.Burial, error) {
	return metadata.NotBuried, nil
}

func (r *register) Topology(context.Context, int64) (*metadata.Topology, error) {
	t := &metadata.Topology{Version: 1}
	if r.age < metadata.AgentListedFor {
		self := r.self
		self.HeartbeatAge = r.age
		t.Agents = append(t.Agents, self)
	}
	return t, nil
}

func TestAgentThatAsksIsListed(t *testing.T) {
	const interval = 20 * time.Second
	for name, tc := range map[string]struct {
		age    time.Duration
		err    error
		beats  int
		listed bool
	}{
		"heard of":                     {age: interval, listed: true},
		"overdue":                      {age: 2 * interval, beats: 1, listed: true},
		"not heard of":                 {age: time.Hour, beats: 1, listed: true},
		"not heard of, and superseded": {age: time.Hour, err: metadata.ErrSuperseded, beats: 1},
		"not heard of, no database":    {age: time.Hour, err: errors.New("away"), beats: 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := &register{}
			a, err := agent.Start(t.Context(), agent.Config{HeartbeatInterval: interval, RequestTimeout: time.Second}, r,
				metadata.Agent{ID: "a"}, agent.NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			r.age, r.err = tc.age, tc.err
			topology, err := a.Listed(r).Topology(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			if got := len(topology.Agents) == 1; got != tc.listed || r.beats != tc.beats {
				t.Errorf("listed: %t after %d heartbeats, want %t after %d", got, r.beats, tc.listed, tc.beats)
			}
		})
	}
}
