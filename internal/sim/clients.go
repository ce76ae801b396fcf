package sim

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/internal/check"
	"github.com/streamhouse/streamhouse/protocol/batch"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

// Operations counts what clients did.
type Operations struct {
	Sent     int64 // records handed to producers
	Polled   int64 // records that consumers received
	Requests int64 // requests of all clients, but for final reads
	Final    int64 // records that were read at the end, from every agent
	Borrowed int64 // records that one agent took in and another committed
}

// Total is the number of operations: records sent and polled, and requests that
// carried none.
func (o *Operations) Total() int64 { return o.Sent + o.Polled + o.Requests }

// Add adds what others did.
func (o *Operations) Add(p Operations) {
	o.Sent += p.Sent
	o.Polled += p.Polled
	o.Requests += p.Requests
	o.Final += p.Final
	o.Borrowed += p.Borrowed
}

// client is what all clients have: a connection to one agent at a time.
type client struct {
	world   *world
	dice    *dice
	id      string
	address string
	link    *link
}

func (w *world) newClient(name string, number int) *client {
	d := w.dice(name, number)
	return &client{world: w, dice: d, id: fmt.Sprintf("%s %d", name, number), address: w.anyAddress(d)}
}

// newNative is newClient for one that mostly says in which zone it is, if there are any.
func (w *world) newNative(name string, number int) *client {
	c := w.newClient(name, number)
	if n := c.dice.intN(w.settings.zones + 1); n > 0 {
		c.id += ",zone=" + zoneName(n-1)
	}
	return c
}

// connected returns a link to the client's agent, or waits and goes elsewhere.
func (c *client) connected() *link {
	for c.link == nil {
		l, err := c.world.connect(c.address, c.id, c.dice)
		if err == nil {
			c.link = l
			break
		}
		pause(c.dice.between(20*time.Millisecond, 200*time.Millisecond))
		c.address = c.world.anyAddress(c.dice)
	}
	return c.link
}

// goTo leaves for another agent.
func (c *client) goTo(address string) {
	c.hangUp()
	c.address = address
}

func (c *client) hangUp() {
	if c.link != nil {
		c.link.close()
		c.link = nil
	}
}

// ask makes one request, and goes elsewhere if it is not answered.
func (c *client) ask(req kmsg.Request) (kmsg.Response, error) {
	atomic.AddInt64(&c.world.operations.Requests, 1)
	resp, err := c.connected().ask(req)
	if err != nil {
		c.goTo(c.world.anyAddress(c.dice))
		return nil, err
	}
	return resp, nil
}

// seek leaves for some agent, or for the one that some agent names as the leader of a
// partition.
func (c *client) seek(p int32) {
	c.goTo(c.world.anyAddress(c.dice))
	if c.dice.oneIn(2) {
		return
	}
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 9
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = &c.world.topic.Name
	req.Topics = append(req.Topics, t)
	resp, err := c.ask(req)
	if err != nil {
		return
	}
	r := resp.(*kmsg.MetadataResponse)
	for _, t := range r.Topics {
		for i := range t.Partitions {
			b := slices.IndexFunc(r.Brokers, func(b kmsg.MetadataResponseBroker) bool { return b.NodeID == t.Partitions[i].Leader })
			if t.Partitions[i].Partition == p && b >= 0 {
				c.goTo(net.JoinHostPort(r.Brokers[b].Host, strconv.Itoa(int(r.Brokers[b].Port))))
			}
		}
	}
}

// startClients starts producers, and readers, who read until the load ends.
func (w *world) startClients(producers, readers *sync.WaitGroup) {
	d := w.dice("clients", 0)
	for i := range int(w.settings.partitions) + 1 + d.intN(3) {
		producers.Go(func() { w.idempotent(i) })
	}
	for i := range 1 + d.intN(2) {
		producers.Go(func() { w.plain(i) })
	}
	for i := range 2 + d.intN(2) {
		readers.Go(func() { w.consume(i) })
	}
	readers.Go(w.listOffsets)
	for i := range 2 {
		readers.Go(func() { w.commitOffsets(i) })
	}
}

// build makes a batch of records.
func (w *world) build(ids []check.ID, producer *batchtest.Producer, size int) []byte {
	records := make([]batchtest.Record, len(ids))
	now := time.Now().UnixMilli()
	for i, id := range ids {
		records[i] = batchtest.Record{Value: check.Value(id, size), Timestamp: now}
	}
	return batchtest.Build(batchtest.Options{Records: records, Producer: producer})
}

// produceRequest asks for batches to be appended, one a partition.
func (w *world) produceRequest(batches map[int32][]byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = 11, -1, 5000
	t := kmsg.NewProduceRequestTopic()
	t.Topic = w.topic.Name
	for p := range w.settings.partitions {
		if b := batches[p]; b != nil {
			part := kmsg.NewProduceRequestTopicPartition()
			part.Partition, part.Records = p, b
			t.Partitions = append(t.Partitions, part)
		}
	}
	req.Topics = append(req.Topics, t)
	return req
}

// verdict is what an error code says of a batch.
type verdict uint8

const (
	acknowledged verdict = iota
	refusedForNow
	possiblyThere
	hopeless
)

// judge classifies the codes that producers may be given (CORRECTNESS 2).
func judge(code int16) verdict {
	switch code {
	case 0:
		return acknowledged
	case kerr.NotLeaderForPartition.Code, kerr.KafkaStorageError.Code, kerr.NotEnoughReplicas.Code:
		return refusedForNow
	case kerr.RequestTimedOut.Code:
		return possiblyThere
	}
	return hopeless
}

// hint is the address of the leader that an answer names.
func hint(resp *kmsg.ProduceResponse, p *kmsg.ProduceResponseTopicPartition) (string, bool) {
	at := slices.IndexFunc(resp.Brokers, func(b kmsg.ProduceResponseBroker) bool { return b.NodeID == p.CurrentLeader.LeaderID })
	if at < 0 {
		return "", false
	}
	return net.JoinHostPort(resp.Brokers[at].Host, strconv.Itoa(int(resp.Brokers[at].Port))), true
}

// records decodes fetched batches from an offset on.
func records(raw []byte, from int64) ([]check.Record, error) {
	var out []check.Record
	for len(raw) > 0 {
		b, rest, err := batch.Next(raw)
		if err != nil {
			return nil, err
		}
		if err := b.CheckCRC(); err != nil {
			return nil, err
		}
		raw = rest
		list, err := batchtest.Records(b)
		if err != nil {
			return nil, err
		}
		for i := range list {
			offset := b.BaseOffset() + int64(i)
			if offset < from {
				continue
			}
			id, err := check.ParseValue(list[i].Value)
			if err != nil {
				return nil, err
			}
			out = append(out, check.Record{ID: id, Offset: offset})
		}
	}
	return out, nil
}

// patience is how long clients may take to finish once all faults have ended.
const patience = 3 * time.Minute
