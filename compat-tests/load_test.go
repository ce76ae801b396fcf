package compattests

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/compat-tests/check"
	"github.com/streamhouse/streamhouse/compat-tests/wire"
)

const (
	loadPartitions = 4
	loadProducers  = 3
	loadValueSize  = 512
	loadBuffer     = 300 // records that a producer holds while it waits for acknowledgements
	// Each producer sends loadBurst records every loadInterval: enough that each kill meets requests in flight.
	loadBurst    = 5
	loadInterval = 5 * time.Millisecond
)

// load is idempotent producers and a consumer at work on one topic, and the history that they make.
type load struct {
	topic string
	seeds []string

	mu       sync.Mutex
	history  check.History
	handed   int // to the producers, acknowledged or not
	acked    int
	problems []error // what no fault of a broker excuses

	// progress is signalled after acknowledgements.
	progress chan struct{}
	// stopProducing ends the producers, stopConsuming the consumer; running waits for all.
	stopProducing, stopConsuming context.CancelFunc
	producing, consuming         sync.WaitGroup
}

// startLoad creates the topic and sets producers and a consumer to work until finish.
func startLoad(t *testing.T, seeds []string, topic string, seed uint64) *load {
	t.Helper()
	l := &load{topic: topic, seeds: seeds, progress: make(chan struct{}, 1)}
	admin := l.client(t)
	if _, err := kadm.NewClient(admin).CreateTopic(deadline(t, time.Minute), loadPartitions, -1, nil, topic); err != nil {
		t.Fatalf("create topic: %v", err)
	}
	t.Cleanup(func() { l.reportProblems(t) })
	var producing, consuming context.Context
	producing, l.stopProducing = context.WithCancel(t.Context())
	consuming, l.stopConsuming = context.WithCancel(t.Context())
	for producer := range int32(loadProducers) {
		client := l.client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MaxBufferedRecords(loadBuffer))
		random := rand.New(rand.NewPCG(seed, uint64(producer)))
		l.producing.Go(func() { l.produce(producing, client, producer, random) })
	}
	consumer := l.client(t, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	l.consuming.Go(func() { l.consume(consuming, consumer) })
	return l
}

// client makes a client that gives up on nothing and looks around often, for brokers that come and go.
func (l *load) client(t *testing.T, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(options,
		kgo.SeedBrokers(l.seeds...),
		kgo.MetadataMinAge(100*time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 100 * time.Millisecond }),
		kgo.AlwaysRetryEOF(), // a broker that dies before its first answer is not one that wants SASL
	)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// produce sends bursts of records to random partitions until ctx ends, then waits for their acknowledgements.
func (l *load) produce(ctx context.Context, client *kgo.Client, producer int32, random *rand.Rand) {
	ticker := time.NewTicker(loadInterval)
	defer ticker.Stop()
	var pending sync.WaitGroup
	defer pending.Wait()
	sequence := int64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for range loadBurst {
			id := check.ID{Producer: producer, Sequence: sequence}
			sequence++
			record := &kgo.Record{Topic: l.topic, Partition: random.Int32N(loadPartitions), Value: check.Value(id, loadValueSize)}
			pending.Add(1)
			l.mu.Lock()
			l.handed++
			l.mu.Unlock()
			// The records' context never ends, so that each is acknowledged in the end, however many brokers die.
			client.Produce(context.WithoutCancel(ctx), record, func(r *kgo.Record, err error) {
				defer pending.Done()
				l.sent(id, r, err)
			})
		}
	}
}

func (l *load) sent(id check.ID, r *kgo.Record, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sent := check.Sent{ID: id, Partition: r.Partition, Offset: r.Offset}
	if err != nil {
		sent.Offset = check.Unacknowledged
		l.problems = append(l.problems, fmt.Errorf("a producer that may retry for ever failed: %w", err))
	} else {
		l.acked++
	}
	l.history.Sent = append(l.history.Sent, sent)
	select {
	case l.progress <- struct{}{}:
	default:
	}
}

// consume notes what a consumer sees until ctx ends.
func (l *load) consume(ctx context.Context, client *kgo.Client) {
	for {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return
		}
		l.mu.Lock()
		fetches.EachError(func(topic string, partition int32, err error) {
			l.problems = append(l.problems, fmt.Errorf("a consumer of %s-%d failed: %w", topic, partition, err))
		})
		fetches.EachRecord(func(r *kgo.Record) {
			read, err := observe(r)
			if err != nil {
				l.problems = append(l.problems, err)
			}
			l.history.Seen = append(l.history.Seen, read)
		})
		l.mu.Unlock()
	}
}

func observe(r *kgo.Record) (check.Read, error) {
	id, err := check.ParseValue(r.Value)
	if err != nil {
		err = fmt.Errorf("%s-%d at %d: %w", r.Topic, r.Partition, r.Offset, err)
	}
	return check.Read{ID: id, Partition: r.Partition, Offset: r.Offset}, err
}

// awaitAcks returns after n more acknowledgements.
func (l *load) awaitAcks(ctx context.Context, n int) error {
	goal := l.ackCount() + n
	for l.ackCount() < goal {
		select {
		case <-l.progress:
		case <-ctx.Done():
			return fmt.Errorf("%d acknowledgements short of %d: %w", goal-l.ackCount(), n, ctx.Err())
		}
	}
	return nil
}

func (l *load) ackCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked
}

// inFlight is the number of records that are not acknowledged yet.
func (l *load) inFlight() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.handed - len(l.history.Sent)
}

// finish stops the load, waits until every record is acknowledged, and checks the history against the log of each
// broker.
func (l *load) finish(t *testing.T) {
	t.Helper()
	ctx := deadline(t, 2*time.Minute)
	l.stopProducing()
	await(ctx, t, "the producers", &l.producing)
	l.stopConsuming()
	await(ctx, t, "the consumer", &l.consuming)

	client := l.client(t)
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, l.topic)
	if err := errors.Join(err, ends.Error()); err != nil {
		t.Fatalf("list end offsets: %v", err)
	}
	l.history.Ends = make(map[int32]int64)
	ends.Each(func(o kadm.ListedOffset) { l.history.Ends[o.Partition] = o.Offset })
	brokers, err := wire.Brokers(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	for _, broker := range brokers {
		l.history.Log = nil
		for partition, end := range l.history.Ends {
			log, err := wire.Fetch(ctx, client, broker, l.topic, partition, end)
			if err != nil {
				t.Error(err)
			}
			for _, r := range log.Records {
				read, err := observe(r)
				if err != nil {
					t.Error(err)
				}
				l.history.Log = append(l.history.Log, read)
			}
		}
		reportViolations(t, broker, check.Check(l.history))
	}
	t.Logf("%d records sent, %d acknowledged, %d seen meanwhile; ends %v", len(l.history.Sent), l.acked, len(l.history.Seen), l.history.Ends)
}

func (l *load) reportProblems(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := errors.Join(l.problems[:min(len(l.problems), 5)]...); err != nil {
		t.Errorf("%d problems, such as: %v", len(l.problems), err)
	}
}

func reportViolations(t *testing.T, broker int32, violations []check.Violation) {
	t.Helper()
	const shown = 10
	for _, v := range violations[:min(len(violations), shown)] {
		t.Errorf("in the log of broker %d: %v", broker, v)
	}
	if len(violations) > shown {
		t.Errorf("in the log of broker %d: %d violations in all", broker, len(violations))
	}
}

func await(ctx context.Context, t *testing.T, what string, wg *sync.WaitGroup) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		t.Fatalf("%s did not end: %v", what, ctx.Err())
	}
}
