package process

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, script string) *Process {
	t.Helper()
	p, err := Start("sh", exec.Command("sh", "-c", script), filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// logged returns when the process has written text.
func logged(t *testing.T, p *Process, text string) {
	t.Helper()
	err := p.Await(t.Context(), func(context.Context) error {
		if !strings.Contains(p.LogTail(), text) {
			return errors.New("not logged yet")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// busy is a shell loop that a signal interrupts at once.
const busy = "while :; do :; done"

func TestStopLetsTheProcessEndItself(t *testing.T) {
	p := start(t, "trap 'echo bye; exit 0' TERM; echo up; "+busy)
	logged(t, p, "up")
	if err := p.Exited(); err != nil {
		t.Errorf("while it runs: %v", err)
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if log := p.LogTail(); !strings.Contains(log, "bye") {
		t.Errorf("log %q", log)
	}
}

func TestStopReportsTheStatus(t *testing.T) {
	p := start(t, "trap 'exit 3' TERM; echo up; "+busy)
	logged(t, p, "up")
	err := p.Stop(t.Context())
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 3 {
		t.Errorf("got %v, want exit status 3", err)
	}
}

func TestStopKillsWhatDoesNotEnd(t *testing.T) {
	p := start(t, "trap '' TERM; echo up; "+busy)
	logged(t, p, "up")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
	<-p.Done()
}

func TestAwaitNoticesAnExit(t *testing.T) {
	p := start(t, "echo cannot; exit 1")
	err := p.Await(t.Context(), func(context.Context) error { return errors.New("not ready") })
	if !errors.Is(err, ErrExited) || !strings.Contains(err.Error(), "cannot") {
		t.Errorf("got %v, want the exit with the log", err)
	}
}
