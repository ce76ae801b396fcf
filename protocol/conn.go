package protocol

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// readBuffer holds the small requests of a connection; the body of a large one is
// read past it.
const readBuffer = 8 << 10

// answerWeight is how many times what a request decodes to is taken of the request
// memory: it is looked up, and answered with all that was asked for.
const answerWeight = 4

var errStalled = errors.New("others waited for the memory of a peer that did not get on")

// past is a deadline that wakes a blocked read.
var past = time.Unix(1, 0)

// exchange is a request and its reply on their way through a connection.
type exchange struct {
	req  Request
	held holding       // of request memory
	done chan struct{} // closed when resp and err are final; nil if they are

	resp kmsg.Response
	err  *closeError // instead of resp: the connection ends here
	size int         // of the encoded reply, with its size field; 0 if there is none
}

// ready says whether the reply is final.
func (x *exchange) ready() bool {
	if x.done == nil {
		return true
	}
	select {
	case <-x.done:
		return true
	default:
		return false
	}
}

// conn is one connection. Its reader owns info, clientID and frames; its writer
// owns what is taken from queue.
type conn struct {
	*Server
	nc       net.Conn
	frames   frameReader
	info     *ConnInfo
	clientID string

	// slots has a token for every request in flight. queue has those that get a
	// reply, in request order; as it is as large as slots, sending never blocks.
	slots chan struct{}
	queue chan *exchange

	// ctx is the connection's: what waits for a reply ends with it. reading ends
	// with it, or before. Their causes are *closeError, or say that the server
	// ends.
	ctx         context.Context
	cancel      context.CancelCauseFunc
	reading     context.Context
	stopReading context.CancelCauseFunc

	waits sync.WaitGroup // of Later and LaterNone

	peer peer

	lastUsed atomic.Int64 // ns since 1970 at which a request was last answered, or the connection began
}

// serveConn serves one connection until it ends, under base, whose end cuts it
// off.
func (s *Server) serveConn(base context.Context, nc net.Conn) {
	s.metrics.connections.Inc()
	defer s.metrics.connections.Dec()
	c := &conn{
		Server: s, nc: nc,
		info:  &ConnInfo{RemoteAddr: nc.RemoteAddr(), LocalAddr: nc.LocalAddr()},
		slots: make(chan struct{}, s.cfg.MaxInFlightPerConn),
		queue: make(chan *exchange, s.cfg.MaxInFlightPerConn),
	}
	c.lastUsed.Store(time.Now().UnixNano())
	defer context.AfterFunc(base, func() { nc.Close() })()
	c.ctx, c.cancel = context.WithCancelCause(base)
	defer c.cancel(nil)
	c.reading, c.stopReading = context.WithCancelCause(c.ctx)
	defer c.stopReading(nil)
	defer context.AfterFunc(s.drain, func() { c.stopReading(errShutdown) })()
	defer context.AfterFunc(c.reading, func() { nc.SetReadDeadline(past) })()
	c.frames = frameReader{
		br:  bufio.NewReaderSize(nc, readBuffer),
		max: int(min(int64(s.cfg.MaxFrameBytes), s.cfg.MaxRequestMemory)),
		extend: func() error {
			c.peer.sending.begin()
			return c.extendRead(s.cfg.ReadTimeout)
		},
	}
	c.peer.cut = func() {
		c.cancel(closing(closeSlow, errStalled))
		nc.Close()
	}

	s.places.add(c)
	defer s.places.remove(c)
	written := make(chan struct{})
	go func() {
		defer close(written)
		c.writeLoop()
	}()
	why := c.readLoop()
	close(c.queue)
	if why.reason == closePeer {
		c.cancel(why) // nobody is there for the long polls any more
	}
	<-written
	c.waits.Wait()
	s.closed(nc, why)
}

// extendRead sets the read deadline, unless reading is over.
func (c *conn) extendRead(d time.Duration) error {
	if err := c.nc.SetReadDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	// The end of reading sets a deadline in the past, which the line above may
	// just have undone.
	return context.Cause(c.reading)
}

// readLoop reads and begins requests until it can't, and says why.
func (c *conn) readLoop() *closeError {
	for {
		x, handle, err := c.next()
		if err != nil {
			return err
		}
		if err := c.begin(x, handle); err != nil {
			return err
		}
	}
}

// next reads and decodes the next request, which then holds a slot and memory.
func (c *conn) next() (*exchange, HandlerFunc, *closeError) {
	size, err := c.awaitFrame()
	if err != nil {
		return nil, nil, err
	}
	begun := c.frames.begun(size)
	c.peer.sending.end()
	if begun != nil {
		return nil, nil, ioError(c.reading, begun)
	}
	// The request has begun to arrive before a slot is awaited, so that a peer that
	// leaves with all its slots taken is noticed.
	select {
	case c.slots <- struct{}{}:
	case <-c.reading.Done():
		return nil, nil, ioError(c.reading, c.reading.Err())
	}
	x := &exchange{req: Request{Size: size, responses: &c.responses}, held: holding{of: c.memoryFor(size), peer: &c.peer}}
	handle, err := c.receive(x)
	if err != nil {
		c.release(x)
		return nil, nil, err
	}
	return x, handle, nil
}

// memoryFor is that of requests of a size.
func (c *conn) memoryFor(size int) *memory {
	if size <= readBuffer {
		return c.small
	}
	return c.memory
}

// awaitFrame waits for a request and returns its size.
func (c *conn) awaitFrame() (int, *closeError) {
	for {
		if c.frames.br.Buffered() < 4 {
			if err := c.extendRead(c.cfg.IdleTimeout); err != nil {
				return 0, ioError(c.reading, err)
			}
		} else if c.reading.Err() != nil {
			return 0, ioError(c.reading, c.reading.Err())
		}
		size, err := c.frames.size()
		switch {
		case err == nil:
			return size, nil
		case c.reading.Err() != nil || !errors.Is(err, os.ErrDeadlineExceeded):
			return 0, ioError(c.reading, err)
		case len(c.slots) == 0:
			return 0, closing(closeIdle, err)
		}
		// A long poll is no idleness.
	}
}

// receive reads x's body and decodes it.
func (c *conn) receive(x *exchange) (HandlerFunc, *closeError) {
	frame, err := c.frames.body(x.req.Size, func(have int) (int, error) { return c.room(x, have) })
	c.peer.sending.end()
	if err != nil {
		return nil, ioError(c.reading, err)
	}
	c.metrics.requestBytes.Add(float64(len(frame)))
	x.req.Received = time.Now()
	x.req.Conn, x.req.ClientID = c.info, c.clientID
	handle, why := c.router.decode(frame, &x.req, func(decoded int) *closeError {
		if decoded <= freeExpansion {
			return nil
		}
		if err := x.held.grow(c.reading, answerWeight*int64(decoded)); err != nil {
			return ioError(c.reading, err)
		}
		return nil
	})
	if why != nil {
		return nil, why
	}
	c.clientID = x.req.ClientID
	c.apis[x.req.Key].requests.Inc()
	return handle, nil
}

// room takes memory for x's body, of which have bytes were read, and returns how
// large its buffer may be.
func (c *conn) room(x *exchange, have int) (int, error) {
	c.peer.sending.end() // it is not the peer that is waited for
	size := roomy(x.req.Size, have)
	if x.held.tryGrow(int64(size - have)) {
		return size, nil
	}
	size = scarce(x.req.Size, max(have, c.frames.br.Buffered()))
	return size, x.held.grow(c.reading, int64(size-have))
}

// begin calls the handler and puts the reply into its place. An error is the end
// of reading; earlier requests are still answered.
func (c *conn) begin(x *exchange, handle HandlerFunc) *closeError {
	reply, err := c.call(x, handle)
	if err != nil {
		c.release(x)
		return err
	}
	c.info = x.req.Conn
	switch reply.kind {
	case replyNow:
		x.resp = reply.resp
		c.queue <- x
	case replyLater:
		x.done = make(chan struct{})
		c.queue <- x
		c.waits.Go(func() {
			defer close(x.done)
			x.resp, x.err = c.wait(x, reply.wait)
		})
	case replyLaterNone:
		c.waits.Go(func() {
			if err := c.waitSilently(x, reply.silent); err != nil {
				c.stopReading(err)
			}
			c.finish(x)
		})
	case replyDisconnect:
		c.release(x)
		return closing(closeHandler, fmt.Errorf("%s: %w", x.name(), reply.err))
	default:
		c.release(x)
		return closing(closeHandler, fmt.Errorf("%s: the handler returned no reply", x.name()))
	}
	return nil
}

func (c *conn) call(x *exchange, handle HandlerFunc) (reply Reply, err *closeError) {
	defer func() {
		if p := recover(); p != nil {
			err = c.panicked(x, p)
		}
	}()
	return handle(c.ctx, &x.req), nil
}

func (c *conn) wait(x *exchange, wait func(context.Context) kmsg.Response) (resp kmsg.Response, err *closeError) {
	defer func() {
		if p := recover(); p != nil {
			err = c.panicked(x, p)
		}
	}()
	return wait(c.ctx), nil
}

func (c *conn) waitSilently(x *exchange, wait func(context.Context) error) (err *closeError) {
	defer func() {
		if p := recover(); p != nil {
			err = c.panicked(x, p)
		}
	}()
	if err := wait(c.ctx); err != nil {
		return closing(closeHandler, fmt.Errorf("%s: %w", x.name(), err))
	}
	return nil
}

// panicked logs a panic, with the stack of the goroutine that it is called on.
func (c *conn) panicked(x *exchange, p any) *closeError {
	c.metrics.panics.Inc()
	c.log.Error("handler panicked", "api", x.name(), "peer", x.req.Conn.RemoteAddr.String(),
		"panic", p, "stack", string(debug.Stack()))
	return closing(closePanic, fmt.Errorf("%s: panic: %v", x.name(), p))
}

// finish ends x: it was answered, or needs no answer.
func (c *conn) finish(x *exchange) {
	c.apis[x.req.Key].duration.Observe(time.Since(x.req.Received).Seconds())
	if c.cfg.Observe != nil {
		c.cfg.Observe(&x.req, 4+x.req.Size, x.size)
	}
	c.release(x)
}

// release returns x's slot and memory.
func (c *conn) release(x *exchange) {
	x.held.release()
	c.lastUsed.Store(time.Now().UnixNano())
	c.responses.left.Add(x.req.reserved)
	<-c.slots
}

func (x *exchange) name() string {
	return fmt.Sprintf("%s v%d", kmsg.NameForKey(x.req.Key), x.req.Version)
}
