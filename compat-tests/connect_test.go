package compattests

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/streamhouse/streamhouse/compat-tests/connect"
	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/compat-tests/report"
)

// TestConnect runs Kafka Connect's file connectors in a cluster of two workers, and demands what Connect promises: each
// line at least once, whatever dies. Its source connectors send one request at a time and commit how far they have read
// after their records are acknowledged; its sinks commit after they have written. So a line may come again, with those
// that follow it, but in a topic of one partition no line overtakes another when it comes for the first time.
func TestConnect(t *testing.T) {
	t.Parallel()
	forEachTarget(t, harness.FastStores, func(t *testing.T, target target) {
		all := slow(t)
		if !all && target.name == "cluster" {
			return
		}
		c := connectTest{target: target, cluster: connect.Run(t, target.bootstrap(), 2), dir: t.TempDir()}
		c.feature(t, "internal topics", c.internalTopics)
		c.feature(t, "every line arrives while workers are killed and brokers restarted", c.everyLineArrives)
		if !all {
			return
		}
		c.feature(t, "converters and transforms, changed configuration", c.configuration)
		c.feature(t, "pause, resume and delete", c.lifecycle)
		c.feature(t, "offsets read, altered and reset", c.offsets)
	})
}

// connectPatience is for each feature of Connect and MirrorMaker, which take seconds on a quiet machine.
const connectPatience = 3 * time.Minute

type connectTest struct {
	target  target
	cluster *connect.Cluster
	dir     string // for the files of connectors
}

func (c connectTest) feature(t *testing.T, name string, test func(*testing.T)) {
	t.Helper()
	report.Feature(t, c.target.name, report.Client{Name: "Kafka Connect", Version: c.cluster.Version}, name, test)
}

// configure creates or changes a connector and returns when it is at work.
func (c connectTest) configure(ctx context.Context, t *testing.T, name string, config map[string]string) {
	t.Helper()
	if err := c.cluster.Configure(ctx, name, config); err != nil {
		t.Fatal(err)
	}
	if err := c.cluster.Await(ctx, name, connect.Running, 1); err != nil {
		t.Fatal(err)
	}
}

func (c connectTest) internalTopics(t *testing.T) {
	ctx, admin := deadline(t, connectPatience), admin(t, c.target)
	names := slices.Collect(maps.Keys(connect.InternalTopics))
	topics, err := admin.ListTopics(ctx, names...)
	if err != nil {
		t.Fatal(err)
	}
	configs, err := admin.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range connect.InternalTopics {
		if got := len(topics[name].Partitions); got != want {
			t.Errorf("%s has %d partitions, want %d", name, got, want)
		}
		config, err := configs.On(name, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range config.Configs {
			if entry.Key == "cleanup.policy" && entry.MaybeValue() != "compact" {
				t.Errorf("%s has the cleanup.policy %s, want compact", name, entry.MaybeValue())
			}
		}
	}
}

// everyLineArrives copies two files while they grow, one through a topic with one partition and one through a topic
// with four, which two tasks read.
func (c connectTest) everyLineArrives(t *testing.T) {
	ctx := deadline(t, connectPatience)
	const progress = 300 // lines that are to arrive between two faults
	copies := []struct {
		topic      string
		partitions int32
		tasks      int
	}{{"connect-narrow", 1, 1}, {"connect-wide", 4, 2}}
	var files []*growingFile
	for _, copied := range copies {
		file := growFile(t, filepath.Join(c.dir, copied.topic+".txt"))
		files = append(files, file)
		if _, err := admin(t, c.target).CreateTopic(ctx, copied.partitions, 1, nil, copied.topic); err != nil {
			t.Fatal(err)
		}
		source, sink := fileSource(file.path, copied.topic), fileSink(file.sink(), copied.topic)
		sink["tasks.max"] = fmt.Sprint(copied.tasks)
		if err := c.cluster.Configure(ctx, copied.topic+"-source", source); err != nil {
			t.Fatal(err)
		}
		if err := c.cluster.Configure(ctx, copied.topic+"-sink", sink); err != nil {
			t.Fatal(err)
		}
	}
	// What is written from now on must arrive, and more than that.
	arrive := func(after string) {
		t.Helper()
		start := time.Now()
		for _, file := range files {
			file.awaitArrival(ctx, t, file.written()+progress, after)
		}
		t.Logf("after %s lines arrive within %v", after, time.Since(start).Round(100*time.Millisecond))
	}
	arrive("the start")
	for _, connector := range []string{"connect-narrow-source", "connect-narrow-sink"} {
		victim := c.workerOf(ctx, t, connector)
		if err := victim.Kill(); err != nil {
			t.Fatal(err)
		}
		arrive("the kill of the worker of " + connector)
		if err := victim.Start(ctx); err != nil {
			t.Fatal(err)
		}
		arrive("its return")
	}
	for _, node := range c.target.nodes {
		if err := node.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		if len(c.target.nodes) > 1 {
			arrive("the stop of broker " + node.Address())
		}
		if err := node.Start(ctx); err != nil {
			t.Fatal(err)
		}
		arrive("the restart of broker " + node.Address())
	}
	for i, file := range files {
		file.finish(ctx, t, copies[i].partitions == 1)
		for _, connector := range []string{"-source", "-sink"} {
			if err := c.cluster.Delete(ctx, copies[i].topic+connector); err != nil {
				t.Error(err)
			}
		}
	}
}

// workerOf returns the worker that runs the only task of a connector.
func (c connectTest) workerOf(ctx context.Context, t *testing.T, connector string) *connect.Worker {
	t.Helper()
	if err := c.cluster.Await(ctx, connector, connect.Running, 1); err != nil {
		t.Fatal(err)
	}
	status, err := c.cluster.Status(ctx, connector)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(c.cluster.Workers, func(w *connect.Worker) bool { return w.Address() == status.Tasks[0].Worker })
	if i < 0 {
		t.Fatalf("no worker is %s, which has the task of %s", status.Tasks[0].Worker, connector)
	}
	return c.cluster.Workers[i]
}

func fileSource(file, topic string) map[string]string {
	return map[string]string{
		"connector.class": "org.apache.kafka.connect.file.FileStreamSourceConnector",
		"file":            file,
		"topic":           topic,
	}
}

func fileSink(file string, topics ...string) map[string]string {
	return map[string]string{
		"connector.class": "org.apache.kafka.connect.file.FileStreamSinkConnector",
		"file":            file,
		"topics":          strings.Join(topics, ","),
	}
}

// with returns a configuration with more settings.
func with(config map[string]string, more map[string]string) map[string]string {
	config = maps.Clone(config)
	maps.Copy(config, more)
	return config
}

// configuration changes a source that writes JSON so that a transform sends its records to another topic, which did
// not exist before. The sink finds it by a regular expression.
func (c connectTest) configuration(t *testing.T) {
	ctx := deadline(t, connectPatience)
	file := newTextFile(t, filepath.Join(c.dir, "configuration.txt"))
	json := map[string]string{"value.converter": "org.apache.kafka.connect.json.JsonConverter"}
	source, sink := with(fileSource(file.path, "connect-before"), json), with(fileSink(file.sink()), json)
	delete(sink, "topics")
	sink["topics.regex"] = "connect-(before|after)"
	sink["consumer.override.metadata.max.age.ms"] = "500"
	c.configure(ctx, t, "configuration-source", source)
	c.configure(ctx, t, "configuration-sink", sink)
	file.write(t, "before")
	file.await(ctx, t, "before")

	c.configure(ctx, t, "configuration-source", with(source, map[string]string{
		"transforms":                   "route",
		"transforms.route.type":        "org.apache.kafka.connect.transforms.RegexRouter",
		"transforms.route.regex":       "connect-before",
		"transforms.route.replacement": "connect-after",
	}))
	file.write(t, "after")
	file.await(ctx, t, "before", "after")

	ends, err := admin(t, c.target).ListEndOffsets(ctx, "connect-before", "connect-after")
	if err != nil {
		t.Fatal(err)
	}
	ends.Each(func(end kadm.ListedOffset) {
		if end.Offset != 1 {
			t.Errorf("%s has %d records, want one", end.Topic, end.Offset)
		}
	})
	for _, name := range []string{"configuration-source", "configuration-sink"} {
		if err := c.cluster.Delete(ctx, name); err != nil {
			t.Error(err)
		}
	}
}

// lifecycle pauses a sink, which must not write meanwhile, and deletes what it has made.
func (c connectTest) lifecycle(t *testing.T) {
	ctx := deadline(t, connectPatience)
	file := newTextFile(t, filepath.Join(c.dir, "lifecycle.txt"))
	const source, sink = "lifecycle-source", "lifecycle-sink"
	c.configure(ctx, t, source, fileSource(file.path, "connect-lifecycle"))
	c.configure(ctx, t, sink, fileSink(file.sink(), "connect-lifecycle"))
	file.write(t, "one")
	file.await(ctx, t, "one")

	if err := c.cluster.Pause(ctx, sink); err != nil {
		t.Fatal(err)
	}
	if err := c.cluster.Await(ctx, sink, connect.Paused, 1); err != nil {
		t.Fatal(err)
	}
	file.write(t, "two")
	c.awaitOffsets(ctx, t, source, file.position())
	file.await(ctx, t, "one")

	if err := c.cluster.Resume(ctx, sink); err != nil {
		t.Fatal(err)
	}
	if err := c.cluster.Await(ctx, sink, connect.Running, 1); err != nil {
		t.Fatal(err)
	}
	file.await(ctx, t, "one", "two")

	for _, name := range []string{source, sink} {
		if err := c.cluster.Delete(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := c.cluster.Connectors(ctx); err != nil || len(left) != 0 {
		t.Errorf("connectors that were deleted are there: %v, %v", left, err)
	}
}

// offsets sends connectors back and forth, which Connect does by committing offsets for the groups of sinks, and by
// deleting those.
func (c connectTest) offsets(t *testing.T) {
	ctx := deadline(t, connectPatience)
	file := newTextFile(t, filepath.Join(c.dir, "offsets.txt"))
	const source, sink, topic = "offsets-source", "offsets-sink", "connect-rewound"
	c.configure(ctx, t, source, fileSource(file.path, topic))
	c.configure(ctx, t, sink, fileSink(file.sink(), topic))
	file.write(t, "a")
	back := file.position()
	file.write(t, "b")
	want := []string{"a", "b"}
	file.await(ctx, t, want...)
	at := func(offset int) connect.Offset {
		return connect.Offset{
			Partition: map[string]any{"kafka_topic": topic, "kafka_partition": 0.0},
			Offset:    map[string]any{"kafka_offset": float64(offset)},
		}
	}
	c.awaitOffsets(ctx, t, source, file.position())
	c.awaitOffsets(ctx, t, sink, at(2))

	// The source reads b again.
	c.whileStopped(ctx, t, source, func() error { return c.cluster.AlterOffsets(ctx, source, back) })
	want = append(want, "b")
	file.await(ctx, t, want...)
	c.awaitOffsets(ctx, t, sink, at(3))
	// The sink writes the last two records again, from an offset that is committed for its group.
	c.whileStopped(ctx, t, sink, func() error { return c.cluster.AlterOffsets(ctx, sink, at(1)) })
	want = append(want, "b", "b")
	file.await(ctx, t, want...)
	c.awaitOffsets(ctx, t, sink, at(3))
	// It writes all again, when the one offset of its group is deleted, and when the whole group is.
	nowhere := at(0)
	nowhere.Offset = nil
	c.whileStopped(ctx, t, sink, func() error { return c.cluster.AlterOffsets(ctx, sink, nowhere) })
	want = append(want, "a", "b", "b")
	file.await(ctx, t, want...)
	c.awaitOffsets(ctx, t, sink, at(3))
	c.whileStopped(ctx, t, sink, func() error { return c.cluster.ResetOffsets(ctx, sink) })
	want = append(want, "a", "b", "b")
	file.await(ctx, t, want...)
	// The source starts anew.
	c.whileStopped(ctx, t, source, func() error { return c.cluster.ResetOffsets(ctx, source) })
	file.await(ctx, t, append(want, "a", "b")...)
	c.awaitOffsets(ctx, t, sink, at(5))
	for _, name := range []string{source, sink} {
		if err := c.cluster.Delete(ctx, name); err != nil {
			t.Error(err)
		}
	}
}

// whileStopped stops a connector, does something to it, and lets it run again.
func (c connectTest) whileStopped(ctx context.Context, t *testing.T, connector string, do func() error) {
	t.Helper()
	if err := c.cluster.Stop(ctx, connector); err != nil {
		t.Fatal(err)
	}
	if err := c.cluster.Await(ctx, connector, connect.Stopped, 0); err != nil {
		t.Fatal(err)
	}
	if err := do(); err != nil {
		t.Fatal(err)
	}
	if err := c.cluster.Resume(ctx, connector); err != nil {
		t.Fatal(err)
	}
	if err := c.cluster.Await(ctx, connector, connect.Running, 1); err != nil {
		t.Fatal(err)
	}
}

// awaitOffsets returns when a connector has committed the offset.
func (c connectTest) awaitOffsets(ctx context.Context, t *testing.T, connector string, want connect.Offset) {
	t.Helper()
	eventually(ctx, t, func() error {
		got, err := c.cluster.Offsets(ctx, connector)
		if err == nil && !reflect.DeepEqual(got, []connect.Offset{want}) {
			err = fmt.Errorf("%s is at %v, want %v", connector, got, want)
		}
		return err
	})
}

// textFile is a file that a source reads, beside the one to which a sink writes.
type textFile struct {
	path string
	size int
}

func newTextFile(t *testing.T, path string) *textFile {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return &textFile{path: path}
}

func (f *textFile) sink() string { return f.path + ".copy" }

// write appends a line.
func (f *textFile) write(t *testing.T, line string) {
	t.Helper()
	if err := f.append(line + "\n"); err != nil {
		t.Fatal(err)
	}
}

func (f *textFile) append(text string) error {
	file, err := os.OpenFile(f.path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.WriteString(text); err != nil {
		return err
	}
	f.size += len(text)
	return nil
}

// position is the offset of a source that has read all that is written.
func (f *textFile) position() connect.Offset {
	return connect.Offset{
		Partition: map[string]any{"filename": f.path},
		Offset:    map[string]any{"position": float64(f.size)},
	}
}

// await returns when the sink has written these lines and no others.
func (f *textFile) await(ctx context.Context, t *testing.T, want ...string) {
	t.Helper()
	eventually(ctx, t, func() error {
		got, err := completeLines(f.sink())
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("the sink has written %q, want %q", got, want)
		}
		return err
	})
}

// completeLines are the lines of a file but for one that is being written.
func completeLines(path string) ([]string, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(string(content), "\n")
	return lines[:len(lines)-1], nil
}
