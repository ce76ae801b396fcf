package compattests

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/compat-tests/wire"
	"github.com/streamhouse/streamhouse/internal/check"
)

const (
	mixBurst     = 5 // records that a producer sends at a time
	mixValueSize = 100
	mixBuffer    = 10_000
	// mixRecovery is the longest time until all goes on after faults: far above what it takes.
	mixRecovery = 3 * time.Minute
	// mixStaleness is how long an agent may not know of a record: longer than any fault, in which it is cut off.
	mixStaleness = time.Minute
)

// mixRound is the life of one topic: its clients and their history.
type mixRound struct {
	*load
	mix      *faultMix
	begun    time.Time
	silences *silences
}

func (m *faultMix) startRound(t *testing.T) *mixRound {
	t.Helper()
	m.rounds++
	r := &mixRound{
		load: newLoad(m.seeds, fmt.Sprintf("mix-%d", m.rounds)), mix: m, begun: time.Now(),
		silences: newSilences(m.size.partitions),
	}
	admin := r.client(t)
	if _, err := kadm.NewClient(admin).CreateTopic(deadline(t, mixRecovery), m.size.partitions, -1, nil, r.topic); err != nil {
		t.Fatalf("create topic: %v", err)
	}
	var producing, consuming context.Context
	producing, r.stopProducing = context.WithCancel(t.Context())
	consuming, r.stopConsuming = context.WithCancel(t.Context())
	for range m.size.patient {
		client := r.client(t, append(mixProducer, kgo.MaxBufferedRecords(mixBuffer))...)
		random := m.derive()
		r.producing.Go(func() { r.patient(producing, client, random) })
	}
	t.Cleanup(func() {
		r.stopProducing()
		r.stopConsuming()
		r.producing.Wait()
		r.consuming.Wait()
	})
	random := m.derive()
	r.producing.Go(func() { r.impatient(producing, random) })
	for _, f := range m.foreign {
		random := m.derive()
		r.producing.Go(func() { r.foreign(producing, f, random) })
	}
	r.startReaders(t, consuming)
	return r
}

// derive returns a source of chance for one goroutine.
func (m *faultMix) derive() *rand.Rand { return rand.New(rand.NewPCG(m.random.Uint64(), 0)) }

// mixProducer are the options of producers: they ask again soon where nobody answers.
var mixProducer = []kgo.Opt{
	kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProduceRequestTimeout(3 * time.Second), kgo.RequestTimeoutOverhead(2 * time.Second),
}

// newClient makes a client that its caller closes.
func (r *mixRound) newClient(options ...kgo.Opt) (*kgo.Client, error) {
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(r.seeds...), kgo.AlwaysRetryEOF(), kgo.MetadataMinAge(100 * time.Millisecond), kgo.RequestTimeoutOverhead(3 * time.Second),
	}, options...)...)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return client, nil
}

// patient sends records that are all acknowledged in the end, until ctx ends, and waits for them.
func (r *mixRound) patient(ctx context.Context, client *kgo.Client, random *rand.Rand) {
	defer client.Close()
	sender := r.recorder.Sender(true)
	var pending sync.WaitGroup
	defer pending.Wait()
	r.bursts(ctx, func() {
		partition := random.Int32N(r.mix.size.partitions)
		pending.Add(1)
		r.send(ctx, client, sender, partition, func(err error) {
			defer pending.Done()
			if err == nil {
				r.silences.acked(partition)
			}
		})
	})
}

// bursts calls send some times at a steady pace until ctx ends.
func (r *mixRound) bursts(ctx context.Context, send func()) {
	ticker := time.NewTicker(r.mix.size.interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for range mixBurst {
			send()
		}
	}
}

// impatient is one producer after the other, each of which gives records up, and in the end crashes: what it has in
// flight then may arrive or not.
func (r *mixRound) impatient(ctx context.Context, random *rand.Rand) {
	for ctx.Err() == nil {
		client, err := r.newClient(append(mixProducer, kgo.RecordDeliveryTimeout(4*time.Second), kgo.MaxBufferedRecords(mixBuffer))...)
		if err != nil {
			r.problem(err)
			return
		}
		alive, crash := context.WithTimeout(ctx, time.Duration(5+random.IntN(30))*time.Second)
		sender := r.recorder.Sender(true)
		var pending sync.WaitGroup
		r.bursts(alive, func() {
			partition := random.Int32N(r.mix.size.partitions)
			id := sender.Send(partition)
			record := &kgo.Record{Topic: r.topic, Partition: partition, Value: check.Value(id, mixValueSize)}
			pending.Add(1)
			client.TryProduce(context.WithoutCancel(ctx), record, func(record *kgo.Record, err error) {
				defer pending.Done()
				switch {
				case err == nil:
					sender.Acked(id, record.Offset)
				case errors.Is(err, kgo.ErrMaxBuffered):
					sender.Failed(id)
				default:
					r.mix.counts.add(1, "records given up: %v", err)
				}
			})
		})
		crash()
		client.Close()
		pending.Wait()
	}
}

// settle returns when every partition has acknowledged something from now on.
func (r *mixRound) settle(t *testing.T) {
	t.Helper()
	ctx := deadline(t, mixRecovery)
	r.silences.listen()
	for {
		silent := r.silences.silent()
		if len(silent) == 0 {
			return
		}
		select {
		case <-r.progress:
		case <-ctx.Done():
			t.Errorf("%s partitions %v of %s acknowledged nothing for %s though all is well", stamp(), silent, r.topic, mixRecovery)
			return
		}
	}
}

// finish ends the load, and judges what became of the topic, which is deleted then.
func (r *mixRound) finish(t *testing.T) {
	t.Helper()
	r.stopProducing()
	await(deadline(t, mixRecovery), t, "the producers", &r.producing)
	client := r.client(t)
	defer client.Close()
	admin := kadm.NewClient(client)
	ctx := deadline(t, mixRecovery)
	invoked := r.recorder.Now()
	ends, err := admin.ListEndOffsets(ctx, r.topic)
	if err := errors.Join(err, ends.Error()); err != nil {
		t.Fatalf("list end offsets: %v", err)
	}
	r.recordEnds(invoked, ends)
	r.awaitGroups(ctx, t, admin, ends)
	r.stopConsuming()
	await(deadline(t, mixRecovery), t, "the consumers", &r.consuming)
	r.mix.awaitListed(deadline(t, mixRecovery), t, client)
	r.readLogs(deadline(t, mixRecovery), t, client, ends)

	history := r.recorder.History()
	anomalies := check.Check(history, check.Options{Staleness: mixStaleness})
	r.sum(history, len(anomalies))
	t.Logf("%s %s: %d records sent for certain, %d acknowledged, %d anomalies", stamp(), r.topic, r.handed, r.acked, len(anomalies))
	reportAnomalies(t, anomalies)
	r.reportProblems(t)
	r.audit(t)
	r.mix.judgeLogs(t)
	if t.Failed() {
		r.keepEvidence(t, history, anomalies)
		return
	}
	if _, err := admin.DeleteTopics(deadline(t, mixRecovery), r.topic); err != nil {
		t.Errorf("delete %s: %v", r.topic, err)
	}
	r.recorder = nil // cleanups hold on to the round to the end of the test, and a history is large
}

// awaitListed returns when the client knows all agents. One that had lost the bucket takes its time.
func (m *faultMix) awaitListed(ctx context.Context, t *testing.T, client *kgo.Client) {
	t.Helper()
	for {
		listed, err := wire.Brokers(ctx, client)
		if err == nil && len(listed) == len(m.nodes) {
			return
		}
		if ctx.Err() != nil {
			t.Errorf("%s only the agents %v of %v are listed (%v)", stamp(), listed, m.nodes, err)
			return
		}
		pause(ctx, 200*time.Millisecond)
	}
}

// readLogs reads all partitions from each agent.
func (r *mixRound) readLogs(ctx context.Context, t *testing.T, client *kgo.Client, ends kadm.ListedOffsets) {
	t.Helper()
	var done sync.WaitGroup
	for i := range r.mix.agents {
		done.Go(func() {
			ends.Each(func(o kadm.ListedOffset) {
				invoked := r.recorder.Now()
				log, err := wire.Fetch(ctx, client, r.mix.nodes[i], r.topic, o.Partition, o.Offset)
				if err != nil {
					t.Error(err)
					return
				}
				r.recorder.Log(check.Log{
					Agent: r.mix.agent(i), Partition: o.Partition, End: o.Offset, Invoked: invoked, Records: r.observe(log.Records),
				})
			})
		})
	}
	done.Wait()
}

// sum adds a history to the totals.
func (r *mixRound) sum(h check.History, anomalies int) {
	total := &r.mix.totals
	total.anomalies += anomalies
	total.operations += len(h.Logs) + len(h.Ends) + len(h.Commits) + len(h.Positions)
	for _, p := range h.Producers {
		total.operations += len(p.Sends)
		total.sent += len(p.Sends)
		for _, s := range p.Sends {
			if s.Outcome == check.Acked {
				total.acked++
			}
		}
	}
	for _, c := range h.Consumers {
		for _, s := range c.Sessions {
			total.operations += len(s.Polls)
		}
	}
}

// auditViolations are what must not be in the database, of the topic $1: extents that do not tile the log, in leader
// epochs that go back or were not theirs, in objects that are not live; an end that is not that of the last.
const auditViolations = `
WITH log AS (
	SELECT e.*, lag(end_offset) OVER w AS before, lag(e.leader_epoch) OVER w AS epoch_before
	FROM extents e JOIN topics t USING (topic_id) WHERE t.name = $1 AND t.deleted_at IS NULL
	WINDOW w AS (PARTITION BY partition ORDER BY base_offset)
)
SELECT format('partition %s: extent [%s, %s) follows %s', partition, base_offset, end_offset, before)
FROM log WHERE base_offset <> coalesce(before, 0) OR end_offset <= base_offset
UNION ALL
SELECT format('partition %s: at %s leader epoch %s follows %s', partition, base_offset, leader_epoch, epoch_before)
FROM log WHERE leader_epoch < epoch_before
UNION ALL
SELECT format('partition %s: extent [%s, %s) of leader epoch %s, which was from %s to %s',
	partition, base_offset, end_offset, l.leader_epoch, le.start_offset, le.next)
FROM log l LEFT JOIN (
	SELECT *, lead(start_offset) OVER (PARTITION BY topic_id, partition ORDER BY leader_epoch) AS next FROM leader_epochs
) le USING (topic_id, partition, leader_epoch)
WHERE le.start_offset IS NULL OR base_offset < le.start_offset OR end_offset > le.next
UNION ALL
SELECT format('partition %s: extent at %s is in object %s, which is %s', partition, base_offset, encode(object_id, 'hex'), o.state)
FROM log LEFT JOIN objects o USING (object_id) WHERE object_id IS NOT NULL AND o.state IS DISTINCT FROM 'live'
UNION ALL
SELECT format('partition %s: the log ends at %s, its extents at %s', partition, p.high_watermark, l.last)
FROM partitions p JOIN topics t USING (topic_id)
LEFT JOIN (SELECT partition, max(end_offset) AS last FROM log GROUP BY partition) l USING (partition)
WHERE t.name = $1 AND t.deleted_at IS NULL AND p.high_watermark <> coalesce(l.last, 0)`

// connect connects to the database, past all links.
func (m *faultMix) connect(ctx context.Context, t *testing.T) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(m.database)
	if err != nil {
		t.Fatal(err)
	}
	delete(config.RuntimeParams, "allow_unsafe") // which is for agents
	database, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	return database
}

// audit looks at the index itself.
func (r *mixRound) audit(t *testing.T) {
	t.Helper()
	ctx := deadline(t, mixRecovery)
	database := r.mix.connect(ctx, t)
	defer database.Close(ctx)
	rows, err := database.Query(ctx, auditViolations, r.topic)
	if err != nil {
		t.Fatal(err)
	}
	violations, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	r.mix.totals.anomalies += len(violations)
	for _, v := range violations[:min(len(violations), 10)] {
		t.Errorf("%s: %s", r.topic, v)
	}
}

// silences is how long partitions acknowledge nothing. It is safe for concurrent use.
type silences struct {
	mu      sync.Mutex
	last    []time.Time // by partition: the last acknowledgement, or the beginning
	worst   []time.Duration
	unheard []bool // since listen
}

func newSilences(partitions int32) *silences {
	return &silences{last: make([]time.Time, partitions), worst: make([]time.Duration, partitions), unheard: make([]bool, partitions)}
}

// begin forgets how long silences were.
func (s *silences) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.last {
		s.last[p], s.worst[p] = time.Now(), 0
	}
}

// listen has silent return all partitions, until they acknowledge something.
func (s *silences) listen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.unheard {
		s.unheard[p] = true
	}
}

func (s *silences) acked(partition int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.worst[partition] = max(s.worst[partition], now.Sub(s.last[partition]))
	s.last[partition], s.unheard[partition] = now, false
}

// silent returns the partitions that have acknowledged nothing since listen.
func (s *silences) silent() (partitions []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, unheard := range s.unheard {
		if unheard {
			partitions = append(partitions, p)
		}
	}
	return partitions
}

// longest is the longest silence since the beginning, of those that go on too.
func (s *silences) longest() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	longest := slices.Max(s.worst)
	for _, last := range s.last {
		longest = max(longest, time.Since(last))
	}
	return longest
}
