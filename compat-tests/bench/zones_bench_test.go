package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
)

const (
	zonePartitions = 12
	zoneProducers  = 4
	zoneRate       = 200 // records a second
)

// The quantities of zones.
const (
	readP50 = "p50-to-the-reader-ms"
	readP99 = "p99-to-the-reader-ms"
)

// zoneResults are the tables of agents in several zones.
type zoneResults struct{ latency Table }

func newZoneResults() zoneResults {
	return zoneResults{Table{
		Title: fmt.Sprintf("Three zones of two agents each: %d records/s of 1 KiB, %d producers, %d partitions, no linger", zoneRate, zoneProducers, zonePartitions),
		Note: "Producers are in one zone and the consumer is in another one. To the reader is the time from a record's place in the producer's schedule until the " +
			"consumer has it. All links go through proxies.",
		Columns: []Column{{Unit: p50}, {Unit: p99, Goal: 50}, {Unit: readP50}, {Unit: readP99, Goal: 100}, {Unit: queriesPerSecond}},
	}}
}

// measure measures partitions that are led from the producers' zone, and from a third one.
func (r *zoneResults) measure(b *testing.B) {
	stores, statistics := countingStores(b)
	cluster := harness.StartZonedCluster(b, stores, otherSettings()...)
	for _, row := range []struct{ name, leader string }{{"led where it is written", "a"}, {"led in a third zone", "b"}} {
		b.Run(row.name, func(b *testing.B) {
			ctx := b.Context()
			load := Load{
				Address: cluster.Seeds()[0], Topic: "led-in-" + row.leader,
				Partitions: zonePartitions, ValueBytes: valueBytes, Producers: zoneProducers, Options: cluster.Client(row.leader),
			}
			if err := CreateTopics(ctx, load.Address, load.Partitions, load.Topic); err != nil {
				b.Fatal(err)
			}
			if err := load.OneEach(ctx, []string{load.Topic}); err != nil { // whoever writes first has it led in its zone
				b.Fatal(err)
			}
			load.Options = cluster.Client("a")
			if _, _, err := load.EndToEnd(ctx, cluster.Client("c"), zoneRate, *warmUp); err != nil {
				b.Fatal(err)
			}
			before, err := statistics.Read(ctx)
			if err != nil {
				b.Fatal(err)
			}
			took, read, err := load.EndToEnd(ctx, cluster.Client("c"), zoneRate, *scaling)
			if err != nil {
				b.Fatal(err)
			}
			use, err := statistics.Read(ctx)
			if err != nil {
				b.Fatal(err)
			}
			add(b, &r.latency, row.name, "", map[string]float64{
				p50: Quantile(took, 0.5), p99: Quantile(took, 0.99),
				readP50: Quantile(read, 0.5), readP99: Quantile(read, 0.99),
				queriesPerSecond: use.Since(before).Calls() / scaling.Seconds(),
			})
		})
	}
}

// EndToEnd is OpenLoop with a consumer, which has these options and begins at the present ends. It returns the times from
// each record's place in the schedule to its acknowledgement and to its consumption, both in rising order.
func (l Load) EndToEnd(ctx context.Context, consumer []kgo.Opt, rate int, duration time.Duration) (acked, read []time.Duration, err error) {
	ends, err := l.ends(ctx)
	if err != nil {
		return nil, nil, err
	}
	from := make(map[int32]kgo.Offset)
	for partition, end := range ends {
		from[partition] = kgo.NewOffset().At(end)
	}
	client, err := kgo.NewClient(slices.Concat([]kgo.Opt{
		kgo.SeedBrokers(l.Address), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{l.Topic: from}),
	}, consumer)...)
	if err != nil {
		return nil, nil, fmt.Errorf("make a client: %w", err)
	}
	defer client.Close()
	consuming, end := context.WithCancel(ctx)
	defer end()
	var (
		mu   sync.Mutex
		work sync.WaitGroup
	)
	records := int(float64(rate) * duration.Seconds())
	begin := time.Now()
	all := make(chan struct{})
	work.Go(func() {
		defer close(all)
		for len(read) < records && consuming.Err() == nil {
			client.PollFetches(consuming).EachRecord(func(r *kgo.Record) {
				scheduled := begin.Add(time.Duration(binary.BigEndian.Uint64(r.Value)))
				read = append(read, time.Since(scheduled))
			})
		}
	})
	err = l.forEachProducer(func(client *kgo.Client, producer int) error {
		var failure firstError
		for n := producer; n < records && failure.get() == nil; n += l.Producers {
			due := time.Duration(n) * time.Second / time.Duration(rate)
			if err := sleepUntil(ctx, begin.Add(due)); err != nil {
				return err
			}
			record := &kgo.Record{Topic: l.Topic, Partition: int32(n % l.Partitions), Value: make([]byte, l.ValueBytes)}
			binary.BigEndian.PutUint64(record.Value, uint64(due))
			client.Produce(ctx, record, func(_ *kgo.Record, err error) {
				failure.set(err)
				mu.Lock()
				defer mu.Unlock()
				acked = append(acked, time.Since(begin.Add(due)))
			})
		}
		return errors.Join(client.Flush(ctx), failure.get())
	}, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	if err == nil {
		select {
		case <-all:
		case <-time.After(time.Minute): // what is missing was not consumed
		}
	}
	end()
	work.Wait()
	if err == nil && len(read) < records {
		err = fmt.Errorf("%d of %d records were not consumed", records-len(read), records)
	}
	slices.Sort(acked)
	slices.Sort(read)
	return acked, read, err
}
