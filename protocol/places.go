package protocol

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"sync"
	"time"
)

// leastIdle is how long a connection must be idle to give its place to another.
const leastIdle = time.Second

// fullWarning is the least time between two warnings that all places are taken.
const fullWarning = 10 * time.Second

var (
	errTooMany  = errors.New("too many connections")
	errReplaced = errors.New("idle for longest when there were too many connections")
)

// places are where connections may be: a number of them, and who has them.
type places struct {
	free chan struct{} // holds a token for each place that is taken

	mu     sync.Mutex
	taken  map[*conn]struct{}
	warned time.Time // when it was last said that all are taken
}

// newPlaces makes n places, or as many as leave a quarter of all file descriptors
// to the stores: without those, nobody would be served.
func newPlaces(n, descriptors int, log *slog.Logger) *places {
	if most := max(descriptors-descriptors/4, 1); n > most {
		log.Warn("fewer connections than configured: the limit of open files (ulimit -n) is too low",
			"connections", most, "configured", n, "open_files", descriptors)
		n = most
	}
	return &places{free: make(chan struct{}, n), taken: map[*conn]struct{}{}}
}

// take takes a place: a free one, else that of the connection that has been idle
// for longest, as soon as that is leastIdle. It says whether it got one; leave gives
// it back.
func (s *Server) take(ctx context.Context) bool {
	p := s.places
	select {
	case p.free <- struct{}{}:
		return true
	default:
	}
	if p.timeToWarn(time.Now()) {
		s.log.Warn("all places for connections are taken: idle connections are closed for new ones, and new ones if none is idle",
			"connections", cap(p.free))
	}
	for begun := time.Now(); ; {
		idle, used := p.idlest()
		now := time.Now()
		if idle == nil || now.Sub(begun) > leastIdle {
			return false
		}
		wait := used.Add(leastIdle).Sub(now)
		if wait <= 0 {
			idle.stopReading(closing(closeReplaced, errReplaced))
			wait = leastIdle // it may have been asked something at that moment
		}
		select {
		case p.free <- struct{}{}:
			return true
		case <-time.After(wait):
		case <-ctx.Done():
			return false
		case <-s.drain.Done():
			return false
		}
	}
}

func (p *places) leave() { <-p.free }

func (p *places) add(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken[c] = struct{}{}
}

func (p *places) remove(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.taken, c)
}

// idlest returns the connection that has been idle for longest, and since when; nil
// if requests of all of them are in flight. It looks at all of them: that is cheaper,
// over all, than to keep them in order at every request.
func (p *places) idlest() (idle *conn, used time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	oldest := int64(math.MaxInt64)
	for c := range p.taken {
		if used := c.lastUsed.Load(); used < oldest && len(c.slots) == 0 {
			idle, oldest = c, used
		}
	}
	return idle, time.Unix(0, oldest)
}

// timeToWarn says whether the last warning was long ago. Ask once for each warning.
func (p *places) timeToWarn(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.warned) < fullWarning {
		return false
	}
	p.warned = now
	return true
}
