package compattests

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/internal/check"
)

const (
	scenarioTopic      = "scenario"
	scenarioPartitions = 6
	scenarioProducers  = 2
	scenarioMembers    = 2
	// Each producer sends a record to every partition each scenarioInterval: 300 a second in all.
	scenarioInterval = 40 * time.Millisecond
	// scenarioPatience is for how long a client waits for an answer that does not come, beyond what it allows the agent.
	scenarioPatience = time.Second
)

// scenarioLoad is producers, a consumer, members of a group, and a watch over the ends that each agent gives, on one
// topic through faults. All of them may retry for ever.
type scenarioLoad struct {
	*load
	agents  []string // addresses
	place   clientele
	readers []*scenarioReader
	members *scenarioReader // all of them together

	consumingContext context.Context

	// The rest is guarded by load.mu.
	stage int        // is counted up by await
	ways  []ackedWay // by the producer's place and the partition
}

// ackedWay is what was acknowledged on one way: by one partition, to all producers of a place.
type ackedWay struct {
	acks  int // of records that were sent in this stage
	last  time.Time
	quiet time.Duration // the longest time without an acknowledgement
}

// scenarioReader is how far a consumer got: of each partition it has returned all below next.
type scenarioReader struct {
	name string
	next [scenarioPartitions]int64 // guarded by load.mu
}

// clientele is where clients are.
type clientele struct {
	places int // of producers, each of which has one; 0: all of them are in one place
	// options are those of one more client; nil: it has none.
	options func() []kgo.Opt
	// views are as in load.
	views func(context.Context, *testing.T, *load) []view
}

// startScenarioLoad creates the topic, and sets clients to work until finish.
func startScenarioLoad(t *testing.T, agents []string, place clientele) *scenarioLoad {
	t.Helper()
	l := &scenarioLoad{load: newLoad(agents, scenarioTopic), agents: agents, place: place}
	l.views = place.views
	admin := l.impatient(t, toldOfAll)
	if _, err := kadm.NewClient(admin).CreateTopic(deadline(t, time.Minute), scenarioPartitions, -1, nil, l.topic); err != nil {
		t.Fatalf("create topic: %v", err)
	}
	t.Cleanup(func() { l.reportProblems(t) })
	var producing context.Context
	producing, l.stopProducing = context.WithCancel(t.Context())
	l.consumingContext, l.stopConsuming = context.WithCancel(t.Context())
	l.ways = make([]ackedWay, max(place.places, 1)*scenarioPartitions)
	for producer := range cmp.Or(place.places, scenarioProducers) {
		client := l.impatient(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
		sender := l.recorder.Sender(true)
		l.producing.Go(func() { l.produce(producing, client, sender, producer%max(place.places, 1)) })
	}
	l.read(t, "a consumer")
	l.members = &scenarioReader{name: "the group"}
	for range scenarioMembers {
		poller := l.recorder.Poller()
		member := l.impatient(t, append(l.member(poller), kgo.ConsumerGroup(l.topic), kgo.ConsumeTopics(l.topic),
			kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
		l.consuming.Go(func() { l.consume(member, poller, l.members) })
	}
	brokers, err := kadm.NewClient(admin).ListBrokers(deadline(t, time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range brokers {
		watch := l.impatient(t, toldOfAll)
		l.consuming.Go(func() { l.watchAgent(watch.Broker(int(b.NodeID)), b.NodeID) })
	}
	return l
}

// toldOfAll has a client see the agents of all zones.
var toldOfAll = kgo.ClientID(harness.NoZone)

// impatient makes a client that gives up on nothing, but soon on an agent that does not answer.
func (l *scenarioLoad) impatient(t *testing.T, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	var placed []kgo.Opt
	if l.place.options != nil {
		placed = l.place.options()
	}
	return l.client(t, slices.Concat([]kgo.Opt{
		kgo.ProduceRequestTimeout(scenarioPatience), kgo.RequestTimeoutOverhead(scenarioPatience), kgo.DialTimeout(scenarioPatience),
		kgo.FetchMaxWait(scenarioPatience / 2),
	}, placed, options)...)
}

// produce sends a record to each partition at a steady pace until ctx ends, then waits for the acknowledgements.
func (l *scenarioLoad) produce(ctx context.Context, client *kgo.Client, sender *check.Sender, place int) {
	ticker := time.NewTicker(scenarioInterval)
	defer ticker.Stop()
	var pending sync.WaitGroup
	defer pending.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		l.mu.Lock()
		stage := l.stage
		l.mu.Unlock()
		for partition := range int32(scenarioPartitions) {
			pending.Add(1)
			l.send(ctx, client, sender, partition, func(err error) {
				defer pending.Done()
				if err == nil {
					l.acknowledged(place*scenarioPartitions+int(partition), stage)
				}
			})
		}
	}
}

// acknowledged takes note of an acknowledgement of what was sent in a stage.
func (l *scenarioLoad) acknowledged(way, stage int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w, now := &l.ways[way], time.Now()
	if !w.last.IsZero() {
		w.quiet = max(w.quiet, now.Sub(w.last))
	}
	w.last = now
	if stage == l.stage {
		w.acks++
	}
}

// await returns when each partition has acknowledged some records that are sent from now on, to each place of producers.
func (l *scenarioLoad) await(ctx context.Context, t *testing.T, after string) {
	t.Helper()
	const enough = 10
	l.mu.Lock()
	l.stage++
	for i := range l.ways {
		l.ways[i].acks = 0
	}
	l.mu.Unlock()
	for {
		l.mu.Lock()
		var acks []int
		for _, w := range l.ways {
			acks = append(acks, w.acks)
		}
		l.mu.Unlock()
		if slices.Min(acks) >= enough {
			return
		}
		select {
		case <-l.progress:
		case <-ctx.Done():
			t.Fatalf("%s: of what was sent then, partitions have acknowledged %v records: %v", after, acks, ctx.Err())
		}
	}
}

// read adds a consumer of all partitions, from the beginning.
func (l *scenarioLoad) read(t *testing.T, name string, options ...kgo.Opt) *scenarioReader {
	t.Helper()
	r := &scenarioReader{name: name}
	l.readers = append(l.readers, r)
	poller := l.recorder.Poller()
	for partition := range int32(scenarioPartitions) {
		poller.Begin(partition, 0)
	}
	client := l.impatient(t, append(options, kgo.ConsumeTopics(l.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	l.consuming.Go(func() { l.consume(client, poller, r) })
	return r
}

// consume notes what a consumer or a member sees, until the consumers are stopped.
func (l *scenarioLoad) consume(client *kgo.Client, poller *check.Poller, reader *scenarioReader) {
	defer client.AllowRebalance() // or it could not be closed
	for {
		invoked := l.recorder.Now()
		fetches := client.PollFetches(l.consumingContext)
		if l.consumingContext.Err() != nil {
			return
		}
		fetches.EachError(func(topic string, partition int32, err error) {
			var lost *kgo.ErrGroupSession // a member that lost its coordinator joins again
			if !errors.As(err, &lost) {
				l.problem(fmt.Errorf("%s of %s-%d failed: %w", reader.name, topic, partition, err))
			}
		})
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			if len(p.Records) > 0 {
				poller.Poll(invoked, check.NoAgent, p.Partition, l.observe(p.Records))
				l.mu.Lock()
				reader.next[p.Partition] = max(reader.next[p.Partition], p.Records[len(p.Records)-1].Offset+1)
				l.mu.Unlock()
			}
		})
		client.AllowRebalance()
	}
}

// watchAgent asks one agent for all ends, time and again, until the consumers are stopped. It may not answer.
func (l *scenarioLoad) watchAgent(broker *kgo.Broker, agent int32) {
	ticker := time.NewTicker(5 * scenarioInterval)
	defer ticker.Stop()
	request := kmsg.NewPtrListOffsetsRequest()
	topic := kmsg.NewListOffsetsRequestTopic()
	topic.Topic = l.topic
	for partition := range int32(scenarioPartitions) {
		asked := kmsg.NewListOffsetsRequestTopicPartition()
		asked.Partition, asked.Timestamp = partition, -1 // latest
		topic.Partitions = append(topic.Partitions, asked)
	}
	request.Topics = append(request.Topics, topic)
	for {
		select {
		case <-l.consumingContext.Done():
			return
		case <-ticker.C:
		}
		ctx, cancel := context.WithTimeout(l.consumingContext, 2*scenarioPatience)
		invoked := l.recorder.Now()
		answer, err := broker.Request(ctx, request)
		cancel()
		if err != nil {
			continue
		}
		for _, topic := range answer.(*kmsg.ListOffsetsResponse).Topics {
			for _, p := range topic.Partitions {
				if kerr.ErrorForCode(p.ErrorCode) == nil {
					l.recorder.End(check.End{
						Source: check.Listed, Agent: agent, Partition: p.Partition, Offset: p.Offset, Invoked: invoked,
					})
				}
			}
		}
	}
}

// finish stops the producers, waits until every consumer has read what they wrote, and checks the history, for which
// all agents have to serve. It returns the longest time in which a partition acknowledged nothing to a place of producers.
func (l *scenarioLoad) finish(t *testing.T) time.Duration {
	t.Helper()
	ctx := deadline(t, 2*time.Minute)
	l.stopProducing()
	await(ctx, t, "the producers", &l.producing)
	admin := kadm.NewClient(l.impatient(t, toldOfAll))
	ends, err := admin.ListEndOffsets(ctx, l.topic)
	if err := errors.Join(err, ends.Error()); err != nil {
		t.Fatalf("list end offsets: %v", err)
	}
	tick := time.NewTicker(scenarioInterval)
	defer tick.Stop()
	for _, reader := range append(l.readers, l.members) {
		for !l.atEnd(reader, ends) {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("%s has read up to %v: %v", reader.name, reader.next, ctx.Err())
			}
		}
	}
	for listed := -1; listed != len(l.agents); { // an agent that came back may not be listed by all yet
		brokers, err := admin.ListBrokers(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d agents are listed, want %d: %v", listed, len(l.agents), err)
		}
		listed = len(brokers)
	}
	l.load.finish(t)
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.MaxFunc(l.ways, func(a, b ackedWay) int { return cmp.Compare(a.quiet, b.quiet) }).quiet
}

func (l *scenarioLoad) atEnd(reader *scenarioReader, ends kadm.ListedOffsets) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := true
	ends.Each(func(end kadm.ListedOffset) { at = at && reader.next[end.Partition] >= end.Offset })
	return at
}
