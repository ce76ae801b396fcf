package sim

import (
	"context"
	"net"
	"sync"
	"time"
)

// network connects sites and clients. Clients have no site: nil.
type network struct {
	mu        sync.Mutex
	listeners map[string]*listener // by host:port
	wires     sync.WaitGroup       // that are connected
}

func newNetwork() *network { return &network{listeners: make(map[string]*listener)} }

// listener is where an agent is reached.
type listener struct {
	network *network
	site    *site
	address string
	calls   bool // of other agents
	arrived chan net.Conn
	once    sync.Once
	closed  chan struct{}
}

// address is a net.Addr of the network.
type address string

func (address) Network() string  { return "sim" }
func (a address) String() string { return string(a) }

func (n *network) listen(s *site, at string, calls bool) *listener {
	l := &listener{network: n, site: s, address: at, calls: calls, arrived: make(chan net.Conn, 1024), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listeners[at] = l
	return l
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.arrived:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Connections that nobody accepted are reset.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.network.mu.Lock()
		if l.network.listeners[l.address] == l {
			delete(l.network.listeners, l.address)
		}
		l.network.mu.Unlock()
		close(l.closed)
		for {
			select {
			case c := <-l.arrived:
				c.Close()
			default:
				return
			}
		}
	})
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return address(l.address) }

// dial connects from a site to an address. It returns whose it is.
func (n *network) dial(ctx context.Context, from *site, to string, random *dice) (net.Conn, *site, error) {
	if from != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(from.life, cancel)()
		if !from.frozen.pass(ctx.Done()) || !from.noNetwork.pass(ctx.Done()) {
			return nil, nil, ctx.Err()
		}
	}
	select {
	case <-time.After(random.latency(hop)):
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	n.mu.Lock()
	l := n.listeners[to]
	n.mu.Unlock()
	if l == nil || l.site.isDead() {
		return nil, nil, errRefused
	}
	if !l.site.noNetwork.pass(ctx.Done()) { // a process that stands still has a kernel that accepts
		return nil, nil, ctx.Err()
	}
	ends := net.Pipe
	if l.calls {
		if !from.noCalls.pass(ctx.Done()) || !l.site.noCalls.pass(ctx.Done()) {
			return nil, nil, ctx.Err()
		}
		ends = pipe
	}
	near, wireNear := ends()
	wireFar, far := ends()
	w := &wire{from: from, to: l.site, calls: l.calls, random: random, near: wireNear, far: wireFar, down: make(chan struct{})}
	select {
	case l.arrived <- far:
	case <-l.closed:
		return nil, nil, errRefused
	}
	n.wires.Go(w.run)
	return near, l.site, nil
}

// hop is a usual time from one to another.
const hop = 300 * time.Microsecond

// wire carries the bytes of a connection both ways, as far as the two sites let
// it. Bytes that wait for a cut to heal arrive afterwards, unless the connection
// was closed meanwhile.
type wire struct {
	from, to  *site // from is nil for a client
	calls     bool  // of one agent at another
	random    *dice
	near, far net.Conn // the wire's own ends
	once      sync.Once
	down      chan struct{} // closed when the connection has ended
}

func (w *wire) run() {
	var both sync.WaitGroup
	both.Go(func() { w.carry(w.near, w.far) })
	both.Go(func() { w.carry(w.far, w.near) })
	for _, s := range []*site{w.from, w.to} {
		if s != nil {
			defer context.AfterFunc(s.life, w.close)() // death resets
		}
	}
	both.Wait()
}

func (w *wire) close() {
	w.once.Do(func() {
		close(w.down)
		w.near.Close()
		w.far.Close()
	})
}

func (w *wire) carry(from, to net.Conn) {
	defer w.close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			is := w.fate()
			if !w.passes() || is == lost {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil || is == answerLost {
				return
			}
		}
		if err != nil {
			w.passes() // the end is no faster than the bytes
			return
		}
	}
}

// fate is what becomes of bytes: with those of calls a connection may break off,
// before they arrive or behind them.
func (w *wire) fate() fate {
	if !w.calls {
		return fine
	}
	return w.from.world.faults.callFate(w.random)
}

// passes waits until bytes come through.
func (w *wire) passes() bool {
	select {
	case <-time.After(w.random.latency(hop)):
	case <-w.down:
		return false
	}
	for _, s := range []*site{w.from, w.to} {
		if s != nil && !(s.frozen.pass(w.down) && s.noNetwork.pass(w.down) && (!w.calls || s.noCalls.pass(w.down))) {
			return false
		}
	}
	return true
}
