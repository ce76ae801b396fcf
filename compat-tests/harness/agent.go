package harness

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/streamhouse/streamhouse/compat-tests/process"
	"github.com/streamhouse/streamhouse/compat-tests/toolchain"
)

// Binary returns the path of the agent binary to test: what STREAMHOUSE_BIN says, else a build of this repository's
// cmd/streamhouse, made once a process.
func Binary() (string, error) {
	if path := os.Getenv("STREAMHOUSE_BIN"); path != "" {
		return path, nil
	}
	return build()
}

var build = sync.OnceValues(func() (string, error) {
	repository := filepath.Dir(toolchain.Root())
	binary := filepath.Join(repository, ".cache", "bin", "compat-streamhouse")
	cmd := exec.Command("go", "build", "-o", binary, "./cmd/streamhouse")
	cmd.Dir = repository
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the agent: %w\n%s", err, out)
	}
	return binary, nil
})

// Agent is a streamhouse agent. It keeps its addresses over Kill and Start. Its methods are not for concurrent use.
type Agent struct {
	binary  string
	id      string
	dir     string   // its log's
	flags   []string // those of its deployment
	env     []string
	address string
	admin   string
	process *process.Process
}

// newAgent returns an agent that Start starts; env is added to the environment.
func newAgent(id, dir string, env, flags []string) (*Agent, error) {
	binary, err := Binary()
	if err != nil {
		return nil, err
	}
	address, err := process.FreeAddress()
	if err != nil {
		return nil, err
	}
	admin, err := process.FreeAddress()
	if err != nil {
		return nil, err
	}
	return &Agent{binary: binary, id: id, dir: dir, flags: flags, env: env, address: address, admin: admin}, nil
}

// ID is its agent_id.
func (a *Agent) ID() string { return a.id }

// Address is host:port of the Kafka listener.
func (a *Agent) Address() string { return a.address }

// AdminAddress is host:port of the listener for metrics, health and profiles.
func (a *Agent) AdminAddress() string { return a.admin }

// PID is the process id of the running agent, by which a benchmark reads its CPU time and memory.
func (a *Agent) PID() int { return a.process.PID() }

// Start starts the agent and returns when /readyz answers 200.
func (a *Agent) Start(ctx context.Context) error {
	if err := a.Launch(ctx); err != nil {
		return err
	}
	if err := a.process.Await(ctx, a.ready); err != nil {
		return errors.Join(err, a.process.Kill())
	}
	return nil
}

// Launch starts the agent's process and returns before it serves anyone.
func (a *Agent) Launch(ctx context.Context) error {
	args := append([]string{"agent", "--agent-id", a.id, "--address", a.address, "--admin-address", a.admin}, a.flags...)
	// The agent lives until Stop or Kill, not until ctx ends.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), a.binary, args...)
	cmd.Env = append(foreignEnvironment(), a.env...)
	p, err := process.Start("agent "+a.id, cmd, a.LogPath())
	if err != nil {
		return err
	}
	a.process = p
	return nil
}

// foreignEnvironment is this process's environment without STREAMHOUSE_ variables: those configure the tests, and would
// configure the agent too.
func foreignEnvironment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "STREAMHOUSE_") })
}

func (a *Agent) ready(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.admin+"/readyz", nil)
	if err != nil {
		return fmt.Errorf("ask for readiness: %w", err)
	}
	request.Close = true // no idle connection stays behind
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask for readiness: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("ask for readiness: %s", response.Status)
	}
	return nil
}

// Stop ends the agent with SIGTERM and waits for it; an exit status other than zero is an error.
func (a *Agent) Stop(ctx context.Context) error { return a.process.Stop(ctx) }

// Kill ends the agent with SIGKILL.
func (a *Agent) Kill() error { return a.process.Kill() }

// Exited returns nil while the agent runs, and how it ended afterwards.
func (a *Agent) Exited() error { return a.process.Exited() }

// LogPath is the file that the agent logs to, over all its runs. It goes with the test.
func (a *Agent) LogPath() string { return filepath.Join(a.dir, a.id+".log") }

// LogTail returns the end of the agent's log, over all its runs.
func (a *Agent) LogTail() string { return a.process.LogTail() }
