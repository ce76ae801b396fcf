package rpc

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// memory is a network of one listener, whose bytes stop while it is frozen. Writes are
// kept and never wait, as with kernels that have room: HTTP/2 and TLS write under
// locks, on which a bubble of synctest must not wait.
type memory struct {
	arrived chan net.Conn
	once    sync.Once
	closed  chan struct{}

	mu      sync.Mutex
	frozen  bool
	changed chan struct{} // closed when anything has changed
}

func newMemory() *memory {
	return &memory{arrived: make(chan net.Conn), closed: make(chan struct{}), changed: make(chan struct{})}
}

// change makes a change that waiters look at.
func (m *memory) change(by func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	by()
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *memory) freeze() { m.change(func() { m.frozen = true }) }
func (m *memory) thaw()   { m.change(func() { m.frozen = false }) }

func (m *memory) Accept() (net.Conn, error) {
	select {
	case c := <-m.arrived:
		return c, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

func (m *memory) Close() error {
	m.once.Do(func() { close(m.closed) })
	return nil
}

func (m *memory) Addr() net.Addr { return memoryAddr{} }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "memory:1" }

func (m *memory) dial(ctx context.Context, _ string) (net.Conn, error) {
	there, back := &direction{network: m}, &direction{network: m}
	select {
	case m.arrived <- &memoryConn{in: there, out: back}:
		return &memoryConn{in: back, out: there}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

// direction has bytes that were written and not read. Guarded by network.mu.
type direction struct {
	network       *memory
	bytes         []byte
	ended, closed bool // by the writer, by the reader
}

type memoryConn struct{ in, out *direction }

func (c *memoryConn) Read(b []byte) (int, error) {
	d, m := c.in, c.in.network
	for {
		m.mu.Lock()
		n, changed, closed, ended := 0, m.changed, d.closed, d.ended
		if !m.frozen {
			n = copy(b, d.bytes)
			d.bytes = d.bytes[n:]
		}
		frozen := m.frozen
		m.mu.Unlock()
		switch {
		case closed:
			return 0, os.ErrClosed
		case n > 0:
			return n, nil
		case ended && !frozen:
			return 0, io.EOF
		}
		<-changed
	}
}

func (c *memoryConn) Write(b []byte) (n int, err error) {
	d := c.out
	d.network.change(func() {
		if d.ended || d.closed {
			err = os.ErrClosed
			return
		}
		d.bytes = append(d.bytes, b...)
		n = len(b)
	})
	return n, err
}

func (c *memoryConn) Close() error {
	c.in.network.change(func() { c.in.closed, c.out.ended = true, true })
	return nil
}

func (*memoryConn) LocalAddr() net.Addr              { return memoryAddr{} }
func (*memoryConn) RemoteAddr() net.Addr             { return memoryAddr{} }
func (*memoryConn) SetDeadline(time.Time) error      { return nil }
func (*memoryConn) SetReadDeadline(time.Time) error  { return nil }
func (*memoryConn) SetWriteDeadline(time.Time) error { return nil }
