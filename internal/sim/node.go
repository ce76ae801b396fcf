package sim

import (
	"context"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamhouse/streamhouse/broker/node"
	"github.com/streamhouse/streamhouse/broker/peers"
	"github.com/streamhouse/streamhouse/metadata"
)

// shutdownTimeout is how long a drain may take.
const shutdownTimeout = 20 * time.Second

// startNode begins one life of an agent: the one that runs in production, with the
// world instead of sockets and servers.
func startNode(ctx context.Context, s *site, address string) (_ *node.Node, err error) {
	w := s.world
	cfg, err := nodeConfig(s, address)
	if err != nil {
		return nil, err
	}
	l := w.network.listen(s, address)
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	return node.New(ctx, cfg, node.Environment{
		Listener: l, Store: &store{db: w.db, at: s}, Objects: &objects{Store: w.bucket, at: s},
		Registry: prometheus.NewRegistry(), Log: w.logger(s), Level: new(slog.LevelVar),
	})
}

// nodeConfig is that of an agent at an address.
func nodeConfig(s *site, address string) (node.Config, error) {
	w := s.world
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return node.Config{}, err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return node.Config{}, err
	}
	watch := peers.DefaultConfig()
	watch.Dial = func(ctx context.Context, address string) (net.Conn, error) {
		conn, _, err := w.network.dial(ctx, s, address, s.random)
		return conn, err
	}
	return node.Config{
		Self:  metadata.Agent{ID: s.id, Session: uuid.New(), Host: host, Port: int32(number)},
		Lease: w.settings.lease, TopologyInterval: w.settings.topologyInterval, ShutdownTimeout: shutdownTimeout,
		Flush: w.settings.ingest, Fetch: w.settings.fetch, Objects: w.settings.objects, Peers: watch,
		LogDir: "bucket",
	}, nil
}
