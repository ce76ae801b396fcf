package compattests

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/compat-tests/clients"
	"github.com/streamhouse/streamhouse/compat-tests/connect"
	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/compat-tests/report"
	"github.com/streamhouse/streamhouse/compat-tests/scenario"
)

// TestMirrorConnectors copies from one cluster to another with MirrorMaker's connectors in a Connect worker.
func TestMirrorConnectors(t *testing.T) {
	if !slow(t) {
		return
	}
	testMirror(t, "MirrorMaker 2 in Connect", func(t *testing.T, clusters connect.Clusters) string {
		cluster := connect.Run(t, clusters.Target, 1)
		for name, config := range connect.MirrorConnectors(clusters) {
			if err := cluster.Configure(deadline(t, connectPatience), name, config); err != nil {
				t.Fatal(err)
			}
		}
		return cluster.Version
	})
}

// TestMirrorMaker copies from one cluster to another with MirrorMaker as a program of its own.
func TestMirrorMaker(t *testing.T) {
	if !slow(t) {
		return
	}
	testMirror(t, "MirrorMaker 2", func(t *testing.T, clusters connect.Clusters) string {
		return connect.RunMirrorMaker(t, clusters)
	})
}

// testMirror copies from another cluster to each target: from Apache Kafka to itself, else from the embedded deployment.
// start starts MirrorMaker and returns its version.
func testMirror(t *testing.T, name string, start func(*testing.T, connect.Clusters) (version string)) {
	t.Parallel()
	forEachTarget(t, harness.FastStores, func(t *testing.T, east target) {
		kind := "embedded"
		if east.name == "apachekafka" {
			kind = east.name
		}
		west := targets[kind](t, harness.FastStores)
		m := mirrorTest{west: west, east: east, source: clients.NewFranz(west.bootstrap()), copy: clients.NewFranz(east.bootstrap())}
		m.fill(t)
		version := start(t, connect.Clusters{Source: west.bootstrap(), Target: east.bootstrap()})
		feature := func(feature string, test func(*testing.T)) {
			t.Helper()
			report.Feature(t, east.name, report.Client{Name: name, Version: version}, feature, test)
		}
		feature("records are copied, byte for byte", m.records)
		feature("offsets of groups are translated", m.groups)
		feature("configs follow", m.configs)
		feature("new topics and partitions are found", m.growth)
		feature("heartbeats, checkpoints and offset syncs", m.internalTopics)
		feature("every record arrives while brokers are restarted", m.restarts)
	})
}

// mirrored is the topic that exists before MirrorMaker starts.
const mirrored = "orders"

// copyOf is the name of a topic's copy.
func copyOf(topic string) string { return connect.West + "." + topic }

type mirrorTest struct {
	west, east   target
	source, copy *clients.Franz
	log          scenario.Log // what is in the topic
}

// fill creates the topic with records in every codec.
func (m *mirrorTest) fill(t *testing.T) {
	t.Helper()
	ctx := deadline(t, connectPatience)
	if err := m.source.CreateTopic(ctx, mirrored, scenario.TopicConfigs()); err != nil {
		t.Fatal(err)
	}
	for i, codec := range scenario.Codecs {
		m.produce(ctx, t, mirrored, codec, scenario.Generate(seed(t), i, m.source.Profile()), &m.log)
	}
}

func (m *mirrorTest) produce(ctx context.Context, t *testing.T, topic, codec string, records []scenario.Record, log *scenario.Log) {
	t.Helper()
	if _, err := m.source.Produce(ctx, topic, codec, records); err != nil {
		t.Fatal(err)
	}
	log.Append(records)
}

// records demands a copy of what was there before MirrorMaker.
func (m *mirrorTest) records(t *testing.T) {
	m.awaitCopy(deadline(t, connectPatience), t, mirrored, &m.log)
}

// awaitCopy returns when the copy of a topic is complete, and demands that it is exact: nothing has failed, so there is
// no reason to copy a record twice.
func (m *mirrorTest) awaitCopy(ctx context.Context, t *testing.T, topic string, log *scenario.Log) {
	t.Helper()
	want := log.Offsets(scenario.Latest)
	eventually(ctx, t, func() error {
		got, err := m.copy.Offsets(ctx, copyOf(topic), scenario.Latest)
		if err == nil && got != want {
			err = fmt.Errorf("the copy of %s ends at %v, want %v", topic, got, want)
		}
		return err
	})
	read, err := m.copy.Read(ctx, copyOf(topic), scenario.Earliest)
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Compare(read); err != nil {
		t.Error(err)
	}
}

// groups moves a consumer to the copy: its offsets become the ends there, and it reads what is written afterwards.
func (m *mirrorTest) groups(t *testing.T) {
	ctx := deadline(t, connectPatience)
	const group = "packers"
	if _, err := m.source.ReadGroup(ctx, mirrored, group, m.log.Len()); err != nil {
		t.Fatal(err)
	}
	copied := admin(t, m.east)
	read := m.log.Offsets(scenario.Latest)
	eventually(ctx, t, func() error {
		offsets, err := groupOffsets(ctx, copied, group, copyOf(mirrored))
		if err == nil && offsets != read {
			err = fmt.Errorf("the group that has read all is at %v, want %v", offsets, read)
		}
		return err
	})
	more := scenario.Generate(seed(t)+1, 0, m.source.Profile())
	m.produce(ctx, t, mirrored, scenario.Codecs[0], more, &m.log)
	m.awaitCopy(ctx, t, mirrored, &m.log)
	got, err := m.copy.ReadGroup(ctx, copyOf(mirrored), group, len(more))
	if err != nil {
		t.Fatal(err)
	}
	var want scenario.Log
	for p := range want {
		want[p] = m.log[p][read[p]:]
	}
	if err := want.Compare(got); err != nil {
		t.Error(err)
	}
}

// groupOffsets are the offsets that a group has committed for the partitions of a topic. It is an error if one of them
// has none.
func groupOffsets(ctx context.Context, admin *kadm.Client, group, topic string) ([scenario.Partitions]int64, error) {
	var offsets [scenario.Partitions]int64
	fetched, err := admin.FetchOffsets(ctx, group)
	if err := errors.Join(err, fetched.Error()); err != nil {
		return offsets, err
	}
	for p := range offsets {
		o, ok := fetched.Lookup(topic, int32(p))
		if !ok {
			return offsets, fmt.Errorf("group %s has no offset for partition %d of %s", group, p, topic)
		}
		offsets[p] = o.At
	}
	return offsets, nil
}

// admin returns an administrator of a target.
func admin(t *testing.T, target target) *kadm.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(target.bootstrap()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return kadm.NewClient(client)
}

// configs demands the configs that the topic was created with, and one that is changed now.
func (m *mirrorTest) configs(t *testing.T) {
	ctx := deadline(t, connectPatience)
	want := scenario.TopicConfigs()
	demand := func() {
		t.Helper()
		eventually(ctx, t, func() error {
			got, err := m.copy.TopicConfigs(ctx, copyOf(mirrored))
			for name := range want {
				if err == nil && got[name] != want[name] {
					err = fmt.Errorf("the copy has %s=%s, want %s", name, got[name], want[name])
				}
			}
			return err
		})
	}
	demand()
	want["retention.ms"] = "777600000"
	if err := m.source.AlterTopicConfig(ctx, mirrored, "retention.ms", want["retention.ms"]); err != nil {
		t.Fatal(err)
	}
	demand()
	// The scenario's records are older than that.
	want["retention.ms"] = "-1"
	if err := m.source.AlterTopicConfig(ctx, mirrored, "retention.ms", want["retention.ms"]); err != nil {
		t.Fatal(err)
	}
	demand()
}

// growth adds a topic, and partitions to one that is copied already.
func (m *mirrorTest) growth(t *testing.T) {
	ctx := deadline(t, connectPatience)
	const topic, total = "parcels", scenario.Partitions + 2
	if err := m.source.CreateTopic(ctx, topic, scenario.TopicConfigs()); err != nil {
		t.Fatal(err)
	}
	var log scenario.Log
	m.produce(ctx, t, topic, scenario.Codecs[0], scenario.Generate(seed(t), 0, m.source.Profile()), &log)
	m.awaitCopy(ctx, t, topic, &log)

	if err := m.source.CreatePartitions(ctx, topic, total); err != nil {
		t.Fatal(err)
	}
	record := scenario.Record{Partition: total - 1, Timestamp: time.Now().UnixMilli(), Value: []byte("in the last partition")}
	if _, err := m.source.Produce(ctx, topic, scenario.Codecs[0], []scenario.Record{record}); err != nil {
		t.Fatal(err)
	}
	copied := admin(t, m.east)
	eventually(ctx, t, func() error {
		ends, err := copied.ListEndOffsets(ctx, copyOf(topic))
		if err := errors.Join(err, ends.Error()); err != nil {
			return err
		}
		if last, ok := ends.Lookup(copyOf(topic), total-1); !ok || last.Offset != 1 {
			return fmt.Errorf("the copy of %s has no record in partition %d: %v", topic, total-1, ends)
		}
		return nil
	})
}

// internalTopics demands the topics in which MirrorMaker keeps what it knows, with something in them.
func (m *mirrorTest) internalTopics(t *testing.T) {
	ctx := deadline(t, connectPatience)
	for _, topic := range []struct {
		of   target
		name string
	}{
		{m.east, "heartbeats"},
		{m.east, connect.West + ".checkpoints.internal"},
		{m.west, "mm2-offset-syncs." + connect.East + ".internal"},
	} {
		admin := admin(t, topic.of)
		eventually(ctx, t, func() error {
			ends, err := admin.ListEndOffsets(ctx, topic.name)
			if err := errors.Join(err, ends.Error()); err != nil {
				return err
			}
			if end, ok := ends.Lookup(topic.name, 0); !ok || end.Offset == 0 {
				return fmt.Errorf("%s is empty", topic.name)
			}
			return nil
		})
	}
}

// restarts restarts every broker of both clusters while numbered records are written. MirrorMaker promises each of them
// at least once and, in one partition, that none overtakes another when it is copied for the first time.
func (m *mirrorTest) restarts(t *testing.T) {
	ctx := deadline(t, connectPatience)
	const topic = "numbers"
	if _, err := admin(t, m.west).CreateTopic(ctx, 1, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
	counter := startCounter(t, m.west, topic)
	reader := startNumberReader(t, m.east, copyOf(topic))
	reader.await(ctx, t, counter.next())
	for _, node := range append(m.west.nodes, m.east.nodes...) {
		if err := node.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		if err := node.Start(ctx); err != nil {
			t.Fatal(err)
		}
		reader.await(ctx, t, counter.next())
	}
	last := counter.finish(t)
	reader.await(ctx, t, last)
	t.Logf("%d records, %d of them copied again", last, reader.again)
}

// counter produces the numbers from 1 on, one record each, until finish.
type counter struct {
	stop    context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	last    int // the last number that was handed to the producer
	failure error
}

func startCounter(t *testing.T, target target, topic string) *counter {
	t.Helper()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(target.bootstrap()...), kgo.AlwaysRetryEOF(),
		kgo.DefaultProduceTopic(topic),
		kgo.MaxBufferedRecords(200),
	)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	c := &counter{stop: stop}
	c.running.Go(func() { c.run(ctx, client) })
	t.Cleanup(func() {
		client.Close()
		stop()
		c.running.Wait()
	})
	return c
}

func (c *counter) run(ctx context.Context, client *kgo.Client) {
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	var pending sync.WaitGroup
	defer pending.Wait()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		pending.Add(1)
		client.Produce(context.WithoutCancel(ctx), kgo.StringRecord(strconv.Itoa(c.count())), func(_ *kgo.Record, err error) {
			defer pending.Done()
			c.mu.Lock()
			defer c.mu.Unlock()
			c.failure = errors.Join(c.failure, err)
		})
	}
}

func (c *counter) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	return c.last
}

// next is a number that is not written yet.
func (c *counter) next() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	const progress = 300 // records between two faults
	return c.last + progress
}

// finish ends the producer when all is acknowledged, and returns the last number.
func (c *counter) finish(t *testing.T) int {
	t.Helper()
	c.stop()
	await(deadline(t, connectPatience), t, "the producer", &c.running)
	if c.failure != nil {
		t.Fatal(c.failure)
	}
	return c.last
}

// numberReader reads the numbers of a counter, in the order of their copies.
type numberReader struct {
	client *kgo.Client
	last   int // all numbers up to this one were read
	again  int // records whose number was read before
}

func startNumberReader(t *testing.T, target target, topic string) *numberReader {
	t.Helper()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(target.bootstrap()...), kgo.AlwaysRetryEOF(),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.UnknownTopicRetries(-1), // it is not there yet
		kgo.MetadataMinAge(100*time.Millisecond),
		kgo.MetadataMaxAge(time.Second),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &numberReader{client: client}
}

// await reads up to a number, and demands that none is left out.
func (r *numberReader) await(ctx context.Context, t *testing.T, number int) {
	t.Helper()
	for r.last < number {
		fetches := r.client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("number %d has not come, %d has: %v", number, r.last, err)
		}
		for record := range fetches.RecordsAll() {
			n, err := strconv.Atoi(string(record.Value))
			switch {
			case err != nil:
				t.Fatal(err)
			case n > r.last+1:
				t.Fatalf("offset %d: number %d comes before number %d", record.Offset, n, r.last+1)
			case n <= r.last:
				r.again++
			default:
				r.last = n
			}
		}
	}
}
