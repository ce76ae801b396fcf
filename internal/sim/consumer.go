package sim

import (
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/internal/check"
)

// fetchRequest asks for records from positions on.
func (w *world) fetchRequest(positions map[int32]int64, wait time.Duration) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.ReplicaID, req.SessionEpoch = 12, -1, -1
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = int32(wait.Milliseconds()), 1, 1<<20
	t := kmsg.NewFetchRequestTopic()
	t.Topic = w.topic.Name
	for p := range w.settings.partitions {
		if at, ok := positions[p]; ok {
			part := kmsg.NewFetchRequestTopicPartition()
			part.Partition, part.FetchOffset, part.PartitionMaxBytes = p, at, 1<<18
			part.CurrentLeaderEpoch, part.LastFetchedEpoch, part.LogStartOffset = -1, -1, -1
			t.Partitions = append(t.Partitions, part)
		}
	}
	req.Topics = append(req.Topics, t)
	return req
}

// consume reads all partitions, from one agent and another, until the load ends.
func (w *world) consume(number int) {
	c := w.newNative("consumer", number)
	defer c.hangUp()
	poller := w.recorder.Poller()
	positions := make(map[int32]int64)
	begin := func(p int32, at int64) {
		positions[p] = at
		poller.Begin(p, at)
	}
	for p := range w.settings.partitions {
		begin(p, 0)
	}
	for w.loading() {
		agent, invoked := c.connected().agent, w.recorder.Now()
		resp, err := c.ask(w.fetchRequest(positions, c.dice.between(0, 600*time.Millisecond)))
		if err != nil {
			w.rest(c.dice.between(time.Millisecond, 100*time.Millisecond))
			continue
		}
		ok := c.take(resp.(*kmsg.FetchResponse), poller, positions, invoked, agent)
		switch {
		case !ok || c.dice.oneIn(20):
			c.seek(int32(c.dice.intN(int(w.settings.partitions))))
		case c.dice.oneIn(100): // seek
			p := int32(c.dice.intN(int(w.settings.partitions)))
			begin(p, int64(c.dice.intN(int(positions[p])+1)))
		}
		w.rest(c.dice.between(time.Millisecond, 100*time.Millisecond))
	}
}

// take takes what was fetched, and moves the positions. It returns false if there
// was an error.
func (c *client) take(resp *kmsg.FetchResponse, poller *check.Poller, positions map[int32]int64, invoked check.Instant, agent int32) (ok bool) {
	ok = resp.ErrorCode == 0
	for _, t := range resp.Topics {
		for i := range t.Partitions {
			p := &t.Partitions[i]
			switch p.ErrorCode {
			case 0:
			case kerr.NotLeaderForPartition.Code, kerr.KafkaStorageError.Code:
				ok = false
				continue
			default:
				c.world.fail("a consumer at %s, partition %d, offset %d, got %v", c.address, p.Partition, positions[p.Partition], kerr.ErrorForCode(p.ErrorCode))
				continue
			}
			read, err := records(p.RecordBatches, positions[p.Partition])
			if err != nil {
				c.world.fail("a consumer at %s, partition %d, offset %d: %v", c.address, p.Partition, positions[p.Partition], err)
				continue
			}
			atomic.AddInt64(&c.world.operations.Polled, int64(len(read)))
			poller.Poll(invoked, agent, p.Partition, read)
			c.world.recorder.End(check.End{Source: check.Fetched, Agent: agent, Partition: p.Partition, Offset: p.HighWatermark, Invoked: invoked})
			if len(read) > 0 {
				positions[p.Partition] = read[len(read)-1].Offset + 1
			}
		}
	}
	return ok
}

// ends asks an agent for the ends of all partitions.
func (c *client) ends() (map[int32]int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.Version, req.ReplicaID = 7, -1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = c.world.topic.Name
	for p := range c.world.settings.partitions {
		part := kmsg.NewListOffsetsRequestTopicPartition()
		part.Partition, part.Timestamp, part.CurrentLeaderEpoch = p, -1, -1
		t.Partitions = append(t.Partitions, part)
	}
	req.Topics = append(req.Topics, t)
	agent, invoked := c.connected().agent, c.world.recorder.Now()
	resp, err := c.ask(req)
	if err != nil {
		return nil, err
	}
	ends := make(map[int32]int64)
	for _, p := range resp.(*kmsg.ListOffsetsResponse).Topics[0].Partitions {
		if p.ErrorCode != 0 {
			continue
		}
		ends[p.Partition] = p.Offset
		c.world.recorder.End(check.End{Source: check.Listed, Agent: agent, Partition: p.Partition, Offset: p.Offset, Invoked: invoked})
	}
	return ends, nil
}

// listOffsets asks agents for the ends of the log until the load ends.
func (w *world) listOffsets() {
	c := w.newClient("observer", 0)
	defer c.hangUp()
	for w.loading() {
		_, _ = c.ends() // an agent that can't say says nothing
		c.goTo(w.anyAddress(c.dice))
		w.rest(c.dice.between(20*time.Millisecond, 400*time.Millisecond))
	}
}

// readAll reads all partitions from every agent.
func (w *world) readAll() {
	for i, sl := range w.slots {
		c := w.newClient("final reader", i)
		c.address = sl.address
		w.readFrom(c)
		c.hangUp()
	}
}

// readFrom reads all partitions from one agent.
func (w *world) readFrom(c *client) {
	home := c.address
	deadline := time.Now().Add(patience)
	var ends map[int32]int64
	for len(ends) < int(w.settings.partitions) {
		c.goTo(home)
		ends, _ = c.ends()
		if time.Now().After(deadline) {
			w.fail("final read: %s does not give the ends of all partitions", home)
			return
		}
		pause(c.dice.between(time.Millisecond, 100*time.Millisecond))
	}
	for p := range w.settings.partitions {
		log := check.Log{Agent: c.connected().agent, Partition: p, End: ends[p], Invoked: w.recorder.Now()}
		for at := int64(0); at < ends[p]; {
			if time.Now().After(deadline) {
				w.fail("final read: %s does not give partition %d from offset %d on, of %d", home, p, at, ends[p])
				return
			}
			c.goTo(home)
			resp, err := c.ask(w.fetchRequest(map[int32]int64{p: at}, time.Second))
			if err != nil {
				continue
			}
			answer := &resp.(*kmsg.FetchResponse).Topics[0].Partitions[0]
			if answer.ErrorCode != 0 {
				pause(c.dice.between(time.Millisecond, 500*time.Millisecond))
				continue
			}
			read, err := records(answer.RecordBatches, at)
			if err != nil {
				w.fail("final read: %s, partition %d, offset %d: %v", home, p, at, err)
				return
			}
			log.Records = append(log.Records, read...)
			if len(read) > 0 {
				at = read[len(read)-1].Offset + 1
			}
		}
		atomic.AddInt64(&w.operations.Final, int64(len(log.Records)))
		w.recorder.Log(log)
	}
}
