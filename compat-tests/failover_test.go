package compattests

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
)

const (
	failoverPartitions = 30
	failoverRate       = 1000 // records/s, over all partitions
	failoverRuns       = 10
	// failoverWarmUp is of load before a fault. In its first 10 s a client of franz-go has just asked for Metadata, and
	// does not ask again for 5 s, whatever happens.
	failoverWarmUp = 12 * time.Second
)

// TestFailover measures, for each partition of a topic under steady load, the longest time without an acknowledgement
// while one of three agents dies: killed, and frozen. The client is franz-go as it comes, but for the patience with an
// agent that is frozen: that takes requests and answers none, and by default a client waits for 20 s. This one asks for
// Metadata after 2 s, when the agent is suspected and not buried yet.
func TestFailover(t *testing.T) {
	if !slow(t) {
		return
	}
	for _, fault := range []struct {
		name          string
		signal        syscall.Signal
		after         time.Duration // of load after the fault
		median, worst time.Duration
		client        []kgo.Opt
	}{
		{"killed", syscall.SIGKILL, 6 * time.Second, 2 * time.Second, 5 * time.Second, nil},
		{
			"frozen", syscall.SIGSTOP, 30 * time.Second, 10 * time.Second, 10 * time.Second,
			[]kgo.Opt{kgo.ProduceRequestTimeout(time.Second), kgo.RequestTimeoutOverhead(time.Second)},
		},
	} {
		t.Run(fault.name, func(t *testing.T) {
			agents := harness.Cluster(t, harness.DurableStores(t), 3)
			runs := environmentInt(t, "COMPAT_KILLS", failoverRuns)
			var silences []time.Duration
			for run := range runs {
				victim := agents[run%len(agents)]
				ctx := deadline(t, 2*time.Minute)
				l := startSteadyLoad(t, agents, fmt.Sprintf("failover-%d", run), fault.client...)
				l.run(failoverWarmUp)
				if err := syscall.Kill(victim.PID(), fault.signal); err != nil {
					t.Fatal(err)
				}
				hit := l.forget()
				l.run(fault.after)
				longest, partition := l.finish(t)
				silences = append(silences, longest)
				t.Logf("run %d: agent %s: %s without an acknowledgement on partition %d (until %s after the fault)",
					run+1, victim.Address(), longest.Round(time.Millisecond), partition, l.ended[partition].Sub(hit).Round(time.Millisecond))
				if err := victim.Kill(); err != nil {
					t.Fatal(err)
				}
				if err := victim.Start(ctx); err != nil {
					t.Fatal(err)
				}
			}
			slices.Sort(silences)
			median, worst := silences[len(silences)/2], silences[len(silences)-1]
			t.Logf("%s: median %s, worst %s of %d runs", fault.name, median.Round(time.Millisecond), worst.Round(time.Millisecond), runs)
			if median > fault.median || worst > fault.worst {
				t.Errorf("the goal is a median of %s and a worst of %s", fault.median, fault.worst)
			}
		})
	}
}

// steadyLoad is a producer at a steady rate, and when partitions were acknowledged.
type steadyLoad struct {
	client *kgo.Client
	topic  string
	sent   int

	mu      sync.Mutex
	acked   []time.Time     // by partition, the last; zero: never
	silence []time.Duration // by partition, the longest since the first, or since forget
	ended   []time.Time     // by partition, when the longest silence ended
	failed  error
}

func startSteadyLoad(t *testing.T, agents []*harness.Agent, topic string, options ...kgo.Opt) *steadyLoad {
	t.Helper()
	var seeds []string
	for _, a := range agents {
		seeds = append(seeds, a.Address())
	}
	client, err := kgo.NewClient(append(options,
		kgo.SeedBrokers(seeds...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(topic))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if _, err := kadm.NewClient(client).CreateTopic(deadline(t, time.Minute), failoverPartitions, -1, nil, topic); err != nil {
		t.Fatal(err)
	}
	return &steadyLoad{
		client: client, topic: topic,
		acked: make([]time.Time, failoverPartitions), silence: make([]time.Duration, failoverPartitions), ended: make([]time.Time, failoverPartitions),
	}
}

// run produces for a time.
func (l *steadyLoad) run(d time.Duration) {
	value := []byte(strings.Repeat("x", 100))
	tick := time.NewTicker(time.Second / failoverRate)
	defer tick.Stop()
	for end := time.After(d); ; {
		select {
		case <-end:
			return
		case <-tick.C:
		}
		partition := int32(l.sent % failoverPartitions)
		l.sent++
		l.client.Produce(context.Background(), &kgo.Record{Partition: partition, Value: value}, l.done)
	}
}

func (l *steadyLoad) done(r *kgo.Record, err error) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed = err
		return
	}
	l.note(int(r.Partition), now)
}

// note takes in an acknowledgement, or the end.
func (l *steadyLoad) note(partition int, now time.Time) {
	if last := l.acked[partition]; !last.IsZero() && now.Sub(last) > l.silence[partition] {
		l.silence[partition], l.ended[partition] = now.Sub(last), now
	}
	l.acked[partition] = now
}

// forget begins anew with the silences, and returns when it did.
func (l *steadyLoad) forget() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.silence)
	return time.Now()
}

// finish returns the longest silence of a partition. No record may have failed.
func (l *steadyLoad) finish(t *testing.T) (longest time.Duration, partition int) {
	t.Helper()
	l.mu.Lock()
	for p := range l.acked {
		if l.acked[p].IsZero() {
			t.Errorf("partition %d was never acknowledged", p)
		}
		l.note(p, time.Now()) // it may be silent still
	}
	silence := slices.Clone(l.silence)
	l.mu.Unlock()
	if err := l.client.Flush(deadline(t, time.Minute)); err != nil {
		t.Error(err)
	}
	l.client.Close()
	if l.failed != nil {
		t.Errorf("a record failed: %v", l.failed)
	}
	longest = slices.Max(silence)
	return longest, slices.Index(silence, longest)
}
