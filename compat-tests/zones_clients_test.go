package compattests

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/compat-tests/clients"
	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/compat-tests/scenario"
)

// TestZonesOfClients has clients of other languages tell their zones by their ids, and counts where the records go that
// they write to partitions which are led from another zone, and read.
func TestZonesOfClients(t *testing.T) {
	if !slow(t) {
		return
	}
	const records = 100 // of each client for each partition
	ctx := deadline(t, 5*time.Minute)
	cluster := harness.StartZonedCluster(t, harness.FastStores(t))
	home, err := kgo.NewClient(append(cluster.Client("a"), kgo.SeedBrokers(cluster.Seeds()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(home.Close)
	if _, err := kadm.NewClient(home).CreateTopic(ctx, scenario.Partitions, -1, nil, zonedTopic); err != nil {
		t.Fatal(err)
	}
	log := make([][][]byte, scenario.Partitions) // keys
	for partition := range int32(scenario.Partitions) {
		key := []byte("the first")
		if err := home.ProduceSync(ctx, &kgo.Record{Topic: zonedTopic, Partition: partition, Key: key}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		log[partition] = append(log[partition], key)
	}
	for _, c := range []struct{ name, zone string }{{"java", "b"}, {"librdkafka", "c"}, {"java-2", "c"}, {"kcat", "b"}} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(clients.IDVariable, "compat,zone="+c.zone)
			client, err := clientKinds[c.name](ctx, cluster.Seeds(), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			before := cluster.Flows()
			var sent []scenario.Record
			for n := range records * scenario.Partitions {
				partition := n % scenario.Partitions
				key := fmt.Appendf(nil, "%s-%s-%d", harness.Mark, c.name, n)
				log[partition] = append(log[partition], key)
				sent = append(sent, scenario.Record{
					Partition: int32(partition), Timestamp: scenario.ClientTime, Key: key, Value: bytes.Repeat([]byte{'v'}, zonedValueSize),
				})
				if client.Profile().Timestamps {
					sent[n].Timestamp = time.Now().UnixMilli()
				}
			}
			_, err = client.Produce(ctx, zonedTopic, "none", sent)
			read, readErr := client.Read(ctx, zonedTopic, scenario.Earliest)
			if err := errors.Join(err, readErr); err != nil {
				t.Fatal(err)
			}
			for partition, want := range log {
				var got [][]byte
				for _, r := range read {
					if int(r.Partition) == partition {
						got = append(got, r.Key)
					}
				}
				if !slices.EqualFunc(want, got, bytes.Equal) {
					t.Errorf("partition %d: read %d records, want %d in the order in which they were written", partition, len(got), len(want))
				}
			}
			flows := cluster.Flows().Since(before)
			t.Logf("%s in zone %s:\n%s", c.name, c.zone, flows)
			if flows.Sum(harness.Flow.Crosses).Marks > 0 {
				t.Error("records crossed zones, or went into the database")
			}
		})
	}
}
