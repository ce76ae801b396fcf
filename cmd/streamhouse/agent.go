package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
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
	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/postgres"
	"github.com/streamhouse/streamhouse/metadata/sqlite"
	"github.com/streamhouse/streamhouse/protocol"
	"github.com/streamhouse/streamhouse/segment/objstore"
	"github.com/streamhouse/streamhouse/segment/objstore/driver"
)

// startTimeout bounds what an agent does before it serves: an unreachable
// database or bucket is an error and not a wait.
const startTimeout = 30 * time.Second

func agentCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run an agent: a Kafka broker on the configured stores",
		Long:  "Run an agent until SIGINT or SIGTERM, which drain it; a second one ends it at once.\nWithout any configuration it keeps everything in ./data and listens on 127.0.0.1:9092.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := load(cmd.Flags(), os.Environ())
			if err != nil {
				return err
			}
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			return runAgent(ctx, l.Settings)
		},
	}
	addFlags(cmd.Flags())
	return cmd
}

// untilSignal ends the context at the first SIGINT or SIGTERM, and the process
// at the second. The returned function ends the watch for signals.
func untilSignal(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	watch, stop := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		defer signal.Stop(signals)
		for first := true; ; first = false {
			select {
			case <-watch.Done():
				return
			case <-signals:
			}
			if !first {
				fmt.Fprintln(os.Stderr, "streamhouse: second signal: ending at once")
				os.Exit(1)
			}
			cancel()
		}
	}()
	return ctx, func() { cancel(); stop() }
}

// runAgent serves until ctx ends.
func runAgent(ctx context.Context, s *Settings) error {
	level := new(slog.LevelVar)
	log := newLogger(s, level)
	if _, err := memlimit.Set(memlimit.WithLogger(slog.New(slog.DiscardHandler))); err != nil {
		log.Debug("no memory limit was found", "error", err)
	}
	n, err := build(ctx, s, log, level)
	switch {
	case err != nil && ctx.Err() != nil:
		log.Info("stopped before it was ready")
		return nil
	case err != nil:
		return err
	}
	return n.run(ctx)
}

// newLogger returns the log of the process, and sets its level, which may be
// changed later.
func newLogger(s *Settings, level *slog.LevelVar) *slog.Logger {
	_ = level.UnmarshalText([]byte(s.Log.Level)) // its values were checked
	o := &slog.HandlerOptions{Level: level}
	if s.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, o))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}

// node is a built agent: the one place that knows every concrete type.
type node struct {
	settings *Settings
	log      *slog.Logger
	level    *slog.LevelVar // of log

	kafka, admin net.Listener
	store        metadata.Store
	objects      driver.Store

	agent    *agent.Agent
	topology *topology.Watcher
	leases   *lease.Manager
	pool     *ingest.Pool
	table    *partition.Table
	reader   *fetch.Reader
	groups   *group.Coordinator
	prune    *prune.Loop
	peers    *peers.Watcher
	broker   *broker.Broker
	balance  *balance.Loop
	server   *protocol.Server
	http     *adminServer
}

// build opens the stores, registers the agent and makes everything else. Until
// it returns without an error nothing is left open. level is that of log.
func build(ctx context.Context, s *Settings, log *slog.Logger, level *slog.LevelVar) (_ *node, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	n := &node{settings: s, log: log, level: level}
	defer func() {
		if err != nil {
			n.abandon(ctx)
		}
	}()
	if n.kafka, err = net.Listen("tcp", s.Address); err != nil {
		return nil, fmt.Errorf("address: %w: is another agent running? Set address to a free one", err)
	}
	if n.admin, err = net.Listen("tcp", s.AdminAddress); err != nil {
		return nil, fmt.Errorf("admin_address: %w: set admin_address to a free one", err)
	}
	host, port, err := s.advertised(n.kafka.Addr())
	if err != nil {
		return nil, err
	}
	reg := newRegistry()
	session := uuid.New()
	objects, err := n.openStores(ctx, session, reg)
	if err != nil {
		return nil, err
	}
	self := metadata.Agent{ID: s.AgentID, Session: session, Host: host, Port: port, Zone: s.AvailabilityZone, Group: s.AgentGroup}
	pace := agent.Config{
		HeartbeatInterval: s.HeartbeatInterval, RequestTimeout: 5 * time.Second,
		Doubt: func() { n.leases.Doubt() }, // which are there when the agent runs
	}
	if n.agent, err = agent.Start(ctx, pace, n.store, self, agent.NewMetrics(reg), log); err != nil {
		return nil, err
	}
	if err := n.assemble(objects, session, reg); err != nil {
		return nil, err
	}
	if _, err := n.topology.Refresh(ctx, 0); err != nil {
		return nil, fmt.Errorf("read the cluster's topology: %w", err)
	}
	return n, nil
}

// abandon undoes a start that failed, so that nobody is sent to this agent.
func (n *node) abandon(ctx context.Context) {
	if n.agent != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		if err := n.agent.Stop(ctx); err != nil {
			n.log.Warn("the agent stays listed for a while", "error", err)
		}
	}
	n.close()
}

func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "streamhouse", Name: "build_info", Help: "1; the version is in the label.",
		ConstLabels: prometheus.Labels{"version": version()},
	})
	build.Set(1)
	reg.MustRegister(build)
	return reg
}

// openStores opens both stores and proves that they can be used. It returns
// the object store with retries and metrics around it.
func (n *node) openStores(ctx context.Context, session uuid.UUID, reg prometheus.Registerer) (objstore.Store, error) {
	s := n.settings
	var err error
	if n.objects, err = driver.Open(s.ObjectURL); err != nil {
		return nil, fmt.Errorf("object_url: %w", err)
	}
	if err := n.objects.Check(ctx); err != nil {
		if ctx.Err() != nil { // the driver says itself what to do about the others
			err = adviseOnReach(err)
		}
		return nil, fmt.Errorf("object_url: %w", err)
	}
	store, err := openMetadata(ctx, s, session, reg, n.log)
	if err != nil {
		return nil, fmt.Errorf("metadata_url: %w", adviseOnMetadata(ctx, err))
	}
	n.store = metadata.WithMetrics(store, reg)
	return objstore.WithPolicy(objstore.WithMetrics(n.objects, objstore.NewMetrics(reg)), objstore.DefaultPolicy()), nil
}

// adviseOnMetadata adds to the error of a metadata store what to do.
func adviseOnMetadata(ctx context.Context, err error) error {
	var (
		network net.Error
		refusal interface{ SQLState() string } // what PostgreSQL answered
	)
	switch {
	case ctx.Err() != nil || errors.As(err, &network):
		return adviseOnReach(err)
	case errors.As(err, &refusal):
		return fmt.Errorf("%w: correct user, password and database in the URL, or create on the server what is missing", err)
	}
	return err
}

// adviseOnReach adds to the error of a store that did not answer what to do.
func adviseOnReach(err error) error {
	return fmt.Errorf("%w: check the URL, and that the server runs and can be reached from here", err)
}

func openMetadata(ctx context.Context, s *Settings, session uuid.UUID, reg prometheus.Registerer, log *slog.Logger) (metadata.Store, error) {
	changes := prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "streamhouse", Subsystem: "metadata_store", Name: "history_changes_total",
		Help: "Times that the database was found on another timeline, or was another: after a fail-over or a restore.",
	})
	reg.MustRegister(changes)
	if s.postgres() {
		return opened(postgres.Open(ctx, s.MetadataURL, postgres.Options{
			AgentID: s.AgentID, Session: session, Log: log, HistoryChanged: changes.Inc,
		}))
	}
	return opened(sqlite.Open(ctx, s.MetadataURL))
}

// opened turns a store's nil into one of the interface's.
func opened[S metadata.Store](s S, err error) (metadata.Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// assemble makes the parts of the broker and wires them.
func (n *node) assemble(objects objstore.Store, session uuid.UUID, reg *prometheus.Registry) error {
	s, log := n.settings, n.log
	self := n.agent.Self()
	configs := s.brokerConfigs()
	configs["broker.id"] = strconv.Itoa(int(self.NodeID))
	configs["advertised.listeners"] = "PLAINTEXT://" + net.JoinHostPort(self.Host, strconv.Itoa(int(self.Port)))
	static, err := config.NewBroker(configs)
	if err != nil {
		return err
	}
	n.leases = lease.NewManager(n.store, s.AgentID, s.leaseConfig(), lease.NewMetrics(reg), log)
	n.reader = fetch.New(s.fetchConfig(debug.SetMemoryLimit(-1)), n.store, objects, leads{n.leases}, fetch.NewMetrics(reg), log)
	n.topology = topology.NewWatcher(topology.Config{
		Interval: s.TopologyInterval, AgentFresh: s.LeaseDuration, NodeID: self.NodeID, Broker: static,
		Deleted: func(topic uuid.UUID) {
			n.reader.Forget(topic)
			n.leases.Forget(topic)
		},
	}, n.agent.Listed(n.store), log)
	bucket := balance.NewBucket(objects)
	n.pool = ingest.NewPool(s.Flush, ingest.Environment{
		AgentID: s.AgentID, Session: session, Leases: n.leases, Objects: bucket,
		Committer: n.store, Observer: n.reader, Metrics: ingest.NewMetrics(reg), Log: log,
	})
	appends := partition.DefaultConfig()
	appends.Doubt = n.doubt
	n.table = partition.NewTable(appends, n.leases, n.pool)
	n.groups = group.NewCoordinator(n.store, n.leases, broker.GroupView(n.topology), s.AgentID, group.NewConfig(static), group.NewMetrics(reg), log)
	n.prune = prune.New(n.store, reg, log)
	n.peers = peers.New(peers.DefaultConfig(), self.NodeID, n.store, cluster{n.topology}, peers.NewMetrics(reg), log)
	n.broker = broker.New(broker.Parts{
		NodeID: self.NodeID, AgentID: s.AgentID, Store: n.store, Topology: n.topology, Partitions: n.table,
		Reader: n.reader, Sessions: fetch.NewSessions(), Groups: n.groups,
		LogDir: withoutQuery(s.ObjectURL), Log: log, Level: n.level, CutOff: n.agent.CutOff, Peers: n.peers,
	})
	n.balance = balance.New(balance.Agent{
		ID: s.AgentID, View: func() balance.View { return spread{n.topology.Snapshot()} }, Leases: n.leases,
		Bucket: bucket, Probe: n.objects.Check, HandOver: n.handOver, Withdraw: n.withdraw, Return: n.comeBack, Log: log,
	}, reg)
	router, err := protocol.NewRouter(n.broker.Routes(), protocol.WithApiVersionsHook(n.broker.ApiVersions))
	if err != nil {
		return err
	}
	n.server = protocol.NewServer(s.serverConfig(), router, protocol.NewMetrics(reg), log)
	n.http = newAdminServer(reg, n.healthCheck, n.store)
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
	if err := n.agent.Withdraw(ctx); err != nil {
		n.log.Warn("other agents count on this one for a while", "error", err)
	}
	if _, err := n.topology.Refresh(ctx, 0); err != nil {
		n.log.Warn("cannot refresh the view of the cluster without this agent", "error", err)
	}
}

// comeBack ends a withdrawal.
func (n *node) comeBack() {
	n.topology.Leave(false)
	n.agent.Return()
}

// healthCheck says what makes the agent unfit to serve.
func (n *node) healthCheck() error { return cmp.Or(n.agent.HealthCheck(), n.balance.HealthCheck()) }

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

// run serves until ctx ends, then drains; or until a part fails.
func (n *node) run(ctx context.Context) error {
	defer n.close()
	serving, stop := context.WithCancel(context.Background())
	defer stop()
	parts, serving := errgroup.WithContext(serving)
	waiting, endWaits := context.WithCancel(serving)
	defer endWaits()
	spreading, endSpreading := context.WithCancel(serving)
	defer endSpreading()
	settled := make(chan struct{}) // closed when nothing is handed over for balance any more
	for _, run := range []func() error{
		func() error { return n.agent.Run(serving) },
		func() error { return n.topology.Run(serving) },
		func() error { return n.leases.Run(serving) },
		func() error { return n.pool.Run(serving) },
		func() error { return n.table.Run(serving) },
		func() error { return n.reader.Run(waiting) },
		func() error { return n.groups.Run(waiting) },
		func() error { return n.prune.Run(serving) },
		func() error { defer close(settled); return n.balance.Run(spreading) },
		func() error { return n.peers.Run(waiting) },
		func() error { return n.server.Serve(serving, n.kafka) },
		func() error { return n.http.serve(serving, n.admin) },
	} {
		parts.Go(run)
	}
	n.announce()
	select {
	case <-ctx.Done():
		endSpreading()
		<-settled
		n.drain(endWaits)
	case <-serving.Done(): // a part has failed, and Wait tells which
	}
	stop()
	return parts.Wait()
}

// close closes what build opened.
func (n *node) close() {
	for _, l := range []net.Listener{n.kafka, n.admin} {
		if l != nil {
			if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				n.log.Warn("cannot close a listener", "error", err)
			}
		}
	}
	if n.store != nil {
		n.closeStore("metadata store", n.store)
	}
	if n.objects != nil {
		n.closeStore("object store", n.objects)
	}
}

// closeTimeout is how long a store may take for its goodbye. One that answers
// nothing would hold up the end of the process, which ends it anyway.
const closeTimeout = 2 * time.Second

func (n *node) closeStore(name string, store io.Closer) {
	closed := make(chan error, 1)
	go func() { closed <- store.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			n.log.Warn("cannot close the "+name, "error", err)
		}
	case <-time.After(closeTimeout):
		n.log.Warn("the " + name + " does not close in time")
	}
}

// announce says where everything is: to a person, or as a line of the log that
// programs read.
func (n *node) announce() {
	self := n.agent.Self()
	at := net.JoinHostPort(self.Host, fmt.Sprint(self.Port))
	index, records := redact(n.settings.MetadataURL), redact(n.settings.ObjectURL)
	if n.settings.Log.Format == "json" {
		n.log.Info("serving", "agent", self.ID, "node", self.NodeID, "version", version(), "kafka", n.kafka.Addr().String(),
			"advertised", at, "metadata", index, "records", records, "admin", n.admin.Addr().String())
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n  StreamHouse agent %q (node %d, %s)\n\n", self.ID, self.NodeID, version())
	fmt.Fprintf(&b, "  Kafka     %s, advertised as %s\n", n.kafka.Addr(), at)
	fmt.Fprintf(&b, "  metadata  %s\n", index)
	fmt.Fprintf(&b, "  records   %s\n", records)
	fmt.Fprintf(&b, "  admin     http://%s/metrics, /healthz, /readyz, /agents, /leases, /debug/pprof/\n\n", n.admin.Addr())
	fmt.Fprintf(&b, "  Try:  echo hello | kcat -b %s -P -t greetings\n", at)
	fmt.Fprintf(&b, "        kcat -b %s -C -t greetings -e\n\n", at)
	fmt.Fprint(os.Stderr, b.String())
}
