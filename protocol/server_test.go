package protocol

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestShutdownAnswersWhatIsInFlight(t *testing.T) {
	g := newGate("a")
	inBubble(t, ServerConfig{}, map[int16]HandlerFunc{keyHeartbeat: g.handle}, func(t *testing.T, f *fixture) {
		idle, busy := f.dial(), f.dial()
		busy.send(1, heartbeat("a"))
		g.wantBegun(t, "a")
		ended := make(chan error, 1)
		go func() { ended <- f.Shutdown(context.Background()) }()
		idle.wantEnd()
		synctest.Wait() // until the busy one isn't read any more either
		busy.send(2, heartbeat("late"))
		g.wantBegun(t, "a")
		if len(ended) > 0 {
			t.Fatal("Shutdown did not wait")
		}
		g.open("a")
		busy.want(1)
		busy.wantEnd()
		if err := <-ended; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := f.Serve(context.Background(), newPipeListener()); err != nil {
			t.Errorf("Serve after Shutdown: %v", err)
		}
		f.wantClosed(closeShutdown, 2)
	})
}

func TestShutdownWaitsForAcksZero(t *testing.T) {
	var done chan struct{}
	finished := false
	handle := func(context.Context, *Request) Reply {
		return LaterNone(func(ctx context.Context) error {
			select {
			case <-done:
				finished = true
			case <-ctx.Done():
			}
			return nil
		})
	}
	inBubble(t, ServerConfig{}, map[int16]HandlerFunc{keyHeartbeat: handle}, func(t *testing.T, f *fixture) {
		done = make(chan struct{})
		c := f.dial()
		c.send(1, heartbeat("a"))
		synctest.Wait()
		ended := make(chan error, 1)
		go func() { ended <- f.Shutdown(context.Background()) }()
		synctest.Wait()
		close(done)
		if err := <-ended; err != nil || !finished {
			t.Errorf("Shutdown: %v, finished: %v", err, finished)
		}
	})
}

func TestShutdownIsBoundedByItsContext(t *testing.T) {
	g := newGate("a")
	inBubble(t, ServerConfig{}, map[int16]HandlerFunc{keyHeartbeat: g.handle}, func(t *testing.T, f *fixture) {
		c := f.dial()
		c.send(1, heartbeat("a"))
		g.wantBegun(t, "a")
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := f.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: %v", err)
		}
		c.wantEnd()
	})
}

func TestTooManyConnections(t *testing.T) {
	g := newGate("poll")
	inBubble(t, ServerConfig{MaxConnections: 1}, map[int16]HandlerFunc{keyHeartbeat: g.handle}, func(t *testing.T, f *fixture) {
		first := f.dial()
		first.send(1, heartbeat("poll"))
		g.wantBegun(t, "poll")
		f.dial().wantEnd()
		f.wantClosed(closeTooMany, 1)
		g.open("poll")
		first.want(1)
		first.close()
		synctest.Wait()
		next := f.dial()
		next.send(1, heartbeat("a"))
		next.want(1)
	})
}

func TestANewConnectionTakesThePlaceOfAnIdleOne(t *testing.T) {
	g := newGate("poll")
	inBubble(t, ServerConfig{MaxConnections: 3}, map[int16]HandlerFunc{keyHeartbeat: g.handle}, func(t *testing.T, f *fixture) {
		start := time.Now()
		polling, silent, begun := f.dial(), f.dial(), f.dial()
		polling.send(1, heartbeat("poll"))
		begun.out <- frameOf(heartbeat("half"), 1)[:10]
		<-time.After(leastIdle / 2) // the bubble's clock
		silent.send(1, heartbeat("x"))
		silent.want(1)
		next := f.dial()
		begun.wantEnd() // it has been idle for longer than silent
		if waited := time.Since(start); waited != leastIdle {
			t.Errorf("closed after %v", waited)
		}
		f.wantClosed(closeReplaced, 1)
		other := f.dial()
		silent.wantEnd()
		f.wantClosed(closeReplaced, 2)
		for _, c := range []*client{next, other} {
			c.send(1, heartbeat("x"))
			c.want(1)
		}
		g.open("poll")
		polling.want(1)
		f.wantLog("all places for connections are taken")
		f.wantClosed(closeTooMany, 0)
	})
}

func TestPlacesLeaveDescriptorsToOthers(t *testing.T) {
	log := new(logBuffer)
	logger := slog.New(slog.NewTextHandler(log, nil))
	if n := cap(newPlaces(10_000, 1024, logger).free); n != 768 || !strings.Contains(log.String(), "ulimit") {
		t.Errorf("%d connections with 1024 descriptors: %s", n, log)
	}
	if n := cap(newPlaces(10_000, maxDescriptors(), logger).free); n > maxDescriptors() {
		t.Errorf("%d connections with %d descriptors", n, maxDescriptors())
	}
	if n := cap(newPlaces(10, 1024, logger).free); n != 10 {
		t.Errorf("%d connections where 10 are asked for", n)
	}
}

// flakyListener fails at first with errs.
type flakyListener struct {
	*pipeListener
	errs []error
}

func (l *flakyListener) Accept() (net.Conn, error) {
	if len(l.errs) > 0 {
		err := l.errs[0]
		l.errs = l.errs[1:]
		return nil, err
	}
	return l.pipeListener.Accept()
}

func TestAcceptWaitsOutWhatPasses(t *testing.T) {
	broken := errors.New("broken")
	inBubble(t, ServerConfig{}, nil, func(t *testing.T, f *fixture) {
		l := &flakyListener{newPipeListener(), []error{
			&net.OpError{Op: "accept", Err: syscall.EMFILE}, syscall.ECONNABORTED, broken,
		}}
		if err := f.Serve(context.Background(), l); !errors.Is(err, broken) {
			t.Errorf("Serve: %v", err)
		}
		f.wantLog("will try again")
	})
}

func TestFramesOutOfBounds(t *testing.T) {
	tests := map[string]struct{ bytes, log string }{
		"negative":  {"\xff\xff\xff\xff", "-1"},
		"too large": {"\x7f\xff\xff\xff", "2147483647"},
		"too small": {"\x00\x00\x00\x04abcd", "allowed are 8 to"},
		"zero":      {"\x00\x00\x00\x00", "allowed are 8 to"},
		"HTTP":      {"GET / HTTP/1.1\r\n", "looks like HTTP"},
		"TLS":       {"\x16\x03\x01\x02\x00\x01", "looks like a TLS handshake"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, ServerConfig{}, nil, func(t *testing.T, f *fixture) {
				c := f.dial()
				c.out <- []byte(test.bytes)
				c.wantEnd()
				f.wantClosed(closeBadFrame, 1)
				f.wantLog(test.log)
				f.wantLog("peer=pipe")
			})
		})
	}
}

func TestUnservedOrMalformedRequestsEndTheConnection(t *testing.T) {
	version := func(v int16) []byte {
		b := frameOf(heartbeat("x"), 1)
		b[6], b[7] = byte(v>>8), byte(v)
		return b
	}
	cut := frameOf(heartbeat("x"), 1)
	cut = cut[:len(cut)-1]
	cut[3]--
	tests := map[string]struct {
		frame  []byte
		reason closeReason
	}{
		"an API that is not served":  {frameOf(kmsg.NewPtrVoteRequest(), 1), closeUnsupported},
		"an API that is not":         {[]byte{0, 0, 0, 10, 0x7f, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff}, closeUnsupported},
		"a negative API":             {[]byte{0, 0, 0, 10, 0xff, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff}, closeUnsupported},
		"a version too new":          {version(5), closeUnsupported},
		"a negative version":         {version(-1), closeUnsupported},
		"a byte too few":             {cut, closeBadRequest},
		"no client id":               {[]byte{0, 0, 0, 8, 0, 12, 0, 0, 0, 0, 0, 1}, closeBadRequest},
		"a client id of length -2":   {[]byte{0, 0, 0, 10, 0, 12, 0, 0, 0, 0, 0, 1, 0xff, 0xfe}, closeBadRequest},
		"a client id that overflows": {[]byte{0, 0, 0, 11, 0, 12, 0, 0, 0, 0, 0, 1, 0x7f, 0xff, 'x'}, closeBadRequest},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, ServerConfig{}, map[int16]HandlerFunc{keyHeartbeat: respond}, func(t *testing.T, f *fixture) {
				c := f.dial()
				c.send(1, heartbeat("earlier"))
				c.want(1)
				c.out <- test.frame
				c.wantEnd()
				f.wantClosed(test.reason, 1)
			})
		})
	}
}

// librdkafka sends such requests.
func TestBytesAfterARequestAreIgnored(t *testing.T) {
	inBubble(t, ServerConfig{}, map[int16]HandlerFunc{keyHeartbeat: respond}, func(t *testing.T, f *fixture) {
		c := f.dial()
		frame := append(frameOf(heartbeat("x"), 1), 1, 0, 0)
		frame[3] += 3
		c.out <- frame
		c.want(1)
		c.send(2, heartbeat("y"))
		c.want(2)
	})
}

func TestAFrameCutShortIsThePeersEnd(t *testing.T) {
	for _, n := range []int{1, 3, 5, 20} {
		inBubble(t, ServerConfig{}, map[int16]HandlerFunc{keyHeartbeat: respond}, func(t *testing.T, f *fixture) {
			c := f.dial()
			c.out <- frameOf(heartbeat("some group"), 1)[:n]
			synctest.Wait()
			c.nc.Close()
			f.wantClosed(closePeer, 1)
			f.wantLog(io.ErrUnexpectedEOF.Error())
		})
	}
}

func TestRequestCarriesItsOrigin(t *testing.T) {
	var got Request
	handle := func(_ context.Context, req *Request) Reply {
		got = *req
		return Now(req.Body.ResponseKind())
	}
	null := []byte{0, 0, 0, 18, 0, 12, 0, 0, 0, 0, 0, 7, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0}
	// A flexible header has tagged fields, here one that nobody knows.
	tagged := []byte{0, 0, 0, 25, 0, 12, 0, 4, 0, 0, 0, 8, 0, 2, 'm', 'e', 1, 99, 2, 'x', 'y', 1, 0, 0, 0, 0, 1, 0, 0}
	inBubble(t, ServerConfig{}, map[int16]HandlerFunc{keyHeartbeat: handle}, func(t *testing.T, f *fixture) {
		c := f.dial()
		c.out <- null
		c.want(7)
		if got.ClientID != "" || got.Version != 0 || got.Key != keyHeartbeat || got.Size != 18 || got.CorrelationID != 7 {
			t.Errorf("null client id: %+v", got)
		}
		if got.Conn.RemoteAddr.String() != "pipe" || got.Conn.LocalAddr.String() != "pipe" || got.Received != time.Now() {
			t.Errorf("origin: %+v", got)
		}
		c.out <- tagged
		body := c.want(8)
		if got.ClientID != "me" || got.Version != 4 {
			t.Errorf("flexible header: %+v", got)
		}
		if len(body) == 0 || body[0] != 0 {
			t.Errorf("a flexible response header has tagged fields: % x", body)
		}
	})
}

// The observer is told of what was answered, and of what needs no answer, with the
// bytes of both frames.
func TestObserveTellsOfFrames(t *testing.T) {
	type seen struct {
		correlationID int32
		clientID      string
		in, out       int
	}
	observed := make(chan seen, 3)
	cfg := ServerConfig{Observe: func(req *Request, in, out int) {
		observed <- seen{req.CorrelationID, req.ClientID, in, out}
	}}
	handle := func(ctx context.Context, req *Request) Reply {
		if req.Body.(*kmsg.HeartbeatRequest).Group == "silent" {
			return LaterNone(func(context.Context) error { return nil })
		}
		return respond(ctx, req)
	}
	inBubble(t, cfg, map[int16]HandlerFunc{keyHeartbeat: handle}, func(t *testing.T, f *fixture) {
		c := f.dial()
		answered, silent := heartbeat("a"), heartbeat("silent")
		c.send(1, answered)
		reply := 4 + 4 + len(c.want(1)) // its size, its correlation id, and the rest
		if got, want := <-observed, (seen{1, "test", len(frameOf(answered, 1)), reply}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		c.send(2, silent)
		if got, want := <-observed, (seen{2, "test", len(frameOf(silent, 2)), 0}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		c.close()
	})
}
