package testdb

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 30 * time.Second
	pollInterval = 20 * time.Millisecond
)

// guard is the shell program that runs a server. It tells the server's process
// id on its standard output and then waits for one line with the name of the
// signal to end the server with. The end of its standard input means that the
// test process is gone: then the folder goes too.
const guard = `
dir=$1 log=$2 abandon=$3; shift 3
"$@" </dev/null >>"$log" 2>&1 & server=$!
echo "$server"
if read -r signal; then
	kill -s "$signal" "$server"; wait "$server"
else
	kill -s CONT "$server"; kill -s "$abandon" "$server"; wait "$server"; rm -rf "$dir"
fi
exit 0`

// process is one server at a fixed address with a folder of its own. It is safe
// for concurrent use.
type process struct {
	name       string
	dir        string                          // all the server writes; removed by close
	args       []string                        // the server's command line
	credential *syscall.Credential             // nil: the user of the test
	stop       string                          // signal that ends the server in good order
	abandon    string                          // signal that ends it at once, leaving nothing in the system but files
	ready      func(ctx context.Context) error // nil once the server answers

	mu    sync.Mutex
	shell *exec.Cmd // the guard; nil while the server is stopped
	stdin io.WriteCloser
	pid   int // the server
}

// start runs the server and waits until it answers.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shell != nil {
		return nil
	}
	args := append([]string{"-c", guard, "guard", p.dir, p.logPath(), p.abandon}, p.args...)
	shell := exec.Command("/bin/sh", args...)
	shell.Dir = p.dir
	shell.SysProcAttr = p.sysProcAttr()
	stdin, err := shell.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := shell.StdoutPipe()
	if err != nil {
		return err
	}
	if err := shell.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.shell, p.stdin = shell, stdin
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err == nil {
		p.pid, err = strconv.Atoi(strings.TrimSpace(line))
	}
	if err == nil {
		err = p.waitReady()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("start %s: %w\n%s", p.name, err, p.log()), p.dismiss(p.abandon))
	}
	return nil
}

// sysProcAttr runs a program as the server's user, in a process group of its own:
// an interrupt typed at the terminal is for the test, whose end then ends the
// server.
func (p *process) sysProcAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: p.credential}
}

func (p *process) waitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	return poll(ctx, func() (bool, error) {
		if !alive(p.pid) {
			return false, errors.New("it ended at once")
		}
		return p.ready(ctx) == nil, nil
	})
}

// end ends the server with a signal that lets it end its children.
func (p *process) end(signal string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shell == nil {
		return nil
	}
	p.thaw()
	return p.dismiss(signal)
}

// kill ends all of the server's processes with SIGKILL, and returns when nothing
// of it is left running. They are frozen first, so that none sees another one
// die, and none is born unseen.
func (p *process) kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shell == nil {
		return nil
	}
	children, err := p.freeze()
	err = errors.Join(err, p.dismiss("KILL"))
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	for _, pid := range children {
		_ = syscall.Kill(pid, syscall.SIGKILL) // gone already is fine
		err = errors.Join(err, poll(ctx, func() (bool, error) { return !alive(pid), nil }))
	}
	return err
}

// dismiss has the guard signal the server, and waits for the end of both. The
// lock is held.
func (p *process) dismiss(signal string) error {
	_, err := io.WriteString(p.stdin, signal+"\n")
	impatience := time.AfterFunc(stopTimeout, func() { _ = syscall.Kill(p.pid, syscall.SIGKILL) })
	defer impatience.Stop()
	err = errors.Join(err, p.shell.Wait())
	p.shell = nil
	if err != nil {
		return fmt.Errorf("end %s: %w", p.name, err)
	}
	return nil
}

// pause freezes every process of the server until resume.
func (p *process) pause() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shell == nil {
		return nil
	}
	_, err := p.freeze()
	return err
}

func (p *process) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shell != nil {
		p.thaw()
	}
}

// freeze stops the server and then its children, which it returns, and waits
// until they stand still. (All PostgreSQL processes are children of one.) The
// lock is held.
func (p *process) freeze() ([]int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	still := func(pid int) error {
		_ = syscall.Kill(pid, syscall.SIGSTOP) // gone already is fine
		return poll(ctx, func() (bool, error) { return processState(pid) == "T" || !alive(pid), nil })
	}
	if err := still(p.pid); err != nil {
		return nil, fmt.Errorf("freeze %s: %w", p.name, err)
	}
	children := p.children()
	for _, pid := range children {
		if err := still(pid); err != nil {
			return children, fmt.Errorf("freeze %s: %w", p.name, err)
		}
	}
	return children, nil
}

// thaw lets the server and its children go on. The lock is held.
func (p *process) thaw() {
	for _, pid := range append(p.children(), p.pid) {
		_ = syscall.Kill(pid, syscall.SIGCONT) // gone already is fine
	}
}

func (p *process) children() []int {
	list, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", p.pid, p.pid))
	var children []int
	for field := range strings.FieldsSeq(string(list)) {
		if pid, err := strconv.Atoi(field); err == nil {
			children = append(children, pid)
		}
	}
	return children
}

// close ends the server for good and removes its folder.
func (p *process) close() error {
	return errors.Join(p.end(p.abandon), os.RemoveAll(p.dir))
}

func (p *process) logPath() string { return filepath.Join(p.dir, "server.log") }

// log is the end of what the server has written, for failure messages.
func (p *process) log() string {
	text, err := os.ReadFile(p.logPath())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4096):])
}

// alive reports whether a process runs; one that has ended and waits for its
// parent does not.
func alive(pid int) bool {
	switch processState(pid) {
	case "", "Z", "X":
		return false
	}
	return true
}

// processState is the letter that proc(5) gives a process, "" if there is none.
func processState(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return state[:min(1, len(state))]
}

// poll asks until done, an error, or the end of ctx.
func poll(ctx context.Context, done func() (bool, error)) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// freeAddress picks a free port of 127.0.0.1 below the range that outgoing
// connections draw from, so that it is still free when a stopped server comes
// back to it.
func freeAddress() (string, error) {
	const low, high = 20000, 32000
	var failure error
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", low+rand.IntN(high-low))
		listener, err := net.Listen("tcp", address)
		if err == nil {
			return address, listener.Close()
		}
		failure = err
	}
	return "", fmt.Errorf("find a free port: %w", failure)
}

// newDir makes a server's folder, owned by the user that it runs as.
func newDir(name string, credential *syscall.Credential) (string, error) {
	dir, err := os.MkdirTemp("", "streamhouse-"+name+"-")
	if err != nil {
		return "", err
	}
	if credential == nil {
		return dir, nil
	}
	return dir, os.Chown(dir, int(credential.Uid), int(credential.Gid))
}

// unprivileged is the user for servers that refuse to run as root; nil if the
// test does not run as root.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		account, err = user.Lookup("nobody")
	}
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}
