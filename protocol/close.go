package protocol

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
)

// closeReason says why a connection ended. It is a metric's label: a closed set.
type closeReason string

const (
	closePeer        closeReason = "peer"        // the peer closed, or the network did
	closeIdle        closeReason = "idle"        // nothing was asked for the idle timeout
	closeSlow        closeReason = "slow"        // a frame or a reply did not get on
	closeBadFrame    closeReason = "bad_frame"   // a size out of bounds
	closeBadRequest  closeReason = "bad_request" // a header or body that does not decode
	closeUnsupported closeReason = "unsupported" // an API or version that is not served
	closeHandler     closeReason = "handler"     // a handler asked for it
	closePanic       closeReason = "panic"       // a handler panicked
	closeShutdown    closeReason = "shutdown"    // the server ends
	closeTooMany     closeReason = "too_many"    // over the limit of connections
	closeReplaced    closeReason = "replaced"    // idle when there were too many
)

var closeReasons = []closeReason{
	closePeer, closeIdle, closeSlow, closeBadFrame, closeBadRequest,
	closeUnsupported, closeHandler, closePanic, closeShutdown, closeTooMany, closeReplaced,
}

// level is how loudly an end is logged: what a peer may do at will is quiet.
func (r closeReason) level() slog.Level {
	switch r {
	case closePeer, closeIdle, closeShutdown, closeReplaced:
		return slog.LevelDebug
	case closePanic:
		return slog.LevelError
	default:
		return slog.LevelWarn
	}
}

// closeError is an error that ends a connection.
type closeError struct {
	reason closeReason
	err    error
}

func closing(reason closeReason, err error) *closeError { return &closeError{reason, err} }

func (e *closeError) Error() string { return string(e.reason) + ": " + e.err.Error() }
func (e *closeError) Unwrap() error { return e.err }

// ioError sorts an error of reading or writing under ctx. Once ctx has ended, the
// error is only the echo of ctx's cause.
func ioError(ctx context.Context, err error) *closeError {
	var cause *closeError
	switch {
	case errors.As(context.Cause(ctx), &cause):
		return cause
	case ctx.Err() != nil:
		return closing(closeShutdown, context.Cause(ctx))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return closing(closeSlow, err)
	case errors.Is(err, errFrameSize):
		return closing(closeBadFrame, err)
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		return closing(closePeer, io.EOF)
	default: // a reset, a broken pipe, a frame cut short
		return closing(closePeer, err)
	}
}
