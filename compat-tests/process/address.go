package process

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"time"
)

// FreeAddress returns a loopback address on which nothing listens, below the range that outgoing connections draw their
// ports from. It is for servers that must keep their address over restarts, which a listener on port 0 can't.
func FreeAddress() (string, error) {
	const low, high = 10000, 20000
	var failure error
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", low+rand.IntN(high-low)))
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
