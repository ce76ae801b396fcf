package harness

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/internal/testdb"
)

const (
	startTimeout = time.Minute
	stopTimeout  = time.Minute
)

// Embedded starts an agent with its defaults on a data folder of its own. env holds further settings, as
// STREAMHOUSE_NAME=value. The agent is stopped with SIGTERM at the end of the test, which fails if that goes wrong; the
// log of a failed test is shown.
func Embedded(t testing.TB, env ...string) *Agent {
	t.Helper()
	agent := prepare(t, "embedded", env, "--data-dir", t.TempDir())
	start(t, agent)
	return agent
}

// Cluster starts n agents on one fresh database and one fresh bucket, all at once, and returns when each of them knows
// of all. Else it is like Embedded.
func Cluster(t testing.TB, n int, env ...string) []*Agent {
	t.Helper()
	metadata, objects := testdb.Postgres(t), testdb.S3(t)
	agents := make([]*Agent, n)
	for i := range agents {
		agents[i] = prepare(t, fmt.Sprintf("a%d", i+1), env, "--metadata-url", metadata, "--object-url", objects)
	}
	start(t, agents...)
	return agents
}

// prepare makes an agent, fit to be started, that cleans up after itself.
func prepare(t testing.TB, id string, env []string, flags ...string) *Agent {
	t.Helper()
	agent, err := newAgent(id, t.TempDir(), env, flags)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if agent.process == nil {
			return
		}
		// The test's context has ended by now.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), stopTimeout)
		defer cancel()
		if err := agent.Stop(ctx); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of agent %s:\n%s", id, agent.LogTail())
		}
	})
	return agent
}

func start(t testing.TB, agents ...*Agent) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	errs := make([]error, len(agents))
	var wg sync.WaitGroup
	for i, agent := range agents {
		wg.Go(func() { errs[i] = agent.Start(ctx) })
	}
	wg.Wait()
	for i, agent := range agents {
		if errs[i] == nil {
			errs[i] = agent.awaitPeers(ctx, len(agents))
		}
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// awaitPeers returns when the agent's Metadata lists n agents.
func (a *Agent) awaitPeers(ctx context.Context, n int) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(a.address))
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	defer client.Close()
	return a.process.Await(ctx, func(ctx context.Context) error {
		brokers, err := kadm.NewClient(client).ListBrokers(ctx)
		if err != nil {
			return fmt.Errorf("list agents: %w", err)
		}
		if len(brokers) != n {
			return fmt.Errorf("agent %s lists %d agents, want %d", a.id, len(brokers), n)
		}
		return nil
	})
}
