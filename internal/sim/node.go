package sim

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/streamhouse/streamhouse/broker"
	"github.com/streamhouse/streamhouse/broker/agent"
	"github.com/streamhouse/streamhouse/broker/balance"
	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/broker/fetch"
	"github.com/streamhouse/streamhouse/broker/group"
	"github.com/streamhouse/streamhouse/broker/ingest"
	"github.com/streamhouse/streamhouse/broker/partition"
	"github.com/streamhouse/streamhouse/broker/peers"
	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol"
	"github.com/streamhouse/streamhouse/segment/objstore"
)

// node is one life of an agent: the parts that run in production, put together
// as cmd/streamhouse does, with the world instead of sockets and servers.
type node struct {
	site     *site
	settings *settings
	address  string
	listener *listener
	store    *store
	metrics  *prometheus.Registry
	log      *slog.Logger

	agent    *agent.Agent
	topology *topology.Watcher
	leases   *lease.Manager
	pool     *ingest.Pool
	table    *partition.Table
	reader   *fetch.Reader
	groups   *group.Coordinator
	peers    *peers.Watcher
	broker   *broker.Broker
	balance  *balance.Loop
	server   *protocol.Server
}

// startNode registers an agent and makes its parts.
func startNode(ctx context.Context, s *site, address string) (_ *node, err error) {
	w := s.world
	n := &node{
		site: s, settings: &w.settings, address: address, store: &store{db: w.db, at: s},
		log: w.logger(s),
	}
	n.listener = w.network.listen(s, address)
	defer func() {
		if err != nil {
			n.listener.Close()
		}
	}()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	reg := prometheus.NewRegistry()
	n.metrics = reg
	session := uuid.New()
	self := metadata.Agent{ID: s.id, Session: session, Host: host, Port: int32(number)}
	pace := agent.Config{
		HeartbeatInterval: n.settings.lease.RenewInterval, RequestTimeout: 5 * time.Second,
		Doubt: func() { n.leases.Doubt() },
	}
	if n.agent, err = agent.Start(ctx, pace, n.store, self, agent.NewMetrics(reg), n.log); err != nil {
		return nil, err
	}
	if err := n.assemble(session, reg); err != nil {
		return nil, err
	}
	if _, err := n.topology.Refresh(ctx, 0); err != nil {
		return nil, err
	}
	return n, nil
}

// buffered is how many bytes of batches the agent has not decided, as it says
// itself.
func (n *node) buffered() float64 {
	families, err := n.metrics.Gather()
	if err != nil {
		panic(err) // two metrics of one name
	}
	for _, f := range families {
		if f.GetName() == "streamhouse_ingest_buffered_bytes" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	panic("there is no gauge of what is buffered")
}

// assemble makes the parts of the broker and wires them.
func (n *node) assemble(session uuid.UUID, reg *prometheus.Registry) error {
	s, log, id := n.settings, n.log, n.site.id
	self := n.agent.Self()
	static, err := config.NewBroker(map[string]string{"broker.id": strconv.Itoa(int(self.NodeID))})
	if err != nil {
		return err
	}
	bare := &objects{Store: n.site.world.bucket, at: n.site}
	kept := objstore.WithPolicy(bare, s.objects)
	n.leases = lease.NewManager(n.store, id, s.lease, lease.NewMetrics(reg), log)
	n.reader = fetch.New(s.fetch, n.store, kept, leads{n.leases}, fetch.NewMetrics(reg), log)
	n.topology = topology.NewWatcher(topology.Config{
		Interval: s.topologyInterval, AgentFresh: s.lease.Duration, NodeID: self.NodeID, Broker: static,
		Deleted: func(topic uuid.UUID) {
			n.reader.Forget(topic)
			n.leases.Forget(topic)
		},
	}, n.agent.Listed(n.store), log)
	bucket := balance.NewBucket(kept)
	n.pool = ingest.NewPool(s.ingest, ingest.Environment{
		AgentID: id, Session: session, Leases: n.leases, Objects: bucket,
		Committer: n.store, Observer: n.reader, Metrics: ingest.NewMetrics(reg), Log: log,
	})
	appends := partition.DefaultConfig()
	appends.Doubt = n.doubt
	n.table = partition.NewTable(appends, n.leases, n.pool)
	n.groups = group.NewCoordinator(n.store, n.leases, broker.GroupView(n.topology), id, group.NewConfig(static), group.NewMetrics(reg), log)
	watch := peers.DefaultConfig()
	watch.Dial = func(ctx context.Context, address string) (net.Conn, error) {
		conn, _, err := n.site.world.network.dial(ctx, n.site, address, n.site.random)
		return conn, err
	}
	n.peers = peers.New(watch, self.NodeID, n.store, cluster{n.topology}, peers.NewMetrics(reg), log)
	n.broker = broker.New(broker.Parts{
		NodeID: self.NodeID, AgentID: id, Store: n.store, Topology: n.topology, Partitions: n.table,
		Reader: n.reader, Sessions: fetch.NewSessions(), Groups: n.groups,
		LogDir: "bucket", Log: log, Level: new(slog.LevelVar), CutOff: n.agent.CutOff, Peers: n.peers,
	})
	n.balance = balance.New(balance.Agent{
		ID: id, View: func() balance.View { return spread{n.topology.Snapshot()} }, Leases: n.leases,
		Bucket: bucket, Probe: bare.Check, HandOver: n.handOver, Withdraw: n.withdraw, Return: n.comeBack, Log: log,
	}, reg)
	router, err := protocol.NewRouter(n.broker.Routes(), protocol.WithApiVersionsHook(n.broker.ApiVersions))
	if err != nil {
		return err
	}
	n.server = protocol.NewServer(protocol.ServerConfig{}, router, protocol.NewMetrics(reg), log)
	return nil
}

// doubt returns what is closed when it is known whether the holder of a lease is
// dead; nil if it is not suspected.
func (n *node) doubt(k lease.Key) <-chan struct{} {
	suspected, decided := n.peers.Suspected()
	if len(suspected) == 0 {
		return nil
	}
	if a, _, ok := n.topology.Snapshot().Leader(k); ok && slices.Contains(suspected, a.Session) {
		return decided
	}
	return nil
}

// withdraw has clients sent to the other agents: this one is alive and of no use.
func (n *node) withdraw(ctx context.Context) {
	n.topology.Leave(true)
	_ = n.agent.Withdraw(ctx)
	_, _ = n.topology.Refresh(ctx, 0)
}

// comeBack ends a withdrawal.
func (n *node) comeBack() {
	n.topology.Leave(false)
	n.agent.Return()
}

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

// run serves until ctx ends, then drains; or until a part fails, or the agent is
// killed.
func (n *node) run(ctx context.Context) error {
	serving, stop := context.WithCancel(n.site.life)
	defer stop()
	parts, serving := errgroup.WithContext(serving)
	waiting, endWaits := context.WithCancel(serving)
	defer endWaits()
	spreading, endSpreading := context.WithCancel(serving)
	defer endSpreading()
	settled := make(chan struct{})
	for _, run := range []func() error{
		func() error { return n.agent.Run(serving) },
		func() error { return n.topology.Run(serving) },
		func() error { return n.leases.Run(serving) },
		func() error { return n.pool.Run(serving) },
		func() error { return n.table.Run(serving) },
		func() error { return n.reader.Run(waiting) },
		func() error { return n.groups.Run(waiting) },
		func() error { defer close(settled); return n.balance.Run(spreading) },
		func() error { return n.peers.Run(waiting) },
		func() error { return n.server.Serve(serving, n.listener) },
	} {
		parts.Go(run)
	}
	select {
	case <-ctx.Done():
		endSpreading()
		<-settled
		n.drain(endWaits)
	case <-serving.Done():
	}
	stop()
	return parts.Wait()
}

// shutdownTimeout is how long a drain may take.
const shutdownTimeout = 20 * time.Second

// drain takes the agent out of service, in the order of cmd/streamhouse.
func (n *node) drain(endWaits func()) {
	begun := time.Now()
	take := func(by float64, do func(context.Context) error) {
		ctx, cancel := context.WithDeadline(n.site.life, begun.Add(time.Duration(by*float64(shutdownTimeout))))
		defer cancel()
		if err := do(ctx); err != nil {
			n.log.Debug("a step of the drain failed", "error", err)
		}
	}
	n.agent.Drain()
	if n.others(begun) {
		take(0.3, func(ctx context.Context) error {
			n.leases.Retire(ctx)
			n.handOver(ctx, lease.ForShutdown, n.leases.Leases())
			return ctx.Err()
		})
		take(0.35, func(ctx context.Context) error {
			n.topology.Leave(true)
			err := n.agent.Stop(ctx)
			_, _ = n.topology.Refresh(ctx, 0)
			n.broker.Leave()
			return err
		})
		take(0.5, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
			defer cancel()
			n.broker.AwaitMoved(ctx, time.Second)
			return nil
		})
	}
	defer time.AfterFunc(time.Second, endWaits).Stop()
	take(0.5, n.server.Shutdown)
	take(0.8, n.table.Close)
	take(0.9, n.leases.ReleaseAll)
	take(1, n.agent.Stop)
}

// others says whether another agent is alive.
func (n *node) others(begun time.Time) bool {
	ctx, cancel := context.WithDeadline(n.site.life, begun.Add(shutdownTimeout/10))
	defer cancel()
	view, err := n.topology.Refresh(ctx, 0)
	if err != nil {
		return false
	}
	for _, a := range view.Agents() {
		if a.ID != n.site.id && view.Heard(a) {
			return true
		}
	}
	return false
}

// handOver hands leases over to the agents that would lead without this one.
func (n *node) handOver(ctx context.Context, reason lease.HandoverReason, leases []*lease.Lease) {
	view := n.topology.Snapshot()
	to := func(k lease.Key) (string, bool) { return view.Successor(k, n.site.id) }
	var partitions, shards []*lease.Lease
	for _, l := range leases {
		if metadata.IsShard(l.Key()) {
			shards = append(shards, l)
		} else {
			partitions = append(partitions, l)
		}
	}
	var both sync.WaitGroup
	both.Go(func() { n.table.HandOver(ctx, reason, partitions, to) })
	both.Go(func() { n.groups.HandOver(ctx, reason, shards, to) })
	both.Wait()
}
