package metadata

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestSilence(t *testing.T) {
	away := fmt.Errorf("connect: %w", ErrUnavailable)
	for name, test := range map[string]struct {
		do   func(*Silence)
		want time.Duration
	}{
		"nobody asks":            {func(*Silence) { pass(9) }, 0},
		"a call is answered":     {func(s *Silence) { s.asked(); pass(3); s.ended(nil); pass(9) }, 0},
		"a call is refused":      {func(s *Silence) { s.asked(); pass(3); s.ended(ErrFenced); pass(9) }, 0},
		"a call is not answered": {func(s *Silence) { s.asked(); pass(3) }, 3},
		"a later one is": {func(s *Silence) {
			s.asked()
			pass(3)
			s.asked()
			pass(1)
			s.ended(nil)
			pass(2)
		}, 2},
		"all fail": {func(s *Silence) {
			s.asked()
			pass(3)
			s.ended(away)
			pass(2)
			s.asked()
			pass(1)
			s.ended(away)
		}, 6},
		"the outcome is unknown": {func(s *Silence) { s.asked(); pass(3); s.ended(ErrUnknownOutcome); pass(2) }, 5},
		"time is up":             {func(s *Silence) { s.asked(); pass(3); s.ended(context.DeadlineExceeded); pass(2) }, 5},
		"the store is back": {func(s *Silence) {
			s.asked()
			pass(3)
			s.ended(away)
			s.asked()
			pass(1)
			s.ended(nil)
		}, 0},
		"the only caller loses interest":       {func(s *Silence) { s.asked(); pass(3); s.ended(context.Canceled); pass(9) }, 0},
		"one caller of several loses interest": {func(s *Silence) { s.asked(); s.asked(); pass(3); s.ended(context.Canceled); pass(2) }, 5},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s Silence
				test.do(&s)
				if got := s.Lasts(); got != test.want*time.Second {
					t.Errorf("lasts %s, want %s", got, test.want*time.Second)
				}
			})
		})
	}
}

// pass has seconds pass, of the bubble's clock.
func pass(seconds time.Duration) { time.Sleep(seconds * time.Second) }
