package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/metadata"
)

// errEnded says that the client is not used any more.
var errEnded = errors.New("rpc: this agent is ending")

// Client calls other agents. Its methods are safe for concurrent use.
type Client struct {
	cfg      Config
	self     metadata.Agent
	cluster  Cluster
	identity Identity
	metrics  *Metrics
	log      *slog.Logger

	doubts chan struct{} // has an element if a peer is to be probed at once

	mu    sync.Mutex
	peers map[string]*peer // by agent id; nil once Run has ended
}

// NewClient makes the client of the agent self, as it is registered.
func NewClient(cfg Config, self metadata.Agent, cluster Cluster, id Identity, m *Metrics, log *slog.Logger) *Client {
	return &Client{
		cfg: cfg, self: self, cluster: cluster, identity: id, metrics: m, log: log,
		doubts: make(chan struct{}, 1), peers: make(map[string]*peer),
	}
}

// Run keeps watch over the peers that were called until ctx ends, and returns nil
// then: it asks those that did not answer whether they do, and forgets those that are
// gone. Calls fail from then on.
func (c *Client) Run(ctx context.Context) error {
	probing, stop := context.WithCancel(ctx)
	var probes sync.WaitGroup
	defer probes.Wait()
	defer c.end()
	defer stop()
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-c.doubts:
		}
		for _, p := range c.doubted() {
			probes.Go(func() { c.probe(probing, p) })
		}
	}
}

// end closes all connections, for good.
func (c *Client) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.peers {
		p.end()
	}
	c.peers = nil
}

// Reachable says whether a call of the agent may be worth while: it has an address,
// and did not fail to answer when it was called last.
func (c *Client) Reachable(agentID string) bool {
	p, err := c.peer(agentID)
	if err != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return !p.down
}

// peer returns the one of an agent, as the view has it.
func (c *Client) peer(agentID string) (*peer, error) {
	a, ok := c.cluster.Agent(agentID)
	if !ok || a.PeerAddress == "" {
		return nil, fmt.Errorf("agent %q is not known to answer calls", agentID)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.peers == nil {
		return nil, errEnded
	}
	p := c.peers[agentID]
	if p == nil || p.agent.Session != a.Session || p.agent.PeerAddress != a.PeerAddress {
		if p != nil {
			p.end()
		}
		p = c.newPeer(a)
		c.peers[agentID] = p
	}
	return p, nil
}

// doubted returns the peers that are to be probed now, which begins, and forgets those
// that have left the view.
func (c *Client) doubted() (doubted []*peer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	down := 0
	for id, p := range c.peers {
		a, listed := c.cluster.Agent(id)
		switch {
		case listed && a.Session == p.agent.Session:
			p.gone = time.Time{}
		case p.gone.IsZero():
			p.gone = time.Now()
		case time.Since(p.gone) > goneAfter: // what it was asked before it left is answered
			p.end()
			delete(c.peers, id)
			continue
		}
		if p.down {
			down++
		}
		if (p.down || p.doubted) && !p.probing {
			p.probing = true
			doubted = append(doubted, p)
		}
	}
	c.metrics.unreachable.Set(float64(down))
	return doubted
}

// probe asks a peer whether it is there, and keeps the answer.
func (c *Client) probe(ctx context.Context, p *peer) {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	err := c.ping(ctx, p)
	if errors.Is(ctx.Err(), context.Canceled) {
		return // this agent ends
	}
	if err != nil {
		p.conns.close() // they lead nowhere, and calls on them need not wait
	}
	c.mu.Lock()
	p.doubted, p.probing = false, false
	c.mu.Unlock()
	c.learn(p, err)
}

// lost says that a peer can't be reached, for the reason err.
func (c *Client) lost(p *peer, err error) {
	c.learn(p, err)
	c.doubt(p)
}

// learn keeps whether a peer can be reached, and logs a change.
func (c *Client) learn(p *peer, err error) {
	c.mu.Lock()
	wasDown := p.down
	p.down = err != nil
	gone := c.peers[p.agent.ID] != p // its connections were closed by this agent
	c.mu.Unlock()
	switch {
	case gone:
	case err != nil && !wasDown:
		if c.cfg.Unreached != nil {
			c.cfg.Unreached(p.agent.ID)
		}
		c.log.Warn("a peer can't be reached", "peer", p.agent.ID, "address", p.agent.PeerAddress, "error", err)
	case err == nil && wasDown:
		c.log.Info("a peer can be reached again", "peer", p.agent.ID)
	}
}

// doubt has a peer probed.
func (c *Client) doubt(p *peer) {
	c.mu.Lock()
	p.doubted = true
	c.mu.Unlock()
	select {
	case c.doubts <- struct{}{}:
	default: // it has been said
	}
}
