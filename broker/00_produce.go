package broker

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/partition"
	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/protocol"
	"github.com/streamhouse/streamhouse/protocol/batch"
)

// Produce, v0 to v13. KIP-98 (idempotence), KIP-110 (zstd), KIP-467 (record
// errors), KIP-951 (the new leader in the answer), KIP-516 (topic ids, v13).
//
// Versions below 3 carry message sets of magic 0 and 1. Like Kafka 4, the
// broker advertises them, because librdkafka takes Produce for absent
// otherwise, and refuses them.
//
// acks=1 means the same as acks=all: a batch is answered once it is committed.
// acks=0 is not answered. Transactional ids are refused (SKIPPED.md). Clients of other
// zones are sent to agents of their own.

// produceStage is one partition's way through a request.
type produceStage struct {
	answer *kmsg.ProduceResponseTopicPartition
	key    lease.Key
	append int // index into the appends, -1 if it was refused before
}

// produce validates the batches and hands them over, in order, on the
// connection's goroutine; the waiting is done in Later.
func (b *Broker) produce(ctx context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.ProduceRequest)
	resp := r.ResponseKind().(*kmsg.ProduceResponse)
	b.departure.note()
	refusal := refuseProduce(r)
	var stages []produceStage
	var appends []partition.Append
	resolve, from := b.resolve(ctx), b.visit(req)
	resp.Topics = make([]kmsg.ProduceResponseTopic, len(r.Topics))
	for i := range r.Topics {
		t := &r.Topics[i]
		answer := &resp.Topics[i]
		answer.Topic, answer.TopicID = t.Topic, t.TopicID
		answer.Partitions = make([]kmsg.ProduceResponseTopicPartition, len(t.Partitions))
		for j := range t.Partitions {
			p := &t.Partitions[j]
			s := produceStage{answer: &answer.Partitions[j], append: -1}
			*s.answer = kmsg.NewProduceResponseTopicPartition()
			s.answer.Partition, s.answer.BaseOffset = p.Partition, -1
			err := error(refusal)
			if refusal == nil {
				var a partition.Append
				if a, err = stageAppend(resolve, &from, produceTopic(r, t), p, r.Version, req.Received); err == nil {
					s.append = len(appends)
					appends = append(appends, a)
				}
				s.key = a.Key
			}
			refusePartition(s.answer, err)
			stages = append(stages, s)
		}
	}
	zone := from.zone
	if b.Wrote != nil {
		b.Wrote(req, appends)
	}
	detach(appends, req.Size)
	pending := b.Partitions.Append(appends)
	timeout := produceTimeout(r.TimeoutMillis)
	if r.Acks == 0 {
		if failed(stages) { // Kafka closes the connection: the one way to tell
			return protocol.Disconnect(errAcks0Failed)
		}
		return protocol.LaterNone(func(ctx context.Context) error {
			// The client may leave at once: what it sent is written all the same.
			ctx = context.WithoutCancel(ctx)
			if b.finishProduce(ctx, pending, stages, resp, zone, timeout); failed(stages) {
				return errAcks0Failed
			}
			return nil
		})
	}
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		b.finishProduce(ctx, pending, stages, resp, zone, timeout)
		return resp
	})
}

// detach copies the batches if they are the smaller part of a frame. They may be
// kept for longer than the request, which is answered when its time is over, and
// are bounded by their own size: they must not keep the rest of the frame.
func detach(appends []partition.Append, frame int) {
	accepted := 0
	for i := range appends {
		accepted += len(appends[i].Batch.Batch)
	}
	if 2*accepted >= frame {
		return
	}
	for i := range appends {
		v := &appends[i].Batch
		v.Batch = bytes.Clone(v.Batch)
	}
}

var errAcks0Failed = errors.New("a produce with acks=0 was refused; closing is the only answer that its client can see")

// refuseProduce returns what is wrong with the request as a whole, nil if
// nothing is.
func refuseProduce(r *kmsg.ProduceRequest) error {
	switch {
	case r.Version < 3:
		return &requestError{kerr.UnsupportedForMessageFormat, "Produce requests with message sets of magic 0 and 1 are not supported."}
	case r.Acks < -1 || r.Acks > 1:
		return kerr.InvalidRequiredAcks
	case r.TransactionID != nil:
		return kerr.TransactionalIDAuthorizationFailed
	}
	return nil
}

// produceTopic is how the request names a topic.
func produceTopic(r *kmsg.ProduceRequest, t *kmsg.ProduceRequestTopic) topicRef {
	if r.Version >= 13 {
		return topicRef{byID: true, id: t.TopicID}
	}
	return topicRef{name: t.Topic}
}

// stageAppend finds the partition, whose key is returned with any error that has to do
// with its leader, and validates its batch.
func stageAppend(resolve *resolver, from *visit, ref topicRef, p *kmsg.ProduceRequestTopicPartition, version int16, now time.Time) (partition.Append, error) {
	t, key, err := resolve.partition(ref, p.Partition)
	if err != nil {
		return partition.Append{}, err
	}
	away := from.check(key)
	v, err := batch.Validate(p.Records, produceRules(t, version, now))
	switch {
	case away != nil:
		if err == nil { // the client may be served by the time that its next batch comes
			from.b.Partitions.Miss(key, &v, away)
		}
		return partition.Append{Key: key}, away
	case err != nil:
		return partition.Append{}, err
	case v.Transactional:
		return partition.Append{}, kerr.TransactionalIDAuthorizationFailed
	}
	return partition.Append{Key: key, Batch: v, LogAppendTime: t.Config.LogAppendTime}, nil
}

// maxDecompressed bounds what one compressed batch may expand to.
const maxDecompressed = 1 << 30

func produceRules(t *topology.Topic, version int16, now time.Time) *batch.Rules {
	c := t.Config
	return &batch.Rules{
		MaxMessageBytes:      c.MaxMessageBytes,
		MaxDecompressedBytes: maxDecompressed,
		Compacted:            c.Compact,
		LogAppendTime:        c.LogAppendTime,
		TimestampBeforeMax:   c.TimestampBeforeMax,
		TimestampAfterMax:    c.TimestampAfterMax,
		Now:                  now,
		CompressionType:      c.Compression,
		CompressionLevel:     c.CompressionLevel,
		AllowZstd:            version >= 7,
	}
}

// produceTimeout is how long the client waits for its answer, in bounds.
func produceTimeout(ms int32) time.Duration {
	return min(max(time.Duration(ms)*time.Millisecond, time.Second), 5*time.Minute)
}

// finishProduce waits for the commits and fills the answers in.
func (b *Broker) finishProduce(ctx context.Context, pending *partition.Pending, stages []produceStage, resp *kmsg.ProduceResponse, zone string, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	results := pending.Wait(ctx)
	var hints *leaderHints
	for _, s := range stages {
		var err error
		if s.append >= 0 {
			res := &results[s.append]
			s.answer.LogStartOffset = res.LogStartOffset // with errors too: a producer tells a truncated log by it
			if err = res.Err; err == nil {
				s.answer.BaseOffset, s.answer.LogAppendTime = res.BaseOffset, res.AppendTime
				continue
			}
			refusePartition(s.answer, err)
		}
		if s.answer.ErrorCode == kerr.NotLeaderForPartition.Code {
			if hints == nil {
				hints = b.leaderHints(ctx, zone)
			}
			if l, ok := hints.leader(s.key, err); ok {
				s.answer.CurrentLeader.LeaderID, s.answer.CurrentLeader.LeaderEpoch = l.node, l.epoch
			}
		}
	}
	if hints != nil {
		for _, a := range hints.named() {
			n := kmsg.NewProduceResponseBroker()
			n.NodeID, n.Host, n.Port, n.Rack = a.NodeID, a.Host, a.Port, rack(a.Zone)
			resp.Brokers = append(resp.Brokers, n)
		}
	}
}

// refusePartition writes an error into a partition's answer.
func refusePartition(answer *kmsg.ProduceResponseTopicPartition, err error) {
	if err == nil {
		return
	}
	answer.ErrorCode = errorCode(err)
	if e, ok := errors.AsType[*batch.Error](err); ok {
		answer.ErrorMessage = &e.Reason
		for _, re := range e.RecordErrors {
			r := kmsg.NewProduceResponseTopicPartitionErrorRecord()
			r.RelativeOffset, r.ErrorMessage = re.BatchIndex, &re.Message
			answer.ErrorRecords = append(answer.ErrorRecords, r)
		}
	} else if e, ok := errors.AsType[*requestError](err); ok {
		answer.ErrorMessage = &e.message
	}
}

func failed(stages []produceStage) bool {
	return slices.ContainsFunc(stages, func(s produceStage) bool { return s.answer.ErrorCode != 0 })
}
