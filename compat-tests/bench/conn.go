package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// conn is one connection to a broker, for loads of more connections or requests than client libraries are made for. Its
// requests are pipelined: each is sent at once, and answers come in the order of requests. It is safe for concurrent use.
type conn struct {
	socket   net.Conn
	unwatch  func() bool
	finished chan struct{} // closed when nothing is read any more

	mu       sync.Mutex
	format   *kmsg.RequestFormatter
	sent     int32
	awaiting []call // in the order of their requests
	err      error  // why there is no answer to anything any more
}

// call is a request that was sent. Its answer fills response in; then answered is called, on the goroutine that reads
// the connection.
type call struct {
	correlation int32
	response    kmsg.Response
	answered    func(error)
}

// dial returns a connection that ends with ctx. It must be closed.
func dial(ctx context.Context, address string) (*conn, error) {
	socket, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	c := &conn{
		socket: socket, finished: make(chan struct{}), format: kmsg.NewRequestFormatter(kmsg.FormatterClientID("bench")),
		unwatch: context.AfterFunc(ctx, func() { socket.Close() }),
	}
	go c.read()
	return c, nil
}

// dialAll returns n connections, or none.
func dialAll(ctx context.Context, address string, n int) ([]*conn, error) {
	var conns []*conn
	for range n {
		c, err := dial(ctx, address)
		if err != nil {
			closeAll(conns)
			return nil, err
		}
		conns = append(conns, c)
	}
	return conns, nil
}

func closeAll(conns []*conn) {
	for _, c := range conns {
		c.close()
	}
}

// close ends the connection. What awaits an answer fails.
func (c *conn) close() {
	c.unwatch()
	c.socket.Close()
	<-c.finished
}

// send sends a request, whose version is set, and returns. Answered, which must not wait for anything, is called once.
func (c *conn) send(request kmsg.Request, answered func(kmsg.Response, error)) {
	response := request.ResponseKind()
	c.mu.Lock()
	if err := c.err; err != nil {
		c.mu.Unlock()
		answered(nil, err)
		return
	}
	defer c.mu.Unlock()
	c.sent++
	c.awaiting = append(c.awaiting, call{c.sent, response, func(err error) { answered(response, err) }})
	if _, err := c.socket.Write(c.format.AppendRequest(nil, request, c.sent)); err != nil {
		c.socket.Close() // its reader tells all who wait
	}
}

// ask sends a request and waits for the answer.
func ask[R kmsg.Response](c *conn, request kmsg.Request) (R, error) {
	type answer struct {
		response kmsg.Response
		err      error
	}
	answered := make(chan answer, 1)
	c.send(request, func(response kmsg.Response, err error) { answered <- answer{response, err} })
	a := <-answered
	if a.err != nil {
		var none R
		return none, fmt.Errorf("ask %s: %w", kmsg.NameForKey(request.Key()), a.err)
	}
	return a.response.(R), nil
}

// read takes answers until the connection ends.
func (c *conn) read() {
	defer close(c.finished)
	in := bufio.NewReader(c.socket)
	var err error
	for err == nil {
		err = c.readAnswer(in)
	}
	c.socket.Close()
	c.mu.Lock()
	c.err = err
	unanswered := c.awaiting
	c.mu.Unlock()
	for _, call := range unanswered {
		call.answered(err)
	}
}

func (c *conn) readAnswer(in io.Reader) error {
	var size uint32
	if err := binary.Read(in, binary.BigEndian, &size); err != nil {
		return err
	}
	const correlationBytes = 4
	if size < correlationBytes || size > mebibyte {
		return fmt.Errorf("an answer of %d bytes", size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(in, body); err != nil {
		return err
	}
	correlation, body := int32(binary.BigEndian.Uint32(body)), body[correlationBytes:]
	c.mu.Lock()
	if len(c.awaiting) == 0 || c.awaiting[0].correlation != correlation {
		c.mu.Unlock()
		return fmt.Errorf("an answer to request %d, which is not the next one", correlation)
	}
	call := c.awaiting[0]
	c.awaiting = c.awaiting[1:]
	c.mu.Unlock()
	err := decode(call.response, body)
	call.answered(err)
	return err
}

// decode reads what follows an answer's correlation id.
func decode(response kmsg.Response, body []byte) error {
	if response.IsFlexible() {
		if len(body) == 0 || body[0] != 0 {
			return errors.New("an answer whose header has tags")
		}
		body = body[1:]
	}
	return response.ReadFrom(body)
}
