package apachekafka

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/compat-tests/process"
	"github.com/streamhouse/streamhouse/compat-tests/toolchain"
)

// Broker is a single-node Apache Kafka. It keeps its address and its data over Kill and Start. Its methods are not for
// concurrent use.
type Broker struct {
	java    toolchain.Java
	dir     string
	address string
	process *process.Process
}

// New formats a node whose data, configuration and log lie in dir. Start starts it.
func New(ctx context.Context, java toolchain.Java, dir string) (*Broker, error) {
	address, err := process.FreeAddress()
	if err != nil {
		return nil, err
	}
	controller, err := process.FreeAddress()
	if err != nil {
		return nil, err
	}
	b := &Broker{java: java, dir: dir, address: address}
	if err := os.WriteFile(b.properties(), []byte(properties(dir, address, controller)), 0o644); err != nil {
		return nil, fmt.Errorf("write Kafka's configuration: %w", err)
	}
	id := make([]byte, 16)
	rand.Read(id)
	format := java.Tool(ctx, "kafka.tools.StorageTool", "format",
		"--cluster-id="+base64.RawURLEncoding.EncodeToString(id), "--config", b.properties()) // an id may begin with a dash
	if out, err := format.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("format Kafka's storage: %w\n%s", err, out)
	}
	return b, nil
}

func (b *Broker) properties() string { return filepath.Join(b.dir, "server.properties") }

// properties are Kafka's defaults but for what one node needs and for the first rebalance of a group, which it would
// delay by three seconds.
func properties(dir, address, controller string) string {
	return strings.Join([]string{
		"process.roles=broker,controller",
		"node.id=1",
		"controller.quorum.voters=1@" + controller,
		"controller.listener.names=CONTROLLER",
		"listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
		"listeners=PLAINTEXT://" + address + ",CONTROLLER://" + controller,
		"advertised.listeners=PLAINTEXT://" + address,
		"log.dirs=" + filepath.Join(dir, "data"),
		"offsets.topic.replication.factor=1",
		"offsets.topic.num.partitions=4",
		"transaction.state.log.replication.factor=1",
		"transaction.state.log.min.isr=1",
		"share.coordinator.state.topic.replication.factor=1",
		"share.coordinator.state.topic.min.isr=1",
		"group.initial.rebalance.delay.ms=0",
		"",
	}, "\n")
}

// Address is host:port of the broker's listener.
func (b *Broker) Address() string { return b.address }

// PID is the process id of the running broker, by which a benchmark reads its CPU time.
func (b *Broker) PID() int { return b.process.PID() }

// Start starts the broker and returns when it answers Metadata.
func (b *Broker) Start(ctx context.Context) error {
	const heapMiB = 1024
	// The broker lives until Stop or Kill, not until ctx ends.
	cmd := b.java.Server(context.WithoutCancel(ctx), heapMiB, "kafka.Kafka", b.properties())
	p, err := process.Start("Apache Kafka", cmd, filepath.Join(b.dir, "kafka.log"))
	if err != nil {
		return err
	}
	b.process = p
	client, err := kgo.NewClient(kgo.SeedBrokers(b.address))
	if err != nil {
		return errors.Join(fmt.Errorf("make a client: %w", err), p.Kill())
	}
	defer client.Close()
	err = p.Await(ctx, func(ctx context.Context) error {
		// A listener that is not there is cheaper to find without a Kafka client's retries.
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", b.address)
		if err != nil {
			return err
		}
		return errors.Join(conn.Close(), client.Ping(ctx))
	})
	if err != nil {
		return errors.Join(err, p.Kill())
	}
	return nil
}

// Stop ends the broker with SIGTERM and waits for it.
func (b *Broker) Stop(ctx context.Context) error {
	err := b.process.Stop(ctx)
	const terminated = 128 + int(syscall.SIGTERM) // a JVM's status when SIGTERM ran its shutdown hooks
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == terminated {
		return nil
	}
	return err
}

// Kill ends the broker with SIGKILL.
func (b *Broker) Kill() error { return b.process.Kill() }

// LogTail returns the end of the broker's log.
func (b *Broker) LogTail() string { return b.process.LogTail() }
