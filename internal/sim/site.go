package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// site is where one life of an agent runs: what stands between it and the rest
// of the world. All that the agent does to others passes here, so that it can be
// stopped, cut off and killed without its knowledge.
type site struct {
	world  *world
	number int32  // of the life, among all lives of all agents
	id     string // of the agent
	random *dice

	frozen    gate // the process stands still
	noStore   gate // nothing comes through between the agent and the database
	noObjects gate // nor between the agent and the bucket
	noNetwork gate // nor between the agent and clients and peers
	noCalls   gate // nor between the agent and those that it calls, or that call it

	life context.Context
	die  context.CancelFunc // ends what the agent can do to others, at once

	mu       sync.Mutex
	presence map[int]func() // what ends the connections that are signs of life
	next     int
}

func newSite(w *world, number int32, id string) *site {
	s := &site{world: w, number: number, id: id, random: w.dice("site", int(number))}
	s.life, s.die = context.WithCancel(context.Background())
	return s
}

// String names the life.
func (s *site) String() string { return fmt.Sprintf("%s (life %d)", s.id, s.number) }

// onSilence registers what is to be called when the database has taken the
// site's network for dead.
func (s *site) onSilence(hangUp func()) (forget func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.presence == nil {
		s.presence = make(map[int]func())
	}
	s.next++
	at := s.next
	s.presence[at] = hangUp
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.presence, at)
	}
}

// silence ends the connections that are signs of life.
func (s *site) silence() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, hangUp := range s.presence {
		hangUp()
	}
}

func (s *site) isDead() bool { return s.life.Err() != nil }

// heal undoes what was done to the site, but for death.
func (s *site) heal() {
	for _, g := range []*gate{&s.frozen, &s.noStore, &s.noObjects, &s.noNetwork, &s.noCalls} {
		g.open()
	}
}

// sleep lets time pass. It returns false if ctx ended or the agent died before.
func (s *site) sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil && !s.isDead()
	case <-ctx.Done():
		return false
	case <-s.life.Done():
		return false
	}
}

// dice are random numbers that follow from the seed, for any number of
// goroutines.
type dice struct {
	mu sync.Mutex
	r  *rand.Rand
}

func (d *dice) intN(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.IntN(n)
}

// oneIn is true once in n times.
func (d *dice) oneIn(n int) bool { return n > 0 && d.intN(n) == 0 }

// between is a time from least up to most, to the nanosecond: no two events
// share an instant.
func (d *dice) between(least, most time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return least + time.Duration(d.r.Int64N(int64(most-least)+1))
}

// latency is a time of about typical, seldom much longer.
func (d *dice) latency(typical time.Duration) time.Duration {
	if d.oneIn(50) {
		return d.between(typical, 20*typical)
	}
	return d.between(typical/4, 2*typical)
}

// pause lets virtual time pass.
func pause(d time.Duration) { <-time.After(d) }
