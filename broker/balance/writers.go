package balance

import (
	"math"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

const (
	// halfLife is how soon what was written counts half.
	halfLife = 30 * time.Second
	// forgetAfter is how long a key is remembered that nobody writes.
	forgetAfter = 5 * time.Minute
	// writerZones bounds the zones that are told apart for a key.
	writerZones = 8
	// writersStripes is how many locks there are, so that connections seldom meet.
	writersStripes = 64
)

// Writers remembers from which zones keys are written, with what was written lately
// counting most. It is safe for concurrent use.
type Writers struct {
	start   time.Time
	stripes [writersStripes]writersStripe
	swept   int // the stripe that was swept last; the loop's own
}

type writersStripe struct {
	mu   sync.Mutex
	keys map[lease.Key]*written
}

// written is what zones wrote, as it counts at an instant, that of the last write.
type written struct {
	at    time.Duration
	zones []zoneBytes
}

type zoneBytes struct {
	zone  string
	bytes float64
}

// NewWriters makes a memory of nothing.
func NewWriters() *Writers {
	w := &Writers{start: time.Now()}
	for i := range w.stripes {
		w.stripes[i].keys = make(map[lease.Key]*written)
	}
	return w
}

// Wrote takes in that clients of this agent, in a zone, have a number of bytes written
// to a key.
func (w *Writers) Wrote(k lease.Key, zone string, bytes int) { w.wrote(w.now(), k, zone, bytes) }

// Relayed takes in what an agent of a zone has this one commit.
func (w *Writers) Relayed(zone string, c *metadata.Commit) {
	now := w.now()
	for i := range c.Objects {
		for _, b := range c.Objects[i].Batches {
			w.wrote(now, b.Key, zone, int(b.Length))
		}
	}
}

// now is the instant: the time since the memory was made.
func (w *Writers) now() time.Duration { return time.Since(w.start) }

func (w *Writers) wrote(now time.Duration, k lease.Key, zone string, bytes int) {
	s := w.stripe(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.keys[k]
	if e == nil {
		e = &written{at: now}
		s.keys[k] = e
	}
	factor := e.decayed(now)
	for i := range e.zones {
		e.zones[i].bytes *= factor
	}
	e.at = max(e.at, now)
	for i := range e.zones {
		if z := &e.zones[i]; z.zone == zone {
			z.bytes += float64(bytes)
			return
		}
	}
	if len(e.zones) < writerZones {
		e.zones = append(e.zones, zoneBytes{zone, float64(bytes)})
		return
	}
	// One takes the place of the zone that has written least, and its bytes, so that
	// the sum stays true and who writes much gets a place that lasts.
	least := &e.zones[0]
	for i := range e.zones {
		if e.zones[i].bytes < least.bytes {
			least = &e.zones[i]
		}
	}
	least.zone = zone
	least.bytes += float64(bytes)
}

// decayed is the factor by which what was written counts at the instant now.
func (e *written) decayed(now time.Duration) float64 {
	return math.Exp2(-float64(max(0, now-e.at)) / float64(halfLife))
}

// tally is what was written to a key, in bytes that count at an instant.
type tally struct {
	total, own float64
	zone       string  // that has written most; "" if none has
	most       float64 // of that zone
}

// tally counts what was written to a key, own being the agent's zone.
func (w *Writers) tally(now time.Duration, k lease.Key, own string) (t tally) {
	s := w.stripe(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.keys[k]
	if e == nil {
		return t
	}
	factor := e.decayed(now)
	for _, z := range e.zones {
		bytes := factor * z.bytes
		t.total += bytes
		if z.zone == own {
			t.own = bytes
		}
		if bytes > t.most {
			t.zone, t.most = z.zone, bytes
		}
	}
	return t
}

// forget forgets a key.
func (w *Writers) forget(k lease.Key) {
	s := w.stripe(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, k)
}

// sweep forgets keys that nobody writes any more, of one stripe.
func (w *Writers) sweep(now time.Duration) {
	w.swept = (w.swept + 1) % writersStripes
	s := &w.stripes[w.swept]
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, e := range s.keys {
		if now-e.at > forgetAfter {
			delete(s.keys, k)
		}
	}
}

func (w *Writers) stripe(k lease.Key) *writersStripe {
	return &w.stripes[(uint32(k.TopicID[15])^uint32(k.Partition))%writersStripes]
}
