package toolchain

import (
	"context"
	"os/exec"
	"path/filepath"
)

// Python is a virtual environment with the packages of python/requirements.txt.
type Python struct {
	interpreter string
}

// NewPython returns the environment, after installing it if it is not cached.
func NewPython(ctx context.Context) (Python, error) {
	requirements := filepath.Join(Root(), "python", "requirements.txt")
	dir, err := cached(ctx, "python", requirements, func(ctx context.Context, dir string) error {
		if err := run(ctx, "python3", "-m", "venv", "--clear", filepath.Join(dir, "venv")); err != nil {
			return err
		}
		return run(ctx, filepath.Join(dir, "venv", "bin", "pip"), "install", "--quiet", "--requirement", requirements)
	})
	if err != nil {
		return Python{}, err
	}
	return Python{interpreter: filepath.Join(dir, "venv", "bin", "python")}, nil
}

// Script returns the command that runs a Python file.
func (p Python) Script(ctx context.Context, file string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, p.interpreter, append([]string{file}, args...)...)
}
