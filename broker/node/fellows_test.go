package node

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/broker/ingest/ingesttest"
	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// source is a cluster that is as it is.
type source metadata.Topology

func (s *source) Topology(context.Context, int64) (*metadata.Topology, error) {
	return (*metadata.Topology)(s), nil
}

// What is borrowed ends with the first view in which it should not be.
func TestBorrowedLeasesFollowTheView(t *testing.T) {
	t.Parallel()
	key := lease.Key{TopicID: uuid.UUID{15: 1}}
	u := metadata.Agent{ID: "u", NodeID: 1, Session: uuid.UUID{1}, Zone: "a", PeerAddress: "u:1"}
	h := metadata.Agent{ID: "h", NodeID: 2, Session: uuid.UUID{2}, Zone: "b", PeerAddress: "h:1"}
	silent, mute := h, metadata.Agent{ID: "old", NodeID: 3, Session: uuid.UUID{3}, Zone: "b"}
	silent.HeartbeatAge = time.Hour
	for name, test := range map[string]struct {
		agents []metadata.Agent
		leader metadata.Leader
		ends   bool
	}{
		"as it was":            {[]metadata.Agent{u, h}, metadata.Leader{Key: key, AgentID: "h", LeaderEpoch: 5}, false},
		"an older view":        {[]metadata.Agent{u, h}, metadata.Leader{Key: key, AgentID: "u", LeaderEpoch: 4}, false},
		"another leader":       {[]metadata.Agent{u, h}, metadata.Leader{Key: key, AgentID: "u", LeaderEpoch: 6}, true},
		"another leader epoch": {[]metadata.Agent{u, h}, metadata.Leader{Key: key, AgentID: "h", LeaderEpoch: 6}, true},
		"nobody leads":         {[]metadata.Agent{u, h}, metadata.Leader{Key: key, LeaderEpoch: 5}, true},
		"the leader is silent": {[]metadata.Agent{u, silent}, metadata.Leader{Key: key, AgentID: "h", LeaderEpoch: 5}, true},
		"somebody can't read what is borrowed": {
			[]metadata.Agent{u, h, mute}, metadata.Leader{Key: key, AgentID: "h", LeaderEpoch: 5}, true,
		},
	} {
		static, err := config.NewBroker(nil)
		if err != nil {
			t.Fatal(err)
		}
		log := slog.New(slog.DiscardHandler)
		n := &Node{Leases: lease.NewManager(ingesttest.NewStore(), "u", lease.DefaultConfig(), lease.NewMetrics(prometheus.NewRegistry()), log)}
		l := n.Leases.Borrow(&lease.HeldByOtherError{Key: key, Holder: lease.Holder{AgentID: "h", LeaderEpoch: 5, ExpiresIn: time.Minute}})
		w := topology.NewWatcher(topology.Config{
			Interval: time.Hour, AgentFresh: time.Minute, NodeID: 1, Broker: static, Changed: n.viewed,
		}, &source{Version: 1, Agents: test.agents, Leaders: []metadata.Leader{test.leader}}, log)
		if _, err := w.Refresh(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if l.Held() == test.ends {
			t.Errorf("%s: the lease is held: %v", name, l.Held())
		}
	}
}
