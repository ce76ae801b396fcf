package sim

import (
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/internal/check"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

// maxInFlight is how many requests an idempotent producer has on their way.
const maxInFlight = 5

// lane is an idempotent producer, which writes to one partition: in order, with
// several requests on their way, each of which is sent again until it is
// acknowledged.
type lane struct {
	*client
	sender    *check.Sender
	partition int32
	id        int64 // the producer's
	epoch     int16
	sequence  int32 // of the next record
	unacked   []*sentBatch
}

// sentBatch is a batch that is not acknowledged.
type sentBatch struct {
	ids      []check.ID
	sequence int32
	bytes    []byte
	acked    bool
}

// idempotent runs idempotent producers one after the other until the load ends,
// and the last until all of its records are acknowledged.
func (w *world) idempotent(number int) {
	c := w.newNative("idempotent producer", number)
	defer c.hangUp()
	for crashed := true; crashed; {
		l := &lane{client: c, sender: w.recorder.Sender(true), partition: int32(c.dice.intN(int(w.settings.partitions)))}
		if !l.begin() {
			return
		}
		crashed = l.produce()
		c.hangUp()
	}
}

// begin gets a producer id. It returns false if the load has ended.
func (l *lane) begin() bool {
	for l.world.loading() {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.Version, req.TransactionTimeoutMillis = 4, 60000
		resp, err := l.ask(req)
		if err == nil {
			if r := resp.(*kmsg.InitProducerIDResponse); r.ErrorCode == 0 {
				l.id, l.epoch = r.ProducerID, r.ProducerEpoch
				return true
			}
		}
		l.world.rest(l.dice.between(20*time.Millisecond, 500*time.Millisecond))
	}
	return false
}

// produce produces until the load ends and all is acknowledged; or until the
// producer crashes, which it reports.
func (l *lane) produce() (crashed bool) {
	deadline := l.world.start.Add(l.world.settings.load + patience)
	for l.world.loading() || len(l.unacked) > 0 {
		if time.Now().After(deadline) {
			l.world.fail("producer %d, partition %d: %d batches are not acknowledged, from sequence %d on",
				l.id, l.partition, len(l.unacked), l.unacked[0].sequence)
			return false
		}
		for n := 1 + l.dice.intN(maxInFlight); l.world.loading() && len(l.unacked) < n; {
			l.add()
		}
		if l.world.loading() && l.dice.oneIn(400) {
			return true
		}
		l.flush()
		if l.dice.oneIn(60) {
			l.seek(l.partition)
		}
		pause(l.dice.between(time.Millisecond, 150*time.Millisecond))
	}
	return false
}

// add makes a batch.
func (l *lane) add() {
	b := &sentBatch{sequence: l.sequence}
	for range 1 + l.dice.intN(4) {
		b.ids = append(b.ids, l.sender.Send(l.partition))
	}
	atomic.AddInt64(&l.world.operations.Sent, int64(len(b.ids)))
	b.bytes = l.world.build(b.ids, &batchtest.Producer{ID: l.id, Epoch: l.epoch, BaseSequence: b.sequence}, 12+l.dice.intN(60))
	l.sequence += int32(len(b.ids))
	l.unacked = append(l.unacked, b)
}

// flush sends what is not acknowledged, in order, and takes the answers.
func (l *lane) flush() {
	link, window := l.connected(), l.unacked[:min(len(l.unacked), maxInFlight)]
	answers := make([]*answer, len(window))
	for i, b := range window {
		atomic.AddInt64(&l.world.operations.Requests, 1)
		answers[i] = link.send(l.world.produceRequest(map[int32][]byte{l.partition: b.bytes}))
		if l.dice.oneIn(3) {
			pause(l.dice.between(0, 5*time.Millisecond))
		}
	}
	next, lost := "", false
	for i, b := range window {
		resp, err := link.wait(answers[i])
		if err != nil {
			lost = true
			l.traceAnswer(b, err)
			continue
		}
		r := resp.(*kmsg.ProduceResponse)
		p := &r.Topics[0].Partitions[0]
		l.traceAnswer(b, kerr.ErrorForCode(p.ErrorCode))
		switch judge(p.ErrorCode) {
		case acknowledged:
			b.acked = true
			for j, id := range b.ids {
				l.sender.Acked(id, p.BaseOffset+int64(j))
			}
		case hopeless: // also OUT_OF_ORDER_SEQUENCE_NUMBER, behind one that failed or not
			l.world.fail("producer %d, partition %d: sequence %d got %v", l.id, l.partition, b.sequence, kerr.ErrorForCode(p.ErrorCode))
		default:
			if at, ok := hint(r, p); ok {
				next = at
			} else if l.dice.oneIn(2) {
				lost = true
			}
		}
	}
	l.unacked = slices.DeleteFunc(l.unacked, func(b *sentBatch) bool { return b.acked })
	switch {
	case next != "":
		l.goTo(next)
	case lost:
		l.seek(l.partition)
	}
}

// plain is a producer that is not idempotent. It sends again what was refused for
// certain, and nothing else.
func (w *world) plain(number int) {
	c := w.newNative("plain producer", number)
	defer c.hangUp()
	sender := w.recorder.Sender(false)
	for w.loading() {
		batches, ids := make(map[int32][]byte), make(map[int32][]check.ID)
		for p := range w.settings.partitions {
			if !c.dice.oneIn(2) {
				continue
			}
			for range 1 + c.dice.intN(3) {
				ids[p] = append(ids[p], sender.Send(p))
			}
			atomic.AddInt64(&w.operations.Sent, int64(len(ids[p])))
			batches[p] = w.build(ids[p], nil, 12+c.dice.intN(200))
		}
		for tries := 0; len(batches) > 0; tries++ {
			c.producePlain(sender, batches, ids, tries < 5)
		}
		w.rest(c.dice.between(5*time.Millisecond, 300*time.Millisecond))
	}
}

// producePlain sends batches once, and leaves those that are to be sent again.
func (c *client) producePlain(sender *check.Sender, batches map[int32][]byte, ids map[int32][]check.ID, again bool) {
	resp, err := c.ask(c.world.produceRequest(batches))
	if err != nil { // nobody knows
		clear(batches)
		return
	}
	r := resp.(*kmsg.ProduceResponse)
	next := ""
	for i := range r.Topics[0].Partitions {
		p := &r.Topics[0].Partitions[i]
		v := judge(p.ErrorCode)
		if v == refusedForNow && again {
			if at, ok := hint(r, p); ok {
				next = at
			}
			continue
		}
		delete(batches, p.Partition)
		for j, id := range ids[p.Partition] {
			switch v {
			case acknowledged:
				sender.Acked(id, p.BaseOffset+int64(j))
			case refusedForNow:
				sender.Failed(id)
			}
		}
		if v == hopeless {
			c.world.fail("a plain producer, partition %d, got %v", p.Partition, kerr.ErrorForCode(p.ErrorCode))
		}
	}
	if len(batches) > 0 {
		pause(c.dice.between(5*time.Millisecond, 200*time.Millisecond))
		if next == "" {
			c.seek(slices.Min(slices.Collect(maps.Keys(batches))))
		}
	}
	if next != "" {
		c.goTo(next)
	}
}
