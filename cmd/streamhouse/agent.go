package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
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
	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/broker/fetch"
	"github.com/streamhouse/streamhouse/broker/group"
	"github.com/streamhouse/streamhouse/broker/ingest"
	"github.com/streamhouse/streamhouse/broker/partition"
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
// at the second.
func untilSignal(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-ctx.Done():
			return
		case <-signals:
			cancel()
		}
		<-signals
		fmt.Fprintln(os.Stderr, "streamhouse: second signal: ending at once")
		os.Exit(1)
	}()
	return ctx, cancel
}

func runAgent(ctx context.Context, s *Settings) error {
	log := newLogger(s)
	if _, err := memlimit.Set(memlimit.WithLogger(slog.New(slog.DiscardHandler))); err != nil {
		log.Debug("no memory limit was found", "error", err)
	}
	n, err := build(ctx, s, log)
	if err != nil {
		return err
	}
	return n.run(ctx)
}

func newLogger(s *Settings) *slog.Logger {
	var level slog.Level
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
	server   *protocol.Server
	http     *adminServer
}

// build opens the stores, registers the agent and makes everything else. Until
// it returns without an error nothing is left open.
func build(ctx context.Context, s *Settings, log *slog.Logger) (_ *node, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	n := &node{settings: s, log: log}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if n.kafka, err = net.Listen("tcp", s.Address); err != nil {
		return nil, fmt.Errorf("address %s: %w: is another agent running? set address to a free one", s.Address, err)
	}
	if n.admin, err = net.Listen("tcp", s.AdminAddress); err != nil {
		return nil, fmt.Errorf("admin_address %s: %w: set admin_address to a free one", s.AdminAddress, err)
	}
	reg := newRegistry()
	session := uuid.New()
	objects, err := n.openStores(ctx, session, reg)
	if err != nil {
		return nil, err
	}
	host, port, err := s.advertised(n.kafka.Addr())
	if err != nil {
		return nil, err
	}
	self := metadata.Agent{ID: s.AgentID, Session: session, Host: host, Port: port, Zone: s.AvailabilityZone, Group: s.AgentGroup}
	pace := agent.Config{HeartbeatInterval: s.HeartbeatInterval, RequestTimeout: 5 * time.Second}
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
		return nil, fmt.Errorf("object store %s: %w", redact(s.ObjectURL), err)
	}
	store, err := openMetadata(ctx, s, session)
	if err != nil {
		return nil, fmt.Errorf("metadata store %s: %w", redact(s.MetadataURL), err)
	}
	n.store = metadata.WithMetrics(store, reg)
	return objstore.WithPolicy(objstore.WithMetrics(n.objects, objstore.NewMetrics(reg)), objstore.DefaultPolicy()), nil
}

func openMetadata(ctx context.Context, s *Settings, session uuid.UUID) (metadata.Store, error) {
	if s.postgres() {
		store, err := postgres.Open(ctx, s.MetadataURL, postgres.Options{AgentID: s.AgentID, Session: session})
		if err != nil {
			return nil, err
		}
		return store, nil
	}
	store, err := sqlite.Open(ctx, s.MetadataURL)
	if err != nil {
		return nil, err
	}
	return store, nil
}

// assemble makes the parts of the broker and wires them.
func (n *node) assemble(objects objstore.Store, session uuid.UUID, reg *prometheus.Registry) error {
	s, log := n.settings, n.log
	self := n.agent.Self()
	static, err := config.NewBroker(s.brokerConfigs())
	if err != nil {
		return err
	}
	n.leases = lease.NewManager(n.store, s.AgentID, s.leaseConfig(), lease.NewMetrics(reg), log)
	cache := fetch.Config{CacheBytes: s.Cache.Bytes, BlockBytes: s.Cache.BlockBytes, ReadAheadBlocks: s.Cache.ReadAheadBlocks}
	n.reader = fetch.New(cache, n.store, objects, leads{n.leases}, fetch.NewMetrics(reg), log)
	n.topology = topology.NewWatcher(topology.Config{
		Interval: s.TopologyInterval, AgentFresh: s.LeaseDuration, Broker: static, Deleted: n.reader.Forget,
	}, n.store, log)
	n.pool = ingest.NewPool(s.Flush, ingest.Environment{
		AgentID: s.AgentID, Session: session, Leases: n.leases, Objects: objects,
		Committer: n.store, Observer: n.reader, Metrics: ingest.NewMetrics(reg), Log: log,
	})
	n.table = partition.NewTable(partition.DefaultConfig(), n.leases, n.pool)
	n.groups = group.NewCoordinator(n.store, n.leases, s.AgentID, group.DefaultConfig(), group.NewMetrics(reg), log)
	b := broker.New(broker.Parts{
		NodeID: self.NodeID, AgentID: s.AgentID, Store: n.store, Topology: n.topology, Partitions: n.table,
		Reader: n.reader, Sessions: fetch.NewSessions(), Groups: n.groups, Log: log,
	})
	router, err := protocol.NewRouter(b.Routes(), protocol.WithApiVersionsHook(b.ApiVersions))
	if err != nil {
		return err
	}
	n.server = protocol.NewServer(s.serverConfig(), router, protocol.NewMetrics(reg), log)
	n.http = newAdminServer(reg, n.agent.HealthCheck, n.store.Ping)
	return nil
}

// leads tells the read path what this agent leads.
type leads struct{ leases *lease.Manager }

func (l leads) Leads(k lease.Key) (int32, bool) {
	if held := l.leases.Get(k); held != nil {
		return held.LeaderEpoch(), true
	}
	return 0, false
}

// run serves until ctx ends, then drains; or until a part fails.
func (n *node) run(ctx context.Context) error {
	defer n.close()
	running, stop := context.WithCancel(context.Background())
	defer stop()
	parts, running := errgroup.WithContext(running)
	for _, run := range []func(context.Context) error{
		n.agent.Run, n.topology.Run, n.leases.Run, n.pool.Run, n.table.Run, n.reader.Run, n.groups.Run,
		func(ctx context.Context) error { return n.server.Serve(ctx, n.kafka) },
		func(ctx context.Context) error { return n.http.serve(ctx, n.admin) },
	} {
		parts.Go(func() error { return run(running) })
	}
	n.banner()
	select {
	case <-ctx.Done():
		n.log.Info("draining: a second signal ends at once", "timeout", n.settings.ShutdownTimeout.String())
		n.drain()
	case <-running.Done(): // a part has failed, and Wait tells which
	}
	stop()
	return parts.Wait()
}

// drain takes the agent out of service in the order in which its parts feed
// each other: no new requests, then nothing buffered, then no leases, then no
// entry in the register. Each step is made even if the one before ran out of
// time: what is left is fenced.
func (n *node) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), n.settings.ShutdownTimeout)
	defer cancel()
	n.agent.Drain()
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"close the listener", n.server.Shutdown},
		{"commit what is buffered", n.table.Close},
		{"release the leases", n.leases.ReleaseAll},
		{"deregister", n.agent.Stop},
	} {
		if err := step.do(ctx); err != nil {
			n.log.Warn("shutdown step failed", "step", step.name, "error", err)
		}
	}
	n.log.Info("drained")
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
		if err := n.store.Close(); err != nil {
			n.log.Warn("cannot close the metadata store", "error", err)
		}
	}
	if n.objects != nil {
		if err := n.objects.Close(); err != nil {
			n.log.Warn("cannot close the object store", "error", err)
		}
	}
}

// banner tells a person where everything is.
func (n *node) banner() {
	self := n.agent.Self()
	at := net.JoinHostPort(self.Host, fmt.Sprint(self.Port))
	var b strings.Builder
	fmt.Fprintf(&b, "\n  StreamHouse agent %q (node %d, %s)\n\n", self.ID, self.NodeID, version())
	fmt.Fprintf(&b, "  Kafka     %s, advertised as %s\n", n.kafka.Addr(), at)
	fmt.Fprintf(&b, "  metadata  %s\n", redact(n.settings.MetadataURL))
	fmt.Fprintf(&b, "  records   %s\n", redact(n.settings.ObjectURL))
	fmt.Fprintf(&b, "  admin     http://%s/metrics, /healthz, /readyz, /debug/pprof\n\n", n.admin.Addr())
	fmt.Fprintf(&b, "  Try:  echo hello | kcat -b %s -P -t greetings\n", at)
	fmt.Fprintf(&b, "        kcat -b %s -C -t greetings -e\n\n", at)
	fmt.Fprint(os.Stderr, b.String())
}
