package zone

import (
	"net"
	"net/netip"
	"time"
)

// client is how a client is known again from one request to the next.
type client struct {
	host netip.Addr
	id   string
}

// host is the address of a client without its port; the zero Addr if it is none of IP.
func host(addr net.Addr) netip.Addr {
	if tcp, ok := addr.(*net.TCPAddr); ok && tcp != nil {
		return tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// recent remembers something of clients that were here lately: of each for at least
// life and at most twice that, or less where there are more than room of them. The
// caller has a lock.
type recent[V any] struct {
	life       time.Duration
	room       int // how many clients half of it holds
	young, old map[client]V
	turn       time.Time // when the young become old
}

func (r *recent[V]) get(c client, now time.Time) (v V, ok bool) {
	r.age(now)
	if v, ok = r.young[c]; !ok {
		v, ok = r.old[c]
	}
	return v, ok
}

func (r *recent[V]) put(c client, v V, now time.Time) {
	if r.age(now); r.young == nil || len(r.young) >= r.room {
		r.old, r.young, r.turn = r.young, make(map[client]V), now.Add(r.life)
	}
	r.young[c] = v
}

// age forgets what is old, and makes the young old, when it is time.
func (r *recent[V]) age(now time.Time) {
	switch late := now.Sub(r.turn); {
	case r.young == nil || late < 0:
	case late < r.life:
		r.old, r.young, r.turn = r.young, make(map[client]V), r.turn.Add(r.life)
	default:
		r.old, r.young = nil, nil
	}
}
