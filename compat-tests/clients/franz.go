package clients

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/compat-tests/scenario"
)

// Franz is franz-go, with its default idempotent producer.
type Franz struct {
	bootstrap []string
}

var _ Client = (*Franz)(nil)

// NewFranz returns a client that connects anew for each operation.
func NewFranz(bootstrap []string) *Franz { return &Franz{bootstrap: bootstrap} }

func (f *Franz) Name() string { return "franz-go" }

func (f *Franz) Version() string { return moduleVersion("github.com/twmb/franz-go") }

func (f *Franz) Profile() scenario.Profile {
	return scenario.Profile{Codecs: scenario.Codecs, Timestamps: true, Oddities: true}
}

func (f *Franz) Close() error { return nil }

// connect calls use with a client that is closed afterwards.
func (f *Franz) connect(use func(*kgo.Client) error, options ...kgo.Opt) error {
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(f.bootstrap...), kgo.AlwaysRetryEOF())...)
	if err != nil {
		return fmt.Errorf("make a franz-go client: %w", err)
	}
	defer client.Close()
	return use(client)
}

func (f *Franz) Produce(ctx context.Context, topic, codec string, records []scenario.Record) ([]int64, error) {
	compression := map[string]kgo.CompressionCodec{
		"none":   kgo.NoCompression(),
		"gzip":   kgo.GzipCompression(),
		"snappy": kgo.SnappyCompression(),
		"lz4":    kgo.Lz4Compression(),
		"zstd":   kgo.ZstdCompression(),
	}
	produced := make([]*kgo.Record, len(records))
	for i, r := range records {
		produced[i] = &kgo.Record{Topic: topic, Partition: r.Partition, Timestamp: time.UnixMilli(r.Timestamp), Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			produced[i].Headers = append(produced[i].Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
	}
	err := f.connect(func(client *kgo.Client) error {
		return client.ProduceSync(ctx, produced...).FirstErr()
	},
		kgo.AllowAutoTopicCreation(),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(compression[codec]),
		kgo.ProducerBatchMaxBytes(scenario.MaxMessageBytes/2),
	)
	if err != nil {
		return nil, err
	}
	offsets := make([]int64, len(records))
	for i, r := range produced {
		offsets[i] = r.Offset
	}
	return offsets, nil
}

func (f *Franz) Offsets(ctx context.Context, topic string, timestamp int64) ([scenario.Partitions]int64, error) {
	var offsets [scenario.Partitions]int64
	err := f.connect(func(client *kgo.Client) error {
		admin := kadm.NewClient(client)
		var listed kadm.ListedOffsets
		var err error
		switch timestamp {
		case scenario.Earliest:
			listed, err = admin.ListStartOffsets(ctx, topic)
		case scenario.Latest:
			listed, err = admin.ListEndOffsets(ctx, topic)
		default:
			// kadm replaces "no such record" by the end offset; the timestamp, which it leaves at -1, tells them apart.
			listed, err = admin.ListOffsetsAfterMilli(ctx, timestamp, topic)
		}
		if err := errors.Join(err, listed.Error()); err != nil {
			return err
		}
		for p := range offsets {
			o, ok := listed.Lookup(topic, int32(p))
			if !ok {
				return fmt.Errorf("no answer for partition %d", p)
			}
			offsets[p] = o.Offset
			if timestamp >= 0 && o.Timestamp < 0 {
				offsets[p] = scenario.NoOffset
			}
		}
		return nil
	})
	return offsets, err
}

func (f *Franz) Read(ctx context.Context, topic string, timestamp int64) ([]scenario.Record, error) {
	start, err := f.Offsets(ctx, topic, timestamp)
	if err != nil {
		return nil, err
	}
	end, err := f.Offsets(ctx, topic, scenario.Latest)
	if err != nil {
		return nil, err
	}
	from := make(map[int32]kgo.Offset)
	count := 0
	for p := range start {
		if start[p] != scenario.NoOffset {
			from[int32(p)] = kgo.NewOffset().At(start[p])
			count += int(end[p] - start[p])
		}
	}
	var records []scenario.Record
	if count == 0 {
		return records, nil
	}
	err = f.connect(func(client *kgo.Client) error {
		records, err = take(ctx, client, count)
		return err
	}, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}), kgo.FetchMaxBytes(maxBufferedBytes))
	return records, err
}

func (f *Franz) ReadGroup(ctx context.Context, topic, group string, n int) ([]scenario.Record, error) {
	var records []scenario.Record
	err := f.connect(func(client *kgo.Client) error {
		var err error
		if records, err = take(ctx, client, n); err != nil {
			return err
		}
		// PollRecords handed out exactly these, so what is polled is what was taken.
		return errors.Join(client.CommitUncommittedOffsets(ctx), client.LeaveGroupContext(ctx))
	},
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.FetchMaxBytes(maxBufferedBytes),
	)
	return records, err
}

// take polls until it has n records and drops what it fetched beyond.
func take(ctx context.Context, client *kgo.Client, n int) ([]scenario.Record, error) {
	records := make([]scenario.Record, 0, n)
	for len(records) < n {
		fetches := client.PollRecords(ctx, n-len(records))
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("after %d of %d records: %w", len(records), n, err)
		}
		fetches.EachRecord(func(r *kgo.Record) { records = append(records, FromFranz(r)) })
	}
	return records, nil
}

// FromFranz returns franz-go's record as a scenario's.
func FromFranz(r *kgo.Record) scenario.Record {
	record := scenario.Record{Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		record.Headers = append(record.Headers, scenario.Header{Key: h.Key, Value: h.Value})
	}
	return record
}
