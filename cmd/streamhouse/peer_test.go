package main

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/streamhouse/streamhouse/metadata"
)

// TestAgentsCallEachOther has agents that share nothing but their stores, and one that
// was given another secret.
func TestAgentsCallEachOther(t *testing.T) {
	t.Parallel()
	s := sharedStores(t)
	inZone := func(zone string) func(*Settings) {
		return func(s *Settings) { s.AgentID, s.AvailabilityZone = zone, zone }
	}
	callee := startAgent(t, s, named("callee"))
	friend := startAgent(t, s, inZone("friend"))
	stranger := startAgent(t, s, inZone("stranger"), func(s *Settings) { s.Peer.Secret = "of nobody else here" })
	if at := callee.node.Agent.Self().PeerAddress; at != callee.peers.Addr().String() {
		t.Errorf("an agent is to be called at %q, and listens at %s", at, callee.peers.Addr())
	}
	ctx := testContext(t)
	nothing := &metadata.Commit{AgentID: "callee"}
	if _, err := stranger.node.Calls.Commit(ctx, nothing); !errors.Is(err, metadata.ErrUnavailable) {
		t.Errorf("a call of one with another secret: %v", err)
	}
	_, _ = friend.node.Calls.Commit(ctx, nothing) // whatever comes of it
	if !friend.node.Calls.Reachable("callee") || stranger.node.Calls.Reachable("callee") {
		t.Error("it is not right who can be reached")
	}
	_, body := get(ctx, t, callee.admin.Addr().String(), "/metrics")
	const from = `streamhouse_peer_connection_bytes_total{direction="in",zone="`
	if !strings.Contains(body, from+`friend"} `) || strings.Contains(body, from+`stranger"} `) {
		t.Error("it is not right who was heard")
	}
}

// TestEmbeddedAgentHasNoPeers has nobody to be called by.
func TestEmbeddedAgentHasNoPeers(t *testing.T) {
	t.Parallel()
	a := startAgent(t, embeddedStores(t))
	if at := a.node.Agent.Self().PeerAddress; a.peers != nil || at != "" {
		t.Errorf("it is called at %q", at)
	}
}

func TestAdvertisedPeer(t *testing.T) {
	listening := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7000}
	for name, test := range map[string]struct{ address, advertised, want string }{
		"address":    {"10.1.2.3:0", "", "10.1.2.3:7000"},
		"name":       {"agent-1.internal:7000", "", "agent-1.internal:7000"},
		"IPv6":       {"[fd00::1]:0", "", "[fd00::1]:7000"},
		"advertised": {"0.0.0.0:7000", "gate:1234", "gate:1234"},
	} {
		s := &Settings{Peer: PeerSettings{Address: test.address, AdvertisedAddress: test.advertised}}
		if got, err := s.advertisedPeer(listening); err != nil || got != test.want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, test.want)
		}
	}
}
