package protocol

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Request is one decoded request and where it came from.
//
// Byte slices in Body (record batches, group metadata) alias the request's frame,
// which is never reused: they may be kept as long as wanted, but keep the whole
// frame alive. Strings are copies. A request's memory is accounted for until its
// reply was written, so a handler that holds on to record bytes should not have
// its reply ready before it is done with them.
type Request struct {
	Body          kmsg.Request // its version is set
	Key           int16
	Version       int16
	CorrelationID int32
	ClientID      string // "" if null
	Conn          *ConnInfo
	Size          int       // bytes of the frame, without its size field
	Received      time.Time // when the frame was complete

	responses *budget
	reserved  int64 // of responses, until the reply was written
}

// Reserve takes want bytes of the memory for responses, or what there is of it
// when many replies wait to be written, but no less than minReserve, so that
// every request gets on. It returns how many it took; they are given back when
// the reply was written. The function of a [Later] may call it.
func (r *Request) Reserve(want int64) int64 {
	got := r.responses.take(want)
	r.reserved += got
	return got
}

// minReserve is what a reply may have however little memory there is.
const minReserve = 64 << 10

// budget is memory that is shared out without waiting: who waited would wait for
// replies that may be behind its own.
type budget struct{ left atomic.Int64 }

func (b *budget) take(want int64) int64 {
	for {
		left := b.left.Load()
		got := min(want, max(left, minReserve))
		if b.left.CompareAndSwap(left, left-got) {
			return got
		}
	}
}

// ConnInfo describes a connection. A value never changes once a request carries
// it; requests after an ApiVersions carry a new one.
type ConnInfo struct {
	RemoteAddr net.Addr
	LocalAddr  net.Addr

	// What the client calls itself (KIP-511), "" before ApiVersions v3 or later.
	ClientSoftwareName    string
	ClientSoftwareVersion string
}

// HandlerFunc begins one request. It is called on the connection's reader
// goroutine, in the order in which the client sent, so what it does before it
// returns happens in that order too, and holds up the reading of the next
// request. What must wait (a commit, new data, a rebalance) goes into [Later].
//
// ctx ends when the peer is gone or the server ends. It is the context that a
// Later's function receives.
type HandlerFunc func(ctx context.Context, req *Request) Reply

// Reply is what a handler answers. Its constructors are [Now], [Later], [None],
// [LaterNone] and [Disconnect].
type Reply struct {
	kind replyKind
	resp kmsg.Response
	err  error

	wait   func(ctx context.Context) kmsg.Response // of Later
	silent func(ctx context.Context) error         // of LaterNone
}

type replyKind uint8

const (
	replyMissing replyKind = iota // the zero Reply is a handler's mistake
	replyNow
	replyLater
	replyLaterNone
	replyDisconnect
)

// Now answers with resp, which must not be changed any more. The server sets its
// version.
func Now(resp kmsg.Response) Reply { return Reply{kind: replyNow, resp: resp} }

// Later answers with what wait returns, in the request's place in the order of
// replies. wait runs on a goroutine that the connection owns and waits for, so it
// must return soon after its context ends. A nil response closes the connection
// after the earlier replies: the answer where no error code is true.
func Later(wait func(ctx context.Context) kmsg.Response) Reply {
	return Reply{kind: replyLater, wait: wait}
}

// LaterNone answers nothing (Produce with acks=0), and counts the request as in flight until wait
// returns. wait runs as that of [Later] does. An error closes the connection as
// [Disconnect] does: the only way to tell a client that expects no answer.
func LaterNone(wait func(ctx context.Context) error) Reply {
	return Reply{kind: replyLaterNone, silent: wait}
}

// Disconnect closes the connection after the earlier replies were written. The
// server logs err.
func Disconnect(err error) Reply { return Reply{kind: replyDisconnect, err: err} }
