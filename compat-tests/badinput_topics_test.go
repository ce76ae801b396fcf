package compattests

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

// byName are the versions in which an API still names topics by their names.
const (
	produceByName = 12
	fetchByName   = 12
	offsetsByName = 9
)

// aboutTopics make a request of each API that takes the name of a topic, about partitions of that topic.
var aboutTopic = []struct {
	make func(b *badInput, topic string, partitions []int32) kmsg.Request
	// illegal is how a name is answered that no topic may have, unknown one that none has.
	illegal, unknown *kerr.Error
	partitions       bool // the request names partitions
}{
	{func(b *badInput, topic string, partitions []int32) kmsg.Request {
		r := request(b, kmsg.NewPtrProduceRequest(), produceByName)
		r.Acks, r.TimeoutMillis = -1, 10_000
		of := kmsg.NewProduceRequestTopic()
		of.Topic = topic
		for _, p := range partitions {
			of.Partitions = append(of.Partitions, kmsg.ProduceRequestTopicPartition{Partition: p, Records: batchtest.Of("x")})
		}
		r.Topics = append(r.Topics, of)
		return r
	}, kerr.UnknownTopicOrPartition, kerr.UnknownTopicOrPartition, true},
	{func(b *badInput, topic string, partitions []int32) kmsg.Request {
		r := request(b, kmsg.NewPtrFetchRequest(), fetchByName)
		r.SessionEpoch, r.MaxBytes = -1, 1<<20
		of := kmsg.NewFetchRequestTopic()
		of.Topic = topic
		for _, p := range partitions {
			asked := kmsg.NewFetchRequestTopicPartition()
			asked.Partition, asked.PartitionMaxBytes = p, 1
			of.Partitions = append(of.Partitions, asked)
		}
		r.Topics = append(r.Topics, of)
		return r
	}, kerr.UnknownTopicOrPartition, kerr.UnknownTopicOrPartition, true},
	{func(b *badInput, topic string, partitions []int32) kmsg.Request {
		r := request(b, kmsg.NewPtrListOffsetsRequest(), 11)
		of := kmsg.NewListOffsetsRequestTopic()
		of.Topic = topic
		for _, p := range partitions {
			asked := kmsg.NewListOffsetsRequestTopicPartition()
			asked.Partition, asked.Timestamp = p, -1
			of.Partitions = append(of.Partitions, asked)
		}
		r.Topics = append(r.Topics, of)
		return r
	}, kerr.UnknownTopicOrPartition, kerr.UnknownTopicOrPartition, true},
	{func(b *badInput, topic string, _ []int32) kmsg.Request {
		r := request(b, kmsg.NewPtrMetadataRequest(), 12)
		r.Topics = []kmsg.MetadataRequestTopic{{Topic: &topic}}
		return r
	}, kerr.InvalidTopicException, kerr.UnknownTopicOrPartition, false},
	{func(b *badInput, topic string, partitions []int32) kmsg.Request {
		r := request(b, kmsg.NewPtrOffsetCommitRequest(), offsetsByName)
		r.Group, r.Generation = "names", -1
		of := kmsg.NewOffsetCommitRequestTopic()
		of.Topic = topic
		for _, p := range partitions {
			asked := kmsg.NewOffsetCommitRequestTopicPartition()
			asked.Partition = p
			of.Partitions = append(of.Partitions, asked)
		}
		r.Topics = append(r.Topics, of)
		return r
	}, kerr.UnknownTopicOrPartition, kerr.UnknownTopicOrPartition, true},
	{func(b *badInput, topic string, partitions []int32) kmsg.Request {
		r := request(b, kmsg.NewPtrOffsetFetchRequest(), offsetsByName)
		r.Groups = []kmsg.OffsetFetchRequestGroup{{Group: "names", MemberEpoch: -1, Topics: []kmsg.OffsetFetchRequestGroupTopic{{
			Topic: topic, Partitions: partitions,
		}}}}
		return r
	}, nil, nil, true}, // it has no offset
	{func(b *badInput, topic string, partitions []int32) kmsg.Request {
		r := request(b, kmsg.NewPtrOffsetForLeaderEpochRequest(), 4)
		of := kmsg.NewOffsetForLeaderEpochRequestTopic()
		of.Topic = topic
		for _, p := range partitions {
			asked := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
			asked.Partition = p
			of.Partitions = append(of.Partitions, asked)
		}
		r.Topics = append(r.Topics, of)
		return r
	}, kerr.UnknownTopicOrPartition, kerr.UnknownTopicOrPartition, true},
	{func(b *badInput, topic string, partitions []int32) kmsg.Request {
		r := request(b, kmsg.NewPtrDeleteRecordsRequest(), 2)
		r.TimeoutMillis = 10_000
		of := kmsg.NewDeleteRecordsRequestTopic()
		of.Topic = topic
		for _, p := range partitions {
			of.Partitions = append(of.Partitions, kmsg.DeleteRecordsRequestTopicPartition{Partition: p})
		}
		r.Topics = append(r.Topics, of)
		return r
	}, kerr.UnknownTopicOrPartition, kerr.UnknownTopicOrPartition, true},
	{func(b *badInput, topic string, _ []int32) kmsg.Request {
		r := request(b, kmsg.NewPtrCreateTopicsRequest(), 7)
		r.TimeoutMillis, r.ValidateOnly = 10_000, true
		r.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: topic, NumPartitions: 1, ReplicationFactor: 1}}
		return r
	}, kerr.InvalidTopicException, nil, false},
	{func(b *badInput, topic string, _ []int32) kmsg.Request {
		r := request(b, kmsg.NewPtrDeleteTopicsRequest(), 6)
		r.TimeoutMillis = 10_000
		r.Topics = []kmsg.DeleteTopicsRequestTopic{{Topic: &topic}}
		return r
	}, kerr.UnknownTopicOrPartition, kerr.UnknownTopicOrPartition, false},
	{func(b *badInput, topic string, _ []int32) kmsg.Request {
		r := request(b, kmsg.NewPtrCreatePartitionsRequest(), 3)
		r.TimeoutMillis = 10_000
		r.Topics = []kmsg.CreatePartitionsRequestTopic{{Topic: topic, Count: 10}}
		return r
	}, kerr.UnknownTopicOrPartition, kerr.UnknownTopicOrPartition, false},
	{func(b *badInput, topic string, _ []int32) kmsg.Request {
		r := request(b, kmsg.NewPtrDescribeConfigsRequest(), 4)
		r.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: topic}}
		return r
	}, kerr.InvalidTopicException, kerr.UnknownTopicOrPartition, false},
	{func(b *badInput, topic string, _ []int32) kmsg.Request {
		r := request(b, kmsg.NewPtrAlterConfigsRequest(), 2)
		r.Resources = []kmsg.AlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: topic}}
		return r
	}, kerr.InvalidTopicException, kerr.UnknownTopicOrPartition, false},
	{func(b *badInput, topic string, _ []int32) kmsg.Request {
		r := request(b, kmsg.NewPtrIncrementalAlterConfigsRequest(), 1)
		r.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: topic}}
		return r
	}, kerr.InvalidTopicException, kerr.UnknownTopicOrPartition, false},
	{func(b *badInput, topic string, _ []int32) kmsg.Request {
		r := request(b, kmsg.NewPtrDescribeTopicPartitionsRequest(), 0)
		r.ResponsePartitionLimit = 10
		r.Topics = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: topic}}
		return r
	}, kerr.InvalidTopicException, kerr.UnknownTopicOrPartition, false},
}

// topicNames asks every API for topics that no topic may be called.
func (b *badInput) topicNames(t *testing.T) {
	names := []string{
		".", "..", "with space", "slash/slash", "quote'; DROP TABLE topics; --", "ünïcode", "nul\x00", "not UTF-8 \xff\xfe",
		strings.Repeat("x", 250),
	}
	if b.target.name != "apachekafka" { // which answers UNKNOWN_SERVER_ERROR now and then
		names = append(names, strings.Repeat("x", 32<<10-1))
	}
	b = b.atCoordinator(t, "names")
	for _, about := range aboutTopic {
		for _, name := range names {
			b.wantCodes(t, about.make(b, name, []int32{0}), name, about.illegal)
		}
		b.wantCodes(t, about.make(b, "no-such-topic", []int32{0}), "no-such-topic", about.unknown)
	}
}

// wantCodes demands that all of a request is answered with the one code, nil for none.
func (b *badInput) wantCodes(t *testing.T, request kmsg.Request, what string, want *kerr.Error) {
	t.Helper()
	checkCodes(t, request, what, b.codes(t, request), want)
}

// codes are the error codes in the answer to a request, but for those of success.
func (b *badInput) codes(t *testing.T, request kmsg.Request) []int16 {
	t.Helper()
	codes := errorCodes(reflect.ValueOf(ask[kmsg.Response](t, b, request)))
	return slices.DeleteFunc(codes, func(code int16) bool { return code == 0 })
}

func checkCodes(t *testing.T, request kmsg.Request, what string, got []int16, want *kerr.Error) {
	t.Helper()
	var wanted []int16
	if want != nil {
		wanted = []int16{want.Code}
	}
	if !slices.Equal(slices.Compact(got), wanted) {
		t.Errorf("%s v%d of %.40q: %v, want %v", kmsg.NameForKey(request.Key()), request.GetVersion(), what, named(got), named(wanted))
	}
}

func named(codes []int16) (names []string) {
	for _, code := range codes {
		names = append(names, kerr.ErrorForCode(code).(*kerr.Error).Message)
	}
	return names
}

// errorCodes lists all error codes of an answer.
func errorCodes(v reflect.Value) (codes []int16) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return errorCodes(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			codes = append(codes, errorCodes(v.Index(i))...)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.Name == "ErrorCode" {
				codes = append(codes, int16(v.Field(i).Int()))
			} else if f.IsExported() {
				codes = append(codes, errorCodes(v.Field(i))...)
			}
		}
	}
	return codes
}

// tooMany asks for more partitions than a cluster can have.
func (b *badInput) tooMany(t *testing.T) {
	create := request(b, kmsg.NewPtrCreateTopicsRequest(), 7)
	create.TimeoutMillis = 10_000
	create.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: "too-many", NumPartitions: 1_000_000, ReplicationFactor: 1}}
	b.wantCodes(t, create, "a million partitions", kerr.PolicyViolation)
	create.Topics = nil
	for _, name := range []string{"too-many-1", "too-many-2"} {
		create.Topics = append(create.Topics, kmsg.CreateTopicsRequestTopic{Topic: name, NumPartitions: 6000, ReplicationFactor: 1})
	}
	b.wantCodes(t, create, "12,000 partitions", kerr.PolicyViolation)
	grow := request(b, kmsg.NewPtrCreatePartitionsRequest(), 3)
	grow.TimeoutMillis = 10_000
	grow.Topics = []kmsg.CreatePartitionsRequestTopic{{Topic: bystanderTopic, Count: 1_000_000}}
	b.wantRefused(t, grow, "a million partitions", kerr.InvalidPartitions)
}

// million asks each API about a million partitions, of a topic that has one and of one that is not there. It is answered
// or refused, and neither takes much memory.
func (b *badInput) million(t *testing.T) {
	if b.target.name == "apachekafka" {
		return // it takes minutes and gigabytes
	}
	const most = 1 << 30 // bytes: the cache, and all that requests in flight may take
	const topic = "asked"
	b.createTopic(t, topic)
	partitions := make([]int32, 1_000_000)
	for i := range partitions {
		partitions[i] = int32(i)
	}
	for _, about := range aboutTopic {
		if !about.partitions {
			continue
		}
		topics := []string{topic}
		if slow(t) {
			topics = append(topics, "no-such-topic")
		}
		for _, topic := range topics {
			request := about.make(b, topic, partitions)
			t.Run(kmsg.NameForKey(request.Key())+" of "+topic, func(t *testing.T) {
				began, before := time.Now(), b.resident(t)
				c := b.dial(t)
				if _, err := c.Write(frame(request)); err != nil && !isReset(err) {
					t.Fatal(err)
				}
				answer, err := c.receive()
				if err != nil && !isEnd(err) {
					t.Error(err)
				}
				after := b.resident(t)
				t.Logf("%v: answered with %d bytes, %v; %d -> %d MiB", time.Since(began), len(answer), err, before>>20, after>>20)
				if after > most {
					t.Errorf("the agent takes %d MiB", after>>20)
				}
			})
		}
	}
}
