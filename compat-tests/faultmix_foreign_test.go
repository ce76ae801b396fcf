package compattests

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/clients"
	"github.com/streamhouse/streamhouse/compat-tests/scenario"
	"github.com/streamhouse/streamhouse/internal/check"
)

// startForeign starts the clients of other languages.
func (m *faultMix) startForeign(t *testing.T) {
	t.Helper()
	for name, start := range map[string]func(context.Context, []string, string) (clients.Client, error){
		"java": clients.NewJava, "librdkafka": clients.NewLibrdkafka,
	} {
		client, err := start(t.Context(), m.seeds, t.TempDir())
		if err != nil {
			t.Fatalf("start %s: %v", name, err)
		}
		t.Cleanup(func() { client.Close() }) // the end of the test's context has ended it
		m.foreign = append(m.foreign, client)
	}
}

// foreign has a client of another language send some records at a time, each time as a new producer, and now and then
// read a part of the topic, until ctx ends.
func (r *mixRound) foreign(ctx context.Context, client clients.Client, random *rand.Rand) {
	const burst, bursts = 50, 20
	for n := 0; ctx.Err() == nil; n++ {
		if n%bursts == bursts-1 {
			r.readForeign(client)
		}
		r.sendForeign(ctx, client, burst, random)
		pause(ctx, 200*time.Millisecond)
	}
}

func (r *mixRound) sendForeign(ctx context.Context, client clients.Client, n int, random *rand.Rand) {
	sender := r.recorder.Sender(true)
	var ids []check.ID
	var records []scenario.Record
	for range n {
		partition := random.Int32N(r.mix.size.partitions)
		id := sender.Send(partition)
		ids = append(ids, id)
		records = append(records, scenario.Record{Partition: partition, Timestamp: time.Now().UnixMilli(), Value: check.Value(id, mixValueSize)})
	}
	offsets, err := client.Produce(ctx, r.topic, "lz4", records)
	if err != nil {
		r.mix.counts.add(1, "%s: produce: %.100v", client.Name(), err)
		return
	}
	for i, offset := range offsets {
		sender.Acked(ids[i], offset)
	}
	r.mix.counts.add(len(offsets), "%s: records acknowledged", client.Name())
}

// readForeign reads the partitions that such clients read, from their beginnings.
func (r *mixRound) readForeign(client clients.Client) {
	const earliest = -2
	poller := r.recorder.Poller()
	invoked := r.recorder.Now()
	records, err := client.Read(context.Background(), r.topic, earliest)
	if err != nil {
		r.mix.counts.add(1, "%s: read: %.100v", client.Name(), err)
		return
	}
	read := make(map[int32][]check.Record)
	for _, record := range records {
		id, err := check.ParseValue(record.Value)
		if err != nil {
			r.problem(fmt.Errorf("%s read %s-%d at %d: %w", client.Name(), r.topic, record.Partition, record.Offset, err))
			continue
		}
		read[record.Partition] = append(read[record.Partition], check.Record{ID: id, Offset: record.Offset})
	}
	for partition, records := range read {
		poller.Begin(partition, 0)
		poller.Poll(invoked, check.NoAgent, partition, records)
	}
	r.mix.counts.add(len(records), "%s: records read", client.Name())
}
