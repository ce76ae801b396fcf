package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// steady produces a record to each partition of a topic every now and then, with a
// client that has its defaults, for which no record may fail.
type steady struct {
	acked atomic.Int64
}

// startSteady starts the load, which ends with the test.
func startSteady(t *testing.T, topic string, partitions int32, agents ...string) *steady {
	t.Helper()
	client := connect(t, agents[0], kgo.SeedBrokers(agents...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	ctx, stop := context.WithCancel(context.Background())
	s := new(steady)
	var producing, pending sync.WaitGroup
	producing.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ctx.Err() == nil; n++ {
			<-tick.C
			for p := range partitions {
				pending.Add(1)
				r := &kgo.Record{Topic: topic, Partition: p, Value: []byte(fmt.Sprint(n))}
				client.Produce(context.Background(), r, func(_ *kgo.Record, err error) {
					defer pending.Done()
					if err != nil {
						t.Errorf("partition %d: %v", r.Partition, err)
					}
					s.acked.Add(1)
				})
			}
		}
	})
	t.Cleanup(func() {
		stop()
		producing.Wait()
		pending.Wait()
	})
	return s
}

// progress waits until all partitions may have been acknowledged a few times more.
func (s *steady) progress(t *testing.T) {
	t.Helper()
	until := s.acked.Load() + 200
	eventually(t, "acknowledgements", func() bool { return s.acked.Load() > until })
}

// misplaced counts the leases of an agent that others should have.
func (a *testAgent) misplaced() (n int) {
	view := a.topology.Snapshot()
	for _, l := range a.leases.Leases() {
		if owner, ok := view.Owner(l.Key()); ok && owner != a.settings.AgentID {
			n++
		}
	}
	return n
}

// partitionsLed counts the partitions that an agent leads.
func (a *testAgent) partitionsLed() (n int) {
	for _, l := range a.leases.Leases() {
		if !metadata.IsShard(l.Key()) {
			n++
		}
	}
	return n
}

// A second agent joins one that leads everything, under load. It gets its part, one
// after the other, and no producer sees an error.
func TestSecondAgentGetsItsPart(t *testing.T) {
	t.Parallel()
	const partitions = 20
	s := sharedStores(t)
	quick := func(s *Settings) { s.TopologyInterval = 500 * time.Millisecond }
	first := startAgent(t, s, named("first"), quick)
	makeTopic(dial(t, first.addr), "spread", partitions)
	load := startSteady(t, "spread", partitions, first.addr)
	eventually(t, "the first agent leads all", func() bool { return first.partitionsLed() == partitions })

	second := startAgent(t, s, named("second"), quick)
	eventually(t, "the second agent is seen, and leads its part", func() bool {
		_, seen := first.topology.Snapshot().Agent("second")
		return seen && first.misplaced() == 0 && first.partitionsLed()+second.partitionsLed() == partitions
	})
	load.progress(t)
	if n := second.partitionsLed(); n < partitions/5 || n > partitions*4/5 {
		t.Errorf("the second agent leads %d of %d partitions", n, partitions)
	}
}

// An agent loses its bucket, and another has it. The first gives up what it leads,
// says so, and leads again when the bucket is back.
func TestAgentWithoutItsBucketGivesUp(t *testing.T) {
	t.Parallel()
	const partitions = 12
	s := sharedStores(t)
	change := func(s *Settings) {
		s.TopologyInterval, s.Flush.UploadTimeout, s.Flush.InlineMaxBytes = 500*time.Millisecond, 2*time.Second, 0
		s.Flush.PutsPerSecond, s.Flush.PutBurst = 1000, 1000
	}
	cut := startIsolated(t, s, named("cut"), change)
	makeTopic(dial(t, cut.addr), "given", partitions)
	load := startSteady(t, "given", partitions, cut.addr)
	eventually(t, "the agent leads all", func() bool { return cut.partitionsLed() == partitions })
	whole := startAgent(t, s, named("whole"), change)
	eventually(t, "the other agent leads something", func() bool { return cut.topology.Snapshot().OtherLeads("cut") })

	cut.bucket.Refuse(true)
	cut.bucket.CloseAll()
	eventually(t, "the agent gives up", func() bool { return cut.healthCheck() != nil && cut.leases.Count() == 0 })
	eventually(t, "the other agent leads all, and gives nothing back", func() bool {
		return whole.partitionsLed() == partitions && whole.misplaced() == 0
	})
	load.progress(t)
	cut.bucket.Refuse(false)
	eventually(t, "the agent is well again", func() bool { return cut.healthCheck() == nil })
	owned := func(k lease.Key) bool { owner, _ := whole.topology.Snapshot().Owner(k); return owner == "cut" }
	eventually(t, "the agent has its part", func() bool {
		for _, l := range whole.leases.Leases() {
			if owned(l.Key()) {
				return false
			}
		}
		return true
	})
	load.progress(t)
}
