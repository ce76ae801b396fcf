package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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

	"github.com/streamhouse/streamhouse/broker/node"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/postgres"
	"github.com/streamhouse/streamhouse/metadata/sqlite"
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
	svc, err := build(ctx, s, log, level)
	switch {
	case err != nil && ctx.Err() != nil:
		log.Info("stopped before it was ready")
		return nil
	case err != nil:
		return err
	}
	return svc.run(ctx)
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

// service is a built agent, with what it has of the machine.
type service struct {
	settings *Settings
	log      *slog.Logger
	level    *slog.LevelVar // of log

	kafka, admin net.Listener
	peers        net.Listener // nil if it is off
	store        metadata.Store
	objects      driver.Store

	node *node.Node
	http *adminServer
}

// build opens the stores, registers the agent and makes everything else. Until
// it returns without an error nothing is left open. level is that of log.
func build(ctx context.Context, s *Settings, log *slog.Logger, level *slog.LevelVar) (_ *service, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	svc := &service{settings: s, log: log, level: level}
	defer func() {
		if err != nil {
			svc.close()
		}
	}()
	if svc.kafka, err = net.Listen("tcp", s.Address); err != nil {
		return nil, fmt.Errorf("address: %w: is another agent running? Set address to a free one", err)
	}
	if svc.admin, err = net.Listen("tcp", s.AdminAddress); err != nil {
		return nil, fmt.Errorf("admin_address: %w: set admin_address to a free one", err)
	}
	if svc.peers, err = s.listenPeers(); err != nil {
		return nil, err
	}
	host, port, err := s.advertised(svc.kafka.Addr())
	if err != nil {
		return nil, err
	}
	session := uuid.New()
	cfg := s.nodeConfig(session, host, port)
	if svc.peers != nil {
		if cfg.Self.PeerAddress, err = s.advertisedPeer(svc.peers.Addr()); err != nil {
			return nil, err
		}
	}
	reg := newRegistry()
	if err := svc.openStores(ctx, session, reg); err != nil {
		return nil, err
	}
	svc.node, err = node.New(ctx, cfg, node.Environment{
		Listener: svc.kafka, Peers: svc.peers, Store: svc.store, Objects: svc.objects, Registry: reg, Log: log, Level: level,
	})
	if err != nil {
		return nil, err
	}
	svc.http = newAdminServer(reg, svc.node.HealthCheck, svc.node.Traffic.Report, svc.node.Store)
	return svc, nil
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

// openStores opens both stores and proves that they can be used.
func (svc *service) openStores(ctx context.Context, session uuid.UUID, reg prometheus.Registerer) error {
	s := svc.settings
	var err error
	if svc.objects, err = driver.Open(s.clusterObjects()); err != nil {
		return fmt.Errorf("object_url: %w", err)
	}
	if err := svc.objects.Check(ctx); err != nil {
		if ctx.Err() != nil { // the driver says itself what to do about the others
			err = adviseOnReach(err)
		}
		return fmt.Errorf("object_url: %w", err)
	}
	if svc.store, err = openMetadata(ctx, s, session, reg, svc.log); err != nil {
		return fmt.Errorf("metadata_url: %w", adviseOnMetadata(ctx, err))
	}
	return nil
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
			AgentID: s.AgentID, Session: session, AgentGroup: s.AgentGroup, Schema: s.schema(), Log: log, HistoryChanged: changes.Inc,
		}))
	}
	store, err := sqlite.Open(ctx, s.metadataFile())
	if err != nil {
		return nil, err
	}
	own, err := store.ForAgentGroup(ctx, s.AgentGroup)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return own, nil
}

// opened turns a store's nil into one of the interface's.
func opened[S metadata.Store](s S, err error) (metadata.Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// run serves until ctx ends, then drains; or until a part fails.
func (svc *service) run(ctx context.Context) error {
	defer svc.close()
	serving, stop := context.WithCancel(context.Background())
	defer stop()
	parts, serving := errgroup.WithContext(serving)
	parts.Go(func() error { defer stop(); return svc.node.Run(serving, ctx.Done()) })
	parts.Go(func() error { return svc.http.serve(serving, svc.admin) })
	svc.announce()
	return parts.Wait()
}

// close closes what build opened.
func (svc *service) close() {
	for _, l := range []net.Listener{svc.kafka, svc.admin, svc.peers} {
		if l != nil {
			if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				svc.log.Warn("cannot close a listener", "error", err)
			}
		}
	}
	if svc.store != nil {
		svc.closeStore("metadata store", svc.store)
	}
	if svc.objects != nil {
		svc.closeStore("object store", svc.objects)
	}
}

// closeTimeout is how long a store may take for its goodbye. One that answers
// nothing would hold up the end of the process, which ends it anyway.
const closeTimeout = 2 * time.Second

func (svc *service) closeStore(name string, store io.Closer) {
	closed := make(chan error, 1)
	go func() { closed <- store.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			svc.log.Warn("cannot close the "+name, "error", err)
		}
	case <-time.After(closeTimeout):
		svc.log.Warn("the " + name + " does not close in time")
	}
}

// announce says where everything is: to a person, or as a line of the log that
// programs read.
func (svc *service) announce() {
	self := svc.node.Agent.Self()
	at := net.JoinHostPort(self.Host, fmt.Sprint(self.Port))
	index, records := svc.settings.metadataPlace(), redact(svc.settings.clusterObjects())
	if svc.settings.Log.Format == "json" {
		svc.log.Info("serving", "agent", self.ID, "node", self.NodeID, "version", version(), "kafka", svc.kafka.Addr().String(),
			"advertised", at, "metadata", index, "records", records, "admin", svc.admin.Addr().String(),
			"peers", self.PeerAddress, "availability_zone", self.Zone, "agent_group", self.Group, "cluster", svc.settings.Cluster)
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n  StreamHouse agent %q (node %d, %s)\n\n", self.ID, self.NodeID, version())
	fmt.Fprintf(&b, "  Kafka     %s, advertised as %s\n", svc.kafka.Addr(), at)
	fmt.Fprintf(&b, "  metadata  %s\n", index)
	fmt.Fprintf(&b, "  records   %s\n", records)
	fmt.Fprintf(&b, "  admin     http://%s/metrics, /healthz, /readyz, /agents, /leases, /cost, /debug/pprof/\n", svc.admin.Addr())
	for _, line := range [][2]string{
		{"peers", self.PeerAddress}, {"zone", self.Zone}, {"group", self.Group}, {"cluster", svc.settings.Cluster},
	} {
		if line[1] != "" {
			fmt.Fprintf(&b, "  %-9s %s\n", line[0], line[1])
		}
	}
	fmt.Fprintf(&b, "\n  Try:  echo hello | kcat -b %s -P -t greetings\n", at)
	fmt.Fprintf(&b, "        kcat -b %s -C -t greetings -e\n\n", at)
	fmt.Fprint(os.Stderr, b.String())
}
