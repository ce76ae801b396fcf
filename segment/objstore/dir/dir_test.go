package dir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/streamhouse/streamhouse/segment/objstore"
	"github.com/streamhouse/streamhouse/segment/objstore/objstoretest"
)

func newStore(t testing.TB, name string) *Store {
	t.Helper()
	s, err := Open(name)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func TestConformance(t *testing.T) {
	objstoretest.Run(t, func(t *testing.T) objstore.Store { return newStore(t, filepath.Join(t.TempDir(), "a", "b")) })
}

// keys lists all objects.
func keys(t *testing.T, s *Store) []string {
	t.Helper()
	var got []string
	for info, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		got = append(got, info.Key)
	}
	return got
}

// leftovers are the files in .tmp but for the lock.
func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, tmpDir))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != filepath.Base(lockFile) {
			names = append(names, e.Name())
		}
	}
	return names
}

const crashVariable = "STREAMHOUSE_TEST_CRASH_DIR"

// TestCrashBeforeLink ends a process between the write and the link of a Put.
// Nothing of it is visible afterwards, the key is free, and what it left is
// removed by the next process that has the directory to itself.
func TestCrashBeforeLink(t *testing.T) {
	if dir := os.Getenv(crashVariable); dir != "" {
		crashBeforeLink(t, dir)
	}
	dir := t.TempDir()
	crash := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrashBeforeLink$")
	crash.Env = append(os.Environ(), crashVariable+"="+dir)
	out, err := crash.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("the process was to be killed, but: %v\n%s", err, out)
	}
	if got := leftovers(t, dir); len(got) != 1 {
		t.Fatalf("the crash left %q, want one file: it did not happen where it should", got)
	}

	s := newStore(t, dir)
	if got := leftovers(t, dir); len(got) != 0 {
		t.Errorf("Open left %q", got)
	}
	if got := keys(t, s); len(got) != 1 || got[0] != "f/before" {
		t.Errorf("after the crash there is %q, want f/before", got)
	}
	if err := s.Put(t.Context(), "f/during", []byte("again")); err != nil {
		t.Errorf("Put of the key that the crash took: %v", err)
	}
}

// crashBeforeLink runs in a process of its own and does not return.
func crashBeforeLink(t *testing.T, dir string) {
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "f/before", []byte("whole")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.writeTemporary([]byte("torn")); err != nil {
		t.Fatal(err)
	}
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Kill(); err != nil {
		t.Fatal(err)
	}
	select {} // until the signal arrives
}

func TestOpenLeavesOthersTemporaryFilesAlone(t *testing.T) {
	dir := t.TempDir()
	first := newStore(t, dir)
	tmp, err := first.writeTemporary([]byte("under way"))
	if err != nil {
		t.Fatal(err)
	}
	second := newStore(t, dir)
	if err := first.publish(tmp, "k"); err != nil {
		t.Fatalf("publish after another Open: %v", err)
	}
	if got, err := second.Get(t.Context(), "k", 0, -1); err != nil || string(got) != "under way" {
		t.Errorf("Get by the other: %q, %v", got, err)
	}
	if err := errors.Join(first.Close(), second.Close()); err != nil {
		t.Fatal(err)
	}
	newStore(t, dir)
	if got := leftovers(t, dir); len(got) != 0 {
		t.Errorf("Open by the only one left %q", got)
	}
}

func TestPutLeavesNoTemporaryFile(t *testing.T) {
	dir := t.TempDir()
	s := newStore(t, dir)
	for range 2 {
		err := s.Put(t.Context(), "k", []byte("x"))
		if err != nil && !errors.Is(err, objstore.ErrExists) {
			t.Fatal(err)
		}
	}
	if got := leftovers(t, dir); len(got) != 0 {
		t.Errorf("Put left %q", got)
	}
}

func TestFolderRemovedBehindTheStore(t *testing.T) {
	dir := t.TempDir()
	s := newStore(t, dir)
	if err := s.Put(t.Context(), "f/1", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "f")); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "f/2", []byte("x")); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("first Put: got %v, want ErrUnavailable", err)
	}
	if err := s.Put(t.Context(), "f/2", []byte("x")); err != nil {
		t.Errorf("second Put: %v", err)
	}
}

func TestSymbolicLinksDoNotEscape(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	s := newStore(t, dir)
	if got, err := s.Get(t.Context(), "out/secret", 0, -1); err == nil {
		t.Errorf("read %q from outside the directory", got)
	}
}

func TestOpenFailsWithAdvice(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{file, filepath.Join(file, "below")} {
		_, err := Open(name)
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "must be a directory") {
			t.Errorf("Open %s: got %v, want an error that names it and says what to do", name, err)
		}
	}
}

func TestClosedStoreFails(t *testing.T) {
	s := newStore(t, t.TempDir())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "k", []byte("x")); err == nil || errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("Put: got %v, want an error that is not retriable", err)
	}
}

func BenchmarkPut(b *testing.B) {
	for _, size := range []int{16 << 10, 1 << 20, 8 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			s := newStore(b, b.TempDir())
			body := bytes.Repeat([]byte{1, 2, 3, 4}, size/4)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if err := s.Put(context.Background(), fmt.Sprintf("%02x/%d", i%256, i), body); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}
