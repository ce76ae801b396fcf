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

	"github.com/streamhouse/streamhouse/compat-tests/wire"
	"github.com/streamhouse/streamhouse/internal/check"
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

// load is idempotent producers and consumers at work on one topic, and the history that they make.
type load struct {
	topic    string
	seeds    []string
	recorder *check.Recorder
	// parse tells which record has a value.
	parse func(value []byte) (check.ID, error)
	// views are the agents whose logs are compared in the end; nil: those that are listed.
	views func(context.Context, *testing.T, *load) []view

	mu       sync.Mutex
	handed   int     // to the producers
	settled  int     // of these, acknowledged or given up
	acked    int     // of these, acknowledged
	problems []error // what no fault of a broker excuses

	// progress is signalled after acknowledgements.
	progress chan struct{}
	// stopProducing ends the producers, stopConsuming the consumers.
	stopProducing, stopConsuming context.CancelFunc
	producing, consuming         sync.WaitGroup
}

func newLoad(seeds []string, topic string) *load {
	return &load{topic: topic, seeds: seeds, recorder: check.NewRecorder(), parse: check.ParseValue, progress: make(chan struct{}, 1)}
}

// startLoad creates the topic and sets producers and a consumer to work until finish.
func startLoad(t *testing.T, seeds []string, topic string, seed uint64) *load {
	t.Helper()
	l := newLoad(seeds, topic)
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
		sender := l.recorder.Sender(true)
		l.producing.Go(func() { l.produce(producing, client, sender, random) })
	}
	consumer, poller := l.client(t, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())), l.recorder.Poller()
	for partition := range int32(loadPartitions) {
		poller.Begin(partition, 0)
	}
	l.consuming.Go(func() { l.consume(consuming, consumer, poller) })
	l.consuming.Go(func() { l.watchEnds(consuming, kadm.NewClient(admin)) })
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

// member returns the options of a group member whose sessions the poller records. They hold back rebalances until
// what was polled is recorded, and AllowRebalance called.
func (l *load) member(poller *check.Poller) []kgo.Opt {
	lost := func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
		for _, partition := range lost[l.topic] {
			poller.Revoke(partition)
		}
	}
	return []kgo.Opt{
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, assigned map[string][]int32) {
			for _, partition := range assigned[l.topic] {
				poller.Begin(partition, check.NoOffset)
			}
		}),
		kgo.OnPartitionsRevoked(lost),
		kgo.OnPartitionsLost(lost),
	}
}

// produce sends bursts of records to random partitions until ctx ends, then waits for their acknowledgements.
func (l *load) produce(ctx context.Context, client *kgo.Client, sender *check.Sender, random *rand.Rand) {
	ticker := time.NewTicker(loadInterval)
	defer ticker.Stop()
	var pending sync.WaitGroup
	defer pending.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for range loadBurst {
			pending.Add(1)
			l.send(ctx, client, sender, random.Int32N(loadPartitions), func(error) { pending.Done() })
		}
	}
}

// send hands the producer its next record, and calls done when its fate is known. It must not be called concurrently
// for one producer.
func (l *load) send(ctx context.Context, client *kgo.Client, sender *check.Sender, partition int32, done func(error)) {
	l.mu.Lock()
	l.handed++
	l.mu.Unlock()
	id := sender.Send(partition)
	record := &kgo.Record{Topic: l.topic, Partition: partition, Value: check.Value(id, loadValueSize)}
	// The records' context never ends, so that each is acknowledged in the end, however many brokers die.
	client.Produce(context.WithoutCancel(ctx), record, func(r *kgo.Record, err error) {
		defer done(err)
		l.sent(sender, id, r.Offset, err)
	})
}

func (l *load) sent(sender *check.Sender, id check.ID, offset int64, err error) {
	if err == nil {
		sender.Acked(id, offset)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settled++
	if err != nil {
		l.problems = append(l.problems, fmt.Errorf("a producer that may retry for ever failed: %w", err))
	} else {
		l.acked++
	}
	l.signal()
}

// signal tells who waits for progress.
func (l *load) signal() {
	select {
	case l.progress <- struct{}{}:
	default:
	}
}

// consume notes what a consumer sees until ctx ends.
func (l *load) consume(ctx context.Context, client *kgo.Client, poller *check.Poller) {
	defer client.AllowRebalance() // or Close waits for it
	for {
		invoked := l.recorder.Now()
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return
		}
		l.saw(poller, invoked, fetches)
		client.AllowRebalance()
	}
}

// saw notes what a poll returned.
func (l *load) saw(poller *check.Poller, invoked check.Instant, fetches kgo.Fetches) {
	fetches.EachError(func(topic string, partition int32, err error) {
		l.problem(fmt.Errorf("a consumer of %s-%d failed: %w", topic, partition, err))
	})
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if len(p.Records) > 0 {
			poller.Poll(invoked, check.NoAgent, p.Partition, l.observe(p.Records))
		}
	})
}

// watchEnds lists the end offsets time and again until ctx ends. Brokers that don't answer are no problem.
func (l *load) watchEnds(ctx context.Context, admin *kadm.Client) {
	ticker := time.NewTicker(10 * loadInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		invoked := l.recorder.Now()
		ends, err := admin.ListEndOffsets(ctx, l.topic)
		if err == nil {
			l.recordEnds(invoked, ends)
		}
	}
}

func (l *load) recordEnds(invoked check.Instant, ends kadm.ListedOffsets) {
	ends.Each(func(o kadm.ListedOffset) {
		if o.Err == nil {
			l.recorder.End(check.End{
				Source: check.Listed, Agent: check.NoAgent, Partition: o.Partition, Offset: o.Offset, Invoked: invoked,
			})
		}
	})
}

// observe returns what was read. A record with another value than was sent is a problem.
func (l *load) observe(records []*kgo.Record) []check.Record {
	observed := make([]check.Record, 0, len(records))
	for _, r := range records {
		id, err := l.parse(r.Value)
		if err != nil {
			l.problem(fmt.Errorf("%s-%d at %d: %w", r.Topic, r.Partition, r.Offset, err))
			continue
		}
		observed = append(observed, check.Record{ID: id, Offset: r.Offset})
	}
	return observed
}

func (l *load) problem(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.problems = append(l.problems, err)
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
	return l.handed - l.settled
}

// view is an agent's, and how it is reached.
type view struct {
	client *kgo.Client
	broker int32
}

// listed are the views of all agents that one client is told of.
func listed(ctx context.Context, t *testing.T, l *load) (views []view) {
	t.Helper()
	client := l.client(t)
	brokers, err := wire.Brokers(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	for _, broker := range brokers {
		views = append(views, view{client, broker})
	}
	return views
}

// finish stops the load, waits until every record is acknowledged, reads the log from each broker, and checks the
// history.
func (l *load) finish(t *testing.T) {
	t.Helper()
	ctx := deadline(t, 2*time.Minute)
	l.stopProducing()
	await(ctx, t, "the producers", &l.producing)
	l.stopConsuming()
	await(ctx, t, "the consumers", &l.consuming)

	client := l.client(t)
	invoked := l.recorder.Now()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, l.topic)
	if err := errors.Join(err, ends.Error()); err != nil {
		t.Fatalf("list end offsets: %v", err)
	}
	l.recordEnds(invoked, ends)
	if l.views == nil {
		l.views = listed
	}
	for _, view := range l.views(ctx, t, l) {
		ends.Each(func(o kadm.ListedOffset) {
			invoked := l.recorder.Now()
			log, err := wire.Fetch(ctx, view.client, view.broker, l.topic, o.Partition, o.Offset)
			if err != nil {
				t.Error(err)
			}
			l.recorder.Log(check.Log{
				Agent: view.broker, Partition: o.Partition, End: o.Offset, Invoked: invoked, Records: l.observe(log.Records),
			})
		})
	}
	reportAnomalies(t, check.Check(l.recorder.History(), check.Options{}))
	t.Logf("%d records sent, %d acknowledged; ends %v", l.handed, l.acked, ends[l.topic])
}

func (l *load) reportProblems(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := errors.Join(l.problems[:min(len(l.problems), 5)]...); err != nil {
		t.Errorf("%d problems, such as: %v", len(l.problems), err)
	}
}

func reportAnomalies(t *testing.T, anomalies []check.Anomaly) {
	t.Helper()
	const shown = 10
	for _, a := range anomalies[:min(len(anomalies), shown)] {
		t.Error(a)
	}
	if len(anomalies) > shown {
		t.Errorf("%d anomalies in all", len(anomalies))
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
