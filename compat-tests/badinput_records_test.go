package compattests

import (
	"encoding/binary"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/protocol/batch"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

// Positions in a record batch.
const (
	batchLengthAt    = 8
	batchMagicAt     = 16
	batchCRCAt       = 17
	batchCodecAt     = 22 // the low byte of the attributes
	batchLastDeltaAt = 23
	batchCountAt     = 57
	batchRecordsAt   = 61
)

// badBatch makes bytes from a batch that are none, or that are not what they say.
type badBatch struct {
	name string
	make func(good batch.Batch) []byte
	// want is Kafka's answer.
	want *kerr.Error
}

var badBatches = []badBatch{
	{"nothing", func(batch.Batch) []byte { return []byte{} }, kerr.InvalidRecord},
	{"half a batch", func(b batch.Batch) []byte { return b[:len(b)/2] }, kerr.InvalidRecord},
	{"half the records", func(b batch.Batch) []byte { return batchtest.Seal(b[:batchRecordsAt+len(b.Records())/2]) }, kerr.InvalidRecord},
	{"no records", func(b batch.Batch) []byte { return batchtest.Seal(b[:batchRecordsAt]) }, kerr.InvalidRecord},
	{"other records", func(b batch.Batch) []byte {
		for i := range b.Records() {
			b.Records()[i] = byte(i*7 + 1)
		}
		return batchtest.Seal(b)
	}, kerr.InvalidRecord},
	{"a wrong CRC", func(b batch.Batch) []byte { b[batchCRCAt]++; return b }, kerr.CorruptMessage},
	{"an unknown codec", func(b batch.Batch) []byte { b[batchCodecAt] = 7; return batchtest.Seal(b) }, kerr.UnsupportedCompressionType},
	{"another codec", func(b batch.Batch) []byte { b[batchCodecAt] = (b[batchCodecAt] + 1) % 5; return batchtest.Seal(b) }, kerr.InvalidRecord},
	{"a record too many", func(b batch.Batch) []byte { return recount(b, 1) }, kerr.InvalidRecord},
	{"a record too few", func(b batch.Batch) []byte { return recount(b, -1) }, kerr.InvalidRecord},
	{"2^31-1 records", func(b batch.Batch) []byte { return recount(b, 1<<31-1-int(b.RecordCount())) }, kerr.InvalidRecord},
	{"no record by its count", func(b batch.Batch) []byte { return recount(b, -int(b.RecordCount())) }, kerr.InvalidRecord},
	{"a last offset that is no count", func(b batch.Batch) []byte { b[batchLastDeltaAt+3]++; return batchtest.Seal(b) }, kerr.InvalidRecord},
	{"a length beyond its end", func(b batch.Batch) []byte { b[batchLengthAt]++; return b }, kerr.InvalidRecord},
	{"a negative length", func(b batch.Batch) []byte { b[batchLengthAt] = 0x80; return b }, kerr.CorruptMessage},
	{"an unknown magic", func(b batch.Batch) []byte { b[batchMagicAt] = 9; return b }, kerr.CorruptMessage},
	{"two batches", func(b batch.Batch) []byte { return append(slices.Clone(b), b...) }, kerr.InvalidRecord},
}

// recount changes how many records a batch says that it has.
func recount(b batch.Batch, by int) []byte {
	n := int(b.RecordCount()) + by
	binary.BigEndian.PutUint32(b[batchCountAt:], uint32(n))
	binary.BigEndian.PutUint32(b[batchLastDeltaAt:], uint32(n-1))
	return batchtest.Seal(b)
}

// compressed produces batches that are damaged, in each codec, and ones that grow a thousandfold.
func (b *badInput) compressed(t *testing.T) {
	const topic = "damaged"
	b.createTopic(t, topic)
	var records []batchtest.Record
	for i := range 100 {
		records = append(records, batchtest.Record{Value: fmt.Appendf(nil, "value %d", i), Timestamp: time.Now().UnixMilli()})
	}
	zeros := []batchtest.Record{{Value: make([]byte, 64<<20), Timestamp: time.Now().UnixMilli()}}
	for codec := batch.CodecNone; codec <= batch.CodecZstd; codec++ {
		for _, bad := range badBatches {
			bytes := bad.make(batchtest.Build(batchtest.Options{Records: records, Codec: codec}))
			b.wantRefused(t, b.produce(topic, bytes), fmt.Sprintf("%v: %s", codec, bad.name), bad.want)
		}
		if codec == batch.CodecGzip || codec == batch.CodecZstd { // the others do not get it below max.message.bytes
			bomb := batchtest.Build(batchtest.Options{Records: zeros, Codec: codec})
			b.wantCodes(t, b.produce(topic, bomb), fmt.Sprintf("%v: 64 MiB of zeros", codec), nil)
		}
	}
}

// wantRefused demands one code, but of Kafka also the one that it has for all that it did not expect.
func (b *badInput) wantRefused(t *testing.T, request kmsg.Request, what string, want *kerr.Error) {
	t.Helper()
	codes := b.codes(t, request)
	if b.target.name == "apachekafka" && slices.Equal(codes, []int16{kerr.UnknownServerError.Code}) {
		return
	}
	checkCodes(t, request, what, codes, want)
}

// produce is a request to write a batch to the first partition of a topic.
func (b *badInput) produce(topic string, records []byte) kmsg.Request {
	r := request(b, kmsg.NewPtrProduceRequest(), produceByName)
	r.Acks, r.TimeoutMillis = -1, 10_000
	of := kmsg.NewProduceRequestTopic()
	of.Topic, of.Partitions = topic, []kmsg.ProduceRequestTopicPartition{{Records: records}}
	r.Topics = append(r.Topics, of)
	return r
}

// createTopic creates a topic whose one partition is led by the broker that is attacked.
func (b *badInput) createTopic(t *testing.T, topic string) {
	t.Helper()
	create := request(b, kmsg.NewPtrCreateTopicsRequest(), 7)
	create.TimeoutMillis = 10_000
	create.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: topic, NumPartitions: 1, ReplicationFactor: 1}}
	b.wantCodes(t, create, topic, nil)
	eventually(deadline(t, badInputTimeout), t, func() error {
		answer := ask[*kmsg.ProduceResponse](t, b, b.produce(topic, batchtest.Of("first")))
		return kerr.ErrorForCode(answer.Topics[0].Partitions[0].ErrorCode)
	})
}

// oddStrings are strings that no client sends.
var oddStrings = []string{strings.Repeat("x", 32<<10-1), "nul\x00nul", "not UTF-8 \xff\xfe\x80"}

// strings names groups, members and clients with what is no text, or with a lot of it. Kafka takes any of it for a name.
// An agent refuses only names of groups that a database can't have.
func (b *badInput) strings(t *testing.T) {
	const good = "strings" // a group
	refused := kerr.InvalidGroupID
	if b.target.name == "apachekafka" {
		refused = nil
	}
	b = b.atCoordinator(t, good)
	for _, odd := range oddStrings {
		if b.target.name == "apachekafka" && len(odd) > 1000 {
			continue // it has no answer to a member with so long a name
		}
		for _, version := range []int16{2, offsetsByName} {
			b.wantCodes(t, b.commit(version, odd, "", ""), odd, refused)
			b.wantCodes(t, b.commit(version, good, odd, ""), odd, kerr.UnknownMemberID)
		}
		var tooLarge *kerr.Error
		if len(odd) > 4096 {
			tooLarge = kerr.OffsetMetadataTooLarge
		}
		b.wantCodes(t, b.commit(offsetsByName, good, "", odd), odd, tooLarge)
		b.join(t, good, odd)
	}
}

// atCoordinator is b at the broker that coordinates a group.
func (b *badInput) atCoordinator(t *testing.T, group string) *badInput {
	t.Helper()
	find := request(b, kmsg.NewPtrFindCoordinatorRequest(), 6)
	find.CoordinatorKeys = []string{group}
	at := *b
	eventually(deadline(t, badInputTimeout), t, func() error {
		found := ask[*kmsg.FindCoordinatorResponse](t, b, find).Coordinators[0]
		if found.ErrorCode != 0 {
			return kerr.ErrorForCode(found.ErrorCode)
		}
		at.address = net.JoinHostPort(found.Host, strconv.Itoa(int(found.Port)))
		return kerr.ErrorForCode(slices.Max(append(at.codes(t, at.commit(offsetsByName, group, "", "")), 0)))
	})
	return &at
}

// commit is a request to commit an offset, of a member if there is one.
func (b *badInput) commit(version int16, group, member, metadata string) kmsg.Request {
	r := request(b, kmsg.NewPtrOffsetCommitRequest(), version)
	r.Group, r.MemberID, r.Generation = group, member, -1
	if member != "" {
		r.Generation = 1
	}
	of := kmsg.NewOffsetCommitRequestTopic()
	of.Topic = bystanderTopic
	of.Partitions = []kmsg.OffsetCommitRequestTopicPartition{{LeaderEpoch: -1, Metadata: &metadata}}
	r.Topics = append(r.Topics, of)
	return r
}

// join becomes the one member of a group as a client, and with a protocol, of an odd name, and leaves again.
func (b *badInput) join(t *testing.T, group, odd string) {
	t.Helper()
	if b.target.name == "apachekafka" {
		return // it does not answer: the metadata is not a consumer's
	}
	c := b.dial(t)
	defer c.Close()
	join := request(b, kmsg.NewPtrJoinGroupRequest(), 9)
	join.Group, join.ProtocolType, join.SessionTimeoutMillis, join.RebalanceTimeoutMillis = group, "consumer", 10_000, 10_000
	join.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: odd, Metadata: []byte(odd)}}
	joined := askAs[*kmsg.JoinGroupResponse](t, c, odd, join)
	if joined.ErrorCode != kerr.MemberIDRequired.Code {
		t.Errorf("join with %.40q: %v, want MEMBER_ID_REQUIRED", odd, kerr.ErrorForCode(joined.ErrorCode))
	}
	join.MemberID = joined.MemberID
	if joined = askAs[*kmsg.JoinGroupResponse](t, c, odd, join); joined.ErrorCode != 0 || *joined.Protocol != odd {
		t.Errorf("join with %.40q: %v, protocol %.40q", odd, kerr.ErrorForCode(joined.ErrorCode), *joined.Protocol)
	}
	sync := request(b, kmsg.NewPtrSyncGroupRequest(), 5)
	sync.Group, sync.MemberID, sync.Generation = group, joined.MemberID, joined.Generation
	sync.ProtocolType, sync.Protocol = kmsg.StringPtr("consumer"), &odd
	sync.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: joined.MemberID, MemberAssignment: []byte(odd)}}
	if synced := askAs[*kmsg.SyncGroupResponse](t, c, odd, sync); synced.ErrorCode != 0 || string(synced.MemberAssignment) != odd {
		t.Errorf("sync with %.40q: %v", odd, kerr.ErrorForCode(synced.ErrorCode))
	}
	leave := request(b, kmsg.NewPtrLeaveGroupRequest(), 5)
	leave.Group, leave.Members = group, []kmsg.LeaveGroupRequestMember{{MemberID: joined.MemberID}}
	if codes := errorCodes(reflect.ValueOf(askAs[*kmsg.LeaveGroupResponse](t, c, odd, leave))); slices.Max(codes) != 0 {
		t.Errorf("leave: %v", named(codes))
	}
}
