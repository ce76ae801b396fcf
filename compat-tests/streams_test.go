package compattests

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/compat-tests/report"
	"github.com/streamhouse/streamhouse/compat-tests/toolchain"
)

// kafkaStreams is the version of java/streams-pom.xml.
var kafkaStreams = report.Client{Name: "Kafka Streams", Version: "4.3.1"}

// TestStreams runs a word count with a repartition topic and changelogs. As nothing is killed, every word is counted
// exactly as often as it was written: at-least-once repeats only what was not committed when an instance ended, and
// these end in good order.
func TestStreams(t *testing.T) {
	forEachTarget(t, harness.FastStores, func(t *testing.T, target target) {
		t.Parallel()
		w := newWordCount(t, target, "words")
		app := w.start(t, "a")
		feature := func(name string, test func(*testing.T)) { report.Feature(t, target.name, kafkaStreams, name, test) }
		feature("word count: repartition topic, store, changelog", func(t *testing.T) {
			w.write(t, 300)
			w.awaitExact(t)
		})
		feature("internal topics have the configs asked for", w.checkInternalTopics)
		feature("consumed records of the repartition topic are deleted", w.awaitPurge)
		feature("restored from the changelog when local state is lost", func(t *testing.T) {
			app.stop(t)
			w.wipe(t, "a")
			w.write(t, 100)
			app = w.start(t, "a")
			w.awaitExact(t)
			if app.restored("-counts-changelog-") == 0 {
				t.Error("no record of the changelog was read, although the local state was gone")
			}
		})
		app.stop(t)
		feature("application reset tool", w.reset)
		if target.name == "apachekafka" {
			return // it serves what follows
		}
		feature("exactly_once_v2 is refused at once", func(t *testing.T) {
			w.startRefused(t, "eos", "Transactions and share groups are not supported.", "processing.guarantee=exactly_once_v2")
		})
		feature("group.protocol=streams (KIP-1071) is refused at once", func(t *testing.T) {
			w.startRefused(t, "kip1071", "UnsupportedVersionException", "group.protocol=streams")
		})
	})
}

// TestStreamsKilled counts words in two instances, kills one and restarts the brokers underneath. Every word is counted
// at least as often as it was written. It may be counted more often: a killed instance has written counts whose input
// it had not committed, so its successor counts that input again. That is what at-least-once allows, and Kafka does.
func TestStreamsKilled(t *testing.T) {
	if !slow(t) {
		return
	}
	forEachTarget(t, harness.DurableStores, func(t *testing.T, target target) {
		report.Feature(t, target.name, kafkaStreams, "an instance killed, brokers restarted underneath", func(t *testing.T) {
			w := newWordCount(t, target, "killed")
			a, b := w.start(t, "a"), w.start(t, "b")
			w.write(t, 1000)
			w.awaitAtLeast(t)
			w.write(t, 2000)
			w.awaitProgress(t, 500) // b dies in the middle of it
			b.kill(t)
			w.write(t, 500)
			w.restartBrokers(t)
			w.awaitAtLeast(t)
			b = w.start(t, "b")
			w.write(t, 2000)
			w.awaitProgress(t, 500)
			w.restartBrokers(t)
			w.awaitAtLeast(t)
			a.stop(t)
			b.stop(t)
			w.awaitAtLeast(t)
		})
	})
}

const (
	streamsPartitions = 3
	// streamsTimeout bounds each thing that an application is awaited for: two JVMs on two busy cores, and a session
	// timeout.
	streamsTimeout = 2 * time.Minute
)

// wordCount is an application of Kafka Streams, what was written for it to count, and what it has counted.
type wordCount struct {
	target        target
	id            string
	input, output string
	dir           string // of the instances' state
	client        *kgo.Client
	reader        *kgo.Client // of the output, from its beginning
	random        *rand.Rand
	written       map[string]int64
	counted       map[string]int64
	updates       int // counts that were read from the output
}

// newWordCount creates the topics of an application.
func newWordCount(t *testing.T, target target, id string) *wordCount {
	t.Helper()
	w := &wordCount{
		target: target, id: id, input: id + "-lines", output: id + "-counts", dir: t.TempDir(),
		random: rand.New(rand.NewPCG(seed(t), 0)), written: map[string]int64{}, counted: map[string]int64{},
	}
	w.client = streamsClient(t, target)
	w.reader = streamsClient(t, target, kgo.ConsumeTopics(w.output), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	_, err := kadm.NewClient(w.client).CreateTopics(deadline(t, time.Minute), streamsPartitions, 1, nil, w.input, w.output)
	if err != nil {
		t.Fatalf("create topics: %v", err)
	}
	return w
}

func streamsClient(t *testing.T, target target, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(target.bootstrap()...), kgo.MetadataMinAge(100*time.Millisecond), kgo.AlwaysRetryEOF())...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// write writes lines of words and returns when they are in the log. Some words are frequent, most are rare.
func (w *wordCount) write(t *testing.T, lines int) {
	t.Helper()
	records := make([]*kgo.Record, lines)
	for i := range records {
		words := make([]string, 1+w.random.IntN(6))
		for j := range words {
			words[j] = fmt.Sprintf("word%d", int(w.random.ExpFloat64()*10))
			w.written[words[j]]++
		}
		records[i] = &kgo.Record{Topic: w.input, Value: []byte(strings.Join(words, " "))}
	}
	if err := w.client.ProduceSync(deadline(t, time.Minute), records...).FirstErr(); err != nil {
		t.Fatalf("write lines: %v", err)
	}
}

// read takes in the output until done.
func (w *wordCount) read(t *testing.T, done func() bool) {
	t.Helper()
	ctx := deadline(t, streamsTimeout)
	for !done() {
		fetches := w.reader.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("counted %d updates: %v, want %v", w.updates, w.counted, w.written)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			w.counted[string(r.Key)] = int64(binary.BigEndian.Uint64(r.Value))
			w.updates++
		})
	}
}

// awaitExact returns when every word was counted as often as it was written; it fails as soon as one was counted more
// often.
func (w *wordCount) awaitExact(t *testing.T) {
	t.Helper()
	w.read(t, func() bool {
		for word, count := range w.counted {
			if count > w.written[word] {
				t.Fatalf("%s was counted %d times, written %d times", word, count, w.written[word])
			}
		}
		return maps.Equal(w.counted, w.written)
	})
}

// awaitAtLeast returns when every word was counted at least as often as it was written.
func (w *wordCount) awaitAtLeast(t *testing.T) {
	t.Helper()
	w.read(t, func() bool {
		for word, count := range w.written {
			if w.counted[word] < count {
				return false
			}
		}
		return true
	})
}

// awaitProgress returns when n more updates were read.
func (w *wordCount) awaitProgress(t *testing.T, n int) {
	t.Helper()
	until := w.updates + n
	w.read(t, func() bool { return w.updates >= until })
}

// internal is the name of one of the application's own topics.
func (w *wordCount) internal(name string) string { return w.id + "-" + name }

// checkInternalTopics demands the configs that Streams asks for.
func (w *wordCount) checkInternalTopics(t *testing.T) {
	const hourlyRetention = 2*time.Hour + 24*time.Hour // the store's, and windowstore.changelog.additional.retention.ms
	want := map[string]map[string]string{
		w.internal("words-repartition"): {
			"cleanup.policy": "delete", "retention.ms": "-1", "segment.bytes": "52428800", "message.timestamp.type": "CreateTime",
		},
		w.internal("counts-changelog"): {"cleanup.policy": "compact", "message.timestamp.type": "CreateTime"},
		w.internal("hourly-changelog"): {
			"cleanup.policy": "compact,delete", "retention.ms": strconv.FormatInt(hourlyRetention.Milliseconds(), 10),
		},
	}
	ctx := deadline(t, time.Minute)
	admin := kadm.NewClient(w.client)
	topics := slices.Sorted(maps.Keys(want))
	described, err := admin.DescribeTopicConfigs(ctx, topics...)
	if err != nil {
		t.Fatal(err)
	}
	details, err := admin.ListTopics(ctx, topics...)
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range topics {
		if n := len(details[topic].Partitions); n != streamsPartitions {
			t.Errorf("%s has %d partitions, want %d", topic, n, streamsPartitions)
		}
		resource, err := described.On(topic, nil)
		if err != nil || resource.Err != nil {
			t.Errorf("describe %s: %v, %v", topic, err, resource.Err)
			continue
		}
		for _, config := range resource.Configs {
			if value, ok := want[topic][config.Key]; ok && config.MaybeValue() != value {
				t.Errorf("%s of %s is %q, want %q", config.Key, topic, config.MaybeValue(), value)
			}
		}
	}
}

// awaitPurge returns when the repartition topic is empty: Streams deletes what it has consumed with DeleteRecords.
func (w *wordCount) awaitPurge(t *testing.T) {
	ctx := deadline(t, streamsTimeout)
	admin := kadm.NewClient(w.client)
	topic := w.internal("words-repartition")
	eventually(ctx, t, func() error {
		starts, err := admin.ListStartOffsets(ctx, topic)
		if err != nil {
			return err
		}
		ends, err := admin.ListEndOffsets(ctx, topic)
		if err != nil {
			return err
		}
		written := int64(0)
		for p := range int32(streamsPartitions) {
			start, _ := starts.Lookup(topic, p)
			end, _ := ends.Lookup(topic, p)
			if start.Offset != end.Offset {
				return fmt.Errorf("%s-%d begins at %d and ends at %d, want it empty", topic, p, start.Offset, end.Offset)
			}
			written += end.Offset
		}
		if written == 0 {
			t.Errorf("nothing was ever written to %s", topic)
		}
		return nil
	})
}

// eventually tries until it succeeds or ctx ends.
func eventually(ctx context.Context, t *testing.T, try func() error) {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatal(err)
		}
	}
}

// reset has the tool forget all that the stopped application knew. Afterwards it counts all lines anew, once.
func (w *wordCount) reset(t *testing.T) {
	tool(t, "", "org.apache.kafka.tools.StreamsResetter", "--bootstrap-server", strings.Join(w.target.bootstrap(), ","),
		"--application-id", w.id, "--input-topics", w.input, "--force")
	w.wipe(t, "a")
	ctx := deadline(t, time.Minute)
	eventually(ctx, t, func() error { // brokers learn of deletions one after the other
		topics, err := kadm.NewClient(w.client).ListTopics(ctx)
		for _, name := range []string{"words-repartition", "counts-changelog", "hourly-changelog"} {
			if err == nil && topics.Has(w.internal(name)) {
				err = fmt.Errorf("%s is there after the reset", w.internal(name))
			}
		}
		return err
	})
	clear(w.counted)
	app := w.start(t, "a")
	w.awaitExact(t)
	app.stop(t)
}

// restartBrokers restarts one broker after the other, each in good order.
func (w *wordCount) restartBrokers(t *testing.T) {
	t.Helper()
	for _, n := range w.target.nodes {
		ctx := deadline(t, time.Minute)
		if err := n.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		if err := n.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// stateDir is where an instance keeps its stores.
func (w *wordCount) stateDir(instance string) string { return filepath.Join(w.dir, instance) }

// wipe deletes an instance's stores.
func (w *wordCount) wipe(t *testing.T, instance string) {
	t.Helper()
	if err := os.RemoveAll(w.stateDir(instance)); err != nil {
		t.Fatal(err)
	}
}

// start starts an instance and returns when it runs.
func (w *wordCount) start(t *testing.T, instance string) *streamsApp {
	t.Helper()
	app := w.launch(t, w.id, instance)
	app.await(t, "state RUNNING")
	return app
}

// startRefused starts another application and demands that it soon dies, for a reason that says what is wrong.
func (w *wordCount) startRefused(t *testing.T, id, reason string, settings ...string) {
	t.Helper()
	app := w.launch(t, id, id, settings...)
	if failure := app.await(t, "failed "); !strings.Contains(failure, reason) {
		t.Errorf("%s, want %s", failure, reason)
	}
	app.stop(t)
}

func (w *wordCount) launch(t *testing.T, id, instance string, settings ...string) *streamsApp {
	t.Helper()
	java, err := toolchain.NewStreams(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const heapMiB = 256
	settings = append([]string{
		w.input, w.output,
		"bootstrap.servers=" + strings.Join(w.target.bootstrap(), ","),
		"application.id=" + id,
		"state.dir=" + w.stateDir(instance),
		"commit.interval.ms=200",
		"repartition.purge.interval.ms=500",
		"statestore.cache.max.bytes=0", // every update is seen
		"consumer.session.timeout.ms=6000",
		"consumer.heartbeat.interval.ms=1000",
	}, settings...)
	source := filepath.Join(toolchain.Root(), "java", "StreamsWordCount.java")
	cmd := java.Service(afterTest(t, 10*time.Minute), heapMiB, source, settings...)
	return startStreamsApp(t, instance, cmd)
}

// streamsApp is a running instance. It ends when its standard input does.
type streamsApp struct {
	instance string
	cmd      *exec.Cmd
	stdin    io.Closer
	lines    chan string // of its standard output; closed at its end
	said     []string    // what was read of them
	ended    bool
}

func startStreamsApp(t *testing.T, instance string, cmd *exec.Cmd) *streamsApp {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), instance+".log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// It says a few hundred lines at most, so nothing ever waits for a reader.
	app := &streamsApp{instance: instance, cmd: cmd, stdin: stdin, lines: make(chan string, 10_000)}
	go func() {
		defer close(app.lines)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			app.lines <- scanner.Text()
		}
	}()
	t.Cleanup(func() {
		app.stop(t)
		if t.Failed() {
			t.Logf("instance %s said %q\n%s", instance, app.said, tail(log.Name()))
		}
		log.Close()
	})
	return app
}

// tail is the end of a file.
func tail(path string) []byte {
	const limit = 16 << 10
	content, err := os.ReadFile(path)
	if err != nil {
		return []byte(err.Error())
	}
	return content[max(0, len(content)-limit):]
}

// await returns the first line that begins so.
func (a *streamsApp) await(t *testing.T, prefix string) string {
	t.Helper()
	ctx := deadline(t, streamsTimeout)
	for {
		select {
		case line, ok := <-a.lines:
			if !ok {
				t.Fatalf("instance %s ended before it said %q", a.instance, prefix)
			}
			a.said = append(a.said, line)
			if strings.HasPrefix(line, prefix) {
				return line
			}
		case <-ctx.Done():
			t.Fatalf("instance %s did not say %q", a.instance, prefix)
		}
	}
}

// restored counts the records that were read from changelogs whose names contain part, until the instance ran.
func (a *streamsApp) restored(part string) (total int) {
	for _, line := range a.said {
		if words := strings.Fields(line); words[0] == "restored" && strings.Contains(words[1], part) {
			n, _ := strconv.Atoi(words[2])
			total += n
		}
	}
	return total
}

// stop ends the instance in good order. It may be called again.
func (a *streamsApp) stop(t *testing.T) {
	t.Helper()
	if a.ended {
		return
	}
	a.stdin.Close()
	a.wait()
	if err := a.cmd.Wait(); err != nil {
		t.Errorf("instance %s: %v", a.instance, err)
	}
}

// kill ends the instance with SIGKILL.
func (a *streamsApp) kill(t *testing.T) {
	t.Helper()
	if err := a.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	a.wait()
	_ = a.cmd.Wait() // killed
}

// wait reads what the instance says until its end.
func (a *streamsApp) wait() {
	a.ended = true
	for line := range a.lines {
		a.said = append(a.said, line)
	}
}
