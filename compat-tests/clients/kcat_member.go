package clients

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/streamhouse/streamhouse/compat-tests/scenario"
)

// ErrCommitsItself is the ErrUnsupported of a member that commits what it returned when it gives partitions up or
// leaves, and can't be told to.
var ErrCommitsItself = fmt.Errorf("it commits by itself only: %w", ErrUnsupported)

// Join runs kcat -G until the member leaves.
func (k *Kcat) Join(ctx context.Context, topic, group string) (Member, error) {
	// The member lives until Leave, not until ctx ends.
	lifetime, cancel := context.WithCancel(context.WithoutCancel(ctx))
	m := &kcatMember{inbox: newInbox(), cancel: cancel, cmd: k.command(context.WithoutCancel(ctx), slices.Concat(consumeOptions, []string{
		"-u", // unbuffered
		"-X", "auto.offset.reset=earliest",
		"-X", fmt.Sprintf("session.timeout.ms=%d", sessionTimeout.Milliseconds()),
		"-X", fmt.Sprintf("heartbeat.interval.ms=%d", heartbeatInterval.Milliseconds()),
		"-G", group, topic,
	})...)}
	// kcat commits all that it prints: so nothing of it is stale, whatever happened to its partition meanwhile.
	var all []int32
	for p := range int32(scenario.Partitions) {
		all = append(all, p)
	}
	m.assign(all...)
	stdout, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("connect kcat: %w", err)
	}
	stderr, err := m.cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("connect kcat: %w", err)
	}
	if err := m.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start kcat: %w", err)
	}
	m.done.Go(func() { m.readRecords(lifetime, stdout) })
	m.done.Go(func() { m.readMessages(stderr) })
	return m, nil
}

// kcatMember is a running kcat -G.
type kcatMember struct {
	*inbox
	cmd    *exec.Cmd
	cancel context.CancelFunc // drops what was printed and not polled
	done   sync.WaitGroup

	lock     sync.Mutex
	assigned []int32
}

// readRecords gives the inbox what kcat prints, until it ends.
func (m *kcatMember) readRecords(ctx context.Context, stdout io.Reader) {
	scanner := bufio.NewScanner(stdout)
	scanner.Buffer(nil, 2*scenario.MaxMessageBytes)
	scanner.Split(splitRecords)
	for scanner.Scan() {
		records, err := parse(scanner.Bytes())
		if err != nil {
			m.fail(err)
			continue
		}
		for _, r := range records {
			m.put(ctx, m.claimOf(r.Partition), r)
		}
	}
	if err := scanner.Err(); err != nil {
		m.fail(err)
	}
}

// splitRecords is a bufio.SplitFunc for consumeOptions. The delimiter stays with its record.
func splitRecords(data []byte, _ bool) (advance int, token []byte, err error) {
	i := bytes.Index(data, []byte(recordDelimiter))
	if i < 0 {
		return 0, nil, nil
	}
	n := i + len(recordDelimiter)
	return n, bytes.Clone(data[:n]), nil
}

// readMessages follows what kcat tells about rebalances, until it ends.
func (m *kcatMember) readMessages(stderr io.Reader) {
	for scanner := bufio.NewScanner(stderr); scanner.Scan(); {
		if assigned, ok := parseRebalance(scanner.Text()); ok {
			m.lock.Lock()
			m.assigned = assigned
			m.lock.Unlock()
		}
	}
}

// parseRebalance reads "% Group g rebalanced (memberid m): assigned: topic [0], topic [1]", or "revoked: " and what was.
func parseRebalance(line string) (assigned []int32, ok bool) {
	_, change, ok := strings.Cut(line, "): ")
	if !ok || !strings.HasPrefix(line, "% Group ") {
		return nil, false
	}
	list, ok := strings.CutPrefix(change, "assigned: ")
	if !ok {
		return nil, strings.HasPrefix(change, "revoked: ")
	}
	for field := range strings.SplitSeq(list, ", ") {
		_, number, _ := strings.Cut(field, "[")
		if p, err := strconv.ParseInt(strings.TrimSuffix(number, "]"), 10, 32); err == nil {
			assigned = append(assigned, int32(p))
		}
	}
	return assigned, true
}

func (m *kcatMember) Assignment(context.Context) ([]int32, error) {
	m.lock.Lock()
	defer m.lock.Unlock()
	return slices.Sorted(slices.Values(m.assigned)), m.broken()
}

// Commit: see ErrCommitsItself.
func (m *kcatMember) Commit(context.Context) error { return ErrCommitsItself }

func (m *kcatMember) Seek(context.Context, int32, int64) error { return ErrUnsupported }

func (m *kcatMember) Pause(context.Context, int32) error { return ErrUnsupported }

func (m *kcatMember) Resume(context.Context, int32) error { return ErrUnsupported }

// Leave ends kcat, which commits what it has printed.
func (m *kcatMember) Leave(ctx context.Context) error {
	m.cancel()
	err := m.cmd.Process.Signal(syscall.SIGTERM)
	stop := context.AfterFunc(ctx, func() { _ = m.cmd.Process.Kill() }) // as Wait will tell
	defer stop()
	m.done.Wait()
	if err := errors.Join(err, m.cmd.Wait()); err != nil {
		return fmt.Errorf("end kcat: %w", err)
	}
	return nil
}
