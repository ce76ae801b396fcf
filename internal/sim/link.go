package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// link is a client's connection to an agent. Requests are answered in their
// order, and several may be on their way.
type link struct {
	conn   net.Conn
	agent  int32 // number of the life
	format *kmsg.RequestFormatter

	mu      sync.Mutex
	next    int32
	pending []*answer // in the order of requests
	err     error     // why the connection has ended
}

// answer is one on its way.
type answer struct {
	resp kmsg.Response
	flex bool
	err  error
	done chan struct{}
}

// requestTimeout is how long a client waits for an answer before it closes the
// connection.
const requestTimeout = 6 * time.Second

var errNoAnswer = errors.New("no answer")

// connect opens a link.
func (w *world) connect(address, clientID string, random *dice) (*link, error) {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	conn, to, err := w.network.dial(ctx, nil, address, random)
	if err != nil {
		return nil, err
	}
	l := &link{conn: conn, agent: to.number, format: kmsg.NewRequestFormatter(kmsg.FormatterClientID(clientID))}
	w.links.Go(l.receive)
	return l, nil
}

// send sends a request, whose version is set.
func (l *link) send(req kmsg.Request) *answer {
	a := &answer{resp: req.ResponseKind(), flex: req.IsFlexible(), done: make(chan struct{})}
	a.resp.SetVersion(req.GetVersion())
	l.mu.Lock()
	if l.err != nil {
		a.err = l.err
		close(a.done)
		l.mu.Unlock()
		return a
	}
	frame := l.format.AppendRequest(nil, req, l.next)
	l.next++
	l.pending = append(l.pending, a)
	l.mu.Unlock()
	if err := l.conn.SetWriteDeadline(time.Now().Add(requestTimeout)); err != nil {
		l.fail(err)
		return a
	}
	if _, err := l.conn.Write(frame); err != nil {
		l.fail(err)
	}
	return a
}

// wait returns the answer, or an error, upon which the link is closed.
func (l *link) wait(a *answer) (kmsg.Response, error) {
	timer := time.NewTimer(requestTimeout)
	defer timer.Stop()
	select {
	case <-a.done:
	case <-timer.C:
		l.fail(errNoAnswer)
		<-a.done
	}
	return a.resp, a.err
}

// ask sends a request and waits for its answer.
func (l *link) ask(req kmsg.Request) (kmsg.Response, error) { return l.wait(l.send(req)) }

// receive takes answers until the connection ends.
func (l *link) receive() {
	for correlation := int32(0); ; correlation++ {
		if err := l.receiveOne(correlation); err != nil {
			l.fail(err)
			return
		}
	}
}

func (l *link) receiveOne(correlation int32) error {
	var head [8]byte
	if _, err := io.ReadFull(l.conn, head[:]); err != nil {
		return err
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:])-4)
	if _, err := io.ReadFull(l.conn, body); err != nil {
		return err
	}
	if got := int32(binary.BigEndian.Uint32(head[4:])); got != correlation {
		return fmt.Errorf("answer %d, want %d", got, correlation)
	}
	l.mu.Lock()
	if len(l.pending) == 0 {
		l.mu.Unlock()
		return errNoAnswer
	}
	a := l.pending[0]
	l.pending = l.pending[1:]
	l.mu.Unlock()
	if a.flex { // the header's tags, of which there are none
		body = body[1:]
	}
	a.err = a.resp.ReadFrom(body)
	close(a.done)
	return nil
}

// fail ends the link, and all that is on its way with it.
func (l *link) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
	for _, a := range l.pending {
		a.err = l.err
		close(a.done)
	}
	l.pending = nil
	l.conn.Close()
}

func (l *link) close() { l.fail(net.ErrClosed) }
