package ingest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol/batch"
)

// failure is the error of the batch with a sequence.
type failure int32

func (f failure) Error() string { return fmt.Sprintf("batch %d failed", f) }

// inSequence is a batch of one record.
func inSequence(producer int64, epoch int16, sequence int32) *batch.Validated {
	return &batch.Validated{RecordCount: 1, ProducerID: producer, ProducerEpoch: epoch, BaseSequence: sequence}
}

func TestGaps(t *testing.T) {
	type step struct {
		epoch    int16
		sequence int32
		fails    bool
		want     error // of what does not fail by itself
	}
	fail := func(epoch int16, sequence int32) step { return step{epoch, sequence, true, nil} }
	pass := func(epoch int16, sequence int32) step { return step{epoch, sequence, false, nil} }
	refuse := func(epoch int16, sequence int32, cause failure) step { return step{epoch, sequence, false, cause} }
	const top = math.MaxInt32
	for name, steps := range map[string][]step{
		"nothing has failed":                          {pass(0, 7)},
		"successors fail with the error of the first": {fail(0, 3), refuse(0, 4, 3), refuse(0, 9, 3)},
		"retries end the gap":                         {fail(0, 3), refuse(0, 4, 3), pass(0, 3), pass(0, 4), pass(0, 5)},
		"what is too early between two retries":       {fail(0, 3), refuse(0, 4, 3), pass(0, 3), refuse(0, 5, 3), pass(0, 4), pass(0, 5)},
		"a retry that fails in the pool":              {fail(0, 3), refuse(0, 4, 3), pass(0, 3), fail(0, 3), refuse(0, 4, 3)},
		"a retry that fails on its way to the pool":   {fail(0, 3), refuse(0, 4, 3), fail(0, 3), refuse(0, 4, 3)},
		"after a shorter round all that failed is let in": {
			fail(0, 3), refuse(0, 4, 3), fail(0, 3), pass(0, 3), pass(0, 4), pass(0, 5),
		},
		"after a shorter round what is too early is not": {
			fail(0, 3), refuse(0, 4, 3), fail(0, 3), pass(0, 3), refuse(0, 5, 3), pass(0, 4), pass(0, 5),
		},
		"a retry of a successor tells that the first is in the log": {
			fail(0, 3), refuse(0, 4, 3), refuse(0, 5, 3), pass(0, 4), pass(0, 5),
		},
		"successors that fail by themselves":       {fail(0, 3), fail(0, 4), refuse(0, 5, 3), pass(0, 4)},
		"what is in front of the gap goes on":      {fail(0, 3), pass(0, 2), refuse(0, 4, 3)},
		"a failure in front of the gap":            {fail(0, 3), fail(0, 2), refuse(0, 3, 2), pass(0, 2), pass(0, 3)},
		"sequences go round":                       {fail(0, top), refuse(0, 0, top), pass(0, top-1), pass(0, top), pass(0, 0)},
		"a newer epoch ends the gap":               {fail(0, 3), pass(1, 0), pass(1, 1)},
		"an older epoch does not":                  {fail(1, 3), pass(0, 4), refuse(1, 4, 3)},
		"the failure of a newer epoch replaces it": {fail(0, 3), fail(1, 0), refuse(1, 1, 0)},
		"the failure of an older epoch does not":   {fail(1, 3), fail(0, 5), refuse(1, 4, 3)},
	} {
		t.Run(name, func(t *testing.T) {
			var g gaps
			for i, s := range steps {
				b := inSequence(1, s.epoch, s.sequence)
				if s.fails {
					g.fail(lease.Key{}, b, failure(s.sequence), time.Time{})
				} else if got := g.admit(lease.Key{}, b, time.Time{}); got != s.want {
					t.Errorf("step %d: got %v, want %v", i, got, s.want)
				}
			}
		})
	}
}

func TestGapsAreOfOneStream(t *testing.T) {
	var g gaps
	now := time.Time{}
	g.fail(lease.Key{}, inSequence(1, 0, 0), ErrFull, now)
	g.fail(lease.Key{}, inSequence(batch.NoProducerID, -1, -1), ErrFull, now)
	for name, err := range map[string]error{
		"another partition": g.admit(lease.Key{Partition: 1}, inSequence(1, 0, 1), now),
		"another producer":  g.admit(lease.Key{}, inSequence(2, 0, 1), now),
		"no producer":       g.admit(lease.Key{}, inSequence(batch.NoProducerID, -1, -1), now),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGapsAreForgotten(t *testing.T) {
	var g gaps
	now := time.Time{}
	admit := func(producer int64) error { return g.admit(lease.Key{}, inSequence(producer, 0, 1), now) }

	g.fail(lease.Key{}, inSequence(1, 0, 0), ErrFull, now)
	now = now.Add(gapLife / 2)
	g.fail(lease.Key{}, inSequence(2, 0, 0), ErrFull, now)
	now = now.Add(gapLife / 2)
	if err := admit(1); err != nil || admit(2) == nil {
		t.Errorf("at its time: %v; before its time it was forgotten: %v", err, admit(2))
	}

	const more = maxGaps + 10
	for producer := range int64(more) {
		g.fail(lease.Key{}, inSequence(producer, 0, 0), ErrFull, now)
	}
	if len(g.open) != maxGaps || len(g.ends) != maxGaps || admit(more-maxGaps-1) != nil || admit(more-maxGaps) == nil {
		t.Errorf("%d gaps are remembered, want the newest %d", len(g.open), maxGaps)
	}
	now = now.Add(gapLife)
	if err := admit(more - 1); err != nil || len(g.open) != 0 || len(g.ends) != 0 {
		t.Errorf("after their time %d gaps are left: %v", len(g.open), err)
	}
}

// line is a model of what is between one producer and one partition, with gaps
// in its middle: two agents whose pools fail batches at will, a connection to
// each, and a store that believes the producer. In a pool, batches fail or go
// into the log in their order.
type line struct {
	t      *rapid.T
	log    metadata.ProducerState
	logged int // batches in the log
	base   int32
	gaps   [2]gaps
	sent   [2][]int // batches on their way to an agent
	pool   [2][]int
	fate   map[int]error // answers on their way back
}

// errRefused is the store's.
var errRefused = errors.New("out of order")

func (l *line) batch(i int) *batch.Validated {
	return inSequence(1, 0, batch.AddSequence(l.base, int32(i)))
}

// arrive lets an agent take the next batch that was sent to it.
func (l *line) arrive(agent int, full bool) {
	i := l.sent[agent][0]
	l.sent[agent] = l.sent[agent][1:]
	b := l.batch(i)
	if full {
		l.gaps[agent].fail(lease.Key{}, b, ErrFull, time.Time{})
		l.fate[i] = ErrFull
	} else if err := l.gaps[agent].admit(lease.Key{}, b, time.Time{}); err != nil {
		l.fate[i] = err
	} else {
		l.pool[agent] = append(l.pool[agent], i)
	}
}

// commit decides the first batch of a pool.
func (l *line) commit(agent int, fails bool) {
	i := l.pool[agent][0]
	later := l.pool[agent][1:]
	l.pool[agent] = nil
	b := l.batch(i)
	if !fails {
		l.pool[agent] = later
		l.fate[i] = l.append(b, i)
		return
	}
	l.gaps[agent].fail(lease.Key{}, b, ErrUpload, time.Time{})
	l.fate[i] = ErrUpload
	for _, j := range later {
		if err := l.gaps[agent].admit(lease.Key{}, l.batch(j), time.Time{}); err != nil {
			l.fate[j] = err
		} else {
			l.pool[agent] = append(l.pool[agent], j)
		}
	}
}

// append is the store.
func (l *line) append(b *batch.Validated, i int) error {
	switch outcome, _ := l.log.Check(b.ProducerEpoch, b.BaseSequence, b.RecordCount, true); {
	case outcome != metadata.Committed:
		return errRefused
	case i != l.logged:
		l.t.Fatalf("batch %d is in the log behind %d others", i, l.logged)
	}
	l.logged++
	l.log.Append(b.ProducerEpoch, metadata.ProducerEntry{BaseSequence: b.BaseSequence, LastSequence: b.BaseSequence})
	return nil
}

// A producer with up to five batches in flight, which learns of failures late
// and in order, gets all of its batches into the log, in their order, and is
// never told that one is out of order. It sends what has failed again one by
// one, as the Java client does, or when nothing is in flight, as librdkafka
// does, and goes over to the other agent when nothing is in flight.
func TestGapsKeepTheOrderOfAProducer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const batches = 12
		l := &line{t: t, fate: make(map[int]error), base: rapid.SampledFrom([]int32{0, 100, math.MaxInt32 - 5}).Draw(t, "base")}
		patient := rapid.Bool().Draw(t, "patient")
		var flight []int // in the order in which they were sent
		next, agent := 0, 0
		var failed []int // to be sent again, in order
		send := func(i int) {
			flight = append(flight, i)
			l.sent[agent] = append(l.sent[agent], i)
		}
		acked := 0
		for step := 0; acked < batches; step++ {
			if step == 5000 {
				t.Fatalf("%d batches are acknowledged, %d in flight, %d to be sent again", acked, len(flight), len(failed))
			}
			calm := step > 1000 // no more failures
			switch action := rapid.IntRange(0, 9).Draw(t, "action"); {
			case action <= 2 && len(failed) > 0 && failed[0] == acked && (len(flight) == 0 || !patient && !slices.Contains(flight, acked)):
				send(failed[0])
				failed = failed[1:]
			case action <= 2 && len(failed) == 0 && next < batches && len(flight) < metadata.ProducerWindow:
				send(next)
				next++
			case action <= 5 && len(l.sent[agent]) > 0:
				l.arrive(agent, action == 5 && !calm)
			case action <= 7 && len(l.pool[agent]) > 0:
				l.commit(agent, action == 7 && !calm)
			case action == 8 && len(flight) > 0:
				i := flight[0]
				err, known := l.fate[i]
				if !known {
					continue
				}
				delete(l.fate, i)
				flight = flight[1:]
				switch {
				case err == nil:
					acked++
				case errors.Is(err, errRefused):
					t.Fatalf("batch %d is out of order", i)
				default:
					failed = append(failed, i)
					slices.Sort(failed)
				}
			case action == 9 && len(flight) == 0:
				agent = 1 - agent
			}
		}
	})
}
