package node

import (
	"context"
	"slices"

	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// leads tells the read path what this agent leads.
type leads struct{ leases *lease.Manager }

func (l leads) Leads(k lease.Key) (int32, bool) {
	if held := l.leases.Get(k); held != nil {
		return held.LeaderEpoch(), true
	}
	return 0, false
}

// cluster is the view of the cluster for who watches its agents.
type cluster struct{ *topology.Watcher }

func (c cluster) ID() string               { return c.Snapshot().ClusterID }
func (c cluster) Agents() []metadata.Agent { return c.Snapshot().Agents() }
func (c cluster) Refresh(ctx context.Context) error {
	_, err := c.Watcher.Refresh(ctx, 0)
	return err
}

// spread is a view of the cluster for who spreads leases over it.
type spread struct{ *topology.Snapshot }

func (s spread) Alive() []string {
	var alive []string
	for _, a := range s.Agents() {
		if s.Heard(a) {
			alive = append(alive, a.ID+"/"+a.Session.String())
		}
	}
	return alive
}

// doubt returns what is closed when it is known whether the holder of a lease is
// dead; nil if it is not suspected.
func (n *Node) doubt(k lease.Key) <-chan struct{} {
	suspected, decided := n.Peers.Suspected()
	if len(suspected) == 0 {
		return nil
	}
	if a, _, ok := n.Topology.Snapshot().Leader(k); ok && slices.Contains(suspected, a.Session) {
		return decided
	}
	return nil
}

// withdraw has clients sent to the other agents: this one is alive and of no use.
func (n *Node) withdraw(ctx context.Context) {
	n.Topology.Leave(true)
	if err := n.Agent.Withdraw(ctx); err != nil {
		n.log.Warn("other agents count on this one for a while", "error", err)
	}
	if _, err := n.Topology.Refresh(ctx, 0); err != nil {
		n.log.Warn("cannot refresh the view of the cluster without this agent", "error", err)
	}
}

// comeBack ends a withdrawal.
func (n *Node) comeBack() {
	n.Topology.Leave(false)
	n.Agent.Return()
}
