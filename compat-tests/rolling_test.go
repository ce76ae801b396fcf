package compattests

import (
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
	rollingPartitions = 10
	rollingProducers  = 2
	rollingMembers    = 2
	// Each producer sends a record to every partition each rollingInterval: 1,000 a second in all.
	rollingInterval = 20 * time.Millisecond
)

// TestRollingRestart restarts agents one after the other while clients with nothing but their defaults are at work. No
// application sees an error, and nothing is lost, twice, or out of order.
func TestRollingRestart(t *testing.T) {
	agents := 2
	if slow(t) {
		agents = 5
	}
	nodes := harness.Cluster(t, harness.FastStores(t), agents)
	r := startRolling(t, nodes)
	ctx := deadline(t, 5*time.Minute)
	r.settle(ctx, t)
	var took []time.Duration
	for i, node := range nodes {
		begun := time.Now()
		if err := node.Stop(ctx); err != nil {
			t.Fatalf("agent %d: %v", i+1, err)
		}
		took = append(took, time.Since(begun).Round(time.Millisecond))
		r.settle(ctx, t)
		if err := node.Start(ctx); err != nil {
			t.Fatalf("agent %d: %v", i+1, err)
		}
		r.settle(ctx, t)
	}
	worst, pauses := r.pauses()
	r.awaitSeen(ctx, t)
	t.Logf("%d agents restarted; drains took %v; longest time without an acknowledgement, by partition: %v; longest way of a record to a member: %s",
		agents, took, pauses, r.late.Round(time.Millisecond))
	if worst > rollingPause && agents > 2 { // the quick version runs beside other tests
		t.Errorf("a partition paused for %s, want at most %s", worst, rollingPause)
	}
	r.finish(t)
}

// rollingPause is the longest time in which a partition may acknowledge nothing.
const rollingPause = 500 * time.Millisecond

// rolling is the load of a rolling restart.
type rolling struct {
	*load
	acks   [rollingPartitions]int // since the last settle
	last   [rollingPartitions]time.Time
	paused [rollingPartitions]time.Duration
	late   time.Duration // the longest way of a record to a member

	returned map[[2]int64]bool // partition and offset of what the members returned
	arrived  chan struct{}     // has an element if there is more of it
}

func startRolling(t *testing.T, nodes []*harness.Agent) *rolling {
	t.Helper()
	l := newLoad(nil, "rolling")
	for _, n := range nodes {
		l.seeds = append(l.seeds, n.Address())
	}
	r := &rolling{load: l, returned: make(map[[2]int64]bool), arrived: make(chan struct{}, 1)}
	admin := r.plain(t)
	if _, err := kadm.NewClient(admin).CreateTopic(deadline(t, time.Minute), rollingPartitions, -1, nil, l.topic); err != nil {
		t.Fatalf("create topic: %v", err)
	}
	t.Cleanup(func() { l.reportProblems(t) })
	var producing, consuming context.Context
	producing, l.stopProducing = context.WithCancel(t.Context())
	consuming, l.stopConsuming = context.WithCancel(t.Context())
	for range rollingProducers {
		client, sender := r.plain(t, kgo.RecordPartitioner(kgo.ManualPartitioner())), l.recorder.Sender(true)
		l.producing.Go(func() { r.produce(producing, client, sender) })
	}
	for range rollingMembers {
		poller := l.recorder.Poller()
		member := r.plain(t, append(l.member(poller),
			kgo.ConsumerGroup("rolling"), kgo.ConsumeTopics(l.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
		l.consuming.Go(func() { r.consume(consuming, member, poller) })
	}
	return r
}

// plain makes a client with its defaults.
func (r *rolling) plain(t *testing.T, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(r.seeds...))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// produce sends a record to each partition at a steady pace until ctx ends, then waits for the acknowledgements.
func (r *rolling) produce(ctx context.Context, client *kgo.Client, sender *check.Sender) {
	ticker := time.NewTicker(rollingInterval)
	defer ticker.Stop()
	var pending sync.WaitGroup
	defer pending.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for partition := range int32(rollingPartitions) {
			pending.Add(1)
			r.send(ctx, client, sender, partition, func(err error) {
				defer pending.Done()
				r.acknowledged(partition, err)
			})
		}
	}
}

// consume takes note of how long records were on their way, besides what load does.
func (r *rolling) consume(ctx context.Context, member *kgo.Client, poller *check.Poller) {
	defer member.AllowRebalance() // or it could not be closed
	for ctx.Err() == nil {
		invoked := r.recorder.Now()
		fetches := member.PollFetches(ctx)
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		r.mu.Lock()
		fetches.EachRecord(func(record *kgo.Record) {
			r.late = max(r.late, now.Sub(record.Timestamp))
			r.returned[[2]int64{int64(record.Partition), record.Offset}] = true
		})
		r.mu.Unlock()
		r.saw(poller, invoked, fetches)
		member.AllowRebalance()
		select {
		case r.arrived <- struct{}{}:
		default:
		}
	}
}

// acknowledged takes note of how long the partition had acknowledged nothing.
func (r *rolling) acknowledged(partition int32, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		return
	}
	now := time.Now()
	if last := r.last[partition]; !last.IsZero() {
		r.paused[partition] = max(r.paused[partition], now.Sub(last))
	}
	r.last[partition] = now
	r.acks[partition]++
}

// settle returns when every partition has acknowledged for a second or two.
func (r *rolling) settle(ctx context.Context, t *testing.T) {
	t.Helper()
	const enough = 100
	r.mu.Lock()
	clear(r.acks[:])
	r.mu.Unlock()
	for {
		r.mu.Lock()
		least := slices.Min(r.acks[:])
		r.mu.Unlock()
		if least >= enough {
			return
		}
		select {
		case <-r.progress:
		case <-ctx.Done():
			t.Fatalf("a partition acknowledged %d of %d records: %v", least, enough, ctx.Err())
		}
	}
}

// awaitSeen stops the producers, and returns when the members of the group have returned all that was acknowledged.
func (r *rolling) awaitSeen(ctx context.Context, t *testing.T) {
	t.Helper()
	r.stopProducing()
	await(ctx, t, "the producers", &r.producing)
	for {
		r.mu.Lock()
		missing := r.acked - len(r.returned)
		r.mu.Unlock()
		if missing <= 0 {
			return
		}
		select {
		case <-r.arrived:
		case <-ctx.Done():
			t.Fatalf("the group has not returned %d of %d records: %v", missing, r.acked, ctx.Err())
		}
	}
}

// pauses returns the longest times without an acknowledgement.
func (r *rolling) pauses() (worst time.Duration, all []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.paused {
		worst = max(worst, d)
		all = append(all, fmt.Sprint(d.Round(time.Millisecond)))
	}
	return worst, all
}
