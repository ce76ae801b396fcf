package compattests

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
)

// TestALeaseFollowsItsWriters has the writer of a partition move to another zone. The lease goes there, once, while an
// idempotent producer writes: its records are all there, in their order, for a reader in the zone that was left.
func TestALeaseFollowsItsWriters(t *testing.T) {
	if !slow(t) {
		return
	}
	t.Parallel()
	ctx := deadline(t, 10*time.Minute) // a lease that has had writers in its zone stays for five
	cluster := harness.StartZonedCluster(t, harness.FastStores(t))
	in := func(zone string, options ...kgo.Opt) *kgo.Client {
		client, err := kgo.NewClient(append(append(cluster.Client(zone), kgo.SeedBrokers(cluster.Seeds()...)), options...)...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		return client
	}
	const topic = "moving"
	left, writer := in("a"), in("b")
	if _, err := kadm.NewClient(left).CreateTopic(ctx, 1, -1, nil, topic); err != nil {
		t.Fatal(err)
	}
	written := 0
	write := func(client *kgo.Client, size int) {
		record := &kgo.Record{Topic: topic, Key: fmt.Append(nil, written), Value: make([]byte, size)}
		if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
			t.Fatalf("record %d: %v", written, err)
		}
		if record.Offset != int64(written) {
			t.Fatalf("record %d has the offset %d", written, record.Offset)
		}
		written++
	}
	leader := func() (zone string, leaderEpoch int32) {
		l := leadersOf(t, cluster.Stores, topic)
		if len(l) != 1 {
			return "", -1 // on its way
		}
		for _, a := range cluster.Agents {
			if a.ID() == l[0].Agent {
				zone = a.Zone
			}
		}
		return zone, l[0].Epoch
	}

	write(left, 1)
	zone, first := leader()
	if zone != "a" {
		t.Fatalf("zone %q leads, and zone a has written", zone)
	}
	begun := time.Now()
	for zone != "b" {
		write(writer, 64<<10)
		if zone, _ = leader(); zone == "c" {
			t.Fatal("zone c leads, where nobody writes")
		}
		pause(ctx, time.Second)
	}
	t.Logf("the lease went to the zone of the writers after %s and %d records", time.Since(begun).Round(time.Second), written)
	write(writer, 1)
	if zone, leaderEpoch := leader(); zone != "b" || leaderEpoch != first+1 {
		t.Errorf("zone %q leads in leader epoch %d, want b in %d", zone, leaderEpoch, first+1)
	}

	// What the zone that was left writes goes to it, by way of an agent of its own.
	before := cluster.Flows()
	write(left, 1)
	if flows := cluster.Flows().Since(before); flows.Sum(func(f harness.Flow) bool { return f.Kind == harness.Clients && f.From == "a" && f.To == "b" }).Bytes > zonedClientBytes {
		t.Errorf("a client of zone a writes to zone b:\n%s", flows)
	}
	readInOrder(ctx, t, in("a", kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}})), written)
}

// readInOrder demands that a reader from the start is given records whose keys count from 0.
func readInOrder(ctx context.Context, t *testing.T, reader *kgo.Client, want int) {
	t.Helper()
	for read := 0; read < want; {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("after %d records: %v", read, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if string(r.Key) != fmt.Sprint(read) || r.Offset != int64(read) {
				t.Errorf("record %d: key %s, offset %d", read, r.Key, r.Offset)
			}
			read++
		})
	}
}
