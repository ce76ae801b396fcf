// Package toolchain provides the programs that the tests need and that are not ours: jars of Apache Kafka, and Python and
// Node with clients. They come from Maven Central, PyPI and npm the first time and from the repository's .cache folder
// afterwards. A file lock makes concurrent test processes wait for one download instead of racing.
package toolchain

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
)

// Root is the absolute path of the compat-tests module.
func Root() string {
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		panic("toolchain: no caller information, built with -trimpath?")
	}
	return filepath.Dir(filepath.Dir(file))
}

// cached returns the folder of the given name that recipe fills. The folder's full name carries a digest of the file
// that says what is in it (a pom, a list of requirements): when that changes, it is filled anew under another name.
func cached(ctx context.Context, name, spec string, recipe func(ctx context.Context, dir string) error) (string, error) {
	content, err := os.ReadFile(spec)
	if err != nil {
		return "", fmt.Errorf("read what %s consists of: %w", name, err)
	}
	digest := sha256.Sum256(content)
	dir := filepath.Join(filepath.Dir(Root()), ".cache", name+"-"+hex.EncodeToString(digest[:4]))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the cache of %s: %w", name, err)
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return "", fmt.Errorf("lock the cache of %s: %w", name, err)
	}
	defer unlock()
	complete := filepath.Join(dir, "complete")
	if _, err := os.Stat(complete); err == nil {
		return dir, nil
	}
	if err := recipe(ctx, dir); err != nil {
		return "", fmt.Errorf("fetch %s: %w", name, err)
	}
	if err := os.WriteFile(complete, nil, 0o644); err != nil {
		return "", fmt.Errorf("mark the cache of %s as complete: %w", name, err)
	}
	return dir, nil
}

func lock(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}

func run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}
