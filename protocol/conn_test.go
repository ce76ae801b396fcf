package protocol

import (
	"context"
	"errors"
	"maps"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const keyHeartbeat = 12

func TestRepliesKeepRequestOrder(t *testing.T) {
	g := newGate("a", "b", "c")
	inBubble(t, ServerConfig{}, map[int16]HandlerFunc{keyHeartbeat: g.handle}, func(t *testing.T, f *fixture) {
		c := f.dial()
		c.send(1, heartbeat("a"), heartbeat("b"), heartbeat("now"), heartbeat("c"))
		g.wantBegun(t, "a b now c")
		g.open("c")
		synctest.Wait()
		g.open("a")
		c.want(1)
		g.open("b")
		c.want(2, 3, 4)
	})
}

func TestAReadyReplyWaitsForNoOther(t *testing.T) {
	g := newGate("slow")
	inBubble(t, ServerConfig{}, map[int16]HandlerFunc{keyHeartbeat: g.handle}, func(t *testing.T, f *fixture) {
		c := f.dial()
		c.send(1, heartbeat("now"), heartbeat("slow"))
		c.want(1)
		g.open("slow")
		c.want(2)
	})
}

// countingConn counts writes.
type countingConn struct {
	net.Conn
	writes int
}

func (c *countingConn) Write(b []byte) (int, error) { c.writes++; return c.Conn.Write(b) }

func TestRepliesReadyTogetherAreOneWrite(t *testing.T) {
	g := newGate("first")
	inBubble(t, ServerConfig{}, map[int16]HandlerFunc{keyHeartbeat: g.handle}, func(t *testing.T, f *fixture) {
		ours, theirs := net.Pipe()
		counted := &countingConn{Conn: theirs}
		f.l.conns <- counted
		c := newClient(t, ours)
		c.send(1, heartbeat("first"), heartbeat("x"), heartbeat("x"), heartbeat("x"))
		g.wantBegun(t, "first x x x")
		g.open("first")
		c.want(1, 2, 3, 4)
		synctest.Wait()
		if counted.writes != 1 {
			t.Errorf("%d writes", counted.writes)
		}
	})
}

func TestInFlightLimitStopsReading(t *testing.T) {
	g := newGate("a", "b")
	inBubble(t, ServerConfig{MaxInFlightPerConn: 2}, map[int16]HandlerFunc{keyHeartbeat: g.handle}, func(t *testing.T, f *fixture) {
		c := f.dial()
		c.send(1, heartbeat("a"), heartbeat("b"), heartbeat("c"))
		g.wantBegun(t, "a b")
		g.open("b")
		g.wantBegun(t, "a b") // b is answered after a, and in flight until then
		g.open("a")
		c.want(1, 2, 3)
	})
}

func TestRequestMemoryIsAwaitedBeforeTheBody(t *testing.T) {
	g := newGate("a", "b")
	size := int64(len(frameOf(heartbeat("a"), 0)) - 4)
	inBubble(t, ServerConfig{MaxRequestMemory: size + size/2}, map[int16]HandlerFunc{keyHeartbeat: g.handle}, func(t *testing.T, f *fixture) {
		one, other := f.dial(), f.dial()
		one.send(1, heartbeat("a"))
		g.wantBegun(t, "a")
		other.send(1, heartbeat("b"))
		g.wantBegun(t, "a")
		if n := gauge(f.metrics.requestMemory); n != float64(size) {
			t.Errorf("request_memory_bytes is %v, want %d", n, size)
		}
		g.open("a")
		one.want(1)
		g.wantBegun(t, "a b")
		g.open("b")
		other.want(1)

		// What would never fit is refused instead of awaited.
		c := f.dial()
		c.send(1, heartbeat("a group with a name that is longer than the memory is large"))
		c.wantEnd()
		f.wantClosed(closeBadFrame, 1)
	})
}

func TestResponseMemoryIsSharedOut(t *testing.T) {
	g := newGate("a", "b")
	got := map[string]int64{}
	handle := func(ctx context.Context, req *Request) Reply {
		got[req.Body.(*kmsg.HeartbeatRequest).Group] = req.Reserve(2 * minReserve)
		return g.handle(ctx, req)
	}
	inBubble(t, ServerConfig{MaxResponseMemory: 7 * minReserve / 2}, map[int16]HandlerFunc{keyHeartbeat: handle}, func(t *testing.T, f *fixture) {
		c := f.dial()
		c.send(1, heartbeat("a"), heartbeat("b"))
		g.wantBegun(t, "a b")
		g.open("b") // and is answered after a, until which it keeps its part
		other := f.dial()
		other.send(1, heartbeat("c"))
		other.want(1)
		g.open("a")
		c.want(1, 2)
		synctest.Wait() // given back when they are written
		other.send(2, heartbeat("d"))
		other.want(2)
		want := map[string]int64{"a": 2 * minReserve, "b": 3 * minReserve / 2, "c": minReserve, "d": 2 * minReserve}
		if !maps.Equal(got, want) {
			t.Errorf("reserved %v, want %v", got, want)
		}
	})
}

func TestAcksZeroIsNotAnswered(t *testing.T) {
	var done chan struct{}
	handle := func(ctx context.Context, req *Request) Reply {
		switch req.Body.(*kmsg.HeartbeatRequest).Group {
		case "now":
			return LaterNone(func(context.Context) error { return nil })
		case "later":
			return LaterNone(func(ctx context.Context) error { <-done; return nil })
		}
		return Now(req.Body.ResponseKind())
	}
	inBubble(t, ServerConfig{MaxInFlightPerConn: 2}, map[int16]HandlerFunc{keyHeartbeat: handle}, func(t *testing.T, f *fixture) {
		done = make(chan struct{})
		c := f.dial()
		c.send(1, heartbeat("now"), heartbeat("later"), heartbeat("x"))
		c.want(3) // is not delayed by what has no reply
		synctest.Wait()
		if n := gauge(f.metrics.requestMemory); n == 0 {
			t.Error("LaterNone's memory was returned before it ended")
		}
		close(done)
		synctest.Wait()
		if n := gauge(f.metrics.requestMemory); n != 0 {
			t.Errorf("request_memory_bytes is %v", n)
		}
	})
}

func TestPeerCloseEndsWaiting(t *testing.T) {
	// Also with all slots taken: the next size is read before a slot is awaited.
	for _, limit := range []int{1, 10} {
		g := newGate("poll")
		inBubble(t, ServerConfig{MaxInFlightPerConn: limit}, map[int16]HandlerFunc{keyHeartbeat: g.handle}, func(t *testing.T, f *fixture) {
			c := f.dial()
			c.send(1, heartbeat("poll"))
			g.wantBegun(t, "poll")
			c.close()
			f.wantClosed(closePeer, 1) // which is after its waits
		})
	}
}

func TestIdleTimeout(t *testing.T) {
	g := newGate("poll")
	inBubble(t, ServerConfig{IdleTimeout: time.Minute}, map[int16]HandlerFunc{keyHeartbeat: g.handle}, func(t *testing.T, f *fixture) {
		start := time.Now()
		idle, polling := f.dial(), f.dial()
		polling.send(1, heartbeat("poll"))
		idle.wantEnd()
		if d := time.Since(start); d != time.Minute {
			t.Errorf("closed after %v", d)
		}
		f.wantClosed(closeIdle, 1)
		<-time.After(5 * time.Minute) // the bubble's clock: the poll takes so long
		g.open("poll")
		polling.want(1)
		polling.wantEnd()
		f.wantClosed(closeIdle, 2)
	})
}

func TestAFrameThatDoesNotArriveGivesItsMemoryBack(t *testing.T) {
	inBubble(t, ServerConfig{ReadTimeout: time.Second}, nil, func(t *testing.T, f *fixture) {
		c := f.dial()
		c.out <- []byte{0, 1, 0, 0, 'x'}
		c.wantEnd()
		f.wantClosed(closeSlow, 1)
	})
}

func TestAPeerThatTakesNoRepliesIsClosed(t *testing.T) {
	inBubble(t, ServerConfig{WriteTimeout: time.Second}, map[int16]HandlerFunc{keyHeartbeat: respond}, func(t *testing.T, f *fixture) {
		c := f.dial()
		c.send(1, heartbeat("a"), heartbeat("b"))
		<-time.After(2 * time.Second) // the bubble's clock
		f.wantClosed(closeSlow, 1)
		c.wantEnd()
	})
}

func TestDisconnectComesAfterEarlierReplies(t *testing.T) {
	g := newGate("a")
	bye := errors.New("bye")
	handle := func(ctx context.Context, req *Request) Reply {
		switch req.Body.(*kmsg.HeartbeatRequest).Group {
		case "now":
			return Disconnect(bye)
		case "later":
			return Later(func(context.Context) kmsg.Response { return nil })
		case "forgotten":
			return Reply{}
		}
		return g.handle(ctx, req)
	}
	for i, how := range []string{"now", "later", "forgotten"} {
		t.Run(how, func(t *testing.T) {
			g = newGate("a")
			inBubble(t, ServerConfig{}, map[int16]HandlerFunc{keyHeartbeat: handle}, func(t *testing.T, f *fixture) {
				c := f.dial()
				c.send(1, heartbeat("a"), heartbeat(how), heartbeat("z"))
				synctest.Wait()
				g.open("a")
				c.want(1)
				c.wantEnd()
				f.wantClosed(closeHandler, 1)
				f.wantLog([]string{"bye", "no answer", "no reply"}[i])
			})
		})
	}
}

func TestAFailedAcksZeroClosesItsConnection(t *testing.T) {
	var fail chan struct{}
	handle := func(ctx context.Context, req *Request) Reply {
		if req.Body.(*kmsg.HeartbeatRequest).Group == "silent" {
			return LaterNone(func(ctx context.Context) error { <-fail; return errors.New("refused") })
		}
		return Now(req.Body.ResponseKind())
	}
	inBubble(t, ServerConfig{}, map[int16]HandlerFunc{keyHeartbeat: handle}, func(t *testing.T, f *fixture) {
		fail = make(chan struct{})
		c := f.dial()
		c.send(1, heartbeat("silent"), heartbeat("x"))
		c.want(2)
		close(fail)
		c.wantEnd()
		f.wantClosed(closeHandler, 1)
		f.wantLog("refused")
	})
}

func TestAPanicEndsItsConnectionOnly(t *testing.T) {
	boom := func(context.Context) kmsg.Response { panic("boom") }
	handle := func(ctx context.Context, req *Request) Reply {
		switch req.Body.(*kmsg.HeartbeatRequest).Group {
		case "begin":
			boom(ctx)
		case "wait":
			return Later(boom)
		case "silent":
			return LaterNone(func(ctx context.Context) error { boom(ctx); return nil })
		case "encode":
			return Now((*kmsg.HeartbeatResponse)(nil))
		}
		return Now(req.Body.ResponseKind())
	}
	for _, where := range []string{"begin", "wait", "silent", "encode"} {
		t.Run(where, func(t *testing.T) {
			inBubble(t, ServerConfig{}, map[int16]HandlerFunc{keyHeartbeat: handle}, func(t *testing.T, f *fixture) {
				bystander, c := f.dial(), f.dial()
				c.send(1, heartbeat("x"), heartbeat(where))
				c.want(1)
				c.wantEnd()
				f.wantClosed(closePanic, 1)
				f.wantLog(".go:") // the stack
				if n := gauge(f.metrics.panics); n != 1 {
					t.Errorf("%v panics", n)
				}
				bystander.send(1, heartbeat("x"))
				bystander.want(1)
			})
		})
	}
}
