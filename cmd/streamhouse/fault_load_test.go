package main

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/protocol/batch"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

// window is how many batches a loader has in flight: as many as idempotent
// producers do.
const window = 5

// fate is what a loader knows of one of its records.
type fate uint8

const (
	undecided fate = iota
	acked
	refused // the agent said that it is not in the log and never will be
	unknown // the agent said that it may be
)

// sent is one record of a loader, alone in its batch.
type sent struct {
	value    string
	sequence int32
	fate     fate
	offset   int64 // if acked
}

// loader writes numbered records to one partition through one connection. If it
// is idempotent, it sends each one until it is acknowledged, as Kafka's clients
// do. Otherwise it sends each one once, so that what a refusal promises can be
// held against the log.
type loader struct {
	t         testing.TB
	agents    func() []string // addresses; of more than one, it looks for the leader
	at        int             // which of them
	w         *wire           // nil: to be connected
	topic     topic
	partition int32
	producer  int64 // batch.NoProducerID if it is not idempotent

	stop     chan struct{}
	done     sync.WaitGroup
	acks     atomic.Int64
	refusals atomic.Int64
	timeouts atomic.Int64 // refusals that leave the outcome open
	gaps     atomic.Int64 // refusals for the sake of an earlier one
	all      []*sent      // the loader's own until it has ended
}

// startLoader starts a loader; finish ends it.
func startLoader(t testing.TB, tp topic, partition int32, idempotent bool, agents func() []string) *loader {
	t.Helper()
	l := &loader{t: t, agents: agents, topic: tp, partition: partition, producer: batch.NoProducerID, stop: make(chan struct{})}
	if idempotent {
		l.producer = producerID(dial(t, agents()[0]))
	}
	l.done.Go(l.run)
	return l
}

// finish lets the loader send what it still has, and waits for its end.
func (l *loader) finish() {
	close(l.stop)
	l.done.Wait()
}

// pace is the time between two windows.
const pace = 10 * time.Millisecond

func (l *loader) run() {
	defer l.leave()
	deadline := time.After(testTimeout)
	tick := time.NewTicker(pace)
	defer tick.Stop()
	var pending []*sent
	for stopping := false; ; {
		select {
		case <-l.stop:
			stopping = true
			<-tick.C
		case <-tick.C:
		case <-deadline:
			l.t.Errorf("loader of %s-%d: out of time with %d records pending", l.topic.name, l.partition, len(pending))
			return
		}
		for !stopping && len(pending) < window {
			n := int32(len(l.all))
			s := &sent{value: fmt.Sprintf("%d/%d/%d", l.partition, l.producer, n), sequence: n}
			l.all = append(l.all, s)
			pending = append(pending, s)
		}
		if stopping && len(pending) == 0 {
			return
		}
		var err error
		if pending, err = l.exchange(pending); err != nil {
			l.t.Errorf("loader of %s-%d: %v", l.topic.name, l.partition, err)
			return
		}
	}
}

// exchange sends the batches at once, and returns those to be sent again.
func (l *loader) exchange(pending []*sent) (again []*sent, err error) {
	if l.w == nil {
		agents := l.agents()
		if l.w, err = tryDial(l.t, agents[l.at%len(agents)]); err != nil {
			return pending, l.move(err)
		}
	}
	for _, s := range pending {
		req := produceRequest(12, l.topic, l.partition, -1, l.batch(s))
		req.TimeoutMillis = 1000
		if err = l.w.write(req); err != nil {
			break
		}
	}
	elsewhere := false
	for _, s := range pending {
		var resp kmsg.Response
		if err == nil {
			resp, err = l.w.read()
		}
		if err != nil { // as good as any answer, for whoever sends to many agents
			l.refuse(s, unknown)
		} else {
			p := &resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
			elsewhere = elsewhere || p.ErrorCode == kerr.NotLeaderForPartition.Code
			if err := l.decide(s, p, len(again) > 0); err != nil {
				return nil, err
			}
		}
		if s.fate == undecided {
			again = append(again, s)
		}
	}
	if err != nil || elsewhere {
		return again, l.move(err)
	}
	return again, nil
}

// move goes to the next agent. If there is no other, a connection that failed is
// an error.
func (l *loader) move(err error) error {
	if len(l.agents()) == 1 {
		return err
	}
	l.leave()
	l.at++
	return nil
}

func (l *loader) leave() {
	if l.w != nil {
		l.w.conn.Close()
		l.w = nil
	}
}

// refuse takes note that a record was not acknowledged.
func (l *loader) refuse(s *sent, f fate) {
	l.refusals.Add(1)
	if f == unknown {
		l.timeouts.Add(1)
	}
	if l.producer == batch.NoProducerID {
		s.fate = f
	}
}

func (l *loader) batch(s *sent) []byte {
	o := batchtest.Options{Records: []batchtest.Record{{Value: []byte(s.value), Timestamp: time.Now().UnixMilli()}}}
	if l.producer != batch.NoProducerID {
		o.Producer = &batchtest.Producer{ID: l.producer, BaseSequence: s.sequence}
	}
	return batchtest.Build(o)
}

// decide takes the answer to a batch. afterFailure says that an earlier one of
// the window was refused, so that this one's sequence may have a gap before it.
func (l *loader) decide(s *sent, p *kmsg.ProduceResponseTopicPartition, afterFailure bool) error {
	switch code := kerr.ErrorForCode(p.ErrorCode); {
	case code == nil:
		s.fate, s.offset = acked, p.BaseOffset
		l.acks.Add(1)
	case code == kerr.NotLeaderForPartition, code == kerr.KafkaStorageError, code == kerr.NotEnoughReplicas:
		l.refuse(s, refused)
	case code == kerr.RequestTimedOut:
		l.refuse(s, unknown)
	case code == kerr.OutOfOrderSequenceNumber && l.producer != batch.NoProducerID && afterFailure:
		l.gaps.Add(1)
		l.refuse(s, refused)
	default:
		return fmt.Errorf("%s is answered with %w, which is not for trying again", s.value, code)
	}
	return nil
}

// check holds what the loader was told against the log of its partition.
func (l *loader) check(log map[string][]int64) {
	l.t.Helper()
	last := int64(-1)
	for _, s := range l.all {
		at := log[s.value]
		switch {
		case len(at) > 1:
			l.t.Errorf("%s is in the log %d times: %v", s.value, len(at), at)
		case s.fate == acked && !slices.Equal(at, []int64{s.offset}):
			l.t.Errorf("%s was acknowledged at %d, and is at %v", s.value, s.offset, at)
		case s.fate == refused && len(at) > 0:
			l.t.Errorf("%s was refused for good, and is at %v", s.value, at)
		case s.fate == undecided:
			l.t.Errorf("%s was never decided", s.value)
		}
		if l.producer != batch.NoProducerID && s.fate == acked {
			if s.offset <= last {
				l.t.Errorf("%s is at %d, behind its successor's %d", s.value, s.offset, last)
			}
			last = s.offset
		}
	}
}

// checkLog reads a partition as it is stored, whose offsets must be dense, holds
// it against the loaders that wrote it, and returns it.
func checkLog(w *wire, tp topic, partition int32, loaders []*loader) []logged {
	w.t.Helper()
	all := readLog(w, tp, partition)
	at := map[string][]int64{}
	for _, r := range all {
		at[string(r.Value)] = append(at[string(r.Value)], r.offset)
	}
	known := map[string]bool{}
	for _, l := range loaders {
		if l.partition != partition {
			continue
		}
		l.check(at)
		for _, s := range l.all {
			known[s.value] = true
		}
	}
	for value := range at {
		if !known[value] {
			w.t.Errorf("%s was never sent", value)
		}
	}
	return all
}

// tailer reads a partition as it grows, through one agent.
type tailer struct {
	t     testing.TB
	w     *wire
	topic topic
	part  int32
	stop  chan struct{}
	done  sync.WaitGroup
	seen  []logged // the tailer's own until it has ended
}

func startTailer(t testing.TB, addr string, tp topic, partition int32) *tailer {
	t.Helper()
	r := &tailer{t: t, w: dial(t, addr), topic: tp, part: partition, stop: make(chan struct{})}
	r.done.Go(r.run)
	return r
}

// finish ends the tailer, which must have read a prefix of the log.
func (r *tailer) finish(log []logged) {
	r.t.Helper()
	close(r.stop)
	r.done.Wait()
	if len(r.seen) > len(log) {
		r.t.Fatalf("%d records were read while it grew, %d are in the log", len(r.seen), len(log))
	}
	for i := range r.seen {
		if got, want := string(r.seen[i].Value), string(log[i].Value); got != want {
			r.t.Fatalf("offset %d was read as %s, and is %s", i, got, want)
		}
	}
}

func (r *tailer) run() {
	for {
		select {
		case <-r.stop:
			return
		default:
		}
		req := fetchRequest(12, r.topic, r.part, int64(len(r.seen)))
		req.MinBytes, req.MaxWaitMillis = 1, 100
		if err := r.w.write(req); err != nil {
			r.t.Errorf("tail: %v", err)
			return
		}
		resp, err := r.w.read()
		if err != nil {
			r.t.Errorf("tail: %v", err)
			return
		}
		p := &resp.(*kmsg.FetchResponse).Topics[0].Partitions[0]
		switch kerr.ErrorForCode(p.ErrorCode) {
		case nil:
		case kerr.KafkaStorageError:
			continue
		default:
			r.t.Errorf("tail at %d: %v", len(r.seen), kerr.ErrorForCode(p.ErrorCode))
			return
		}
		for _, rec := range recordsIn(r.t, p.RecordBatches) {
			if rec.offset == int64(len(r.seen)) {
				r.seen = append(r.seen, rec)
			}
		}
	}
}
