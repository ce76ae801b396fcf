package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

func TestListOffsets(t *testing.T) {
	bothStores(t, func(t *testing.T, s stores) {
		a := startAgent(t, s)
		w := dial(t, a.addr)
		tp := makeTopic(w, "list", 1)
		const begin = 1_700_000_000_000
		at := func(times ...int64) []byte {
			var o batchtest.Options
			for _, ms := range times {
				o.Records = append(o.Records, batchtest.Record{Timestamp: begin + ms, Value: []byte("v")})
			}
			return batchtest.Build(o)
		}
		list := func(version int16, timestamp int64, isolation int8, epoch int32) kmsg.ListOffsetsResponseTopicPartition {
			r := kmsg.NewPtrListOffsetsRequest()
			r.IsolationLevel = isolation
			r.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: tp.name, Partitions: []kmsg.ListOffsetsRequestTopicPartition{{
				Timestamp: timestamp, CurrentLeaderEpoch: epoch, MaxNumOffsets: 1,
			}}}}
			return ask[*kmsg.ListOffsetsResponse](w, version, r).Topics[0].Partitions[0]
		}
		for _, special := range []int64{-1, -2} {
			if p := list(10, special, 0, -1); p.ErrorCode != 0 || p.Offset != 0 {
				t.Errorf("%d of an empty log: %+v", special, p)
			}
		}
		if p := list(10, begin, 0, -1); p.ErrorCode != 0 || p.Offset != -1 || p.Timestamp != -1 {
			t.Errorf("by timestamp in an empty log: %+v", p)
		}
		mustProduce(w, tp, 0, at(0, 10, 5))
		mustProduce(w, tp, 0, at(20, 100, 30))
		mustProduce(w, tp, 0, at(40))
		for _, test := range []struct {
			version   int16
			timestamp int64
			offset    int64
			at        int64
			want      *kerr.Error
		}{
			{1, -1, 7, -1, nil},
			{1, -2, 0, -1, nil},
			{1, begin, 0, begin, nil},
			{10, begin + 1, 1, begin + 10, nil},
			{10, begin + 11, 3, begin + 20, nil},
			{10, begin + 31, 4, begin + 100, nil},
			{10, begin + 101, -1, -1, nil},
			{10, -3, 4, begin + 100, nil},
			{6, -3, -1, -1, kerr.UnsupportedVersion},
			{8, -4, 0, -1, nil},
			{7, -4, -1, -1, kerr.UnsupportedVersion},
			{9, -5, -1, -1, nil},
			{8, -5, -1, -1, kerr.UnsupportedVersion},
			{11, -6, -1, -1, nil},
			{10, -7, -1, -1, kerr.UnsupportedVersion},
		} {
			p := list(test.version, test.timestamp, 0, -1)
			wantCode(t, fmt.Sprintf("v%d of %d", test.version, test.timestamp), p.ErrorCode, test.want)
			if p.Offset != test.offset || p.Timestamp != test.at {
				t.Errorf("v%d of %d: offset %d with timestamp %d, want %d with %d", test.version, test.timestamp, p.Offset, p.Timestamp, test.offset, test.at)
			}
		}
		if p := list(10, -1, 1, -1); p.Offset != 7 {
			t.Errorf("latest of read_committed: %+v", p)
		}
		epoch := list(10, -1, 0, -1).LeaderEpoch
		wantCode(t, "current epoch", list(10, -1, 0, epoch).ErrorCode, nil)
		wantCode(t, "newer epoch", list(10, -1, 0, epoch+1).ErrorCode, kerr.UnknownLeaderEpoch)
		wantCode(t, "unknown topic", offsetOf(w, topic{name: "nope"}, 0, -1).ErrorCode, kerr.UnknownTopicOrPartition)
		wantCode(t, "unknown partition", offsetOf(w, tp, 1, -1).ErrorCode, kerr.UnknownTopicOrPartition)

		r := kmsg.NewPtrListOffsetsRequest()
		r.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: tp.name, Partitions: []kmsg.ListOffsetsRequestTopicPartition{
			{Timestamp: -1, CurrentLeaderEpoch: -1}, {Timestamp: -3, CurrentLeaderEpoch: -1},
		}}}
		for _, p := range ask[*kmsg.ListOffsetsResponse](w, 10, r).Topics[0].Partitions {
			wantCode(t, "named twice", p.ErrorCode, kerr.InvalidRequest)
		}
	})
}

func TestDeleteRecords(t *testing.T) {
	bothStores(t, func(t *testing.T, s stores) {
		a := startAgent(t, s)
		w := dial(t, a.addr)
		tp := makeTopic(w, "delete", 1)
		compacted := makeTopic(w, "compacted", 1, "cleanup.policy", "compact")
		remove := func(name string, partition int32, offset int64) (int64, int16) {
			r := kmsg.NewPtrDeleteRecordsRequest()
			r.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: name, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{
				Partition: partition, Offset: offset,
			}}}}
			p := ask[*kmsg.DeleteRecordsResponse](w, 2, r).Topics[0].Partitions[0]
			return p.LowWatermark, p.ErrorCode
		}
		for i := range 4 {
			mustProduce(w, tp, 0, batchtest.Of(fmt.Sprint(2*i), fmt.Sprint(2*i+1)))
		}
		for _, step := range []struct {
			topic     string
			partition int32
			offset    int64
			low       int64
			want      *kerr.Error
		}{
			{tp.name, 0, 3, 3, nil}, // in the middle of a batch
			{tp.name, 0, 1, 3, nil},
			{tp.name, 0, 9, -1, kerr.OffsetOutOfRange},
			{tp.name, 0, -2, -1, kerr.OffsetOutOfRange},
			{tp.name, 1, 0, -1, kerr.UnknownTopicOrPartition},
			{"nope", 0, 0, -1, kerr.UnknownTopicOrPartition},
			{compacted.name, 0, 0, -1, kerr.PolicyViolation},
		} {
			low, code := remove(step.topic, step.partition, step.offset)
			wantCode(t, fmt.Sprintf("%s-%d to %d", step.topic, step.partition, step.offset), code, step.want)
			if low != step.low {
				t.Errorf("%s-%d to %d: low watermark %d, want %d", step.topic, step.partition, step.offset, low, step.low)
			}
		}
		if p := offsetOf(w, tp, 0, -2); p.Offset != 3 {
			t.Errorf("earliest is %d", p.Offset)
		}
		below := fetchOne(w, fetchRequest(12, tp, 0, 2))
		wantCode(t, "fetch below the log start", below.ErrorCode, kerr.OffsetOutOfRange)
		from := fetchOne(w, fetchRequest(12, tp, 0, 3))
		if from.ErrorCode != 0 || from.LogStartOffset != 3 || recordsIn(t, from.RecordBatches)[1].offset != 3 {
			t.Errorf("fetch at the log start: %+v", from)
		}
		if low, code := remove(tp.name, 0, -1); low != 8 || code != 0 {
			t.Errorf("to the end: %d, %v", low, kerr.ErrorForCode(code))
		}
		if p := produce(w, tp, 0, batchtest.Of("next")); p.BaseOffset != 8 || p.LogStartOffset != 8 {
			t.Errorf("after all was deleted: %+v", p)
		}
	})
}

func TestOffsetForLeaderEpoch(t *testing.T) {
	t.Parallel()
	s := sharedStores(t)
	first := startAgent(t, s, named("first"))
	w := dial(t, first.addr)
	tp := makeTopic(w, "epochs", 1)
	mustProduce(w, tp, 0, batchtest.Of("a", "b"))
	old := offsetOf(w, tp, 0, -1).LeaderEpoch
	first.end() // releases the lease
	w = dial(t, startAgent(t, s, named("second")).addr)
	mustProduce(w, tp, 0, batchtest.Of("c"))
	now := offsetOf(w, tp, 0, -1).LeaderEpoch
	if now <= old {
		t.Fatalf("leader epoch %d after %d", now, old)
	}
	end := func(current, epoch int32, partition int32) kmsg.OffsetForLeaderEpochResponseTopicPartition {
		r := kmsg.NewPtrOffsetForLeaderEpochRequest()
		r.Topics = []kmsg.OffsetForLeaderEpochRequestTopic{{Topic: tp.name, Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{{
			Partition: partition, CurrentLeaderEpoch: current, LeaderEpoch: epoch,
		}}}}
		return ask[*kmsg.OffsetForLeaderEpochResponse](w, 4, r).Topics[0].Partitions[0]
	}
	for _, test := range []struct {
		current, epoch int32
		want           *kerr.Error
		wantEpoch      int32
		offset         int64
	}{
		{-1, old, nil, old, 2},
		{now, now, nil, now, 3},
		{-1, now + 1, nil, -1, -1},
		{old, old, kerr.FencedLeaderEpoch, -1, -1},
		{now + 1, old, kerr.UnknownLeaderEpoch, -1, -1},
	} {
		p := end(test.current, test.epoch, 0)
		wantCode(t, fmt.Sprintf("epoch %d, current %d", test.epoch, test.current), p.ErrorCode, test.want)
		if p.LeaderEpoch != test.wantEpoch || p.EndOffset != test.offset {
			t.Errorf("end of epoch %d (now %d): %d of epoch %d, want %d of %d", test.epoch, now, p.EndOffset, p.LeaderEpoch, test.offset, test.wantEpoch)
		}
	}
	wantCode(t, "unknown partition", end(-1, 0, 1).ErrorCode, kerr.UnknownTopicOrPartition)
}

func TestInitProducerID(t *testing.T) {
	t.Parallel()
	s := sharedStores(t)
	first, second := startAgent(t, s, named("first")), startAgent(t, s, named("second"))
	seen := map[int64]bool{}
	for _, a := range []*testAgent{first, second, first} {
		w := dial(t, a.addr)
		for range 3 {
			id := producerID(w)
			if seen[id] {
				t.Errorf("producer id %d was given out twice", id)
			}
			seen[id] = true
		}
	}
	w := dial(t, first.addr)
	for id, want := range map[string]*kerr.Error{"tx": kerr.TransactionalIDAuthorizationFailed, "": kerr.InvalidRequest} {
		r := kmsg.NewPtrInitProducerIDRequest()
		r.TransactionalID = &id
		wantCode(t, fmt.Sprintf("transactional id %q", id), ask[*kmsg.InitProducerIDResponse](w, 5, r).ErrorCode, want)
	}
}

func TestFetchLimits(t *testing.T) {
	bothStores(t, func(t *testing.T, s stores) {
		a := startAgent(t, s)
		w := dial(t, a.addr)
		one, two := makeTopic(w, "one", 1, "max.message.bytes", "10000000"), makeTopic(w, "two", 1)
		large := make([]byte, 3<<20)
		mustProduce(w, one, 0, batchtest.Of(string(large)))
		for range 3 {
			mustProduce(w, two, 0, batchtest.Of("small"))
		}
		req := fetchRequest(12, one, 0, 0)
		req.Topics = append(req.Topics, fetchRequest(12, two, 0, 0).Topics...)
		req.MaxBytes, req.Topics[0].Partitions[0].PartitionMaxBytes = 1000, 1000
		w.send(req)
		resp := w.receive().(*kmsg.FetchResponse)
		if got := recordsIn(t, resp.Topics[0].Partitions[0].RecordBatches); len(got) != 1 || len(got[0].Value) != len(large) {
			t.Error("the first batch is returned whole, however large")
		}
		if got := resp.Topics[1].Partitions[0]; got.ErrorCode != 0 || len(got.RecordBatches) != 0 || got.HighWatermark != 3 {
			t.Errorf("beyond the limit: %+v", got)
		}
		limited := fetchRequest(12, two, 0, 0)
		limited.Topics[0].Partitions[0].PartitionMaxBytes = 1
		if got := recordsIn(t, fetchOne(w, limited).RecordBatches); len(got) != 1 {
			t.Errorf("%d records for a limit of a byte, want 1 batch", len(got))
		}
		// A minimum beyond the maximum is waited for in vain.
		limited.MinBytes, limited.MaxBytes, limited.MaxWaitMillis = 1<<20, 1, int32(testTimeout/time.Millisecond)
		if got := recordsIn(t, fetchOne(w, limited).RecordBatches); len(got) != 1 {
			t.Errorf("%d records", len(got))
		}
	})
}

func TestFetchOffsetsAndEpochs(t *testing.T) {
	bothStores(t, func(t *testing.T, s stores) {
		a := startAgent(t, s)
		w := dial(t, a.addr)
		tp := makeTopic(w, "range", 1)
		mustProduce(w, tp, 0, batchtest.Of("a"))
		a.end()
		a = startAgent(t, s) // the next leadership
		w = dial(t, a.addr)
		mustProduce(w, tp, 0, batchtest.Of("b"))
		now := offsetOf(w, tp, 0, -1).LeaderEpoch
		for _, test := range []struct {
			name   string
			topic  topic
			part   int32
			offset int64
			epoch  int32
			want   *kerr.Error
		}{
			{"the end", tp, 0, 2, -1, nil},
			{"beyond the end", tp, 0, 3, -1, kerr.OffsetOutOfRange},
			{"negative", tp, 0, -1, -1, kerr.OffsetOutOfRange},
			{"current epoch", tp, 0, 0, now, nil},
			{"older epoch", tp, 0, 0, now - 1, kerr.FencedLeaderEpoch},
			{"newer epoch", tp, 0, 0, now + 1, kerr.UnknownLeaderEpoch},
			{"older epoch beyond the end", tp, 0, 3, now - 1, kerr.FencedLeaderEpoch},
			{"unknown partition", tp, 1, 0, -1, kerr.UnknownTopicOrPartition},
			{"unknown topic", topic{name: "nope"}, 0, 0, -1, kerr.UnknownTopicOrPartition},
		} {
			req := fetchRequest(12, test.topic, test.part, test.offset)
			req.Topics[0].Partitions[0].CurrentLeaderEpoch = test.epoch
			p := fetchOne(w, req)
			wantCode(t, test.name, p.ErrorCode, test.want)
			if p.RecordBatches == nil { // librdkafka cannot read that
				t.Errorf("%s: records are null", test.name)
			}
		}
		committed := fetchRequest(12, tp, 0, 0)
		committed.IsolationLevel = 1
		if p := fetchOne(w, committed); p.AbortedTransactions == nil || p.LastStableOffset != 2 || len(recordsIn(t, p.RecordBatches)) != 2 {
			t.Errorf("read_committed: %+v", p)
		}
		if p := fetchOne(w, fetchRequest(12, tp, 0, 0)); p.AbortedTransactions != nil {
			t.Errorf("read_uncommitted: %+v", p)
		}
		if p := fetchOne(w, fetchRequest(13, topic{id: tp.id}, 0, 0)); len(recordsIn(t, p.RecordBatches)) != 2 {
			t.Errorf("by id: %+v", p)
		}
	})
}

func TestLongPollIsWokenByAProduce(t *testing.T) {
	bothStores(t, func(t *testing.T, s stores) {
		a := startAgent(t, s)
		reader, writer := dial(t, a.addr), dial(t, a.addr)
		tp := makeTopic(writer, "poll", 1)
		for i := range int64(3) {
			req := fetchRequest(12, tp, 0, i)
			req.MinBytes, req.MaxWaitMillis = 1, int32(testTimeout/time.Millisecond)
			reader.send(req)
			mustProduce(writer, tp, 0, batchtest.Of("record"))
			got := reader.receive().(*kmsg.FetchResponse).Topics[0].Partitions[0]
			if records := recordsIn(t, got.RecordBatches); len(records) != 1 || records[0].offset != i {
				t.Fatalf("poll %d: %+v", i, got)
			}
		}
	})
}

func TestFetchSessions(t *testing.T) {
	bothStores(t, func(t *testing.T, s stores) {
		a := startAgent(t, s)
		w := dial(t, a.addr)
		tp := makeTopic(w, "session", 2)
		session := func(id, epoch int32, change func(*kmsg.FetchRequest)) *kmsg.FetchResponse {
			r := kmsg.NewPtrFetchRequest()
			r.SetVersion(13)
			r.SessionID, r.SessionEpoch, r.MaxBytes = id, epoch, 1<<20
			if change != nil {
				change(r)
			}
			w.send(r)
			return w.receive().(*kmsg.FetchResponse)
		}
		add := func(partition int32, offset int64) func(*kmsg.FetchRequest) {
			return func(r *kmsg.FetchRequest) {
				r.Topics = append(r.Topics, fetchRequest(13, tp, partition, offset).Topics...)
			}
		}
		partitions := func(r *kmsg.FetchResponse) (all []int32) {
			for _, t := range r.Topics {
				for _, p := range t.Partitions {
					all = append(all, p.Partition)
				}
			}
			return all
		}
		resp := session(0, 0, func(r *kmsg.FetchRequest) { add(0, 0)(r); add(1, 0)(r) })
		id := resp.SessionID
		if id == 0 || len(partitions(resp)) != 2 {
			t.Fatalf("a new session: %+v", resp)
		}
		if got := session(id, 1, nil); got.ErrorCode != 0 || len(got.Topics) != 0 {
			t.Errorf("nothing has changed: %+v", got)
		}
		mustProduce(w, tp, 1, batchtest.Of("record"))
		if got := session(id, 2, nil); fmt.Sprint(partitions(got)) != "[1]" || len(got.Topics[0].Partitions[0].RecordBatches) == 0 {
			t.Errorf("one has changed: %+v", got)
		}
		if got := session(id, 3, add(1, 1)); len(got.Topics) != 0 {
			t.Errorf("after it was read: %+v", got)
		}
		forget := func(r *kmsg.FetchRequest) {
			r.ForgottenTopics = []kmsg.FetchRequestForgottenTopic{{TopicID: tp.id, Partitions: []int32{1}}}
		}
		mustProduce(w, tp, 1, batchtest.Of("record"))
		if got := session(id, 4, forget); len(got.Topics) != 0 {
			t.Errorf("after it was forgotten: %+v", got)
		}
		wantCode(t, "an epoch that was used", session(id, 4, nil).ErrorCode, kerr.InvalidFetchSessionEpoch)
		wantCode(t, "an unknown session", session(id+1, 5, nil).ErrorCode, kerr.FetchSessionIDNotFound)
		if got := session(id, -1, add(0, 0)); got.SessionID != 0 || len(partitions(got)) != 1 {
			t.Errorf("the end of the session: %+v", got)
		}
		wantCode(t, "after its end", session(id, 5, nil).ErrorCode, kerr.FetchSessionIDNotFound)
	})
}
