package node

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"strconv"
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
	"github.com/streamhouse/streamhouse/broker/prune"
	"github.com/streamhouse/streamhouse/broker/rpc"
	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/broker/traffic"
	"github.com/streamhouse/streamhouse/broker/zone"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol"
	"github.com/streamhouse/streamhouse/segment/objstore"
)

// Config says who an agent is, and how its parts work.
type Config struct {
	// Self is what the agent registers as. Each life has a session of its own.
	Self metadata.Agent
	// Lease is also the pace of heartbeats: one goes at each RenewInterval.
	Lease lease.Config
	// TopologyInterval is the time between two looks at the cluster.
	TopologyInterval time.Duration
	// ShutdownTimeout is the longest time of a drain.
	ShutdownTimeout time.Duration

	Flush   ingest.Config
	Fetch   fetch.Config
	Objects objstore.Policy
	Peers   peers.Config
	RPC     rpc.Config
	Server  protocol.ServerConfig
	Prices  traffic.Prices

	// Zones are the subnets of clients whose zone is known by them.
	Zones zone.Map
	// Configs are Kafka's configs of the broker. What follows from Self is added.
	Configs map[string]string
	// TopicGroups are the agent groups of new topics; nil: all are of that of Self.
	TopicGroups config.TopicGroups
	// LogDir is what clients are told of where the records are.
	LogDir string
}

// Environment is what an agent stands on. All fields but Peers are required, and
// remain the caller's, who closes them when the agent has ended.
type Environment struct {
	Listener net.Listener // for Kafka's protocol
	Peers    net.Listener // for calls of other agents, at Self.PeerAddress; nil: there are none
	Store    metadata.Store
	Objects  objstore.Store // without retries and metrics
	Registry prometheus.Registerer
	Log      *slog.Logger
	Level    *slog.LevelVar // of Log
}

// Node is a built agent.
type Node struct {
	// Store is that of the environment, measured.
	Store metadata.Store
	// Some parts, to be looked at.
	Agent    *agent.Agent
	Topology *topology.Watcher
	Leases   *lease.Manager
	Peers    *peers.Watcher
	Broker   *broker.Broker
	Writers  *balance.Writers
	Traffic  *traffic.Meter
	// Calls are those of other agents; nil if there are none.
	Calls *rpc.Client

	cfg     Config
	env     Environment
	log     *slog.Logger
	silence metadata.Silence

	pool    *ingest.Pool
	table   *partition.Table
	reader  *fetch.Reader
	groups  *group.Coordinator
	prune   *prune.Loop
	zones   *zone.Finder
	balance *balance.Loop
	server  *protocol.Server
	answers *rpc.Server // as Calls
}

// New registers the agent and makes everything else. If it fails, nobody is sent to
// the agent.
func New(ctx context.Context, cfg Config, env Environment) (_ *Node, err error) {
	n := &Node{cfg: cfg, env: env, log: env.Log}
	n.Store = metadata.WithMetrics(env.Store, env.Registry, &n.silence)
	if env.Peers == nil {
		n.cfg.Self.PeerAddress = ""
	}
	pace := agent.Config{
		HeartbeatInterval: cfg.Lease.RenewInterval, RequestTimeout: 5 * time.Second,
		Doubt: func() { n.Leases.Doubt() }, // which are there when the agent runs
	}
	if n.Agent, err = agent.Start(ctx, pace, n.Store, n.cfg.Self, agent.NewMetrics(env.Registry), n.log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			n.abandon(ctx)
		}
	}()
	if err := n.assemble(ctx); err != nil {
		return nil, err
	}
	if _, err := n.Topology.Refresh(ctx, 0); err != nil {
		return nil, fmt.Errorf("read the cluster's topology: %w", err)
	}
	return n, nil
}

// abandonTimeout is how long a start that failed may take to be undone.
const abandonTimeout = 2 * time.Second

// abandon undoes a start that failed, so that nobody is sent to this agent.
func (n *Node) abandon(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTimeout)
	defer cancel()
	if err := n.Agent.Stop(ctx); err != nil {
		n.log.Warn("the agent stays listed for a while", "error", err)
	}
}

// assemble makes the parts of the broker and wires them.
func (n *Node) assemble(ctx context.Context) error {
	cfg, reg, log := &n.cfg, n.env.Registry, n.log
	self := n.Agent.Self()
	static, err := n.brokerConfig(self)
	if err != nil {
		return err
	}
	requests := objstore.NewMetrics(reg)
	objects := objstore.WithPolicy(objstore.WithMetrics(n.env.Objects, requests), cfg.Objects)
	bucket := balance.NewBucket(objects)
	n.Leases = lease.NewManager(n.Store, self.ID, cfg.Lease, lease.NewMetrics(reg), log)
	n.Topology = topology.NewWatcher(topology.Config{
		Interval: cfg.TopologyInterval, AgentFresh: cfg.Lease.Duration, NodeID: self.NodeID, Broker: static,
		Deleted: func(topic uuid.UUID) {
			n.reader.Forget(topic)
			n.Leases.Forget(topic)
		},
		Changed: n.viewed,
	}, n.Agent.Listed(n.Store), log)
	n.zones = zone.NewFinder(self.Zone, cfg.Zones)
	n.Traffic, n.Writers = n.newMeter(requests), balance.NewWriters()
	if err := n.connect(ctx); err != nil {
		return err
	}
	n.assembleLog(objects, bucket)
	groups := group.NewConfig(static)
	groups.AgentGroup = self.Group
	n.groups = group.NewCoordinator(n.Store, n.Leases, broker.GroupView(n.Topology), self.ID, groups, group.NewMetrics(reg), log)
	n.prune = prune.New(n.Store, reg, log)
	n.Peers = peers.New(cfg.Peers, self, n.Store, cluster{n.Topology}, peers.NewMetrics(reg), log)
	n.Broker = broker.New(broker.Parts{
		NodeID: self.NodeID, AgentID: self.ID, Store: n.Store, Topology: n.Topology, Partitions: n.table, Wrote: n.wrote,
		Reader: n.reader, Sessions: fetch.NewSessions(), Groups: n.groups, Zones: n.zones,
		TopicGroups: cfg.TopicGroups, LogDir: cfg.LogDir, Log: log, Level: n.env.Level, CutOff: n.cutOff, Peers: n.Peers, Reachable: n.reachable,
	})
	n.balance = balance.New(balance.Agent{
		ID: self.ID, Zone: self.Zone, Writers: n.Writers, View: func() balance.View { return spread{n.Topology.Snapshot()} }, Leases: n.Leases,
		Bucket: bucket, Probe: n.env.Objects.Check, Isolated: n.Agent.Isolated(),
		HandOver: n.handOver, Withdraw: n.withdraw, Return: n.comeBack, Log: log,
	}, reg)
	router, err := protocol.NewRouter(n.Broker.Routes(), protocol.WithApiVersionsHook(n.Broker.ApiVersions))
	if err != nil {
		return err
	}
	server := cfg.Server
	server.Observe = n.served
	n.server = protocol.NewServer(server, router, protocol.NewMetrics(reg), log)
	return nil
}

// assembleLog makes what reads and writes partitions.
func (n *Node) assembleLog(objects objstore.Store, bucket *balance.Bucket) {
	cfg, reg, log := &n.cfg, n.env.Registry, n.log
	self := n.Agent.Self()
	reads := cfg.Fetch
	pooled := ingest.Environment{
		AgentID: self.ID, Session: self.Session, Leases: n.Leases, Objects: bucket,
		Committer: n.Store, Names: n.Store, Metrics: ingest.NewMetrics(reg), Log: log,
		Agents: func() int { return n.Topology.Snapshot().Committing(self.ID) },
	}
	if n.Calls != nil {
		reads.Peers, pooled.Remote = feeds{n}, n.Calls
		if self.Zone != "" {
			reads.Zone = zoneCache{n}
		}
	}
	n.reader = fetch.New(reads, n.Store, objects, leads{n.Leases}, fetch.NewMetrics(reg), log)
	pooled.Observer = n.reader
	n.pool = ingest.NewPool(cfg.Flush, pooled)
	appends := partition.DefaultConfig()
	appends.Doubt, appends.Borrow = n.doubt, n.borrow
	n.table = partition.NewTable(appends, n.Leases, n.pool)
}

// brokerConfig are Kafka's configs of the agent as it is registered.
func (n *Node) brokerConfig(self metadata.Agent) (*config.Broker, error) {
	configs := make(map[string]string)
	maps.Copy(configs, n.cfg.Configs)
	configs[config.AgentGroup] = self.Group
	configs["broker.id"] = strconv.Itoa(int(self.NodeID))
	configs["advertised.listeners"] = "PLAINTEXT://" + net.JoinHostPort(self.Host, strconv.Itoa(int(self.Port)))
	return config.NewBroker(configs)
}

// storeSilence is how long the metadata store may answer nothing until the agent
// counts as cut off from it.
const storeSilence = 3 * time.Second

// cutOff says whether the agent is of no use, since it can't reach the metadata
// store: its peers and clients are told.
func (n *Node) cutOff() bool { return n.Agent.CutOff() || n.silence.Lasts() > storeSilence }

// HealthCheck says what makes the agent unfit to serve; nil if nothing does. It asks
// nobody.
func (n *Node) HealthCheck() error { return cmp.Or(n.Agent.HealthCheck(), n.balance.HealthCheck()) }

// Run serves until leave is closed, then drains; or until a part fails. If ctx ends
// the agent does too, with no goodbye to anybody. A Node runs once.
func (n *Node) Run(ctx context.Context, leave <-chan struct{}) error {
	serving, stop := context.WithCancel(ctx)
	defer stop()
	parts, serving := errgroup.WithContext(serving)
	waiting, endWaits := context.WithCancel(serving)
	defer endWaits()
	spreading, endSpreading := context.WithCancel(serving)
	defer endSpreading()
	settled := make(chan struct{}) // closed when nothing is handed over for balance any more
	for _, run := range []func() error{
		func() error { return n.Agent.Run(serving) },
		func() error { return n.Topology.Run(serving) },
		func() error { return n.Leases.Run(serving) },
		func() error { return n.pool.Run(serving) },
		func() error { return n.table.Run(serving) },
		func() error { return n.reader.Run(waiting) },
		func() error { return n.groups.Run(waiting) },
		func() error { return n.prune.Run(serving) },
		func() error { defer close(settled); return n.balance.Run(spreading) },
		func() error { return n.Peers.Run(waiting) },
		func() error { return n.Traffic.Run(serving) },
		func() error { return n.server.Serve(serving, n.env.Listener) },
	} {
		parts.Go(run)
	}
	if n.env.Peers != nil {
		parts.Go(func() error { return n.Calls.Run(serving) })
		parts.Go(func() error { return n.answers.Serve(serving, n.env.Peers) })
	}
	select {
	case <-leave:
		endSpreading()
		<-settled
		n.drain(ctx, endWaits)
	case <-serving.Done(): // a part has failed, and Wait tells which
	}
	stop()
	return parts.Wait()
}
