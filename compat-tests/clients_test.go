package compattests

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/compat-tests/clients"
	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/compat-tests/scenario"
	"github.com/streamhouse/streamhouse/compat-tests/wire"
)

// clientTimeout bounds all that one client does to one target.
const clientTimeout = 3 * time.Minute

// TestClients has each client write every kind of record in every codec, read it back byte for byte, look offsets up,
// seek by timestamp and resume as a group; then each client reads what the others wrote.
func TestClients(t *testing.T) {
	forEachTarget(t, harness.FastStores, func(t *testing.T, target target) {
		all := startClients(t, target)
		written := make([]scenario.Log, len(all))
		seed := seed(t)
		// The clients write in parallel; Run returns when all of them are done.
		t.Run("own", func(t *testing.T) {
			for i, client := range all {
				t.Run(client.Name(), func(t *testing.T) {
					t.Parallel()
					run := clientRun{client: client, target: target, topic: topicOf(client)}
					written[i] = run.write(t, seed)
					run.offsets(t, &written[i])
					run.seek(t, &written[i])
					run.group(t, &written[i])
					run.batches(t, &written[i])
				})
			}
		})
		t.Run("others", func(t *testing.T) {
			for _, reader := range all {
				t.Run(reader.Name(), func(t *testing.T) {
					t.Parallel()
					for i, writer := range all {
						if writer == reader || written[i].Len() == 0 {
							continue // its own it has read; a writer that failed has said so
						}
						read, err := reader.Read(deadline(t, clientTimeout), topicOf(writer), scenario.Earliest)
						if err == nil {
							err = written[i].Compare(read)
						}
						if err != nil {
							t.Errorf("what %s wrote: %v", writer.Name(), err)
						}
					}
				})
			}
		})
	})
}

func topicOf(client clients.Client) string { return "compat-" + client.Name() }

// startClient makes one client of a target. What the client's program logs goes to a file in dir; the program ends with
// ctx at the latest.
type startClient func(ctx context.Context, bootstrap []string, dir string) (clients.Client, error)

// clientKinds are all clients under test, by their names.
var clientKinds = map[string]startClient{
	"aiokafka":     clients.NewAiokafka,
	"franz-go":     inProcess(clients.NewFranz),
	"java":         clients.NewJava,
	"kafka-python": clients.NewKafkaPython,
	"kcat":         inProcess(clients.NewKcat),
	"librdkafka":   clients.NewLibrdkafka,
}

// inProcess is for clients that need nothing but an address.
func inProcess[C clients.Client](construct func(bootstrap []string) C) startClient {
	return func(_ context.Context, bootstrap []string, _ string) (clients.Client, error) {
		return construct(bootstrap), nil
	}
}

// startClients returns one client of each kind, closed at the end of the test.
func startClients(t *testing.T, target target) []clients.Client {
	t.Helper()
	// The children of other languages end with Close; this is for when they hang.
	ctx := afterTest(t, 10*time.Minute)
	var all []clients.Client
	for _, name := range slices.Sorted(maps.Keys(clientKinds)) {
		client, err := clientKinds[name](ctx, target.bootstrap(), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := client.Close(); err != nil {
				t.Error(err)
			}
		})
		all = append(all, client)
	}
	return all
}

// clientRun is one client's way through the scenario, on a topic of its own.
type clientRun struct {
	client clients.Client
	target target
	topic  string
}

// write creates the topic, writes the records of all codecs and reads everything back.
func (r clientRun) write(t *testing.T, seed uint64) scenario.Log {
	t.Helper()
	ctx := deadline(t, clientTimeout)
	if err := r.client.CreateTopic(ctx, r.topic, scenario.TopicConfigs()); err != nil {
		t.Fatalf("create topic: %v", err)
	}
	var log scenario.Log
	begin := time.Now().UnixMilli()
	for codec, name := range scenario.Codecs {
		records := scenario.Generate(seed, codec, r.client.Profile())
		acked, err := r.client.Produce(ctx, r.topic, name, records)
		if err != nil {
			t.Fatalf("produce with %s: %v", name, err)
		}
		if appended := log.Append(records); acked != nil && !slices.Equal(acked, appended) {
			t.Errorf("produce with %s: acknowledged at the offsets %v, want %v", name, acked, appended)
		}
	}
	end := time.Now().UnixMilli()
	read, err := r.client.Read(ctx, r.topic, scenario.Earliest)
	if err != nil {
		t.Fatalf("read back: %v", err)
	}
	if err := log.AdoptTimestamps(read, begin, end); err != nil {
		t.Error(err)
	}
	if err := log.Compare(read); err != nil {
		t.Errorf("read back: %v", err)
	}
	return log
}

// offsets asks ListOffsets for the ends and for timestamps.
func (r clientRun) offsets(t *testing.T, log *scenario.Log) {
	t.Helper()
	ctx := deadline(t, clientTimeout)
	for _, timestamp := range append(log.Timestamps(), scenario.Earliest, scenario.Latest) {
		got, err := r.client.Offsets(ctx, r.topic, timestamp)
		if err != nil {
			t.Errorf("offsets at %d: %v", timestamp, err)
		} else if want := log.Offsets(timestamp); got != want {
			t.Errorf("offsets at %d: %v, want %v", timestamp, got, want)
		}
	}
}

// seek reads from timestamps on.
func (r clientRun) seek(t *testing.T, log *scenario.Log) {
	t.Helper()
	ctx := deadline(t, clientTimeout)
	for _, timestamp := range log.Timestamps() {
		read, err := r.client.Read(ctx, r.topic, timestamp)
		if err == nil {
			since := log.Since(timestamp)
			err = since.Compare(read)
		}
		if err != nil {
			t.Errorf("seek to %d: %v", timestamp, err)
		}
	}
}

// group reads the topic as a group in two sittings: the second goes on where the first committed.
func (r clientRun) group(t *testing.T, log *scenario.Log) {
	t.Helper()
	ctx := deadline(t, clientTimeout)
	group := "group-" + r.client.Name()
	total := log.Len()
	first, err := r.client.ReadGroup(ctx, r.topic, group, total/2)
	if err != nil {
		t.Errorf("group: %v", err)
		return
	}
	second, err := r.client.ReadGroup(ctx, r.topic, group, total-total/2)
	if err != nil {
		t.Errorf("group, resumed: %v", err)
		return
	}
	if err := log.Compare(append(first, second...)); err != nil {
		t.Errorf("group, both sittings: %v", err)
	}
}

// batches fetches every partition from every broker of the target: each must serve the same whole log, in valid batches
// in the codecs that their producer chose.
func (r clientRun) batches(t *testing.T, log *scenario.Log) {
	t.Helper()
	ctx := deadline(t, clientTimeout)
	client, err := kgo.NewClient(kgo.SeedBrokers(r.target.bootstrap()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	brokers, err := wire.Brokers(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	if len(brokers) != len(r.target.nodes) {
		t.Errorf("Metadata lists brokers %v, want %d", brokers, len(r.target.nodes))
	}
	for _, broker := range brokers {
		var records []scenario.Record
		codecs := make([]bool, len(scenario.Codecs))
		for p, want := range log {
			served, err := wire.Fetch(ctx, client, broker, r.topic, int32(p), int64(len(want)))
			if err != nil {
				t.Error(err)
			}
			for _, b := range served.Batches {
				codecs[wire.Codec(b)] = true
			}
			for _, record := range served.Records {
				records = append(records, clients.FromFranz(record))
			}
		}
		if err := log.Compare(records); err != nil {
			t.Errorf("from broker %d: %v", broker, err)
		}
		if slices.Contains(codecs, false) {
			t.Errorf("broker %d serves codecs %v of %v", broker, codecs, scenario.Codecs)
		}
	}
}
