package node

import (
	"context"
	"fmt"
	"time"

	"github.com/streamhouse/streamhouse/broker/rpc"
	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/metadata"
)

// connect makes both sides of the calls between agents, if there are any.
func (n *Node) connect(ctx context.Context) error {
	metrics := rpc.NewMetrics(n.env.Registry)
	if n.env.Peers == nil {
		return nil
	}
	identity, err := n.identity(ctx)
	if err != nil {
		return err
	}
	cfg, self, view := n.cfg.RPC, n.Agent.Self(), acquaintances{n.Topology}
	cfg.Traffic = n.Traffic.Exchanged
	cfg.Unreached = func(agentID string) { n.Peers.Doubt(agentID) } // who is there when calls are made
	n.Calls = rpc.NewClient(cfg, self, view, identity, metrics, n.log)
	n.answers = rpc.NewServer(cfg, self, view, identity, n.handlers(), metrics, n.log)
	return nil
}

// identity is what agents know each other by: certificates, a secret, or else the one
// in the metadata store.
func (n *Node) identity(ctx context.Context) (rpc.Identity, error) {
	cfg := &n.cfg.RPC
	if cfg.Files.IsSet() {
		return rpc.FromFiles(cfg.Files, n.log)
	}
	secret := cfg.Secret
	if len(secret) == 0 {
		var err error
		if secret, err = n.Store.PeerSecret(ctx); err != nil {
			return nil, fmt.Errorf("read the secret that agents share: %w", err)
		}
	}
	return rpc.FromSecret(secret, n.cfg.Self.Group, cluster{n.Topology}.ID)
}

// acquaintances is a view of the cluster for who is called by other agents.
type acquaintances struct{ *topology.Watcher }

// strangersPause is the time between two looks for callers that the view does not have.
const strangersPause = 200 * time.Millisecond

func (a acquaintances) Agent(id string) (metadata.Agent, bool) { return a.Snapshot().Agent(id) }
func (a acquaintances) Refresh(ctx context.Context) error {
	_, err := a.Current(ctx, strangersPause)
	return err
}
