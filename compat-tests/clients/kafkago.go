package clients

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/streamhouse/streamhouse/compat-tests/scenario"
)

// KafkaGo is segmentio's kafka-go: its Writer, its Reader, alone and in a group, its ConsumerGroup, and its Client for
// the rest. It has no idempotent producer.
type KafkaGo struct {
	bootstrap []string
	transport *kafka.Transport
	client    *kafka.Client
}

var _ Client = (*KafkaGo)(nil)

// NewKafkaGo returns a client that keeps its connections until Close.
func NewKafkaGo(bootstrap []string) *KafkaGo {
	transport := &kafka.Transport{ClientID: "compat", MetadataTTL: time.Second}
	client := &kafka.Client{Addr: kafka.TCP(bootstrap...), Transport: transport}
	return &KafkaGo{bootstrap: bootstrap, transport: transport, client: client}
}

func (k *KafkaGo) Name() string { return "kafka-go" }

func (k *KafkaGo) Version() string { return moduleVersion("github.com/segmentio/kafka-go") }

func (k *KafkaGo) Profile() scenario.Profile {
	return scenario.Profile{Codecs: scenario.Codecs, Timestamps: true, Oddities: true}
}

func (k *KafkaGo) Close() error {
	k.transport.CloseIdleConnections()
	return nil
}

// index is where a message stands among those to produce. Its partition goes with it, since kafka-go's Writer asks a
// balancer for that.
type index struct {
	i         int
	partition int32
}

func (k *KafkaGo) Produce(ctx context.Context, topic, codec string, records []scenario.Record) ([]int64, error) {
	var compression kafka.Compression
	if codec != "none" {
		if err := compression.UnmarshalText([]byte(codec)); err != nil {
			return nil, err
		}
	}
	var mu sync.Mutex
	offsets := make([]int64, len(records))
	writer := &kafka.Writer{
		Addr:         k.client.Addr,
		Topic:        topic,
		Transport:    k.transport,
		Compression:  compression,
		RequiredAcks: kafka.RequireAll,
		BatchBytes:   scenario.MaxMessageBytes / 2,
		BatchTimeout: 10 * time.Millisecond,

		AllowAutoTopicCreation: true,
		Balancer: kafka.BalancerFunc(func(m kafka.Message, _ ...int) int {
			return int(m.WriterData.(index).partition)
		}),
		Completion: func(written []kafka.Message, _ error) {
			mu.Lock()
			defer mu.Unlock()
			for _, m := range written {
				offsets[m.WriterData.(index).i] = m.Offset
			}
		},
	}
	messages := make([]kafka.Message, len(records))
	for i, r := range records {
		messages[i] = kafka.Message{Key: r.Key, Value: r.Value, Time: time.UnixMilli(r.Timestamp), WriterData: index{i, r.Partition}}
		for _, h := range r.Headers {
			messages[i].Headers = append(messages[i].Headers, kafka.Header{Key: h.Key, Value: h.Value})
		}
	}
	if err := errors.Join(writer.WriteMessages(ctx, messages...), writer.Close()); err != nil {
		return nil, err
	}
	return offsets, nil
}

func (k *KafkaGo) Offsets(ctx context.Context, topic string, timestamp int64) ([scenario.Partitions]int64, error) {
	var offsets [scenario.Partitions]int64
	requests := make([]kafka.OffsetRequest, len(offsets))
	for p := range requests {
		requests[p] = kafka.OffsetRequest{Partition: p, Timestamp: timestamp}
	}
	listed, err := k.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: requests}})
	if err != nil {
		return offsets, err
	}
	if len(listed.Topics[topic]) != len(offsets) {
		return offsets, fmt.Errorf("answers for %d of %d partitions", len(listed.Topics[topic]), len(offsets))
	}
	for _, p := range listed.Topics[topic] {
		if p.Error != nil {
			return offsets, fmt.Errorf("partition %d: %w", p.Partition, p.Error)
		}
		offsets[p.Partition] = offsetOf(p, timestamp)
	}
	return offsets, nil
}

// offsetOf finds the answer to what was asked: kafka-go files it under the timestamp of the record that was found.
func offsetOf(p kafka.PartitionOffsets, timestamp int64) int64 {
	switch timestamp {
	case kafka.FirstOffset:
		return p.FirstOffset
	case kafka.LastOffset:
		return p.LastOffset
	}
	for offset := range p.Offsets {
		return offset
	}
	return scenario.NoOffset // no record has the timestamp -1, which kafka-go takes for its own LastOffset
}

func (k *KafkaGo) Read(ctx context.Context, topic string, timestamp int64) ([]scenario.Record, error) {
	start, err := k.Offsets(ctx, topic, timestamp)
	if err != nil {
		return nil, err
	}
	end, err := k.Offsets(ctx, topic, scenario.Latest)
	if err != nil {
		return nil, err
	}
	return eachPartition(start, end, func(partition int32, start, end int64) ([]scenario.Record, error) {
		reader, err := k.reader(topic, partition, start)
		if err != nil {
			return nil, err
		}
		records, err := readMessages(ctx, reader, int(end-start))
		return records, errors.Join(err, reader.Close())
	})
}

// reader returns a Reader of one partition that begins at the offset.
func (k *KafkaGo) reader(topic string, partition int32, offset int64) (*kafka.Reader, error) {
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: k.bootstrap, Topic: topic, Partition: int(partition), MaxBytes: maxBufferedBytes, MaxWait: fetchWait,
	})
	return reader, reader.SetOffset(offset)
}

func readMessages(ctx context.Context, reader *kafka.Reader, n int) ([]scenario.Record, error) {
	records := make([]scenario.Record, n)
	for i := range records {
		m, err := reader.FetchMessage(ctx)
		if err != nil {
			return nil, fmt.Errorf("after %d of %d records: %w", i, n, err)
		}
		records[i] = fromKafkaGo(m)
	}
	return records, nil
}

// fromKafkaGo returns kafka-go's message as a record. Its Reader gives what is empty as null.
func fromKafkaGo(m kafka.Message) scenario.Record {
	r := scenario.Record{
		Partition: int32(m.Partition), Offset: m.Offset, Timestamp: m.Time.UnixMilli(), Key: m.Key, Value: m.Value, EmptyAsNull: true,
	}
	for _, h := range m.Headers {
		r.Headers = append(r.Headers, scenario.Header{Key: h.Key, Value: h.Value})
	}
	return r
}

// ReadGroup is by a Reader with a group, which most programs use: it joins, assigns and fetches behind the scenes.
func (k *KafkaGo) ReadGroup(ctx context.Context, topic, group string, n int) ([]scenario.Record, error) {
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: k.bootstrap, GroupID: group, Topic: topic, StartOffset: kafka.FirstOffset, MaxBytes: maxBufferedBytes, MaxWait: fetchWait,
		SessionTimeout: sessionTimeout, RebalanceTimeout: rebalanceTimeout, HeartbeatInterval: heartbeatInterval,
	})
	records, err := readMessages(ctx, reader, n)
	if err == nil {
		taken := make([]kafka.Message, n)
		for i, r := range records {
			taken[i] = kafka.Message{Topic: topic, Partition: int(r.Partition), Offset: r.Offset}
		}
		err = reader.CommitMessages(ctx, taken...)
	}
	return records, errors.Join(err, reader.Close())
}

func (k *KafkaGo) Join(_ context.Context, topic, group string) (Member, error) {
	g, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: group, Brokers: k.bootstrap, Topics: []string{topic}, StartOffset: kafka.FirstOffset, JoinGroupBackoff: heartbeatInterval,
		SessionTimeout: sessionTimeout, RebalanceTimeout: rebalanceTimeout, HeartbeatInterval: heartbeatInterval,
	})
	if err != nil {
		return nil, fmt.Errorf("make a kafka-go consumer group: %w", err)
	}
	m := &kafkaGoMember{inbox: newInbox(), client: k, topic: topic, group: g}
	m.done.Go(m.run)
	return m, nil
}

// kafkaGoMember is a ConsumerGroup. Each of its generations has a Reader for each of the member's partitions.
type kafkaGoMember struct {
	*inbox
	client *KafkaGo
	topic  string
	group  *kafka.ConsumerGroup
	done   sync.WaitGroup

	lock       sync.Mutex
	generation *kafka.Generation
	readers    map[int32]*kafka.Reader
}

// run begins generation after generation, until the group is closed.
func (m *kafkaGoMember) run() {
	for {
		generation, err := m.group.Next(context.Background())
		if errors.Is(err, kafka.ErrGroupClosed) {
			return
		}
		if err != nil {
			continue // ConsumerGroup tries again, after its backoff
		}
		if err := m.begin(generation); err != nil {
			m.fail(err)
			return
		}
	}
}

func (m *kafkaGoMember) begin(generation *kafka.Generation) error {
	assigned := generation.Assignments[m.topic]
	partitions := make([]int32, len(assigned))
	for i, a := range assigned {
		partitions[i] = int32(a.ID)
	}
	m.lock.Lock()
	defer m.lock.Unlock()
	m.generation, m.readers = generation, make(map[int32]*kafka.Reader)
	m.assign(partitions...)
	for i, p := range partitions {
		reader, err := m.client.reader(m.topic, p, assigned[i].Offset)
		if err != nil {
			return err
		}
		m.readers[p] = reader
		c := m.claimOf(p)
		generation.Start(func(ctx context.Context) { m.deliver(ctx, c, reader) })
	}
	// Whatever ends the generation, the member owns nothing until the next.
	generation.Start(func(ctx context.Context) {
		<-ctx.Done()
		m.end(generation)
	})
	return nil
}

func (m *kafkaGoMember) end(generation *kafka.Generation) {
	m.lock.Lock()
	defer m.lock.Unlock()
	if m.generation == generation {
		m.generation, m.readers = nil, nil
		m.assign()
	}
}

// deliver gives the inbox what the Reader reads until the generation ends.
func (m *kafkaGoMember) deliver(ctx context.Context, c *claim, reader *kafka.Reader) {
	defer reader.Close()
	for {
		message, err := reader.FetchMessage(ctx)
		if err != nil || !m.put(ctx, c, fromKafkaGo(message)) {
			return // the end of this goroutine is that of the generation: the next reads on
		}
	}
}

func (m *kafkaGoMember) Commit(context.Context) error {
	offsets := make(map[int]int64)
	for p, offset := range m.positions() {
		offsets[int(p)] = offset
	}
	m.lock.Lock()
	defer m.lock.Unlock()
	if m.generation == nil || len(offsets) == 0 {
		return nil
	}
	return m.generation.CommitOffsets(map[string]map[int]int64{m.topic: offsets})
}

func (m *kafkaGoMember) Seek(_ context.Context, partition int32, offset int64) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	reader := m.readers[partition]
	if reader == nil {
		return fmt.Errorf("partition %d: %w", partition, errNotAssigned)
	}
	m.seek(partition, offset)
	return reader.SetOffset(offset)
}

// Pause: kafka-go has no such thing.
func (m *kafkaGoMember) Pause(context.Context, int32) error { return ErrUnsupported }

func (m *kafkaGoMember) Resume(context.Context, int32) error { return ErrUnsupported }

func (m *kafkaGoMember) Leave(context.Context) error {
	err := m.group.Close()
	m.done.Wait()
	return err
}

func (k *KafkaGo) CreateTopic(ctx context.Context, topic string, configs map[string]string) error {
	var entries []kafka.ConfigEntry
	for name, value := range configs {
		entries = append(entries, kafka.ConfigEntry{ConfigName: name, ConfigValue: value})
	}
	response, err := k.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: topic, NumPartitions: scenario.Partitions, ReplicationFactor: -1, ConfigEntries: entries,
	}}})
	if err != nil {
		return err
	}
	return response.Errors[topic]
}

func (k *KafkaGo) PartitionCount(ctx context.Context, topic string) (int, error) {
	response, err := k.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return 0, err
	}
	return len(response.Topics[0].Partitions), response.Topics[0].Error
}

func (k *KafkaGo) CreatePartitions(ctx context.Context, topic string, total int) error {
	response, err := k.client.CreatePartitions(ctx, &kafka.CreatePartitionsRequest{
		Topics: []kafka.TopicPartitionsConfig{{Name: topic, Count: int32(total)}},
	})
	if err != nil {
		return err
	}
	return response.Errors[topic]
}

func (k *KafkaGo) TopicConfigs(ctx context.Context, topic string) (map[string]string, error) {
	response, err := k.client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
		Resources: []kafka.DescribeConfigRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic}},
	})
	if err != nil {
		return nil, err
	}
	configs := make(map[string]string)
	for _, e := range response.Resources[0].ConfigEntries {
		configs[e.ConfigName] = e.ConfigValue
	}
	return configs, response.Resources[0].Error
}

func (k *KafkaGo) AlterTopicConfig(ctx context.Context, topic, name, value string) error {
	response, err := k.client.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{
		Resources: []kafka.IncrementalAlterConfigsRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: topic,
			Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: name, Value: value, ConfigOperation: kafka.ConfigOperationSet}},
		}},
	})
	if err != nil {
		return err
	}
	return response.Resources[0].Error
}

func (k *KafkaGo) DeleteTopic(ctx context.Context, topic string) error {
	response, err := k.client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	if err != nil {
		return err
	}
	return response.Errors[topic]
}

func (k *KafkaGo) Groups(ctx context.Context) ([]string, error) {
	response, err := k.client.ListGroups(ctx, &kafka.ListGroupsRequest{})
	if err != nil {
		return nil, err
	}
	groups := make([]string, len(response.Groups))
	for i, g := range response.Groups {
		groups[i] = g.GroupID
	}
	return groups, response.Error
}

func (k *KafkaGo) DescribeGroup(ctx context.Context, group string) (state string, members int, err error) {
	response, err := k.client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{group}})
	if err != nil {
		return "", 0, err
	}
	return response.Groups[0].GroupState, len(response.Groups[0].Members), response.Groups[0].Error
}

func (k *KafkaGo) DeleteGroup(ctx context.Context, group string) error {
	response, err := k.client.DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{group}})
	if err != nil {
		return err
	}
	return response.Errors[group]
}
