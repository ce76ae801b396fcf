package harness

import (
	"context"
	"errors"
	"fmt"
	"net/url"
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

// Stores are the URLs of what a cluster's agents share.
type Stores struct {
	Metadata string
	Objects  string
}

// FastStores are a fresh database and a fresh bucket on the test run's servers. They don't flush to disk: they show
// everything but durability and speed.
func FastStores(t testing.TB) Stores {
	t.Helper()
	database, err := url.Parse(testdb.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	query := database.Query()
	query.Set("allow_unsafe", "true") // agents refuse a server with fsync=off otherwise
	database.RawQuery = query.Encode()
	return Stores{Metadata: database.String(), Objects: testdb.S3(t)}
}

// DurableStores are a PostgreSQL that flushes to disk before it acknowledges, and an S3 server, both of this test
// alone.
func DurableStores(t testing.TB) Stores {
	t.Helper()
	return Stores{Metadata: testdb.StartPostgres(t).Database(), Objects: testdb.StartS3(t).Bucket()}
}

// Embedded starts an agent with its defaults on a data folder of its own. env holds further settings, as
// STREAMHOUSE_NAME=value. The agent is stopped with SIGTERM at the end of the test, which fails if that goes wrong; the
// log of a failed test is shown.
func Embedded(t testing.TB, env ...string) *Agent {
	t.Helper()
	agent := PrepareEmbedded(t, env...)
	start(t, agent)
	return agent
}

// PrepareEmbedded is Embedded but for the start.
func PrepareEmbedded(t testing.TB, env ...string) *Agent {
	t.Helper()
	return prepare(t, "embedded", env, "--data-dir", t.TempDir())
}

// Cluster starts n agents on these stores, all at once, and returns when each of them knows of all. Else it is like
// Embedded.
func Cluster(t testing.TB, stores Stores, n int, env ...string) []*Agent {
	t.Helper()
	agents := make([]*Agent, n)
	for i := range agents {
		agents[i] = prepare(t, fmt.Sprintf("a%d", i+1), env,
			"--metadata-url", stores.Metadata, "--object-url", stores.Objects)
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
	stopAfter(t, agent)
	return agent
}

// stopAfter has agents stopped at the end of the test, all at once.
func stopAfter(t testing.TB, agents ...*Agent) {
	t.Helper()
	t.Cleanup(func() {
		// The test's context has ended by now.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), stopTimeout)
		defer cancel()
		var stopping sync.WaitGroup
		for _, agent := range agents {
			if agent.process == nil {
				continue
			}
			stopping.Go(func() {
				if err := agent.Stop(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		stopping.Wait()
		for _, agent := range agents {
			if t.Failed() && agent.process != nil {
				t.Logf("log of agent %s:\n%s", agent.id, agent.LogTail())
			}
		}
	})
}

// start starts agents, all at once, and returns when each of them knows of all.
func start(t testing.TB, agents ...*Agent) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	launch(ctx, t, agents...)
	for _, agent := range agents {
		if err := agent.awaitPeers(ctx, len(agents)); err != nil {
			t.Fatal(err)
		}
	}
}

// launch starts agents, all at once.
func launch(ctx context.Context, t testing.TB, agents ...*Agent) {
	t.Helper()
	errs := make([]error, len(agents))
	var wg sync.WaitGroup
	for i, agent := range agents {
		wg.Go(func() { errs[i] = agent.Start(ctx) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// awaitPeers returns when the agent's Metadata lists n agents.
func (a *Agent) awaitPeers(ctx context.Context, n int) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(a.address), kgo.ClientID(NoZone))
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
