package compattests

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// growingFile is a text file to which numbered lines are written until finish, beside the one to which a sink copies
// them.
type growingFile struct {
	textFile
	lines   atomic.Int64 // so many are written
	stop    context.CancelFunc
	writing sync.WaitGroup
	failed  error // of the writer; valid when it has ended
}

// growFile starts a file that grows until the end of the test, or finish.
func growFile(t *testing.T, path string) *growingFile {
	t.Helper()
	f := &growingFile{textFile: *newTextFile(t, path)}
	ctx, stop := context.WithCancel(t.Context())
	f.stop = stop
	f.writing.Go(func() { f.failed = f.grow(ctx) })
	t.Cleanup(func() {
		stop()
		f.writing.Wait()
	})
	return f
}

// grow writes a few lines at a time until ctx ends.
func (f *growingFile) grow(ctx context.Context) error {
	const burst = 5
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		var text strings.Builder
		for range burst {
			text.WriteString(line(int(f.lines.Add(1))) + "\n")
		}
		if err := f.append(text.String()); err != nil {
			return err
		}
	}
}

// written is the number of the last line that is written.
func (f *growingFile) written() int { return int(f.lines.Load()) }

func line(number int) string { return fmt.Sprintf("line %d of a file that grows", number) }

// awaitArrival returns when a line with at least this number is in the copy.
func (f *growingFile) awaitArrival(ctx context.Context, t *testing.T, number int, after string) {
	t.Helper()
	eventually(ctx, t, func() error {
		copied, err := f.copied()
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(copied, func(n int) bool { return n >= number }) {
			return fmt.Errorf("after %s: no line from %d on is among %d in %s", after, number, len(copied), f.sink())
		}
		return nil
	})
}

// copied are the numbers of the lines in the copy.
func (f *growingFile) copied() ([]int, error) {
	lines, err := completeLines(f.sink())
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	numbers := make([]int, len(lines))
	for i, l := range lines {
		number, _, _ := strings.Cut(strings.TrimPrefix(l, "line "), " ")
		if numbers[i], err = strconv.Atoi(number); err != nil || l != line(numbers[i]) {
			return nil, fmt.Errorf("%s: line %d is %q, which nobody wrote", f.sink(), i+1, l)
		}
	}
	return numbers, nil
}

// finish ends the writer and demands that every line arrives; in order, if they must, when they come for the first
// time.
func (f *growingFile) finish(ctx context.Context, t *testing.T, ordered bool) {
	t.Helper()
	f.stop()
	f.writing.Wait()
	if f.failed != nil {
		t.Fatal(f.failed)
	}
	var copied []int
	eventually(ctx, t, func() (err error) {
		if copied, err = f.copied(); err != nil {
			return err
		}
		return f.missing(copied)
	})
	last := 0
	for i, n := range copied {
		if ordered && n > last+1 {
			t.Fatalf("%s: line %d is number %d and comes before number %d", f.sink(), i+1, n, last+1)
		}
		last = max(last, n)
	}
	t.Logf("%s: %d lines, %d of them again", f.sink(), f.written(), len(copied)-f.written())
}

// missing returns an error if some of the lines that were written are not in the copy.
func (f *growingFile) missing(copied []int) error {
	seen := make(map[int]bool)
	for _, n := range copied {
		seen[n] = true
	}
	var absent []int
	for n := range f.written() {
		if !seen[n+1] {
			absent = append(absent, n+1)
		}
	}
	if len(absent) > 0 {
		return fmt.Errorf("%s: %d of %d lines are missing, from number %d to %d", f.sink(), len(absent), f.written(), absent[0], absent[len(absent)-1])
	}
	return nil
}
