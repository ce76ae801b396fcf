package prune

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/metadata"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is a store that answers as written, and then that there is nothing.
type script struct {
	answers []answer
	calls   []time.Duration // since the start
	begun   time.Time
}

type answer struct {
	rows int64
	err  error
}

func (s *script) Prune(ctx context.Context) (int64, error) {
	s.calls = append(s.calls, time.Since(s.begun))
	if len(s.answers) == 0 {
		return 0, nil
	}
	a := s.answers[0]
	s.answers = s.answers[1:]
	if a.err == context.DeadlineExceeded { // as long as it may take
		<-ctx.Done()
		a.err = ctx.Err()
	}
	return a.rows, a.err
}

// runFor runs the loop on the script for a time and returns its log.
func runFor(t *testing.T, s *script, d time.Duration) (l *Loop, log string) {
	t.Helper()
	var b strings.Builder
	s.begun = time.Now()
	l = New(s, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(&b, nil)))
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := l.Run(ctx); err != nil {
		t.Error(err)
	}
	return l, b.String()
}

func TestAnIdleStoreIsLookedAtNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		_, log := runFor(t, s, 100*interval)
		if n := len(s.calls); n < 66 || n > 200 {
			t.Errorf("%d calls in a time of 100", n)
		}
		for i, at := range s.calls {
			if since := at - append([]time.Duration{0}, s.calls...)[i]; since < interval/2 || since > 3*interval/2 {
				t.Errorf("call %d after %v", i, since)
			}
		}
		if log != "" {
			t.Error(log)
		}
	})
}

func TestWhatIsMoreThanOneCallIsDoneSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []answer{{rows: metadata.PruneRows}, {rows: metadata.PruneRows + 7}, {rows: 3}}}
		l, _ := runFor(t, s, 3*interval)
		if len(s.calls) < 4 {
			t.Fatalf("%d calls", len(s.calls))
		}
		if d := s.calls[2] - s.calls[0]; d != 2*pause {
			t.Errorf("three calls took %v", d)
		}
		if d := s.calls[3] - s.calls[2]; d < interval/2 {
			t.Errorf("a look %v after nothing was left", d)
		}
		if got := testutil.ToFloat64(l.rows); got != 2*metadata.PruneRows+10 {
			t.Errorf("counted %v rows", got)
		}
	})
}

func TestAFailureIsLoggedAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []answer{{err: errors.New("broken")}, {err: context.DeadlineExceeded}}}
		_, log := runFor(t, s, 5*interval)
		if len(s.calls) < 3 {
			t.Errorf("%d calls", len(s.calls))
		}
		if strings.Count(log, "\n") != 2 || !strings.Contains(log, "error=broken") {
			t.Error(log)
		}
	})
}
