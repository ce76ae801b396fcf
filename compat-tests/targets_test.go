package compattests

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/compat-tests/apachekafka"
	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/compat-tests/report"
	"github.com/streamhouse/streamhouse/compat-tests/toolchain"
)

// TestMain writes the report of the run to the file that COMPAT_REPORT names. Without, what was noted on the default
// targets must be what the last whole run noted.
func TestMain(m *testing.M) {
	// What runs in parallel here are other programs, which wait for each other most of the time: more than there are
	// cores can be at work.
	const parallel = "10"
	flag.Parse()
	if err := flag.Set("test.parallel", parallel); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := finish(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
		os.Exit(code)
	}))
}

// finish does with the report what TestMain says.
func finish() error {
	noted := report.Noted()
	if path := os.Getenv("COMPAT_REPORT"); path != "" {
		return report.Write(path, noted)
	}
	if os.Getenv("COMPAT_TARGET") != "" {
		return nil
	}
	last, err := report.Last()
	if err != nil {
		return err
	}
	return last.Covers(noted)
}

// slow says whether tests that take minutes are wanted: they are, with COMPAT_ALL=1. A test that is not wanted returns
// at once.
func slow(t *testing.T) bool {
	t.Helper()
	all := os.Getenv("COMPAT_ALL") == "1"
	if !all {
		t.Log("runs with COMPAT_ALL=1 (make compat-all)")
	}
	return all
}

// A node is one broker of a target, that can be stopped or killed and started again at the same address.
type node interface {
	Address() string
	// Start returns when the node serves clients.
	Start(ctx context.Context) error
	// Stop ends it with SIGTERM.
	Stop(ctx context.Context) error
	// Kill ends it with SIGKILL.
	Kill() error
}

// A target is a set of brokers to test, all running.
type target struct {
	name  string
	nodes []node
}

func (t target) bootstrap() []string {
	var addresses []string
	for _, n := range t.nodes {
		addresses = append(addresses, n.Address())
	}
	return addresses
}

// shortLeases let partitions move soon after an agent was killed.
var shortLeases = []string{"STREAMHOUSE_LEASE_DURATION=5s", "STREAMHOUSE_HEARTBEAT_INTERVAL=2s"}

// targets are the ways to start a target. Each ends with its test. A cluster has the given stores.
var targets = map[string]func(*testing.T, makeStores) target{
	"embedded": func(t *testing.T, _ makeStores) target {
		return target{nodes: []node{harness.Embedded(t, shortLeases...)}}
	},
	"cluster": func(t *testing.T, stores makeStores) target {
		var nodes []node
		for _, agent := range harness.Cluster(t, stores(t), 2, shortLeases...) {
			nodes = append(nodes, agent)
		}
		return target{nodes: nodes}
	},
	"apachekafka": func(t *testing.T, _ makeStores) target {
		return target{nodes: []node{apachekafka.Run(t)}}
	},
}

// makeStores is harness.FastStores or harness.DurableStores.
type makeStores func(testing.TB) harness.Stores

// forEachTarget runs a test on each target that COMPAT_TARGET names.
func forEachTarget(t *testing.T, stores makeStores, test func(*testing.T, target)) {
	t.Helper()
	names := os.Getenv("COMPAT_TARGET")
	if names == "" {
		names = "embedded,cluster"
	}
	for name := range strings.SplitSeq(names, ",") {
		start, ok := targets[name]
		if !ok {
			t.Fatalf("COMPAT_TARGET: unknown target %q", name)
		}
		t.Run(name, func(t *testing.T) {
			target := start(t, stores)
			target.name = name
			test(t, target)
		})
	}
}

func java(t *testing.T) toolchain.Java {
	t.Helper()
	j, err := toolchain.NewJava(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// deadline returns the test's context, cut off after d.
func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// afterTest returns a context for what a cleanup does: the test's own has ended by then.
func afterTest(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), d)
	t.Cleanup(cancel)
	return ctx
}

// seed is what makes test data and random moments; COMPAT_SEED sets it. It is logged, so that a failure can be had
// again.
func seed(t *testing.T) uint64 {
	t.Helper()
	return uint64(environmentInt(t, "COMPAT_SEED", 1))
}

func environmentInt(t *testing.T, name string, byDefault int) int {
	t.Helper()
	n := byDefault
	if s := os.Getenv(name); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	t.Logf("%s=%d", name, n)
	return n
}
