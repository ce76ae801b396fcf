package protocol

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"
	"time"
)

const (
	// flushBytes is how many bytes of replies are gathered before they are written
	// although more are ready.
	flushBytes = 256 << 10
	// pooledBytes is the largest buffer that is kept for other replies.
	pooledBytes = 4 << 20
)

// buffers holds *[]byte for replies.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// writeLoop writes replies in request order until the queue is closed. Replies
// that are ready together are written together; none waits for one that is not.
// After an error it ends the connection and only takes what is left in the queue.
func (c *conn) writeLoop() {
	b := batch{conn: c}
	failed := false
	fail := func(err *closeError) {
		if err != nil && !failed {
			failed = true
			c.cancel(err)
		}
	}
	for x := range c.queue {
		if !x.ready() {
			fail(b.flush())
			<-x.done
		}
		if failed {
			c.release(x)
			continue
		}
		if err := b.add(x); err != nil {
			fail(b.flush()) // earlier replies go first
			fail(err)
		}
		if len(c.queue) == 0 || len(b.buf) >= flushBytes {
			fail(b.flush())
		}
	}
}

// batch is replies that are written together.
type batch struct {
	conn      *conn
	pooled    *[]byte // where buf came from
	buf       []byte
	exchanges []*exchange
}

// add encodes x's reply. On an error x was released.
func (b *batch) add(x *exchange) *closeError {
	if b.pooled == nil {
		b.pooled = buffers.Get().(*[]byte)
		b.buf = (*b.pooled)[:0]
	}
	start := len(b.buf)
	err := x.err
	if err == nil {
		err = b.encode(x)
	}
	if err != nil {
		b.buf = b.buf[:start]
		b.conn.release(x)
		return err
	}
	b.exchanges = append(b.exchanges, x)
	return nil
}

// encode appends x's reply with its size and header. A response that kmsg can't
// encode is a handler's panic.
func (b *batch) encode(x *exchange) (err *closeError) {
	if x.resp == nil {
		return closing(closeHandler, fmt.Errorf("%s: the handler has no answer", x.name()))
	}
	defer func() {
		if p := recover(); p != nil {
			err = b.conn.panicked(x, p)
		}
	}()
	start := len(b.buf)
	x.resp.SetVersion(x.req.Version)
	b.buf = append(b.buf, 0, 0, 0, 0) // the size, once it is known
	b.buf = binary.BigEndian.AppendUint32(b.buf, uint32(x.req.CorrelationID))
	if x.resp.IsFlexible() && x.resp.Key() != keyApiVersions {
		b.buf = append(b.buf, 0) // no tagged fields
	}
	b.buf = x.resp.AppendTo(b.buf)
	size := len(b.buf) - start - 4
	if size > math.MaxInt32 {
		return closing(closeHandler, fmt.Errorf("%s: a reply of %d bytes", x.name(), size))
	}
	binary.BigEndian.PutUint32(b.buf[start:], uint32(size))
	x.size = 4 + size
	return nil
}

// flush writes the batch and ends its exchanges.
func (b *batch) flush() *closeError {
	if b.pooled == nil {
		return nil
	}
	err := b.conn.write(b.buf)
	for _, x := range b.exchanges {
		if err == nil {
			b.conn.finish(x)
		} else {
			b.conn.release(x)
		}
	}
	if cap(b.buf) <= pooledBytes {
		*b.pooled = b.buf
		buffers.Put(b.pooled)
	}
	clear(b.exchanges) // let go of requests and responses
	b.pooled, b.buf, b.exchanges = nil, nil, b.exchanges[:0]
	return err
}

// write writes p, a piece a timeout, so that the timeout is for a peer that takes
// nothing and not for a large reply.
func (c *conn) write(p []byte) *closeError {
	defer c.peer.taking.end()
	for len(p) > 0 {
		c.peer.taking.begin()
		err := c.nc.SetWriteDeadline(time.Now().Add(c.cfg.WriteTimeout))
		n := 0
		if err == nil {
			n, err = c.nc.Write(p[:min(len(p), progressBytes)])
		}
		c.metrics.responseBytes.Add(float64(n))
		if err != nil {
			return ioError(c.ctx, err)
		}
		p = p[n:]
	}
	return nil
}
