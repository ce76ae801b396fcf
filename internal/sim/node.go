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
	"github.com/streamhouse/streamhouse/broker/rpc"
	"github.com/streamhouse/streamhouse/metadata"
)

// shutdownTimeout is how long a drain may take.
const shutdownTimeout = 20 * time.Second

// startNode begins one life of an agent: the one that runs in production, with the
// world instead of sockets and servers.
func startNode(ctx context.Context, s *site, at *slot) (_ *node.Node, err error) {
	w := s.world
	cfg, err := nodeConfig(s, at)
	if err != nil {
		return nil, err
	}
	l := w.network.listen(s, at.address, false)
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	var calls net.Listener
	if at.calls != "" {
		calls = w.network.listen(s, at.calls, true)
		defer func() {
			if err != nil {
				calls.Close()
			}
		}()
	}
	return node.New(ctx, cfg, node.Environment{
		Listener: l, Peers: calls, Store: &store{db: w.db, at: s}, Objects: &objects{Store: w.bucket, at: s},
		Registry: prometheus.NewRegistry(), Log: w.logger(s), Level: new(slog.LevelVar),
	})
}

// nodeConfig is that of an agent at a place.
func nodeConfig(s *site, at *slot) (node.Config, error) {
	w := s.world
	host, port, err := net.SplitHostPort(at.address)
	if err != nil {
		return node.Config{}, err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return node.Config{}, err
	}
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		conn, _, err := w.network.dial(ctx, s, address, s.random)
		return conn, err
	}
	watch := peers.DefaultConfig()
	watch.Dial = dial
	return node.Config{
		Self:  metadata.Agent{ID: s.id, Session: uuid.New(), Host: host, Port: int32(number), Zone: at.zone, PeerAddress: at.calls},
		Lease: w.settings.lease, TopologyInterval: w.settings.topologyInterval, ShutdownTimeout: shutdownTimeout,
		Flush: w.settings.ingest, Fetch: w.settings.fetch, Objects: w.settings.objects, Peers: watch, RPC: rpc.Config{Dial: dial},
		LogDir: "bucket",
	}, nil
}
