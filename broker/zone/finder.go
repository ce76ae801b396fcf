package zone

import (
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Finder knows the zones of an agent's clients. It is safe for concurrent use.
type Finder struct {
	own     string
	subnets Map

	learned atomic.Bool // some rack was; spares all others the lock
	mu      sync.Mutex
	racks   recent[string]
}

// How long the rack of a client is remembered that does not fetch any more, and of
// how many clients.
const (
	rackLife = 5 * time.Minute
	rackRoom = 5_000
)

// NewFinder makes a finder for an agent of that zone, which may be "".
func NewFinder(own string, subnets Map) *Finder {
	return &Finder{own: own, subnets: subnets, racks: recent[string]{life: rackLife, room: rackRoom}}
}

// Own is the agent's zone.
func (f *Finder) Own() string { return f.own }

// Of returns the zone of a client. If nothing is known of it, known is false, and the
// zone the agent's own.
func (f *Finder) Of(clientID string, addr net.Addr) (zone string, known bool) {
	if zone, known = f.told(clientID, addr); known {
		return zone, true
	}
	if f.learned.Load() {
		c := client{host(addr), clientID}
		f.mu.Lock()
		zone, known = f.racks.get(c, time.Now())
		f.mu.Unlock()
	}
	if !known {
		zone = f.own
	}
	return zone, known
}

// told is what the client id and the operator say.
func (f *Finder) told(clientID string, addr net.Addr) (zone string, ok bool) {
	if zone, ok = tagged(clientID); ok || len(f.subnets.subnets) == 0 {
		return zone, ok
	}
	return f.subnets.Find(host(addr))
}

// Learn takes note of the rack that a client has named in a Fetch, unless more is
// known of it than that.
func (f *Finder) Learn(clientID string, addr net.Addr, rack string) {
	if rack == "" || len(rack) > maxName || len(clientID) > maxName {
		return
	}
	if _, ok := f.told(clientID, addr); ok {
		return
	}
	c, now := client{host(addr), clientID}, time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.racks.age(now); f.racks.young[c] != rack {
		f.racks.put(c, strings.Clone(rack), now)
		f.learned.Store(true)
	}
}
