package sim

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipe makes a connection with room: what is written is kept and never waits, as with
// kernels. HTTP/2 and TLS write under mutexes, on which nobody in a bubble may wait.
func pipe() (net.Conn, net.Conn) {
	there, back := newStream(), newStream()
	return &pipeEnd{in: back, out: there}, &pipeEnd{in: there, out: back}
}

// stream is one direction of a pipe.
type stream struct {
	mu            sync.Mutex
	bytes         []byte // written and not read
	ended, closed bool   // by the writer, by the reader
	deadline      time.Time
	changed       chan struct{} // closed when anything has changed
}

func newStream() *stream { return &stream{changed: make(chan struct{})} }

// change makes a change that the reader looks at.
func (s *stream) change(by func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	by()
	close(s.changed)
	s.changed = make(chan struct{})
}

// take takes what is there. If there is nothing yet, there may be after changed is
// closed, until the deadline.
func (s *stream) take(b []byte) (n int, changed <-chan struct{}, deadline time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		err = net.ErrClosed
	case !s.deadline.IsZero() && !s.deadline.After(time.Now()):
		err = os.ErrDeadlineExceeded
	case len(s.bytes) > 0:
		n = copy(b, s.bytes)
		s.bytes = s.bytes[n:]
	case s.ended:
		err = io.EOF
	}
	return n, s.changed, s.deadline, err
}

// pipeEnd is one end of a pipe. It implements net.Conn.
type pipeEnd struct{ in, out *stream }

// Read implements net.Conn.
func (e *pipeEnd) Read(b []byte) (int, error) {
	for {
		n, changed, deadline, err := e.in.take(b)
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
		if deadline.IsZero() {
			<-changed
			continue
		}
		timer := time.NewTimer(time.Until(deadline))
		select {
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Write implements net.Conn.
func (e *pipeEnd) Write(b []byte) (n int, err error) {
	e.out.change(func() {
		if e.out.ended || e.out.closed {
			err = net.ErrClosed
			return
		}
		e.out.bytes = append(e.out.bytes, b...)
		n = len(b)
	})
	return n, err
}

// Close implements net.Conn. The other end reads what was written before.
func (e *pipeEnd) Close() error {
	e.in.change(func() { e.in.closed = true })
	e.out.change(func() { e.out.ended = true })
	return nil
}

// SetReadDeadline implements net.Conn.
func (e *pipeEnd) SetReadDeadline(t time.Time) error {
	e.in.change(func() { e.in.deadline = t })
	return nil
}

// SetWriteDeadline implements net.Conn. Writes never wait.
func (*pipeEnd) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline implements net.Conn.
func (e *pipeEnd) SetDeadline(t time.Time) error { return e.SetReadDeadline(t) }

// LocalAddr implements net.Conn.
func (*pipeEnd) LocalAddr() net.Addr { return address("pipe") }

// RemoteAddr implements net.Conn.
func (*pipeEnd) RemoteAddr() net.Addr { return address("pipe") }
