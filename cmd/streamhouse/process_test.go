package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is an agent that runs as a process of its own.
type process struct {
	kafka, admin string // where it listens
	cmd          *exec.Cmd
	exited       chan struct{} // closed when it has ended
	status       error         // of its end; valid then

	mu     sync.Mutex
	output []string // lines of standard error
	more   chan struct{}
}

var (
	kafkaLine = regexp.MustCompile(`^  Kafka     (\S+),`)
	adminLine = regexp.MustCompile(`^  admin     http://([^/]+)/`)
)

// startProcess starts `streamhouse agent` with free ports and returns when its
// banner is out, or with an error that has all that it wrote.
func startProcess(ctx context.Context, dir string, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{exited: make(chan struct{}), more: make(chan struct{}, 1)}
	args = append([]string{program, "agent", "--address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0"}, args...)
	p.cmd = &exec.Cmd{Path: self, Args: args, Dir: dir, Env: cleanEnvironment()}
	dieWithParent(p.cmd)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.exited)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			p.wrote(lines.Text())
		}
		p.status = p.cmd.Wait()
	}()
	for _, address := range []struct {
		line *regexp.Regexp
		to   *string
	}{{kafkaLine, &p.kafka}, {adminLine, &p.admin}} {
		found, err := p.await(ctx, address.line)
		if err != nil {
			return nil, errors.Join(err, p.kill())
		}
		*address.to = found[1]
	}
	return p, nil
}

// cleanEnvironment is the environment without what configures agents and tests.
func cleanEnvironment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, envPrefix) })
}

func (p *process) wrote(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.output = append(p.output, line)
	select {
	case p.more <- struct{}{}:
	default:
	}
}

// log is what the process wrote so far.
func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.output, "\n")
}

// find returns the first match of a line.
func (p *process) find(line *regexp.Regexp) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, text := range p.output {
		if found := line.FindStringSubmatch(text); found != nil {
			return found
		}
	}
	return nil
}

// await waits until the process writes a line. One goroutine at a time may wait.
func (p *process) await(ctx context.Context, line *regexp.Regexp) ([]string, error) {
	for {
		if found := p.find(line); found != nil {
			return found, nil
		}
		select {
		case <-p.more:
		case <-p.exited:
			if found := p.find(line); found != nil {
				return found, nil
			}
			return nil, fmt.Errorf("the agent ended (%v) before it wrote %q:\n%s", p.status, line, p.log())
		case <-ctx.Done():
			return nil, fmt.Errorf("the agent has not written %q: %w:\n%s", line, ctx.Err(), p.log())
		}
	}
}

// end waits for the process, and returns the status with which it exits.
func (p *process) end(ctx context.Context) (int, error) {
	select {
	case <-p.exited:
	case <-ctx.Done():
		return 0, errors.Join(fmt.Errorf("the agent does not end: %w:\n%s", ctx.Err(), p.log()), p.kill())
	}
	return p.cmd.ProcessState.ExitCode(), nil
}

// kill ends the process with SIGKILL, unless it has ended.
func (p *process) kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.exited
	return nil
}

// start starts an agent for the time of a test.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	p, err := startProcess(testContext(t), t.TempDir(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.kill(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// testContext bounds a test.
func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
