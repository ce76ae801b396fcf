package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/streamhouse/streamhouse/compat-tests/toolchain"
)

// ErrNoHistory tells that the repository was cloned without an older commit.
var ErrNoHistory = errors.New("the commit is not in this clone")

// OlderBinary builds the agent as it was at a commit, and returns the binary's path.
func OlderBinary(ctx context.Context, commit string) (string, error) {
	repository := filepath.Dir(toolchain.Root())
	binary := filepath.Join(repository, ".cache", "bin", "streamhouse-"+commit[:7])
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	if exec.CommandContext(ctx, "git", "-C", repository, "cat-file", "-e", commit+"^{commit}").Run() != nil {
		return "", fmt.Errorf("%s: %w", commit, ErrNoHistory)
	}
	source, err := os.MkdirTemp("", "streamhouse-older-")
	if err != nil {
		return "", fmt.Errorf("make a folder for the older source: %w", err)
	}
	defer os.RemoveAll(source)
	archive := filepath.Join(source, "source.tar")
	for _, cmd := range []*exec.Cmd{
		exec.CommandContext(ctx, "git", "-C", repository, "archive", "-o", archive, commit),
		exec.CommandContext(ctx, "tar", "-C", source, "-xf", archive),
		exec.CommandContext(ctx, "go", "build", "-C", source, "-buildvcs=false", "-o", binary, "./cmd/streamhouse"),
	} {
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %w\n%s", cmd, err, out)
		}
	}
	return binary, nil
}

// ClockShift is the variable that has an agent of ClockBinary see another time than there is: a duration of whole
// seconds that is added to each look at the clock. Timers, and what is measured between two looks, are as ever.
const ClockShift = "CLOCK_SHIFT"

// ClockBinary builds the agent with a standard library that knows ClockShift, and returns the binary's path.
func ClockBinary(ctx context.Context) (string, error) {
	const (
		look    = "	sec, nsec, mono := runtimeNow()\n"
		now     = "func Now() Time {\n" + look
		shifted = now + "	sec += clockShift\n"
		shift   = `package time

import "syscall"

var clockShift = func() int64 {
	text, _ := syscall.Getenv("` + ClockShift + `")
	shift, _ := ParseDuration(text)
	return int64(shift / Second)
}()
`
	)
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find the standard library: %w", err)
	}
	library := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	original, err := os.ReadFile(filepath.Join(library, "time.go"))
	if err != nil {
		return "", fmt.Errorf("read the standard library: %w", err)
	}
	if strings.Count(string(original), now) != 1 {
		return "", errors.New("time.Now is not what it was: see how this version of Go looks at the clock")
	}
	dir, err := os.MkdirTemp("", "streamhouse-clock-")
	if err != nil {
		return "", fmt.Errorf("make a folder for the changed library: %w", err)
	}
	defer os.RemoveAll(dir)
	files := map[string]string{"time.go": strings.Replace(string(original), now, shifted, 1), "clockshift.go": shift}
	overlay := struct{ Replace map[string]string }{make(map[string]string)}
	for name, text := range files {
		changed := filepath.Join(dir, name)
		if err := os.WriteFile(changed, []byte(text), 0o644); err != nil {
			return "", fmt.Errorf("change the library: %w", err)
		}
		overlay.Replace[filepath.Join(library, name)] = changed
	}
	list, err := json.Marshal(overlay)
	if err != nil {
		return "", fmt.Errorf("list what is changed: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), list, 0o644); err != nil {
		return "", fmt.Errorf("list what is changed: %w", err)
	}
	repository := filepath.Dir(toolchain.Root())
	binary := filepath.Join(repository, ".cache", "bin", "streamhouse-clock")
	build := exec.CommandContext(ctx, "go", "build", "-C", repository, "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, "./cmd/streamhouse")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", build, err, out)
	}
	return binary, nil
}
