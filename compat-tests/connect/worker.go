package connect

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
	"syscall"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/process"
	"github.com/streamhouse/streamhouse/compat-tests/toolchain"
)

// heapMiB is enough for the connectors of a test.
const heapMiB = 384

// limit is for the start of a process, and for its stop. A worker that has a core of its own takes a few seconds.
const limit = 3 * time.Minute

// program is a Java program of Kafka Connect with its properties and its log, both in dir. It may be started again
// after Kill. Its methods are not for concurrent use.
type program struct {
	java    toolchain.Java
	main    string
	name    string
	dir     string
	process *process.Process
}

// prepare returns a program that cleans up after itself; the errors in the log of a failed test are shown.
func prepare(t testing.TB, java toolchain.Java, main, name string, properties map[string]string) *program {
	t.Helper()
	p := &program{java: java, main: main, name: name, dir: t.TempDir()}
	var lines []string
	for key, value := range properties {
		lines = append(lines, key+"="+value+"\n")
	}
	slices.Sort(lines)
	if err := os.WriteFile(p.properties(), []byte(strings.Join(lines, "")), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.process == nil {
			return
		}
		// The test's context has ended by now.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
		defer cancel()
		if err := p.Stop(ctx); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("errors in the log of %s:\n%s", name, strings.Join(p.Errors(), "\n"))
		}
	})
	return p
}

func (p *program) properties() string { return filepath.Join(p.dir, "connect.properties") }

func (p *program) log() string { return filepath.Join(p.dir, "connect.log") }

// launch starts the process and returns at once. It lives until Stop or Kill.
func (p *program) launch(ctx context.Context) error {
	cmd := p.java.Service(context.WithoutCancel(ctx), heapMiB, p.main, p.properties())
	started, err := process.Start(p.name, cmd, p.log())
	if err != nil {
		return err
	}
	p.process = started
	return nil
}

// Kill ends the process with SIGKILL.
func (p *program) Kill() error { return p.process.Kill() }

// Stop ends the process with SIGTERM and waits for it. One that was killed before has been stopped.
func (p *program) Stop(ctx context.Context) error {
	if errors.Is(p.process.Exited(), process.ErrExited) {
		return nil
	}
	err := p.process.Stop(ctx)
	const terminated = 128 + int(syscall.SIGTERM) // a JVM's status when SIGTERM ran its shutdown hooks
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == terminated {
		return nil
	}
	return err
}

// Errors are the lines that the program logged as errors, over all its runs, and the line after each, which names the
// exception.
func (p *program) Errors() []string {
	content, err := os.ReadFile(p.log())
	if err != nil {
		return []string{err.Error()}
	}
	lines := strings.Split(string(content), "\n")
	var found []string
	for i, line := range lines {
		if strings.Contains(line, " ERROR ") {
			found = append(found, lines[i:min(i+2, len(lines))]...)
		}
	}
	return found
}

// Worker is a worker of a Connect cluster. It keeps its address over Kill and Start.
type Worker struct {
	*program
	address string
}

// Address is host:port of the REST API, which is the worker's id in statuses too.
func (w *Worker) Address() string { return w.address }

// Start starts the worker and returns when it has joined its cluster and serves requests.
func (w *Worker) Start(ctx context.Context) error {
	if err := w.launch(ctx); err != nil {
		return err
	}
	if err := w.process.Await(ctx, w.healthy); err != nil {
		return errors.Join(err, w.Kill())
	}
	return nil
}

func (w *Worker) healthy(ctx context.Context) error {
	_, err := request(ctx, http.MethodGet, "http://"+w.address+"/health", nil)
	return err
}

// Cluster is a cluster of workers and, as a Client, its REST API: a request goes to the first worker that answers.
type Cluster struct {
	Client
	Version string // of Connect
	Workers []*Worker
}

// Run starts a cluster of n workers on the brokers at bootstrap, which ends with the test.
func Run(t testing.TB, bootstrap []string, n int) *Cluster {
	t.Helper()
	java, err := toolchain.NewConnect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cluster := &Cluster{Version: java.Version()}
	for i := range n {
		address, err := process.FreeAddress()
		if err != nil {
			t.Fatal(err)
		}
		cluster.Workers = append(cluster.Workers, &Worker{
			program: prepare(t, java, "org.apache.kafka.connect.cli.ConnectDistributed", fmt.Sprintf("Connect worker %d", i+1),
				workerProperties(bootstrap, address)),
			address: address,
		})
		cluster.addresses = append(cluster.addresses, address)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for _, worker := range cluster.Workers {
		if err := worker.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return cluster
}

// The topics in which the workers of a cluster keep what they share.
const (
	ConfigTopic = "connect-configs"
	OffsetTopic = "connect-offsets"
	StatusTopic = "connect-status"
)

// InternalTopics are the topics of a cluster, with the number of their partitions.
var InternalTopics = map[string]int{ConfigTopic: 1, OffsetTopic: 25, StatusTopic: 5}

func workerProperties(bootstrap []string, address string) map[string]string {
	return map[string]string{
		"bootstrap.servers": strings.Join(bootstrap, ","),
		"group.id":          "connect-cluster",
		"listeners":         "http://" + address,
		"key.converter":     "org.apache.kafka.connect.storage.StringConverter",
		"value.converter":   "org.apache.kafka.connect.storage.StringConverter",
		"plugin.discovery":  "service_load",

		"config.storage.topic":              ConfigTopic,
		"offset.storage.topic":              OffsetTopic,
		"status.storage.topic":              StatusTopic,
		"config.storage.replication.factor": "1",
		"offset.storage.replication.factor": "1",
		"status.storage.replication.factor": "1",

		// A minute by default: how much is sent again after a worker was killed.
		"offset.flush.interval.ms": "500",
		// Ten seconds by default until a killed worker is missed, 45 until the consumers of its sinks are, of which
		// brokers grant no less than six; and five minutes until other workers take its tasks over.
		"session.timeout.ms":               "6000",
		"heartbeat.interval.ms":            "1000",
		"consumer.session.timeout.ms":      "6000",
		"consumer.heartbeat.interval.ms":   "1000",
		"scheduled.rebalance.max.delay.ms": "1000",
	}
}
