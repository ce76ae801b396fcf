package main

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/internal/testdb"
)

// testTimeout bounds whatever a test waits for.
const testTimeout = 60 * time.Second

// stores is where agents of a test keep what they know.
type stores struct{ metadata, objects string }

// embeddedStores are those of an agent that nobody has configured.
func embeddedStores(t testing.TB) stores {
	dir := t.TempDir()
	return stores{metadata: "sqlite://" + dir + "/metadata.db", objects: "file://" + dir + "/objects"}
}

// sharedStores are a database and a bucket that several agents may share.
func sharedStores(t testing.TB) stores {
	t.Helper()
	return stores{metadata: unsafe(testdb.Postgres(t)), objects: testdb.S3(t)}
}

// unsafe is the URL of a database whose server runs with fsync off.
func unsafe(database string) string { return database + "&allow_unsafe=true" }

// bothStores runs a test against agents on either kind of stores.
func bothStores(t *testing.T, test func(t *testing.T, s stores)) {
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		test(t, embeddedStores(t))
	})
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		test(t, sharedStores(t))
	})
}

// testAgent is a whole agent in this process.
type testAgent struct {
	*service
	t     testing.TB
	addr  string
	stop  context.CancelFunc // drains
	ended chan struct{}      // closed when run has returned
}

// startAgent runs an agent that ends with its test. Its own log is the test's.
func startAgent(t testing.TB, s stores, change ...func(*Settings)) *testAgent {
	t.Helper()
	settings := defaultSettings()
	settings.AgentID = "agent"
	settings.Address, settings.AdminAddress = "127.0.0.1:0", "127.0.0.1:0"
	settings.MetadataURL, settings.ObjectURL = s.metadata, s.objects
	settings.ShutdownTimeout = 10 * time.Second
	for _, c := range change {
		c(settings)
	}
	if err := settings.resolve(); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil)).With("agent", settings.AgentID)
	n, err := build(t.Context(), settings, log, new(slog.LevelVar))
	if err != nil {
		t.Fatalf("start agent %s: %v", settings.AgentID, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	a := &testAgent{service: n, t: t, addr: n.kafka.Addr().String(), stop: stop, ended: make(chan struct{})}
	go func() {
		defer close(a.ended)
		if err := n.run(ctx); err != nil {
			t.Errorf("agent %s ended: %v", settings.AgentID, err)
		}
	}()
	t.Cleanup(a.end)
	return a
}

// end drains the agent and waits for its end.
func (a *testAgent) end() {
	a.t.Helper()
	a.stop()
	select {
	case <-a.ended:
	case <-time.After(testTimeout):
		a.t.Errorf("agent %s did not end", a.settings.AgentID)
	}
}

// named gives an agent its id.
func named(id string) func(*Settings) { return func(s *Settings) { s.AgentID = id } }

// hasty makes leases so short that a test can wait for their end.
func hasty(s *Settings) {
	s.LeaseDuration, s.HeartbeatInterval = 2*time.Second, 500*time.Millisecond
	s.TopologyInterval = 500 * time.Millisecond
	s.ShutdownTimeout = time.Second
}

// isolated is an agent whose stores can be cut off: for everybody else it is as
// good as killed.
type isolated struct {
	*testAgent
	database, bucket *testdb.Proxy
}

// startIsolated starts an agent on shared stores behind proxies of its own.
func startIsolated(t testing.TB, s stores, change ...func(*Settings)) *isolated {
	t.Helper()
	database, bucket := testdb.NewProxy(t, s.metadata), testdb.NewProxy(t, s.objects)
	a := startAgent(t, stores{metadata: database.URL(), objects: bucket.URL()}, change...)
	return &isolated{testAgent: a, database: database, bucket: bucket}
}

// kill cuts the agent off, so that it can neither write nor say goodbye, and
// ends it.
func (a *isolated) kill() {
	for _, p := range []*testdb.Proxy{a.database, a.bucket} {
		p.Refuse(true)
		p.CloseAll()
	}
	a.end()
}

// eventually calls done, which waits for nothing itself, until it is true: for
// what has no event to wait for.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.After(testTimeout)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("timed out: %s", what)
		case <-tick.C:
		}
	}
}
