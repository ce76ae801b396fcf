package process

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"
)

// lowPort and highPort bound the ports of FreeAddress: they are below those that outgoing connections have.
const lowPort, highPort = 10000, 20000

// nextPort counts the ports that were tried. It begins anywhere, since tests run in several processes at once.
var nextPort = func() *atomic.Int64 {
	n := new(atomic.Int64)
	n.Store(rand.Int64N(highPort - lowPort))
	return n
}()

// FreeAddress returns a loopback address on which nothing listens, each time another one. It is for servers that must
// keep their address over restarts, which a listener on port 0 can't.
func FreeAddress() (string, error) { return FreeAddressOf("127.0.0.1") }

// FreeAddressOf is FreeAddress for a host of this machine.
func FreeAddressOf(host string) (string, error) {
	var failure error
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", host, lowPort+nextPort.Add(1)%(highPort-lowPort)))
		if err == nil {
			defer l.Close()
			return l.Addr().String(), nil
		}
		failure = err
	}
	return "", fmt.Errorf("find a free port: %w", failure)
}

// Await calls ready every 20 ms until it returns nil. It gives up with ready's last error when ctx ends, and at once
// when the process exits.
func (p *Process) Await(ctx context.Context, ready func(context.Context) error) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-p.done:
			return p.Exited()
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", p.name, err, p.LogTail())
		}
	}
}
