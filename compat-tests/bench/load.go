package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Load is where a load goes. Producers are idempotent and ask for all acknowledgements; their records' values are of
// ValueBytes.
type Load struct {
	Address    string
	Topic      string
	Partitions int
	ValueBytes int
	Producers  int // clients, each with a connection of its own
	// Options are further ones of all producers.
	Options []kgo.Opt
}

const mebibyte = 1 << 20

// CreateTopics creates topics of that many partitions each.
func CreateTopics(ctx context.Context, address string, partitions int, topics ...string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(address))
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	defer client.Close()
	created, err := kadm.NewClient(client).CreateTopics(ctx, int32(partitions), 1, nil, topics...)
	if err := errors.Join(err, created.Error()); err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	return nil
}

// OpenLoop produces rate records a second in all, one at a time to the partitions in turn, on a schedule that does not
// wait for acknowledgements. It returns the time from each record's place in the schedule to its acknowledgement, in
// rising order, without the records of the warm-up.
func (l Load) OpenLoop(ctx context.Context, rate int, warmUp, duration time.Duration) ([]time.Duration, error) {
	return l.openLoop(ctx, rate, warmUp, duration, func(producer, n int) (string, int32) {
		return l.Topic, int32((producer + n) % l.Partitions)
	})
}

// openLoop is OpenLoop with a choice of where each producer's n-th record goes.
func (l Load) openLoop(
	ctx context.Context, rate int, warmUp, duration time.Duration, place func(producer, n int) (topic string, partition int32),
) ([]time.Duration, error) {
	var (
		mu        sync.Mutex
		latencies []time.Duration
	)
	begin := time.Now()
	measured, end := begin.Add(warmUp), begin.Add(warmUp+duration)
	err := l.forEachProducer(func(client *kgo.Client, producer int) error {
		var failure firstError
		values := makeValues(l.ValueBytes)
		interval := time.Duration(l.Producers) * time.Second / time.Duration(rate)
		due := begin.Add(interval * time.Duration(producer) / time.Duration(l.Producers))
		for n := 0; due.Before(end) && failure.get() == nil; n++ {
			if err := sleepUntil(ctx, due); err != nil {
				return err
			}
			scheduled := due
			topic, partition := place(producer, n)
			record := &kgo.Record{Topic: topic, Partition: partition, Value: values[n%len(values)]}
			client.Produce(ctx, record, func(_ *kgo.Record, err error) {
				took := time.Since(scheduled)
				failure.set(err)
				if scheduled.Before(measured) {
					return
				}
				mu.Lock()
				latencies = append(latencies, took)
				mu.Unlock()
			})
			due = due.Add(interval)
		}
		return errors.Join(client.Flush(ctx), failure.get())
	}, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	slices.Sort(latencies)
	return latencies, err
}

// ClosedLoop produces one record after the other from one client to partition 0, each after the acknowledgement of the
// last. It returns the times to the acknowledgements in rising order, without those of the warm-up.
func (l Load) ClosedLoop(ctx context.Context, warmUp, duration time.Duration) ([]time.Duration, error) {
	var latencies []time.Duration
	l.Producers = 1
	err := l.forEachProducer(func(client *kgo.Client, _ int) error {
		value := makeValues(l.ValueBytes)[0]
		begin := time.Now()
		for now := begin; now.Before(begin.Add(warmUp + duration)); now = time.Now() {
			record := &kgo.Record{Topic: l.Topic, Partition: 0, Value: value}
			sent := time.Now()
			if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
				return err
			}
			if took := time.Since(sent); sent.Sub(begin) >= warmUp {
				latencies = append(latencies, took)
			}
		}
		return nil
	}, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	slices.Sort(latencies)
	return latencies, err
}

// Flood produces as fast as acknowledgements allow, in batches of up to 1 MiB, until the records' values make up limit
// bytes or the duration ends. It returns the bytes, all acknowledged.
func (l Load) Flood(ctx context.Context, codec kgo.CompressionCodec, limit int64, duration time.Duration) (int64, error) {
	const bufferBytes = 16 * mebibyte // of each producer
	var produced atomic.Int64
	end := time.Now().Add(duration)
	err := l.forEachProducer(func(client *kgo.Client, _ int) error {
		var failure firstError
		values := makeValues(l.ValueBytes)
		for n := 0; failure.get() == nil && time.Now().Before(end); n++ {
			if produced.Add(int64(l.ValueBytes)) > limit {
				produced.Add(int64(-l.ValueBytes))
				break
			}
			record := &kgo.Record{Topic: l.Topic, Value: values[n%len(values)]}
			client.Produce(ctx, record, func(_ *kgo.Record, err error) { failure.set(err) })
		}
		return errors.Join(client.Flush(ctx), failure.get())
	},
		kgo.ProducerBatchCompression(codec),
		kgo.ProducerBatchMaxBytes(mebibyte),
		kgo.MaxBufferedRecords(bufferBytes/l.ValueBytes),
		kgo.RecordPartitioner(kgo.UniformBytesPartitioner(mebibyte, false, false, nil)),
	)
	return produced.Load(), err
}

// Drain consumes the topic from its start to its present end with as many clients as there are producers, or until the
// duration ends. It returns the bytes of the records' values.
func (l Load) Drain(ctx context.Context, duration time.Duration) (int64, error) {
	ends, err := l.ends(ctx)
	if err != nil {
		return 0, err
	}
	bounded, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	var consumed atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, l.Producers)
	for i := range errs {
		mine := map[int32]int64{}
		for partition, end := range ends {
			if int(partition)%len(errs) == i && end > 0 {
				mine[partition] = end
			}
		}
		wg.Go(func() { errs[i] = l.drain(bounded, mine, &consumed) })
	}
	wg.Wait()
	return consumed.Load(), errors.Join(errs...)
}

func (l Load) ends(ctx context.Context) (map[int32]int64, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(l.Address))
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	defer client.Close()
	listed, err := kadm.NewClient(client).ListEndOffsets(ctx, l.Topic)
	if err := errors.Join(err, listed.Error()); err != nil {
		return nil, fmt.Errorf("list end offsets: %w", err)
	}
	ends := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
	return ends, nil
}

// drain consumes partitions up to their ends, or until ctx ends.
func (l Load) drain(ctx context.Context, ends map[int32]int64, consumed *atomic.Int64) error {
	starts := map[int32]kgo.Offset{}
	for partition := range ends {
		starts[partition] = kgo.NewOffset().At(0)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(l.Address),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{l.Topic: starts}))
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	defer client.Close()
	for len(ends) > 0 {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("consume: %w", err)
		}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			for _, r := range p.Records {
				consumed.Add(int64(len(r.Value)))
			}
			if n := len(p.Records); n > 0 && p.Records[n-1].Offset+1 >= ends[p.Partition] {
				delete(ends, p.Partition)
			}
		})
	}
	return nil
}

// OneEach produces one record to each partition of each topic.
func (l Load) OneEach(ctx context.Context, topics []string) error {
	l.Producers = 1
	return l.forEachProducer(func(client *kgo.Client, _ int) error {
		var failure firstError
		value := makeValues(l.ValueBytes)[0]
		for _, topic := range topics {
			for partition := range int32(l.Partitions) {
				record := &kgo.Record{Topic: topic, Partition: partition, Value: value}
				client.Produce(ctx, record, func(_ *kgo.Record, err error) { failure.set(err) })
			}
		}
		return errors.Join(client.Flush(ctx), failure.get())
	}, kgo.RecordPartitioner(kgo.ManualPartitioner()))
}

// forEachProducer runs produce for each producer, all at once.
func (l Load) forEachProducer(produce func(client *kgo.Client, producer int) error, options ...kgo.Opt) error {
	var wg sync.WaitGroup
	errs := make([]error, l.Producers)
	options = slices.Concat([]kgo.Opt{
		kgo.SeedBrokers(l.Address),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
	}, l.Options, options)
	for i := range errs {
		// One client after the other: they write to what the options share.
		client, err := kgo.NewClient(options...)
		if err != nil {
			errs[i] = fmt.Errorf("make a client: %w", err)
			break
		}
		wg.Go(func() {
			defer client.Close()
			if err := produce(client, i); err != nil {
				errs[i] = fmt.Errorf("producer %d: %w", i, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// makeValues returns values to send in turn: half of each is random, half repeats, so that codecs halve them.
func makeValues(size int) [][]byte {
	random := rand.NewChaCha8([32]byte{})
	values := make([][]byte, 64)
	for i := range values {
		values[i] = make([]byte, size)
		random.Read(values[i][:size/2])
	}
	return values
}

// Quantile returns the value up to which the fraction q of the sorted durations lies, by the nearest rank, in
// milliseconds. There must be at least one duration.
func Quantile(sorted []time.Duration, q float64) float64 {
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[max(rank, 1)-1].Seconds() * 1e3
}

func sleepUntil(ctx context.Context, t time.Time) error {
	wait := time.Until(t)
	if wait <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// firstError keeps the first error that it is given.
type firstError struct{ err atomic.Pointer[error] }

func (f *firstError) set(err error) {
	if err != nil {
		f.err.CompareAndSwap(nil, &err)
	}
}

func (f *firstError) get() error {
	if err := f.err.Load(); err != nil {
		return *err
	}
	return nil
}
