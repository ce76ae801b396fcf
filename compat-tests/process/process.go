// Package process runs a server as a child process that is stopped by its id alone, never outlives the test that
// started it, and keeps its output for the day it fails.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// ErrExited tells that a process ended before it was asked to.
var ErrExited = errors.New("process exited by itself")

// Process is a running child process. Its methods may be called from any goroutine.
type Process struct {
	name    string
	logPath string
	cmd     *exec.Cmd
	done    chan struct{} // closed when the process has been reaped
	waitErr error         // valid once done is closed
}

// Start starts cmd and appends both its outputs to the file at logPath. The kernel kills the child if the caller's
// process dies, where the kernel can.
func Start(name string, cmd *exec.Cmd, logPath string) (*Process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", name, err)
	}
	defer log.Close() // the child holds its own copy
	cmd.Stdout, cmd.Stderr = log, log
	dieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &Process{name: name, logPath: logPath, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.waitErr = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended, for whatever reason.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exited returns nil while the process runs, and ErrExited with its status and last output afterwards.
func (p *Process) Exited() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s: %w (%v)\n%s", p.name, ErrExited, p.cmd.ProcessState, p.LogTail())
	default:
		return nil
	}
}

// Stop asks the process to end (SIGTERM) and waits for it; at the end of ctx it kills it and says so. An exit status
// other than zero is an error. Stopping a process that has ended returns how it ended.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		if p.waitErr != nil {
			return fmt.Errorf("stop %s: %w", p.name, p.waitErr)
		}
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("%s did not stop after SIGTERM: %w", p.name, ctx.Err()), p.Kill())
	}
}

// Kill ends the process at once (SIGKILL) and waits until it is gone.
func (p *Process) Kill() error {
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.done
	return nil
}

func (p *Process) signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s with %v: %w", p.name, s, err)
	}
	return nil
}

// LogTail returns the end of what the process has written so far, at most 16 KiB.
func (p *Process) LogTail() string {
	const limit = 16 << 10
	b, err := os.ReadFile(p.logPath)
	if err != nil {
		return fmt.Sprintf("(log of %s: %v)", p.name, err)
	}
	return string(b[max(0, len(b)-limit):])
}
