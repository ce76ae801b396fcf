// Package wire looks at record batches as a broker serves them, below what a client's consumer shows: which agent
// answered, which codec the bytes are in, whether their checksum holds.
package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ErrBadBatch tells that served bytes are no valid record batch.
var ErrBadBatch = errors.New("bad record batch")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Brokers returns the ids of the brokers that Metadata lists.
func Brokers(ctx context.Context, client *kgo.Client) ([]int32, error) {
	brokers, err := kadm.NewClient(client).ListBrokers(ctx)
	if err != nil {
		return nil, fmt.Errorf("list brokers: %w", err)
	}
	return brokers.NodeIDs(), nil
}

// Log is a partition as a broker served it.
type Log struct {
	Batches []kmsg.RecordBatch
	Records []*kgo.Record
}

// Fetch reads a partition from one broker, whether or not Metadata names it as the leader, from offset 0 up to end, and
// demands that the batches are valid, follow each other without a gap, and stop at end. A broker that has not learned
// of the latest batches may take its time, within ctx.
func Fetch(ctx context.Context, client *kgo.Client, broker int32, topic string, partition int32, end int64) (Log, error) {
	var log Log
	topics, err := kadm.NewClient(client).ListTopics(ctx, topic)
	if err := errors.Join(err, topics.Error()); err != nil {
		return log, fmt.Errorf("look %s up: %w", topic, err)
	}
	for next := int64(0); next < end; {
		where := fmt.Sprintf("%s-%d at %d from broker %d", topic, partition, next, broker)
		fetched, err := fetch(ctx, client.Broker(int(broker)), topics[topic], partition, next)
		if err != nil {
			return log, fmt.Errorf("fetch %s: %w", where, err)
		}
		batches, err := parse(fetched.RecordBatches)
		if err != nil {
			return log, fmt.Errorf("%s: %w", where, err)
		}
		decoded, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Offset: next, Topic: topic, Partition: partition},
			&fetched, kgo.DefaultDecompressor(), nil)
		if decoded.Err != nil {
			return log, fmt.Errorf("decode %s: %w", where, decoded.Err)
		}
		for _, b := range batches {
			if b.FirstOffset != next {
				return log, fmt.Errorf("%w: %s: a batch at offset %d where %d follows", ErrBadBatch, where, b.FirstOffset, next)
			}
			next += int64(b.LastOffsetDelta) + 1
		}
		if max(next, fetched.HighWatermark) > end {
			return log, fmt.Errorf("%s: served up to %d with the high watermark %d, want no more than %d", where, next, fetched.HighWatermark, end)
		}
		log.Batches = append(log.Batches, batches...)
		log.Records = append(log.Records, decoded.Records...)
	}
	return log, nil
}

func fetch(ctx context.Context, broker *kgo.Broker, topic kadm.TopicDetail, partition int32, offset int64) (kmsg.FetchResponseTopicPartition, error) {
	asked := kmsg.NewFetchRequestTopicPartition()
	asked.Partition = partition
	asked.FetchOffset = offset
	asked.PartitionMaxBytes = 8 << 20
	askedTopic := kmsg.NewFetchRequestTopic()
	askedTopic.Topic, askedTopic.TopicID = topic.Topic, topic.ID
	askedTopic.Partitions = append(askedTopic.Partitions, asked)
	request := kmsg.NewPtrFetchRequest()
	request.MaxBytes = 8 << 20
	request.MinBytes = 1
	request.MaxWaitMillis = 500
	request.Topics = append(request.Topics, askedTopic)

	answer, err := broker.RetriableRequest(ctx, request)
	if err != nil {
		return kmsg.FetchResponseTopicPartition{}, err
	}
	response := answer.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(response.ErrorCode); err != nil {
		return kmsg.FetchResponseTopicPartition{}, err
	}
	if len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1 {
		return kmsg.FetchResponseTopicPartition{}, fmt.Errorf("%w: the answer is not about the one partition asked for", ErrBadBatch)
	}
	answered := response.Topics[0].Partitions[0]
	return answered, kerr.ErrorForCode(answered.ErrorCode)
}

// parse splits what Fetch returned into batches. The last one may be cut off, as Kafka allows.
func parse(b []byte) ([]kmsg.RecordBatch, error) {
	const (
		lengthEnd = 12 // base offset and length precede what the length counts
		crcEnd    = 21 // the checksum covers what follows it
		header    = 61
	)
	var batches []kmsg.RecordBatch
	for len(b) >= lengthEnd {
		size := lengthEnd + int(binary.BigEndian.Uint32(b[8:]))
		if size < header {
			return nil, fmt.Errorf("%w: %d bytes long", ErrBadBatch, size)
		}
		if size > len(b) {
			break
		}
		var batch kmsg.RecordBatch
		if err := batch.ReadFrom(b[:size]); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBadBatch, err)
		}
		if crc := crc32.Checksum(b[crcEnd:size], castagnoli); crc != uint32(batch.CRC) {
			return nil, fmt.Errorf("%w: offset %d: checksum %08x, computed %08x", ErrBadBatch, batch.FirstOffset, uint32(batch.CRC), crc)
		}
		if batch.Magic != 2 || batch.NumRecords != batch.LastOffsetDelta+1 {
			return nil, fmt.Errorf("%w: offset %d: magic %d, %d records, last offset delta %d", ErrBadBatch, batch.FirstOffset, batch.Magic, batch.NumRecords, batch.LastOffsetDelta)
		}
		batches = append(batches, batch)
		b = b[size:]
	}
	return batches, nil
}

// Codec is the number of the compression codec that a batch is in.
func Codec(b kmsg.RecordBatch) int { return int(b.Attributes & 7) }
