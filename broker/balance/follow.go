package balance

import (
	"maps"
	"slices"
	"time"

	"github.com/streamhouse/streamhouse/lease"
)

// When a lease follows its writers to another zone.
const (
	followAge    = time.Minute      // of the lease at least
	settledAge   = 5 * time.Minute  // of one that has had writers in its own zone
	followAfter  = 30 * time.Second // for which the other zone must have written most
	followVolume = 64 << 10         // bytes that count, at least
)

// watch is what is seen of a lease's writers.
type watch struct {
	leaderEpoch int32
	look        time.Duration // the last at which the lease was held
	// settled: at some look since the lease came, a third or more was written in the
	// agent's zone. So it is where it belongs, or did, and what looks like a move may
	// be a mood.
	settled bool
	zone    string        // that writes two thirds or more, and is another; "" if none
	since   time.Duration // the instant from which on that is so
}

// follower decides which leases follow their writers. It reads no clock.
type follower struct {
	zone    string // the agent's own
	writers *Writers
	watched map[lease.Key]*watch
}

// plan looks at the writers of the leases, and returns the places of those that
// should follow them at the instant now, in the order of their keys, and the agents
// that they should go to.
//
// Who gets a lease so has had its writers as clients before, and finds it settled:
// so writers that change their minds move a lease once in settledAge, without
// agents telling each other why they handed it over.
func (f *follower) plan(now time.Duration, v View, leases []held) (places []int, to map[lease.Key]string) {
	f.writers.sweep(now)
	if f.zone == "" {
		return nil, nil
	}
	to = make(map[lease.Key]string)
	for i, h := range leases {
		w := f.watch(now, h)
		if w == nil || w.zone == "" || now-w.since < followAfter || h.age < followAge || w.settled && h.age < settledAge {
			continue
		}
		if agent, ok := v.StandIn(w.zone, h.key); ok {
			places, to[h.key] = append(places, i), agent
		}
	}
	slices.SortFunc(places, func(a, b int) int { return leases[a].key.Compare(leases[b].key) })
	maps.DeleteFunc(f.watched, func(k lease.Key, w *watch) bool {
		if w.look == now {
			return false
		}
		f.writers.forget(k) // what other zones wrote is the new leader's to know
		return true
	})
	return places, to
}

// watch looks at the writers of a lease; nil if there are none.
func (f *follower) watch(now time.Duration, h held) *watch {
	t := f.writers.tally(now, h.key, f.zone)
	w := f.watched[h.key]
	if w == nil && t.total == 0 {
		return nil
	}
	if w == nil || w.leaderEpoch != h.leaderEpoch {
		w = &watch{leaderEpoch: h.leaderEpoch}
		f.watched[h.key] = w
	}
	w.look = now
	w.settled = w.settled || t.own > 0 && 3*t.own >= t.total
	switch {
	case t.zone == f.zone || t.total < followVolume || 3*t.most < 2*t.total:
		w.zone = ""
	case t.zone != w.zone:
		w.zone, w.since = t.zone, now
	}
	return w
}
