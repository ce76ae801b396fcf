package rpc

import (
	"net"
	"sync"
)

// ofUnknown is the zone of a peer that has not said who it is.
const ofUnknown = "unknown"

// meter counts bytes of connections, by the zone of the peer.
type meter struct {
	metrics *Metrics
	cfg     *Config
}

func (m *meter) count(zone string, in, out int64) {
	if in > 0 {
		m.metrics.connectionBytes.WithLabelValues("in", zone).Add(float64(in))
	}
	if out > 0 {
		m.metrics.connectionBytes.WithLabelValues("out", zone).Add(float64(out))
	}
	m.cfg.traffic(zone, in, out)
}

// conn is a connection whose bytes are counted: those before the peer's zone is known
// once it is.
type conn struct {
	net.Conn
	meter  *meter
	closed func(*conn) // called once
	once   sync.Once

	mu      sync.Mutex
	known   bool
	zone    string
	in, out int64 // not counted yet
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.count(int64(n), 0)
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.count(0, int64(n))
	return n, err
}

func (c *conn) count(in, out int64) {
	c.mu.Lock()
	if !c.known {
		c.in, c.out = c.in+in, c.out+out
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	c.meter.count(c.zone, in, out) // which does not change any more
}

// attribute says in which zone the peer is. Only the first word counts.
func (c *conn) attribute(zone string) {
	c.mu.Lock()
	if c.known {
		c.mu.Unlock()
		return
	}
	c.known, c.zone = true, zone
	in, out := c.in, c.out
	c.mu.Unlock()
	c.meter.count(zone, in, out)
}

// Close implements net.Conn.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.attribute(ofUnknown)
		c.closed(c)
	})
	return err
}

// connections are those that are open on one side.
type connections struct {
	mu    sync.Mutex
	ended bool
	open  map[*conn]struct{}
}

// add wraps a connection; nil if there are too many, or after end.
func (s *connections) add(raw net.Conn, m *meter, most int) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || len(s.open) >= most {
		return nil
	}
	if s.open == nil {
		s.open = make(map[*conn]struct{})
	}
	c := &conn{Conn: raw, meter: m, closed: s.remove}
	s.open[c] = struct{}{}
	return c
}

func (s *connections) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

// close closes all that are open.
func (s *connections) close() {
	s.mu.Lock()
	all := make([]*conn, 0, len(s.open))
	for c := range s.open {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		_ = c.Close() // it is given up
	}
}

// end closes all that are open, and has no more opened.
func (s *connections) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.close()
}

// listener counts the bytes of what it accepts, and closes what is too much.
type listener struct {
	net.Listener
	meter *meter
	conns connections
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := l.conns.add(raw, l.meter, maxConnections); c != nil {
			return c, nil
		}
		_ = raw.Close()
	}
}
