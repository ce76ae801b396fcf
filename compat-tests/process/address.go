package process

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// given are the addresses that FreeAddress has returned.
var given sync.Map

// FreeAddress returns a loopback address on which nothing listens, and no address twice. It is for servers that must
// keep their address over restarts, which a listener on port 0 can't.
func FreeAddress() (string, error) {
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", fmt.Errorf("find a free port: %w", err)
		}
		address := l.Addr().String()
		if err := l.Close(); err != nil {
			return "", fmt.Errorf("find a free port: %w", err)
		}
		if _, again := given.LoadOrStore(address, true); !again {
			return address, nil
		}
	}
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
