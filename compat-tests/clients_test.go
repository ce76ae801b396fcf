package compattests

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/clients"
	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/compat-tests/report"
	"github.com/streamhouse/streamhouse/compat-tests/scenario"
)

// clientTimeout bounds one feature of one client, while all others are at work.
const clientTimeout = 3 * time.Minute

// The features that every client shows, by the names under which docs/COMPATIBILITY.md has them.
const (
	featureRecords      = "records with headers and timestamps, " // and the codec
	featureIdempotent   = "idempotent producer"
	featureCreation     = "topic created by its first record"
	featureOffsets      = "offsets by timestamp"
	featureSeekTime     = "seek by timestamp"
	featureResume       = "group: commit, restart, resume"
	featureRestart      = "group: restart without a commit"
	featureRebalance    = "group: rebalance in the middle"
	featureSeek         = "group: seek"
	featurePause        = "group: pause and resume"
	featureTopics       = "admin: topics"
	featureConfigs      = "admin: configs"
	featurePartitions   = "admin: partitions"
	featureGroups       = "admin: groups"
	featureOtherClients = "records of all other clients"
	featureKill         = "a broker is killed underneath"
	featureRolling      = "brokers are restarted underneath"
)

// startClient makes one client of a target. What the client's program logs goes to a file in dir; the program ends with
// ctx at the latest.
type startClient func(ctx context.Context, bootstrap []string, dir string) (clients.Client, error)

// clientKinds are all clients under test, by their names.
var clientKinds = map[string]startClient{
	"aiokafka":     clients.NewAiokafka,
	"franz-go":     inProcess(clients.NewFranz),
	"java":         clients.NewJava,
	"java-2":       clients.NewOldJava,
	"kafka-go":     inProcess(clients.NewKafkaGo),
	"kafka-python": clients.NewKafkaPython,
	"kafkajs":      clients.NewKafkaJS,
	"kcat":         inProcess(clients.NewKcat),
	"librdkafka":   clients.NewLibrdkafka,
	"sarama":       inProcess(clients.NewSarama),
	"sarama-2.8":   inProcess(clients.NewOldSarama),
}

// inProcess is for clients that need nothing but an address.
func inProcess[C clients.Client](construct func(bootstrap []string) C) startClient {
	return func(_ context.Context, bootstrap []string, _ string) (clients.Client, error) {
		return construct(bootstrap), nil
	}
}

// TestClients has each client write every kind of record in every codec, read it back byte for byte, look offsets up,
// seek, be a group, and administrate; then each client reads what the others wrote.
func TestClients(t *testing.T) {
	forEachTarget(t, harness.FastStores, func(t *testing.T, target target) {
		names := slices.Sorted(maps.Keys(clientKinds))
		runs := make([]*clientRun, len(names))
		seed, dir := seed(t), t.TempDir()
		for i, name := range names {
			runs[i] = &clientRun{target: target, seed: seed, topic: "compat-" + name}
			t.Cleanup(func() {
				if err := runs[i].end(); err != nil {
					t.Error(err)
				}
			})
		}
		// The clients work in parallel; Run returns when all of them are done.
		t.Run("own", func(t *testing.T) {
			for i, name := range names {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					runs[i].start(t, clientKinds[name], dir)
					runs[i].records(t)
					runs[i].groups(t)
					runs[i].administration(t)
				})
			}
		})
		t.Run("others", func(t *testing.T) {
			for i, name := range names {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					runs[i].others(t, runs)
				})
			}
		})
	})
}

// clientRun is one client's way through the scenario, on topics of its own. It is for one goroutine.
type clientRun struct {
	clients.Client
	target target
	seed   uint64
	topic  string // of records and of the groups that read these
	log    scenario.Log
	cancel context.CancelFunc // ends a client that hangs
}

// start makes the client, which lives until end.
func (r *clientRun) start(t *testing.T, start startClient, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 15*time.Minute)
	r.cancel = cancel
	client, err := start(ctx, r.target.bootstrap(), dir)
	if err != nil {
		t.Fatal(err)
	}
	r.Client = client
}

// end closes the client, if there is one.
func (r *clientRun) end() error {
	if r.Client == nil {
		return nil
	}
	defer r.cancel()
	return r.Close()
}

// by is the client as the report names it.
func (r *clientRun) by() report.Client {
	return report.Client{Name: r.Name(), Version: r.Version()}
}

// feature runs and notes the test of a feature. A test that meets ErrUnsupported returns it.
func (r *clientRun) feature(t *testing.T, name string, test func(ctx context.Context) error) {
	t.Helper()
	report.Attempt(t, r.target.name, r.by(), name, func(t *testing.T) string {
		err := test(deadline(t, clientTimeout))
		if errors.Is(err, clients.ErrUnsupported) {
			return err.Error()
		}
		if err != nil {
			t.Error(err)
		}
		return ""
	})
}
