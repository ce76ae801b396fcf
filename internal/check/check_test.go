package check

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func draw(t *rapid.T) *rand.Rand {
	return rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
}

func TestRightHistoriesPass(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := simulate(draw(t), rapid.IntRange(0, 2000).Draw(t, "operations"))
		if anomalies := Check(h, simOptions); len(anomalies) > 0 {
			t.Errorf("%d anomalies, such as: %v", len(anomalies), anomalies[0])
		}
		h.Logs = nil
		if anomalies := Check(h, simOptions); len(anomalies) > 0 {
			t.Errorf("without final reads, %d anomalies, such as: %v", len(anomalies), anomalies[0])
		}
	})
}

// TestAnyHistoryIsJudged has clients, agents and clocks say what they like: the answer may be anything, but it is always
// the same.
func TestAnyHistoryIsJudged(t *testing.T) {
	numbers := rapid.OneOf(rapid.Int64Range(-2, 5), rapid.SampledFrom([]int64{math.MinInt64, pageSize, math.MaxInt64}))
	rapid.Check(t, func(t *rapid.T) {
		number := func() int64 { return numbers.Draw(t, "number") }
		index := func() int32 { return rapid.Int32Range(-1, 3).Draw(t, "index") }
		few := func() int { return rapid.IntRange(0, 4).Draw(t, "few") }
		records := func() (all []Record) {
			for range few() {
				all = append(all, Record{ID{index(), number()}, number()})
			}
			return all
		}
		var h History
		for range few() {
			p := Producer{Idempotent: few() > 0}
			for range few() {
				p.Sends = append(p.Sends, Send{index(), Outcome(few() % 3), number(), Instant(number()), Instant(number())})
			}
			h.Producers = append(h.Producers, p)
		}
		for range few() {
			s := Session{Partition: index(), From: number()}
			for range few() {
				s.Polls = append(s.Polls, Poll{index(), Instant(number()), Instant(number()), records()})
			}
			h.Consumers = append(h.Consumers, Consumer{[]Session{s}})
			h.Logs = append(h.Logs, Log{index(), index(), number(), Instant(number()), Instant(number()), records()})
			h.Ends = append(h.Ends, End{Source(few() % 2), index(), index(), number(), Instant(number()), Instant(number())})
			h.Commits = append(h.Commits, Commit{"g", index(), number(), Outcome(few() % 3), Instant(number()), Instant(number())})
			h.Positions = append(h.Positions, Position{"g", index(), number(), index(), Instant(number()), Instant(number())})
		}
		options := Options{Staleness: time.Duration(few())}
		if first, second := Check(h, options), Check(h, options); !reflect.DeepEqual(first, second) {
			t.Errorf("found %v, then %v", first, second)
		}
	})
}

// BenchmarkCheck judges histories of so many records, each sent, acknowledged, polled once and read from two agents in
// the end.
func BenchmarkCheck(b *testing.B) {
	for _, records := range []int64{100_000, 10_000_000} {
		b.Run(fmt.Sprint(records), func(b *testing.B) {
			h := long(records)
			b.ReportAllocs()
			for b.Loop() {
				if anomalies := Check(h, Options{Staleness: time.Second}); len(anomalies) > 0 {
					b.Fatal(anomalies[0])
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(int64(b.N)*records), "ns/record")
		})
	}
}

// BenchmarkRecord sends and acknowledges.
func BenchmarkRecord(b *testing.B) {
	r := NewRecorder()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		sender := r.Sender(true)
		for pb.Next() {
			sender.Acked(sender.Send(0), 0)
		}
	})
}

// long returns a right history: 10 producers take turns in 10 partitions, a consumer polls 100 records at a time.
func long(records int64) History {
	const producers, partitions, batch = 10, 10, 100
	h := History{Producers: make([]Producer, producers), Consumers: make([]Consumer, 1)}
	logs := make([][]Record, partitions)
	for i := range records {
		producer, partition := i/partitions%producers, int32(i%partitions)
		p := &h.Producers[producer]
		p.Idempotent = true
		record := Record{ID{int32(producer), int64(len(p.Sends))}, int64(len(logs[partition]))}
		at := Instant(1000 * i)
		p.Sends = append(p.Sends, Send{Partition: partition, Outcome: Acked, Offset: record.Offset, Invoked: at, Completed: at + 500_000})
		logs[partition] = append(logs[partition], record)
	}
	for partition, log := range logs {
		s := Session{Partition: int32(partition)}
		for polled := range slices.Chunk(log, batch) {
			at := Instant(1000*partitions*(polled[0].Offset+batch) + 1_000_000)
			s.Polls = append(s.Polls, Poll{Invoked: at, Completed: at + 1000, Records: polled})
			h.Ends = append(h.Ends, End{Source: Fetched, Partition: s.Partition, Offset: polled[0].Offset + int64(len(polled)), Invoked: at, Completed: at + 1000})
		}
		h.Consumers[0].Sessions = append(h.Consumers[0].Sessions, s)
		for agent := range int32(2) {
			h.Logs = append(h.Logs, Log{
				Agent: agent, Partition: s.Partition, End: int64(len(log)), Invoked: Instant(2000 * records), Completed: Instant(2000*records + 10_000_000), Records: slices.Clone(log),
			})
		}
	}
	return h
}
