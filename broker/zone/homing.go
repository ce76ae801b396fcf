package zone

import (
	"net"
	"strings"
	"sync"
	"time"
)

// Homing decides which clients of other zones are sent home, to an agent of their
// own zone. It is safe for concurrent use.
//
// A client that is sent home and comes back could not be served there, whatever the
// view of the cluster says: the two agents can't reach each other, or one of them has
// an older view. It is served here then, at the price of its bytes' way, and sent
// home again after a while.
type Homing struct {
	mu   sync.Mutex
	sent recent[time.Time] // since when
}

const (
	// homeWithin is how long a client is sent home. All that it has in flight is
	// treated alike.
	homeWithin = time.Second
	// homeAgain is how long after that it is served here, if it comes back.
	homeAgain = 30 * time.Second
	// homeRoom is how many clients are remembered.
	homeRoom = 5_000
)

// NewHoming returns one that has sent nobody home yet.
func NewHoming() *Homing {
	return &Homing{sent: recent[time.Time]{life: homeWithin + homeAgain, room: homeRoom}}
}

// Send says whether a client is to be sent home.
func (h *Homing) Send(clientID string, addr net.Addr) bool {
	if len(clientID) > maxName {
		clientID = strings.Clone(clientID[:maxName])
	}
	c, now := client{host(addr), clientID}, time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	since, ok := h.sent.get(c, now)
	ago := now.Sub(since)
	if !ok || ago >= homeWithin+homeAgain {
		h.sent.put(c, now, now)
		return true
	}
	return ago < homeWithin
}
