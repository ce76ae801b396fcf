package node

import (
	"context"
	"fmt"
	"time"

	"github.com/streamhouse/streamhouse/broker/rpc"
	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/metadata"
)

// assembleRPC makes both sides of the calls between agents.
func (n *Node) assembleRPC(ctx context.Context) error {
	metrics := rpc.NewMetrics(n.env.Registry)
	if n.env.Peers == nil {
		return nil
	}
	identity, err := n.identity(ctx)
	if err != nil {
		return err
	}
	self, view := n.Agent.Self(), acquaintances{n.Topology}
	n.Calls = rpc.NewClient(n.cfg.RPC, self, view, identity, metrics, n.log)
	n.answers = rpc.NewServer(n.cfg.RPC, self, view, identity, n.rpcHandlers(), metrics, n.log)
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

// rpcHandlers are what this agent does for others.
func (n *Node) rpcHandlers() rpc.Handlers { return rpc.Handlers{} }

// acquaintances is a view of the cluster for who is called by other agents.
type acquaintances struct{ *topology.Watcher }

// strangersPause is the time between two looks for callers that the view does not have.
const strangersPause = 200 * time.Millisecond

func (a acquaintances) Agent(id string) (metadata.Agent, bool) { return a.Snapshot().Agent(id) }
func (a acquaintances) Refresh(ctx context.Context) error {
	_, err := a.Current(ctx, strangersPause)
	return err
}
