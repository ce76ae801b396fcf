package clients

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/rcrowley/go-metrics"

	"github.com/streamhouse/streamhouse/compat-tests/scenario"
)

// Sarama is sarama, with an idempotent producer.
type Sarama struct {
	bootstrap []string
	name      string
	protocol  sarama.KafkaVersion
}

var _ Client = (*Sarama)(nil)

// NewSarama returns a client that speaks the newest protocol that it knows. It connects anew for each operation.
func NewSarama(bootstrap []string) *Sarama { return newSarama(bootstrap, "sarama", sarama.MaxVersion) }

// NewOldSarama returns a client that speaks the protocol of Kafka 2.8, as sarama does unless it is told otherwise.
func NewOldSarama(bootstrap []string) *Sarama {
	return newSarama(bootstrap, "sarama-2.8", sarama.DefaultVersion)
}

func newSarama(bootstrap []string, name string, protocol sarama.KafkaVersion) *Sarama {
	stopMetrics()
	return &Sarama{bootstrap: bootstrap, name: name, protocol: protocol}
}

// stopMetrics keeps sarama from its metrics, whose clock is a goroutine that never ends.
var stopMetrics = sync.OnceFunc(func() { metrics.UseNilMetrics = true })

func (s *Sarama) Name() string { return s.name }

func (s *Sarama) Version() string { return moduleVersion("github.com/IBM/sarama") }

func (s *Sarama) Profile() scenario.Profile {
	return scenario.Profile{Codecs: scenario.Codecs, Timestamps: true, Oddities: true}
}

func (s *Sarama) Close() error { return nil }

func (s *Sarama) config() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = s.protocol
	config.ClientID = "compat"
	config.Producer.Idempotent = true
	config.Net.MaxOpenRequests = 1 // as idempotence demands
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Return.Successes = true
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Producer.MaxMessageBytes = scenario.MaxMessageBytes / 2
	config.Consumer.Fetch.Default = maxBufferedBytes
	config.Consumer.MaxWaitTime = fetchWait
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Return.Errors = true
	config.Consumer.Group.Session.Timeout = sessionTimeout
	config.Consumer.Group.Heartbeat.Interval = heartbeatInterval
	config.Consumer.Group.Rebalance.Timeout = rebalanceTimeout
	config.Consumer.Group.Rebalance.Retry.Backoff = heartbeatInterval
	return config
}

// connect calls use with a client that is closed afterwards.
func (s *Sarama) connect(use func(sarama.Client) error) error {
	client, err := sarama.NewClient(s.bootstrap, s.config())
	if err != nil {
		return fmt.Errorf("make a sarama client: %w", err)
	}
	return errors.Join(use(client), client.Close())
}

// administrate calls use with an admin client that is closed afterwards.
func (s *Sarama) administrate(use func(sarama.ClusterAdmin) error) error {
	admin, err := sarama.NewClusterAdmin(s.bootstrap, s.config())
	if err != nil {
		return fmt.Errorf("make a sarama admin client: %w", err)
	}
	return errors.Join(use(admin), admin.Close())
}

func (s *Sarama) Produce(_ context.Context, topic, codec string, records []scenario.Record) ([]int64, error) {
	config := s.config()
	if err := config.Producer.Compression.UnmarshalText([]byte(codec)); err != nil {
		return nil, err
	}
	producer, err := sarama.NewSyncProducer(s.bootstrap, config)
	if err != nil {
		return nil, fmt.Errorf("make a sarama producer: %w", err)
	}
	messages := make([]*sarama.ProducerMessage, len(records))
	for i, r := range records {
		messages[i] = &sarama.ProducerMessage{Topic: topic, Partition: r.Partition, Timestamp: time.UnixMilli(r.Timestamp)}
		// A nil Encoder is null; one of no bytes is not.
		if r.Key != nil {
			messages[i].Key = sarama.ByteEncoder(r.Key)
		}
		if r.Value != nil {
			messages[i].Value = sarama.ByteEncoder(r.Value)
		}
		for _, h := range r.Headers {
			messages[i].Headers = append(messages[i].Headers, sarama.RecordHeader{Key: []byte(h.Key), Value: h.Value})
		}
	}
	if err := errors.Join(producer.SendMessages(messages), producer.Close()); err != nil {
		return nil, err
	}
	offsets := make([]int64, len(messages))
	for i, m := range messages {
		offsets[i] = m.Offset
	}
	return offsets, nil
}

func (s *Sarama) Offsets(_ context.Context, topic string, timestamp int64) ([scenario.Partitions]int64, error) {
	var offsets [scenario.Partitions]int64
	err := s.connect(func(client sarama.Client) error {
		for p := range offsets {
			var err error
			if offsets[p], err = client.GetOffset(topic, int32(p), timestamp); err != nil {
				return fmt.Errorf("partition %d: %w", p, err)
			}
		}
		return nil
	})
	return offsets, err
}

func (s *Sarama) Read(ctx context.Context, topic string, timestamp int64) ([]scenario.Record, error) {
	start, err := s.Offsets(ctx, topic, timestamp)
	if err != nil {
		return nil, err
	}
	end, err := s.Offsets(ctx, topic, scenario.Latest)
	if err != nil {
		return nil, err
	}
	var records []scenario.Record
	err = s.connect(func(client sarama.Client) error {
		consumer, err := sarama.NewConsumerFromClient(client)
		if err != nil {
			return fmt.Errorf("make a sarama consumer: %w", err)
		}
		records, err = eachPartition(start, end, func(partition int32, start, end int64) ([]scenario.Record, error) {
			return readSarama(ctx, consumer, topic, partition, start, end)
		})
		return errors.Join(err, consumer.Close())
	})
	return records, err
}

// readSarama reads the offsets in [start, end).
func readSarama(ctx context.Context, consumer sarama.Consumer, topic string, partition int32, start, end int64) ([]scenario.Record, error) {
	reader, err := consumer.ConsumePartition(topic, partition, start)
	if err != nil {
		return nil, err
	}
	var records []scenario.Record
	for err == nil && int64(len(records)) < end-start {
		select {
		case m := <-reader.Messages():
			records = append(records, fromSarama(m))
		case e := <-reader.Errors():
			err = e
		case <-ctx.Done():
			err = fmt.Errorf("after %d of %d records: %w", len(records), end-start, ctx.Err())
		}
	}
	return records, errors.Join(err, reader.Close())
}

func fromSarama(m *sarama.ConsumerMessage) scenario.Record {
	r := scenario.Record{Partition: m.Partition, Offset: m.Offset, Timestamp: m.Timestamp.UnixMilli(), Key: m.Key, Value: m.Value}
	for _, h := range m.Headers {
		r.Headers = append(r.Headers, scenario.Header{Key: string(h.Key), Value: h.Value})
	}
	return r
}

func (s *Sarama) ReadGroup(ctx context.Context, topic, group string, n int) ([]scenario.Record, error) {
	return readAsMember(ctx, s, topic, group, n)
}

func (s *Sarama) Join(_ context.Context, topic, group string) (Member, error) {
	g, err := sarama.NewConsumerGroup(s.bootstrap, group, s.config())
	if err != nil {
		return nil, fmt.Errorf("make a sarama consumer group: %w", err)
	}
	m := &saramaMember{inbox: newInbox(), topic: topic, group: g, seeks: make(map[int32]int64)}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	m.done.Go(func() { m.consume(ctx) })
	m.done.Go(m.drainErrors)
	return m, nil
}

// saramaMember is a ConsumerGroup and its handler. Each session gives its claims to the inbox; all sessions are of
// one member, since the ConsumerGroup keeps its id.
type saramaMember struct {
	*inbox
	topic  string
	group  sarama.ConsumerGroup
	cancel context.CancelFunc // ends consume
	done   sync.WaitGroup

	lock    sync.Mutex
	session sarama.ConsumerGroupSession // nil between sessions
	restart context.CancelFunc          // ends the session, and has the member join again
	seeks   map[int32]int64             // where the next session begins, where that is not the committed offset
	errs    []error                     // what sarama has told since the last commit began
}

// consume joins, again after each session, until ctx ends.
func (m *saramaMember) consume(ctx context.Context) {
	for ctx.Err() == nil {
		sessionCtx, restart := context.WithCancel(ctx)
		m.lock.Lock()
		m.restart = restart
		m.lock.Unlock()
		err := m.group.Consume(sessionCtx, []string{m.topic}, m)
		restart()
		if err != nil {
			// sarama has tried for a while by then: no coordinator, as a rule.
			m.note(err)
			select {
			case <-time.After(heartbeatInterval):
			case <-ctx.Done():
			}
		}
	}
}

// drainErrors ends with the group.
func (m *saramaMember) drainErrors() {
	for err := range m.group.Errors() {
		m.note(err)
	}
}

func (m *saramaMember) note(err error) {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.errs = append(m.errs, err)
}

// Setup is sarama's: a session begins. What was sought is set here, where sarama takes it for the position.
func (m *saramaMember) Setup(session sarama.ConsumerGroupSession) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.session = session
	partitions := session.Claims()[m.topic]
	m.assign(partitions...)
	for p, offset := range m.seeks {
		if slices.Contains(partitions, p) {
			session.MarkOffset(m.topic, p, offset, "")  // forwards
			session.ResetOffset(m.topic, p, offset, "") // or backwards
			m.seek(p, offset)
		}
	}
	clear(m.seeks)
	return nil
}

// Cleanup is sarama's: a session has ended.
func (m *saramaMember) Cleanup(sarama.ConsumerGroupSession) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.session = nil
	m.assign()
	return nil
}

// ConsumeClaim is sarama's: it runs in a goroutine of its own for each partition of a session.
func (m *saramaMember) ConsumeClaim(session sarama.ConsumerGroupSession, messages sarama.ConsumerGroupClaim) error {
	c := m.claimOf(messages.Partition())
	for message := range messages.Messages() {
		if !m.put(session.Context(), c, fromSarama(message)) {
			break
		}
	}
	return nil
}

func (m *saramaMember) Commit(context.Context) error {
	m.lock.Lock()
	session := m.session
	m.errs = nil
	m.lock.Unlock()
	offsets := m.positions()
	if session == nil || len(offsets) == 0 {
		return nil // what was lost in a rebalance comes again
	}
	for p, offset := range offsets {
		session.MarkOffset(m.topic, p, offset, "")
	}
	session.Commit()
	m.lock.Lock()
	defer m.lock.Unlock()
	return errors.Join(m.errs...)
}

// Seek ends the session and has the next one begin where it is told, and the other partitions where they are: sarama
// has no other way.
func (m *saramaMember) Seek(_ context.Context, partition int32, offset int64) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	maps.Copy(m.seeks, m.positions())
	m.seeks[partition] = offset
	m.seek(partition, offset)
	m.restart()
	return nil
}

func (m *saramaMember) Pause(_ context.Context, partition int32) error {
	m.group.Pause(map[string][]int32{m.topic: {partition}})
	m.pause(partition, true)
	return nil
}

func (m *saramaMember) Resume(_ context.Context, partition int32) error {
	m.pause(partition, false)
	m.group.Resume(map[string][]int32{m.topic: {partition}})
	return nil
}

func (m *saramaMember) Leave(context.Context) error {
	m.cancel()
	err := m.group.Close()
	m.done.Wait()
	return err
}

func (s *Sarama) CreateTopic(_ context.Context, topic string, configs map[string]string) error {
	return s.administrate(func(admin sarama.ClusterAdmin) error {
		values := make(map[string]*string, len(configs))
		for name, value := range configs {
			values[name] = &value
		}
		return admin.CreateTopic(topic, &sarama.TopicDetail{
			NumPartitions: scenario.Partitions, ReplicationFactor: -1, ConfigEntries: values,
		}, false)
	})
}

func (s *Sarama) PartitionCount(_ context.Context, topic string) (int, error) {
	var count int
	err := s.administrate(func(admin sarama.ClusterAdmin) error {
		topics, err := admin.DescribeTopics([]string{topic})
		if err != nil {
			return err
		}
		count = len(topics[0].Partitions)
		if topics[0].Err != sarama.ErrNoError {
			return topics[0].Err
		}
		return nil
	})
	return count, err
}

func (s *Sarama) CreatePartitions(_ context.Context, topic string, total int) error {
	return s.administrate(func(admin sarama.ClusterAdmin) error {
		return admin.CreatePartitions(topic, int32(total), nil, false)
	})
}

func (s *Sarama) TopicConfigs(_ context.Context, topic string) (map[string]string, error) {
	configs := make(map[string]string)
	err := s.administrate(func(admin sarama.ClusterAdmin) error {
		asked := []*sarama.ConfigResource{{Type: sarama.TopicResource, Name: topic}}
		described, err := admin.DescribeConfigs(asked, sarama.DescribeConfigsOptions{})
		if err != nil {
			return err
		}
		for _, e := range described[0].Configs {
			configs[e.Name] = e.Value
		}
		if code := described[0].ErrorCode; code != sarama.ErrNoError {
			return code
		}
		return nil
	})
	return configs, err
}

func (s *Sarama) AlterTopicConfig(_ context.Context, topic, name, value string) error {
	return s.administrate(func(admin sarama.ClusterAdmin) error {
		return admin.IncrementalAlterConfig(sarama.TopicResource, topic, map[string]sarama.IncrementalAlterConfigsEntry{
			name: {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value},
		}, false)
	})
}

func (s *Sarama) DeleteTopic(_ context.Context, topic string) error {
	return s.administrate(func(admin sarama.ClusterAdmin) error { return admin.DeleteTopic(topic) })
}

func (s *Sarama) Groups(context.Context) ([]string, error) {
	var groups []string
	err := s.administrate(func(admin sarama.ClusterAdmin) error {
		listed, err := admin.ListConsumerGroups()
		for group := range listed {
			groups = append(groups, group)
		}
		return err
	})
	return groups, err
}

func (s *Sarama) DescribeGroup(_ context.Context, group string) (state string, members int, err error) {
	err = s.administrate(func(admin sarama.ClusterAdmin) error {
		described, err := admin.DescribeConsumerGroups([]string{group})
		if err != nil {
			return err
		}
		if described[0].Err != sarama.ErrNoError {
			return described[0].Err
		}
		state, members = described[0].State, len(described[0].Members)
		return nil
	})
	return state, members, err
}

func (s *Sarama) DeleteGroup(_ context.Context, group string) error {
	return s.administrate(func(admin sarama.ClusterAdmin) error { return admin.DeleteConsumerGroup(group) })
}
