package testdb

import (
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// Direction is one of the two ways through a Proxy.
type Direction int

// The directions of a Proxy.
const (
	ToServer Direction = iota
	ToClient
)

// Proxy forwards TCP connections to one server, and loses or delays what passes
// when told to. Its methods are safe for concurrent use and hold for connections
// that exist and for later ones. It ends with its test.
type Proxy struct {
	target   string // the server's host:port
	url      string // what NewProxy was given
	options  ProxyOptions
	listener net.Listener
	work     sync.WaitGroup

	mu     sync.Mutex
	links  map[*link]struct{}
	refuse bool
	ended  bool
	flows  [2]flow // by Direction
	cuts   []*cut
}

// flow is what holds for one direction.
type flow struct {
	paused chan struct{} // closed by Resume; nil while data flows
	delay  time.Duration
	drop   *drop // nil: no limit
}

// drop ends a connection once so many more bytes have passed.
type drop struct {
	left     int64
	happened chan struct{}
}

// cut ends a connection at a chunk, instead of forwarding it.
type cut struct {
	direction Direction
	request   func(chunk []byte) bool // arms a connection for the cut; nil: all are armed
	match     func(chunk []byte) bool
	happened  chan struct{}
}

// link is one connection of a client and the proxy's own to the server.
type link struct {
	conns [2]*net.TCPConn // by the direction that reads from it: client, server
	done  chan struct{}   // closed by reset
	once  sync.Once
	watch func(d Direction, chunk []byte)
	armed map[*cut]bool // cuts whose request has passed; guarded by Proxy.mu
}

// ProxyOptions are what a proxy does beyond forwarding.
type ProxyOptions struct {
	// Listen is where the proxy listens: host:port. The default is a free port of 127.0.0.1.
	Listen string
	// KeepSource has connections to the server leave from the host that the
	// client's came from, which is one of this machine.
	KeepSource bool
	// Watch is called with each connection, and returns what is shown all that
	// passes on it, chunk by chunk, and must not keep or change it. The two
	// directions are shown concurrently. nil: nobody watches.
	Watch func(client net.Addr) func(d Direction, chunk []byte)
}

// NewProxy starts a proxy before a server, which is named by its host:port or by
// a URL as Postgres and S3 return it.
func NewProxy(t testing.TB, server string) *Proxy {
	t.Helper()
	return NewProxyWith(t, server, ProxyOptions{})
}

// NewProxyWith is NewProxy with options.
func NewProxyWith(t testing.TB, server string, options ProxyOptions) *Proxy {
	t.Helper()
	target, err := hostPort(server)
	if err != nil {
		t.Fatalf("testdb: proxy to %s: %v", server, err)
	}
	if options.Listen == "" {
		options.Listen = "127.0.0.1:0"
	}
	if options.Watch == nil {
		options.Watch = func(net.Addr) func(Direction, []byte) { return func(Direction, []byte) {} }
	}
	listener, err := net.Listen("tcp", options.Listen)
	if err != nil {
		t.Fatalf("testdb: proxy: %v", err)
	}
	p := &Proxy{target: target, url: server, options: options, listener: listener, links: map[*link]struct{}{}}
	p.work.Go(p.accept)
	t.Cleanup(p.end)
	return p
}

func hostPort(server string) (string, error) {
	if !strings.Contains(server, "://") {
		return server, nil
	}
	u, err := url.Parse(server)
	if err != nil {
		return "", err
	}
	if endpoint := u.Query().Get("endpoint"); endpoint != "" {
		return hostPort(endpoint)
	}
	return u.Host, nil
}

// Addr is the proxy's host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// URL is what NewProxy was given, with the proxy's address in the server's place.
func (p *Proxy) URL() string {
	return strings.NewReplacer(p.target, p.Addr(), url.QueryEscape(p.target), url.QueryEscape(p.Addr())).Replace(p.url)
}

// Pause holds back all that goes in one direction, the ends of connections too,
// until Resume.
func (p *Proxy) Pause(d Direction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.flows[d].paused == nil {
		p.flows[d].paused = make(chan struct{})
	}
}

// Resume ends a Pause; what was held back goes on.
func (p *Proxy) Resume(d Direction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if paused := p.flows[d].paused; paused != nil {
		close(paused)
		p.flows[d].paused = nil
	}
}

// Delay holds back each chunk that goes in one direction for a while; 0 ends it.
func (p *Proxy) Delay(d Direction, delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flows[d].delay = delay
}

// Refuse makes the proxy reset new connections at once, or ends that.
func (p *Proxy) Refuse(refuse bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = refuse
}

// CloseAll resets all connections, on both sides.
func (p *Proxy) CloseAll() {
	for _, l := range p.open() {
		l.reset()
	}
}

// DropAfter lets n more bytes pass in one direction, counted over all
// connections, and then resets the connection that carried the last one. The
// channel is closed when that has happened. A later call replaces an earlier one.
func (p *Proxy) DropAfter(d Direction, n int64) <-chan struct{} {
	limit := &drop{left: n, happened: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flows[d].drop = limit
	return limit.happened
}

// CutNextServerReply loses the first chunk from the server that match accepts,
// and resets its connection: the server has done what it was asked, and the
// client cannot know. The channel is closed when that has happened. A chunk is
// what one read gave, at most 64 KiB; a short answer is one chunk.
func (p *Proxy) CutNextServerReply(match func(chunk []byte) bool) <-chan struct{} {
	return p.cut(&cut{direction: ToClient, match: match})
}

// CutReplyTo is CutNextServerReply for the answers to one request only: for
// those that follow, on its connection, a chunk from the client that request
// accepts.
func (p *Proxy) CutReplyTo(request, match func(chunk []byte) bool) <-chan struct{} {
	return p.cut(&cut{direction: ToClient, request: request, match: match})
}

// CutNextRequest loses the first chunk from a client that match accepts, and
// resets its connection: the server never sees it, and the client cannot know.
func (p *Proxy) CutNextRequest(match func(chunk []byte) bool) <-chan struct{} {
	return p.cut(&cut{direction: ToServer, match: match})
}

func (p *Proxy) cut(c *cut) <-chan struct{} {
	c.happened = make(chan struct{})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cuts = append(p.cuts, c)
	return c.happened
}

// accept runs until the listener is closed.
func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.work.Go(func() { p.serve(client.(*net.TCPConn)) })
	}
}

// serve forwards one connection until both its directions have ended.
func (p *Proxy) serve(client *net.TCPConn) {
	var dialer net.Dialer
	if p.options.KeepSource {
		dialer.LocalAddr = &net.TCPAddr{IP: client.RemoteAddr().(*net.TCPAddr).IP}
	}
	server, err := dialer.Dial("tcp", p.target)
	if err != nil {
		_ = client.SetLinger(0)
		client.Close()
		return
	}
	l := &link{
		conns: [2]*net.TCPConn{client, server.(*net.TCPConn)},
		done:  make(chan struct{}),
		watch: p.options.Watch(client.RemoteAddr()),
		armed: map[*cut]bool{},
	}
	if !p.admit(l) {
		l.reset()
		return
	}
	var pumps sync.WaitGroup
	pumps.Go(func() { p.pump(l, ToServer) })
	pumps.Go(func() { p.pump(l, ToClient) })
	pumps.Wait()
	client.Close()
	server.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

func (p *Proxy) admit(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse || p.ended {
		return false
	}
	p.links[l] = struct{}{}
	return true
}

func (p *Proxy) open() []*link {
	p.mu.Lock()
	defer p.mu.Unlock()
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	return links
}

// pump forwards one direction of a connection. The end of the sender's stream is
// forwarded too; any other end resets the connection. Neither passes a pause: what
// is cut off from the network can't say goodbye.
func (p *Proxy) pump(l *link, d Direction) {
	from, to := l.conns[d], l.conns[1-d]
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && !p.forward(l, d, to, buffer[:n]) {
			return
		}
		if err == nil {
			continue
		}
		if !p.hold(l, d) {
			return
		}
		if err == io.EOF {
			_ = to.CloseWrite()
		} else {
			l.reset()
		}
		return
	}
}

// forward passes one chunk on as the proxy's state wants it; false if the
// connection was reset.
func (p *Proxy) forward(l *link, d Direction, to *net.TCPConn, chunk []byte) bool {
	if !p.hold(l, d) {
		return false
	}
	pass, happened := p.judge(l, d, chunk)
	l.watch(d, chunk[:pass])
	if _, err := to.Write(chunk[:pass]); err != nil || happened != nil {
		l.reset()
		if happened != nil {
			close(happened)
		}
		return false
	}
	return true
}

// hold waits out delay and pause; false if the connection was reset meanwhile.
func (p *Proxy) hold(l *link, d Direction) bool {
	p.mu.Lock()
	delay := p.flows[d].delay
	p.mu.Unlock()
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-l.done:
			return false
		}
	}
	for {
		p.mu.Lock()
		paused := p.flows[d].paused
		p.mu.Unlock()
		if paused == nil {
			return true
		}
		select {
		case <-paused:
		case <-l.done:
			return false
		}
	}
}

// judge says how much of a chunk may pass. If the connection is to be reset after
// that, happened is what to close then.
func (p *Proxy) judge(l *link, d Direction, chunk []byte) (pass int, happened chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, c := range p.cuts {
		if d == ToServer && c.request != nil && c.request(chunk) {
			l.armed[c] = true
		}
		if c.direction == d && (c.request == nil || l.armed[c]) && c.match(chunk) {
			p.cuts = append(p.cuts[:i:i], p.cuts[i+1:]...)
			return 0, c.happened
		}
	}
	limit := p.flows[d].drop
	if limit == nil {
		return len(chunk), nil
	}
	if limit.left -= int64(len(chunk)); limit.left > 0 {
		return len(chunk), nil
	}
	p.flows[d].drop = nil
	return len(chunk) + int(limit.left), limit.happened
}

// reset ends both connections without a goodbye.
func (l *link) reset() {
	l.once.Do(func() {
		close(l.done)
		for _, conn := range l.conns {
			_ = conn.SetLinger(0)
			conn.Close()
		}
	})
}

// end closes the proxy and waits for its goroutines.
func (p *Proxy) end() {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.listener.Close()
	p.CloseAll()
	p.work.Wait()
}
