package protocol

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a server on an in-memory listener, inside a synctest bubble.
type fixture struct {
	*Server
	t      *testing.T
	l      *pipeListener
	log    *logBuffer
	served chan error
}

// inBubble runs test with a server of the handlers in a synctest bubble.
func inBubble(t *testing.T, cfg ServerConfig, handlers map[int16]HandlerFunc, test func(t *testing.T, f *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{t: t, l: newPipeListener(), log: new(logBuffer), served: make(chan error, 1)}
		f.Server = NewServer(cfg, newRouter(t, handlers), NewMetrics(nil), slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
		ctx, cancel := context.WithCancel(context.Background())
		go func() { f.served <- f.Serve(ctx, f.l) }()
		defer func() {
			cancel()
			if err := <-f.served; err != nil {
				t.Errorf("Serve: %v", err)
			}
			f.checkReleased()
		}()
		test(t, f)
	})
}

// newRouter routes all versions of the keys of handlers.
func newRouter(t testing.TB, handlers map[int16]HandlerFunc) *Router {
	t.Helper()
	var routes []Route
	for key, h := range handlers {
		routes = append(routes, Route{Key: key, MaxVersion: kmsg.RequestForKey(key).MaxVersion(), Handle: h})
	}
	r, err := NewRouter(routes)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// checkReleased asserts that nothing holds request memory or a connection.
func (f *fixture) checkReleased() {
	f.t.Helper()
	for _, m := range []*memory{f.memory, f.small} {
		if m.left != m.size || len(m.holders) > 0 {
			f.t.Errorf("%d of %d bytes of request memory at the end, and %d holders", m.left, m.size, len(m.holders))
		}
	}
	if n := gauge(f.metrics.requestMemory); n != 0 {
		f.t.Errorf("request_memory_bytes is %v at the end", n)
	}
	if n := f.responses.left.Load(); n != f.cfg.MaxResponseMemory {
		f.t.Errorf("%d of %d bytes of response memory at the end", n, f.cfg.MaxResponseMemory)
	}
	if n := gauge(f.metrics.connections); n != 0 {
		f.t.Errorf("connections is %v at the end", n)
	}
}

func (f *fixture) wantClosed(reason closeReason, n float64) {
	f.t.Helper()
	synctest.Wait()
	if got := gauge(f.metrics.closed[reason]); got != n {
		f.t.Errorf("connections closed for %q: %v, want %v\n%s", reason, got, n, f.log)
	}
}

func (f *fixture) wantLog(part string) {
	f.t.Helper()
	if !strings.Contains(f.log.String(), part) {
		f.t.Errorf("no %q in the log:\n%s", part, f.log)
	}
}

// gauge reads a counter or gauge.
func gauge(m prometheus.Metric) float64 {
	var d dto.Metric
	if err := m.Write(&d); err != nil {
		panic(err)
	}
	return d.GetGauge().GetValue() + d.GetCounter().GetValue()
}

// client is a Kafka client of a few lines. Sending never blocks.
type client struct {
	t    *testing.T
	nc   net.Conn
	out  chan []byte
	sent sync.WaitGroup
}

func (f *fixture) dial() *client {
	ours, theirs := net.Pipe()
	f.l.conns <- theirs
	return newClient(f.t, ours)
}

func newClient(t *testing.T, nc net.Conn) *client {
	c := &client{t: t, nc: nc, out: make(chan []byte, 100)}
	c.sent.Go(func() {
		for b := range c.out {
			nc.Write(b) // a test that cares sees what it reads
		}
	})
	t.Cleanup(c.close)
	return c
}

func (c *client) close() {
	c.nc.Close()
	if c.out != nil {
		close(c.out)
		c.out = nil
	}
	c.sent.Wait()
}

// send sends requests in one write, with the correlation ids that follow first.
func (c *client) send(first int32, reqs ...kmsg.Request) {
	var b []byte
	for i, req := range reqs {
		b = append(b, frameOf(req, first+int32(i))...)
	}
	c.out <- b
}

// frameOf is req as a client sends it, with its size.
func frameOf(req kmsg.Request, correlationID int32) []byte {
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, req, correlationID)
}

// next reads a reply's correlation id and what follows.
func (c *client) next() (int32, []byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(c.nc, size[:]); err != nil {
		return 0, nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(c.nc, b); err != nil {
		return 0, nil, err
	}
	return int32(binary.BigEndian.Uint32(b)), b[4:], nil
}

// want reads the replies to the correlation ids, in this order.
func (c *client) want(ids ...int32) (last []byte) {
	c.t.Helper()
	for _, id := range ids {
		got, b, err := c.next()
		if err != nil || got != id {
			c.t.Fatalf("reply %d, %v, want %d", got, err, id)
		}
		last = b
	}
	return last
}

// wantEnd expects that the connection was closed.
func (c *client) wantEnd() {
	c.t.Helper()
	if id, _, err := c.next(); err != io.EOF {
		c.t.Fatalf("reply %d, %v, want the connection's end", id, err)
	}
}

// heartbeat is a small request, and respond its answer.
func heartbeat(group string) *kmsg.HeartbeatRequest {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Version, req.Group = 4, group
	return req
}

func respond(_ context.Context, req *Request) Reply { return Now(req.Body.ResponseKind()) }

// gate is a handler whose replies come as each request's gate is opened, by the
// request's group. Groups that have no gate are answered at once.
type gate struct {
	mu    sync.Mutex
	begun []string
	gates map[string]chan struct{} // made in the bubble
}

func newGate(groups ...string) *gate {
	g := &gate{gates: map[string]chan struct{}{}}
	for _, group := range groups {
		g.gates[group] = nil
	}
	return g
}

// of returns a group's gate, nil if it has none.
func (g *gate) of(group string) chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if ch, ok := g.gates[group]; ok && ch == nil {
		g.gates[group] = make(chan struct{})
	}
	return g.gates[group]
}

func (g *gate) open(group string) { close(g.of(group)) }

func (g *gate) handle(_ context.Context, req *Request) Reply {
	group := req.Body.(*kmsg.HeartbeatRequest).Group
	g.mu.Lock()
	g.begun = append(g.begun, group)
	g.mu.Unlock()
	opened := g.of(group)
	if opened == nil {
		return Now(req.Body.ResponseKind())
	}
	return Later(func(ctx context.Context) kmsg.Response {
		select {
		case <-opened:
		case <-ctx.Done():
		}
		return req.Body.ResponseKind()
	})
}

// wantBegun expects that the requests of groups were begun, and no others, once
// all is quiet.
func (g *gate) wantBegun(t *testing.T, groups string) {
	t.Helper()
	synctest.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	if got := strings.Join(g.begun, " "); got != groups {
		t.Fatalf("begun: %q, want %q", got, groups)
	}
}

// pipeListener accepts what is sent to conns.
type pipeListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
