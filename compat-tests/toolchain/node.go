package toolchain

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Node is a Node.js with the packages of node/package-lock.json.
type Node struct {
	modules string
}

// NewNode returns the packages, after installing them if they are not cached. None of them runs or compiles anything
// when it is installed.
func NewNode(ctx context.Context) (Node, error) {
	source := filepath.Join(Root(), "node")
	dir, err := cached(ctx, "node", filepath.Join(source, "package-lock.json"), func(ctx context.Context, dir string) error {
		for _, name := range []string{"package.json", "package-lock.json"} {
			content, err := os.ReadFile(filepath.Join(source, name))
			if err != nil {
				return fmt.Errorf("read which packages are wanted: %w", err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
				return fmt.Errorf("write which packages are wanted: %w", err)
			}
		}
		return run(ctx, "npm", "ci", "--prefix", dir, "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
	})
	if err != nil {
		return Node{}, err
	}
	return Node{modules: filepath.Join(dir, "node_modules")}, nil
}

// Script returns the command that runs a file of JavaScript.
func (n Node) Script(ctx context.Context, file string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "node", append([]string{file}, args...)...)
	cmd.Env = append(os.Environ(), "NODE_PATH="+n.modules)
	return cmd
}
