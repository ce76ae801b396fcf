package main

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/internal/testdb"
)

// connect makes a client of an agent.
func connect(t *testing.T, address string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(address), kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(10),
		kgo.ProducerBatchCompression(kgo.NoCompression()), // so that sizes are what they seem
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// readAll returns the values of the first n records of a partition.
func readAll(ctx context.Context, t *testing.T, address, topic string, n int) []string {
	t.Helper()
	client := connect(t, address, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	var values []string
	for len(values) < n {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("after %d of %d records: %v", len(values), n, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if int(r.Offset) != len(values) {
				t.Fatalf("record %d has offset %d", len(values), r.Offset)
			}
			values = append(values, string(r.Value))
		})
	}
	return values
}

// TestKilledAgentKeepsRecords kills an agent under load, over and over. What was
// acknowledged is there, at its offset and once.
func TestKilledAgentKeepsRecords(t *testing.T) {
	ctx := testContext(t)
	data := t.TempDir()
	acked := map[int64]string{}
	for life := range 3 {
		agent := start(t, "--data-dir", data, "--agent-id", "mortal")
		maps.Copy(acked, produceUntilKilled(ctx, t, agent, fmt.Sprint(life)))
	}
	last := slices.Max(slices.Collect(maps.Keys(acked)))
	agent := start(t, "--data-dir", data, "--agent-id", "mortal")
	values := readAll(ctx, t, agent.kafka, "kept", int(last)+1)
	at := make(map[string]int, len(values))
	for offset, value := range values {
		if first, again := at[value]; again {
			t.Errorf("record %.20q is at offset %d and at %d", value, first, offset)
		}
		at[value] = offset
	}
	for offset, want := range acked {
		if got := values[offset]; got != want {
			t.Errorf("offset %d has %.20q, acknowledged was %.20q", offset, got, want)
		}
	}
}

// produceUntilKilled produces records, kills the agent while most of them are on
// their way, and returns those that were acknowledged, by offset.
func produceUntilKilled(ctx context.Context, t *testing.T, agent *process, life string) map[int64]string {
	t.Helper()
	const records, killAfter = 1000, 200
	client := connect(t, agent.kafka, kgo.ProducerLinger(0), kgo.ProducerBatchMaxBytes(64<<10))
	var mu sync.Mutex
	acked := map[int64]string{}
	enough := make(chan struct{})
	for n := range records {
		value := fmt.Sprintf("%s/%*d", life, 1+n%7*2000, n)
		client.Produce(ctx, &kgo.Record{Topic: "kept", Value: []byte(value)}, func(r *kgo.Record, err error) {
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				return
			}
			if acked[r.Offset] = value; len(acked) == killAfter {
				close(enough)
			}
		})
	}
	select {
	case <-enough:
	case <-ctx.Done():
		t.Fatalf("%d records were acknowledged: %v", len(acked), ctx.Err())
	}
	if err := agent.kill(); err != nil {
		t.Fatal(err)
	}
	client.Close() // ends what is on its way
	mu.Lock()
	defer mu.Unlock()
	return acked
}

// TestTerminatedAgentDrains stops an agent while a consumer waits for records,
// and a member for its group, both for longer than the test may take.
func TestTerminatedAgentDrains(t *testing.T) {
	ctx := testContext(t)
	data := t.TempDir()
	agent := start(t, "--data-dir", data, "--shutdown-timeout", "10m", "--agent-id", "first")
	client := connect(t, agent.kafka)
	for _, value := range []string{"hello", "world"} {
		if err := client.ProduceSync(ctx, &kgo.Record{Topic: "kept", Value: []byte(value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	waits, giveUp := context.WithCancel(ctx)
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer giveUp()
	reader := connect(t, agent.kafka, kgo.FetchMaxWait(5*time.Minute),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"kept": {0: kgo.NewOffset().At(2)}}))
	waiting.Go(func() { reader.PollFetches(waits) })
	awaitMetric(ctx, t, agent.admin, `streamhouse_fetch_waiting 1`)
	join(ctx, t, connect(t, agent.kafka))
	second := connect(t, agent.kafka)
	waiting.Go(func() { join(waits, t, second) })
	awaitMetric(ctx, t, agent.admin, `streamhouse_group_groups{state="PreparingRebalance"} 1`)

	agent.signal(t, syscall.SIGTERM)
	status, err := agent.end(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if status != 0 || agent.find(regexp.MustCompile(`msg=drained`)) == nil || agent.find(regexp.MustCompile(`step failed`)) != nil {
		t.Errorf("exit status %d; log:\n%s", status, agent.log())
	}

	// The leases were released and the entry is gone: an agent of another name
	// is alone, and writes without waiting for the end of a lease.
	successor := start(t, "--data-dir", data, "--agent-id", "second", "--lease-duration", "1h")
	client = connect(t, successor.kafka)
	cluster, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	if len(cluster.Brokers) != 1 {
		t.Errorf("%d agents are listed, want the successor alone", len(cluster.Brokers))
	}
	if err := client.ProduceSync(ctx, &kgo.Record{Topic: "kept", Value: []byte("again")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"hello", "world", "again"}, readAll(ctx, t, successor.kafka, "kept", 3)); diff != "" {
		t.Error(diff)
	}
}

// join makes the client a member of a group and returns when it is in a
// generation, or was told that it will not be.
func join(ctx context.Context, t *testing.T, client *kgo.Client) {
	r := kmsg.NewPtrJoinGroupRequest()
	r.Group, r.ProtocolType = "readers", "consumer"
	r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = 300_000, 300_000
	protocol := kmsg.NewJoinGroupRequestProtocol()
	protocol.Name, protocol.Metadata = "range", []byte{}
	r.Protocols = append(r.Protocols, protocol)
	for ctx.Err() == nil {
		resp, err := r.RequestWith(ctx, client)
		if err != nil || resp.ErrorCode != kerr.MemberIDRequired.Code {
			return
		}
		r.MemberID = resp.MemberID
	}
}

// startStuck starts an agent that cannot drain: its database answers nothing any
// more, and a batch waits for it.
func startStuck(ctx context.Context, t *testing.T, shutdownTimeout string) *process {
	t.Helper()
	database := testdb.NewProxy(t, testdb.Postgres(t))
	agent := start(t, "--metadata-url", unsafe(database.URL()), "--shutdown-timeout", shutdownTimeout)
	client := connect(t, agent.kafka)
	if err := client.ProduceSync(ctx, &kgo.Record{Topic: "kept", Value: []byte("hello")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	database.Pause(testdb.ToClient)
	client.Produce(ctx, &kgo.Record{Topic: "kept", Value: []byte("world")}, nil)
	awaitMetric(ctx, t, agent.admin, "streamhouse_ingest_batches_total 2")
	return agent
}

// TestSecondSignalEndsAtOnce stops an agent that cannot drain: its database
// answers nothing.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	ctx := testContext(t)
	agent := startStuck(ctx, t, "10m")
	agent.signal(t, syscall.SIGTERM)
	if _, err := agent.await(ctx, regexp.MustCompile(`msg="draining`)); err != nil {
		t.Fatal(err)
	}
	agent.signal(t, syscall.SIGTERM)
	status, err := agent.end(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if status != 1 || agent.find(regexp.MustCompile(`^streamhouse: second signal: ending at once$`)) == nil {
		t.Errorf("exit status %d; log:\n%s", status, agent.log())
	}
}

// TestDrainIsBounded stops an agent whose database answers nothing: it gives up
// when its time is over, and says so.
func TestDrainIsBounded(t *testing.T) {
	ctx := testContext(t)
	agent := startStuck(ctx, t, "1s")
	agent.signal(t, syscall.SIGTERM)
	status, err := agent.end(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if status != 0 || agent.find(regexp.MustCompile(`shutdown step failed`)) == nil {
		t.Errorf("exit status %d; log:\n%s", status, agent.log())
	}
}
