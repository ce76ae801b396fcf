package main

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/internal/testdb"
	"github.com/streamhouse/streamhouse/protocol/batch"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

// edited is a batch that was changed by hand and sealed again.
func edited(change func(b []byte)) []byte {
	b := batchtest.Of("record")
	change(b)
	return batchtest.Seal(b)
}

// messageSet is a set of one message in an old format.
func messageSet(magic byte) []byte {
	b := make([]byte, 64)
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	b[16] = magic
	return b
}

func TestProduceRefusals(t *testing.T) {
	t.Parallel()
	a := startAgent(t, embeddedStores(t))
	w := dial(t, a.addr)
	plain := makeTopic(w, "plain", 1)
	small := makeTopic(w, "small", 1, "max.message.bytes", "200")
	compacted := makeTopic(w, "compacted", 1, "cleanup.policy", "compact")
	strict := makeTopic(w, "strict", 1, "message.timestamp.before.max.ms", "60000", "message.timestamp.after.max.ms", "60000")
	now := time.Now().UnixMilli()
	at := func(ms int64) []byte {
		return batchtest.Build(batchtest.Options{Records: []batchtest.Record{{Timestamp: ms, Value: []byte("v")}}})
	}
	good := batchtest.Of("record")
	badCRC := slices.Clone(good)
	badCRC[len(badCRC)-1] ^= 1
	const attributes, producer = 21, 43 // positions in a batch
	for _, test := range []struct {
		name    string
		topic   topic
		part    int32
		records []byte
		want    *kerr.Error
	}{
		{"bad CRC", plain, 0, badCRC, kerr.CorruptMessage},
		{"magic 0", plain, 0, messageSet(0), kerr.InvalidRecord},
		{"magic 1", plain, 0, messageSet(1), kerr.InvalidRecord},
		{"magic 3", plain, 0, edited(func(b []byte) { b[16] = 3 }), kerr.CorruptMessage},
		{"null", plain, 0, nil, kerr.InvalidRecord},
		{"empty", plain, 0, []byte{}, kerr.InvalidRecord},
		{"two batches", plain, 0, slices.Concat(good, good), kerr.InvalidRecord},
		{"cut off", plain, 0, good[:len(good)-1], kerr.InvalidRecord},
		{"too large", small, 0, batchtest.Of(strings.Repeat("x", 300)), kerr.MessageTooLarge},
		{"no key on a compacted topic", compacted, 0, good, kerr.InvalidRecord},
		{"too old", strict, 0, at(now - 120_000), kerr.InvalidTimestamp},
		{"too new", strict, 0, at(now + 120_000), kerr.InvalidTimestamp},
		{"control batch", plain, 0, batchtest.Build(batchtest.Options{
			Control: true, Records: []batchtest.Record{{Key: []byte{0, 0, 0, 0}, Timestamp: now}},
		}), kerr.InvalidRecord},
		{"transactional batch", plain, 0, batchtest.Build(batchtest.Options{
			Transactional: true, Producer: &batchtest.Producer{ID: 1}, Records: []batchtest.Record{{Timestamp: now}},
		}), kerr.TransactionalIDAuthorizationFailed},
		{"producer id without a sequence", plain, 0, edited(func(b []byte) {
			binary.BigEndian.PutUint64(b[producer:], 1)
			binary.BigEndian.PutUint16(b[producer+8:], 0)
		}), kerr.InvalidRecord},
		{"unknown codec", plain, 0, edited(func(b []byte) { b[attributes+1] = 7 }), kerr.UnsupportedCompressionType},
		{"unknown partition", plain, 1, good, kerr.UnknownTopicOrPartition},
		{"negative partition", plain, -1, good, kerr.UnknownTopicOrPartition},
		{"unknown topic", topic{name: "nope"}, 0, good, kerr.UnknownTopicOrPartition},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := produce(w, test.topic, test.part, test.records)
			wantCode(t, test.name, p.ErrorCode, test.want)
			if p.BaseOffset != -1 || p.LogAppendTime != -1 {
				t.Errorf("base offset %d, append time %d, want -1", p.BaseOffset, p.LogAppendTime)
			}
		})
	}
	t.Run("nothing of it was written", func(t *testing.T) {
		for _, topic := range []topic{plain, small, compacted, strict} {
			if all := readLog(w, topic, 0); len(all) != 0 {
				t.Errorf("%s has %d records", topic.name, len(all))
			}
		}
	})
	t.Run("a bad record is named", func(t *testing.T) {
		p := produce(w, compacted, 0, batchtest.Build(batchtest.Options{Records: []batchtest.Record{
			{Key: []byte("k"), Timestamp: now}, {Timestamp: now},
		}}))
		if len(p.ErrorRecords) != 1 || p.ErrorRecords[0].RelativeOffset != 1 || p.ErrorMessage == nil {
			t.Errorf("%+v", p)
		}
	})
	t.Run("one bad partition fails alone", func(t *testing.T) {
		req := produceRequest(12, plain, 0, -1, good)
		req.Topics = append(req.Topics, produceRequest(12, compacted, 0, -1, good).Topics...)
		w.send(req)
		resp := w.receive().(*kmsg.ProduceResponse)
		wantCode(t, "good", resp.Topics[0].Partitions[0].ErrorCode, nil)
		wantCode(t, "bad", resp.Topics[1].Partitions[0].ErrorCode, kerr.InvalidRecord)
	})
	t.Run("by topic id", func(t *testing.T) {
		w.send(produceRequest(13, topic{id: plain.id}, 0, -1, good))
		wantCode(t, "known", w.receive().(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode, nil)
		for _, id := range []uuid.UUID{uuid.New(), uuid.Nil} {
			w.send(produceRequest(13, topic{id: id}, 0, -1, good))
			wantCode(t, id.String(), w.receive().(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode, kerr.UnknownTopicID)
		}
	})
	t.Run("zstd before v7", func(t *testing.T) {
		zstd := batchtest.Build(batchtest.Options{Codec: batch.CodecZstd, Records: []batchtest.Record{{Timestamp: now}}})
		w.send(produceRequest(6, plain, 0, -1, zstd))
		wantCode(t, "v6", w.receive().(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode, kerr.UnsupportedCompressionType)
	})
	t.Run("a transactional id", func(t *testing.T) {
		req := produceRequest(12, plain, 0, -1, good)
		req.TransactionID = kmsg.StringPtr("tx")
		w.send(req)
		wantCode(t, "tx", w.receive().(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode, kerr.TransactionalIDAuthorizationFailed)
	})
	t.Run("no topics", func(t *testing.T) {
		req := kmsg.NewPtrProduceRequest()
		req.Acks = -1
		if resp := ask[*kmsg.ProduceResponse](w, 12, req); len(resp.Topics) != 0 {
			t.Errorf("%+v", resp)
		}
	})
}

func TestProduceAcks(t *testing.T) {
	t.Parallel()
	a := startAgent(t, embeddedStores(t))
	w := dial(t, a.addr)
	tp := makeTopic(w, "acks", 1)
	for _, test := range []struct {
		acks int16
		want *kerr.Error
	}{{-1, nil}, {1, nil}, {2, kerr.InvalidRequiredAcks}, {-2, kerr.InvalidRequiredAcks}} {
		w.send(produceRequest(12, tp, 0, test.acks, batchtest.Of(fmt.Sprint(test.acks))))
		got := w.receive().(*kmsg.ProduceResponse).Topics[0].Partitions[0]
		wantCode(t, fmt.Sprint("acks=", test.acks), got.ErrorCode, test.want)
	}
	// acks=0 keeps its place in the order, and has no answer of its own.
	w.send(produceRequest(12, tp, 0, 0, batchtest.Of("0")))
	w.sent = w.sent[:0]
	last := mustProduce(w, tp, 0, batchtest.Of("last"))
	if got, want := values(readLog(w, tp, 0)), []string{"-1", "1", "0", "last"}; !slices.Equal(got, want) || last != 3 {
		t.Errorf("log %q, want %q; last at %d", got, want, last)
	}
	// A client that leaves at once has written all the same.
	leaving := dial(t, a.addr)
	fresh := makeTopic(w, "acks-zero", 1)
	leaving.send(produceRequest(12, fresh, 0, 0, batchtest.Of("gone")))
	leaving.conn.Close()
	eventually(t, "the record is there", func() bool { return len(readLog(w, fresh, 0)) == 1 })
	// A refusal closes the connection: the client can learn of it in no other way.
	w.send(produceRequest(12, topic{name: "nope"}, 0, 0, batchtest.Of("x")))
	w.wantClosed()
}

func TestLogAppendTime(t *testing.T) {
	bothStores(t, func(t *testing.T, s stores) {
		a := startAgent(t, s)
		w := dial(t, a.addr)
		tp := makeTopic(w, "append-time", 1, "message.timestamp.type", "LogAppendTime")
		p := produce(w, tp, 0, batchtest.Of("a", "b"))
		if p.ErrorCode != 0 || p.LogAppendTime <= 0 {
			t.Fatalf("%+v", p)
		}
		for _, r := range readLog(w, tp, 0) {
			if r.Timestamp != p.LogAppendTime {
				t.Errorf("record at %d has timestamp %d, the answer said %d", r.offset, r.Timestamp, p.LogAppendTime)
			}
		}
		if l := offsetOf(w, tp, 0, p.LogAppendTime); l.Offset != 0 || l.Timestamp != p.LogAppendTime {
			t.Errorf("by timestamp: %+v", l)
		}
		// A duplicate is answered with the time of the original.
		id := producerID(w)
		first := produce(w, tp, 0, sequenced(id, 0, 0, "c"))
		again := produce(w, tp, 0, sequenced(id, 0, 0, "c"))
		if again.ErrorCode != 0 || again.BaseOffset != first.BaseOffset || again.LogAppendTime != first.LogAppendTime {
			t.Errorf("duplicate %+v, original %+v", again, first)
		}
	})
}

func TestCompressionTypeConverts(t *testing.T) {
	t.Parallel()
	a := startAgent(t, embeddedStores(t))
	w := dial(t, a.addr)
	now := time.Now().UnixMilli()
	text := strings.Repeat("compress me ", 100)
	codecs := map[string]batch.Codec{
		"uncompressed": batch.CodecNone, "gzip": batch.CodecGzip, "snappy": batch.CodecSnappy,
		"lz4": batch.CodecLz4, "zstd": batch.CodecZstd,
	}
	for to, stored := range codecs {
		tp := makeTopic(w, "to-"+to, 1, "compression.type", to)
		for _, from := range codecs {
			mustProduce(w, tp, 0, batchtest.Build(batchtest.Options{Codec: from, Records: []batchtest.Record{
				{Key: []byte("k"), Value: []byte(text), Timestamp: now, Headers: []batchtest.Header{{Key: "h", Value: []byte("v")}}},
			}}))
		}
		raw := fetchOne(w, fetchRequest(12, tp, 0, 0)).RecordBatches
		for rest := raw; len(rest) > 0; {
			b, tail, err := batch.Next(rest)
			if err != nil {
				t.Fatal(err)
			}
			if b.Codec() != stored {
				t.Errorf("compression.type %s: a batch is stored as %v", to, b.Codec())
			}
			rest = tail
		}
		records := recordsIn(t, raw)
		if len(records) != len(codecs) {
			t.Fatalf("%s: %d records", to, len(records))
		}
		for _, r := range records {
			if string(r.Value) != text || string(r.Key) != "k" || len(r.Headers) != 1 || r.Timestamp != now {
				t.Errorf("%s: record changed: %+v", to, r)
			}
		}
	}
}

func TestIdempotence(t *testing.T) {
	bothStores(t, func(t *testing.T, s stores) {
		a := startAgent(t, s)
		w := dial(t, a.addr)
		tp := makeTopic(w, "idempotence", 1)
		id := producerID(w)
		for _, step := range []struct {
			name     string
			id       int64
			epoch    int16
			sequence int32
			values   []string
			want     *kerr.Error
			offset   int64
		}{
			{"the first", id, 0, 0, []string{"a", "b"}, nil, 0},
			{"its duplicate", id, 0, 0, []string{"a", "b"}, nil, 0},
			{"the next", id, 0, 2, []string{"c"}, nil, 2},
			{"a gap", id, 0, 5, []string{"x"}, kerr.OutOfOrderSequenceNumber, -1},
			{"the four that follow", id, 0, 3, []string{"d"}, nil, 3},
			{"", id, 0, 4, []string{"e"}, nil, 4},
			{"", id, 0, 5, []string{"f"}, nil, 5},
			{"", id, 0, 6, []string{"g"}, nil, 6},
			{"a duplicate of the fifth last", id, 0, 2, []string{"c"}, nil, 2},
			{"a duplicate older than that", id, 0, 0, []string{"a", "b"}, kerr.OutOfOrderSequenceNumber, -1},
			{"a new epoch that does not begin at 0", id, 1, 7, []string{"x"}, kerr.OutOfOrderSequenceNumber, -1},
			{"a new epoch", id, 1, 0, []string{"h"}, nil, 7},
			{"the old epoch", id, 0, 7, []string{"x"}, kerr.InvalidProducerEpoch, -1},
			{"another producer in the middle", id + 100_000, 0, 1, []string{"x"}, kerr.OutOfOrderSequenceNumber, -1},
		} {
			p := produce(w, tp, 0, sequenced(step.id, step.epoch, step.sequence, step.values...))
			wantCode(t, step.name, p.ErrorCode, step.want)
			if p.BaseOffset != step.offset {
				t.Errorf("%s: at offset %d, want %d", step.name, p.BaseOffset, step.offset)
			}
			if step.want == kerr.OutOfOrderSequenceNumber && p.LogStartOffset != 0 {
				t.Errorf("%s: log start %d, want 0: producers tell a lost log by it", step.name, p.LogStartOffset)
			}
		}
		if got := strings.Join(values(readLog(w, tp, 0)), ""); got != "abcdefgh" {
			t.Errorf("log %q", got)
		}
	})
}

// A batch is refused, and the one behind it arrives when that is known, on a
// topic that is younger than the producer, so that the store would believe it.
func TestSuccessorOfARefusedBatch(t *testing.T) {
	bothStores(t, func(t *testing.T, s stores) {
		a := startAgent(t, s, func(s *Settings) { s.Flush.MaxBytes, s.Flush.MaxBufferedBytes = 64<<10, 64<<10 })
		w := dial(t, a.addr)
		id := producerID(w)
		tp := makeTopic(w, "younger", 1)
		for _, step := range []struct {
			name     string
			sequence int32
			value    string
			want     *kerr.Error
			offset   int64
		}{
			{"more than the agent has room for", 0, strings.Repeat("x", 100<<10), kerr.NotEnoughReplicas, -1},
			{"its successor", 1, "b", kerr.NotEnoughReplicas, -1},
			{"the first again", 0, "a", nil, 0},
			{"its successor again", 1, "b", nil, 1},
		} {
			p := produce(w, tp, 0, sequenced(id, 0, step.sequence, step.value))
			wantCode(t, step.name, p.ErrorCode, step.want)
			if p.BaseOffset != step.offset {
				t.Errorf("%s: at offset %d, want %d", step.name, p.BaseOffset, step.offset)
			}
		}
	})
}

func TestIdempotenceSurvivesARestart(t *testing.T) {
	bothStores(t, func(t *testing.T, s stores) {
		a := startAgent(t, s)
		w := dial(t, a.addr)
		tp := makeTopic(w, "restart", 1)
		id := producerID(w)
		for n := range int32(3) {
			mustProduce(w, tp, 0, sequenced(id, 0, n, fmt.Sprint(n)))
		}
		a.end()
		w = dial(t, startAgent(t, s).addr)
		for _, n := range []int32{1, 2, 3} { // two duplicates, and the next
			if got := mustProduce(w, tp, 0, sequenced(id, 0, n, fmt.Sprint(n))); got != int64(n) {
				t.Errorf("batch %d is at %d", n, got)
			}
		}
		if fresh := producerID(w); fresh == id {
			t.Errorf("producer id %d was given out twice", id)
		}
		if got := strings.Join(values(readLog(w, tp, 0)), ""); got != "0123" {
			t.Errorf("log %q", got)
		}
	})
}

func TestFiveInFlight(t *testing.T) {
	bothStores(t, func(t *testing.T, s stores) {
		a := startAgent(t, s)
		w := dial(t, a.addr)
		tp := makeTopic(w, "in-flight", 1)
		id := producerID(w)
		const rounds = 20
		for round := range int32(rounds) {
			for i := range int32(5) {
				n := round*5 + i
				w.send(produceRequest(12, tp, 0, -1, sequenced(id, 0, n, fmt.Sprint(n))))
			}
			for i := range int64(5) {
				p := w.receive().(*kmsg.ProduceResponse).Topics[0].Partitions[0]
				if p.ErrorCode != 0 || p.BaseOffset != int64(round)*5+i {
					t.Fatalf("round %d, batch %d: %v at %d", round, i, kerr.ErrorForCode(p.ErrorCode), p.BaseOffset)
				}
			}
		}
		for i, v := range values(readLog(w, tp, 0)) {
			if v != fmt.Sprint(i) {
				t.Fatalf("record %d is %s", i, v)
			}
		}
	})
}

// A produce that waits for the bucket holds up neither the reading of the next
// request nor its work: only the order of the answers.
func TestRequestsArePipelined(t *testing.T) {
	t.Parallel()
	s := sharedStores(t)
	a := startIsolated(t, s, func(s *Settings) { s.Flush.InlineMaxBytes = 0 })
	w, other := dial(t, a.addr), dial(t, a.addr)
	tp := makeTopic(w, "pipelined", 1)
	mustProduce(w, tp, 0, batchtest.Of("lease"))

	a.bucket.Pause(testdb.ToServer)
	w.send(produceRequest(12, tp, 0, -1, batchtest.Of("slow")))
	create := kmsg.NewPtrCreateTopicsRequest()
	create.SetVersion(7)
	create.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: "meanwhile", NumPartitions: 1, ReplicationFactor: 1}}
	w.send(create)
	eventually(t, "the request behind the slow one is done", func() bool {
		_, m := metadataOf(other, "meanwhile")
		return m.ErrorCode == 0
	})
	a.bucket.Resume(testdb.ToServer)
	if p := w.receive().(*kmsg.ProduceResponse).Topics[0].Partitions[0]; p.ErrorCode != 0 || p.BaseOffset != 1 {
		t.Errorf("slow produce: %+v", p)
	}
	wantCode(t, "create", w.receive().(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode, nil)
}
