package compattests

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/internal/check"
)

const (
	zonedTopic = "zoned"
	zonedWidth = 24
	// A batch is of one to four records.
	zonedValueSize = 16 << 10
	zonedBatchSize = 4*zonedValueSize + 4<<10
	zonedBuffer    = 256 // records that a producer holds while it waits for acknowledgements
	zonedKeys      = 240 // of each producer
	zonedPatience  = 2 * time.Second
)

// zonedLoad is a producer in each zone of a cluster, which writes to all partitions by key, and a consumer in each zone
// and a group in one of them, which read everything. Nothing is sent but by write.
type zonedLoad struct {
	*load
	cluster          *harness.ZonedCluster
	all              bool // what takes minutes is wanted
	producers        []*zonedProducer
	readers          []*zonedReader
	consumingContext context.Context

	idle float64 // bytes a second between agents of different zones that are no part of what is measured

	written []int64 // guarded by load.mu; by partition: the end of what was acknowledged
}

type zonedProducer struct {
	client *kgo.Client
	sender *check.Sender
	keys   []zonedKey
	next   int // into keys
}

// zonedKey is a key and where it belongs.
type zonedKey struct {
	key       []byte
	partition int32
}

// zonedReader is how far a consumer got: of each partition it has returned all below next.
type zonedReader struct {
	name string
	next []int64 // guarded by load.mu
}

func startZonedLoad(t *testing.T, cluster *harness.ZonedCluster, all bool) *zonedLoad {
	t.Helper()
	l := &zonedLoad{
		load:    newLoad(cluster.Seeds(), zonedTopic),
		cluster: cluster, all: all, written: make([]int64, zonedWidth),
	}
	l.parse, l.views = parseZonedValue, viewsOf(cluster, all)
	admin := kadm.NewClient(l.in(t, cluster.Zones[0]))
	if _, err := admin.CreateTopic(deadline(t, time.Minute), zonedWidth, -1, nil, l.topic); err != nil {
		t.Fatalf("create topic: %v", err)
	}
	t.Cleanup(func() { l.reportProblems(t) })
	l.stopProducing = func() {} // they stop by themselves
	l.consumingContext, l.stopConsuming = context.WithCancel(t.Context())
	for _, zone := range cluster.Zones {
		l.producers = append(l.producers, &zonedProducer{
			client: l.in(t, zone, kgo.ProducerBatchMaxBytes(zonedBatchSize), kgo.MaxBufferedRecords(zonedBuffer),
				kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(5*time.Millisecond)),
			sender: l.recorder.Sender(true),
			keys:   zonedKeysOf(zone),
		})
		poller := l.recorder.Poller()
		for partition := range int32(zonedWidth) {
			poller.Begin(partition, 0)
		}
		l.read(l.in(t, zone, kgo.ConsumeTopics(l.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())),
			poller, &zonedReader{name: "the consumer in zone " + zone})
	}
	const members = 2
	zone := cluster.Zones[1]
	group := &zonedReader{name: "the group in zone " + zone}
	for range members {
		poller := l.recorder.Poller()
		l.read(l.in(t, zone, append(l.member(poller), kgo.ConsumerGroup(l.topic), kgo.ConsumeTopics(l.topic),
			kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...), poller, group)
	}
	return l
}

// zonedKeysOf are the keys that a zone's producer has, over and over: each partition's in turn.
func zonedKeysOf(zone string) []zonedKey {
	by := make([][]zonedKey, zonedWidth)
	partitioner := kgo.StickyKeyPartitioner(nil).ForTopic(zonedTopic)
	for n, had := 0, 0; had < zonedKeys; n++ {
		key := fmt.Appendf(nil, "%s-%s-%d", harness.Mark, zone, n)
		partition := partitioner.Partition(&kgo.Record{Key: key}, zonedWidth)
		if len(by[partition]) < zonedKeys/zonedWidth {
			by[partition] = append(by[partition], zonedKey{key, int32(partition)})
			had++
		}
	}
	var keys []zonedKey
	for n := range zonedKeys / zonedWidth {
		for _, of := range by {
			keys = append(keys, of[n])
		}
	}
	return keys
}

// zonedNoise is what the values are cut from, each at another place: to make so many of their own would take most of
// the test's time.
var zonedNoise = check.Value(check.ID{}, 8*zonedValueSize)

// zonedValue begins as the checker's values do, and goes on with noise.
func zonedValue(id check.ID) []byte {
	at := (id.Sequence*1009 + int64(id.Producer)*31) % int64(len(zonedNoise)-zonedValueSize)
	return append(check.Value(id, loadValueSize), zonedNoise[at:][:zonedValueSize-loadValueSize]...)
}

// parseZonedValue is check.ParseValue for these.
func parseZonedValue(value []byte) (check.ID, error) {
	id, err := check.ParseValue(value[:min(len(value), loadValueSize)])
	if err == nil && !bytes.Equal(value, zonedValue(id)) {
		err = fmt.Errorf("%w: what follows the beginning of record %d of producer %d", check.ErrCorrupt, id.Sequence, id.Producer)
	}
	return id, err
}

// in makes a client in a zone that gives up on nothing.
func (l *zonedLoad) in(t *testing.T, zone string, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	return l.client(t, slices.Concat(l.cluster.Client(zone), []kgo.Opt{
		kgo.ProduceRequestTimeout(zonedPatience), kgo.RequestTimeoutOverhead(zonedPatience), kgo.DialTimeout(zonedPatience),
		kgo.FetchMaxWait(zonedPatience / 2),
	}, options)...)
}

// read has a client consume until the consumers are stopped.
func (l *zonedLoad) read(client *kgo.Client, poller *check.Poller, reader *zonedReader) {
	reader.next = make([]int64, zonedWidth)
	if !slices.Contains(l.readers, reader) {
		l.readers = append(l.readers, reader)
	}
	l.consuming.Go(func() {
		defer client.AllowRebalance() // or it could not be closed
		for {
			invoked := l.recorder.Now()
			fetches := client.PollFetches(l.consumingContext)
			if l.consumingContext.Err() != nil {
				return
			}
			l.saw(poller, invoked, fetches)
			l.mu.Lock()
			fetches.EachPartition(func(p kgo.FetchTopicPartition) {
				if n := len(p.Records); n > 0 {
					reader.next[p.Partition] = max(reader.next[p.Partition], p.Records[n-1].Offset+1)
				}
			})
			l.mu.Unlock()
			l.signal()
			client.AllowRebalance()
		}
	})
}

// write is tryWrite, which has to succeed.
func (l *zonedLoad) write(ctx context.Context, t *testing.T, each int) {
	t.Helper()
	if err := l.tryWrite(ctx, each); err != nil {
		t.Fatal(err)
	}
}

// tryWrite has each zone's producer write this many records to each partition, and returns when all are acknowledged
// and all consumers have read them.
func (l *zonedLoad) tryWrite(ctx context.Context, each int) error {
	var producing sync.WaitGroup
	done := make(chan struct{})
	for _, p := range l.producers {
		producing.Go(func() { l.produce(ctx, p, each) })
	}
	go func() {
		defer close(done)
		producing.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return fmt.Errorf("%d records are not acknowledged: %w", l.inFlight(), ctx.Err())
	}
	for !l.allRead() {
		select {
		case <-l.progress:
		case <-ctx.Done():
			return fmt.Errorf("not all is read: %s: %w", l.positions(), ctx.Err())
		}
	}
	return nil
}

// positions tells how far everybody got.
func (l *zonedLoad) positions() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := fmt.Sprintf("acknowledged are %v", l.written)
	for _, r := range l.readers {
		text += fmt.Sprintf("; %s has read up to %v", r.name, r.next)
	}
	return text
}

// produce returns when all is acknowledged.
func (l *zonedLoad) produce(ctx context.Context, p *zonedProducer, each int) {
	var pending sync.WaitGroup
	defer pending.Wait()
	for range each * zonedWidth {
		key := p.keys[p.next%len(p.keys)]
		p.next++
		l.mu.Lock()
		l.handed++
		l.mu.Unlock()
		id := p.sender.Send(key.partition)
		pending.Add(1)
		record := &kgo.Record{Topic: l.topic, Key: key.key, Value: zonedValue(id)}
		p.client.Produce(context.WithoutCancel(ctx), record, func(r *kgo.Record, err error) {
			defer pending.Done()
			l.sent(p.sender, id, r.Offset, err)
			if err == nil {
				l.mu.Lock()
				defer l.mu.Unlock()
				l.written[r.Partition] = max(l.written[r.Partition], r.Offset+1)
			}
		})
	}
}

func (l *zonedLoad) allRead() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !slices.ContainsFunc(l.readers, func(r *zonedReader) bool {
		for partition, end := range l.written {
			if r.next[partition] < end {
				return true
			}
		}
		return false
	})
}

// viewsOf are views of agents of all zones, each from its own: of all of them, or of one a zone.
func viewsOf(cluster *harness.ZonedCluster, all bool) func(context.Context, *testing.T, *load) []view {
	return func(ctx context.Context, t *testing.T, l *load) (views []view) {
		t.Helper()
		for _, zone := range cluster.Zones {
			client := l.client(t, cluster.Client(zone)...)
			brokers, err := kadm.NewClient(client).ListBrokers(ctx)
			if err != nil {
				t.Fatal(err)
			}
			brokers = slices.DeleteFunc(brokers, func(b kadm.BrokerDetail) bool { return b.Rack == nil || *b.Rack != zone })
			if len(brokers) == 0 {
				t.Fatalf("zone %s has no agent", zone)
			}
			if !all {
				brokers = brokers[:1]
			}
			for _, b := range brokers {
				views = append(views, view{client, b.NodeID})
			}
		}
		return views
	}
}
