package metadata

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Silence is for how long a store has answered nothing though it was asked. A
// network that swallows what is sent breaks no connection, and nothing else tells
// for many seconds. It costs no request of its own. The zero value is ready for
// use, and safe for concurrent use.
type Silence struct {
	mu      sync.Mutex
	pending int       // calls
	since   time.Time // of the first call that nothing was answered after; zero if there is none
}

// Lasts is 0 while there is nothing to be answered.
func (s *Silence) Lasts() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.IsZero() {
		return 0
	}
	return time.Since(s.since)
}

// asked takes in a call that begins.
func (s *Silence) asked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending++; s.since.IsZero() {
		s.since = time.Now()
	}
}

// ended takes in what a call came to. A refusal is an answer, and a caller that
// has lost interest says nothing of the store.
func (s *Silence) ended(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending--
	answered := err == nil || !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrUnknownOutcome) &&
		!errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled)
	switch {
	case answered && s.pending > 0:
		s.since = time.Now()
	case answered, s.pending == 0 && errors.Is(err, context.Canceled):
		s.since = time.Time{}
	}
}
