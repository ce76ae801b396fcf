package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/internal/testdb"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

// While the database is away, what is known is answered, and the rest with codes
// that every client tries again after.
func TestRequestsWhileTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	a := startIsolated(t, sharedStores(t), named("agent"))
	w := dial(t, a.addr)
	tp := makeTopic(w, "away", 1)
	mustProduce(w, tp, 0, batchtest.Of("a"))
	create := func() int16 {
		r := kmsg.NewPtrCreateTopicsRequest()
		r.TimeoutMillis = 1000
		r.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: "new", NumPartitions: 1, ReplicationFactor: 1}}
		return ask[*kmsg.CreateTopicsResponse](w, 7, r).Topics[0].ErrorCode
	}
	commit := func() int16 {
		r := kmsg.NewPtrOffsetCommitRequest()
		r.Group, r.Generation = "group", -1
		r.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: tp.name, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 1, LeaderEpoch: -1}}}}
		return ask[*kmsg.OffsetCommitResponse](w, 8, r).Topics[0].Partitions[0].ErrorCode
	}
	wantCode(t, "commit of an offset before", commit(), nil)

	a.database.Refuse(true)
	a.database.CloseAll()
	if got := leaderAddress(w, tp, 0); got != a.addr {
		t.Errorf("metadata names %s", got)
	}
	if got := recordsIn(t, fetchOne(w, fetchRequest(12, tp, 0, 0)).RecordBatches); len(got) != 1 {
		t.Errorf("%d records that this agent wrote", len(got))
	}
	wantCode(t, "fetch at the end", fetchOne(w, fetchRequest(12, tp, 0, 1)).ErrorCode, nil)
	wantCode(t, "fetch beyond the end as it is known", fetchOne(w, fetchRequest(12, tp, 0, 2)).ErrorCode, kerr.KafkaStorageError)
	wantCode(t, "latest offset", offsetOf(w, tp, 0, -1).ErrorCode, kerr.KafkaStorageError)
	wantCode(t, "offset of a timestamp", offsetOf(w, tp, 0, 1).ErrorCode, kerr.KafkaStorageError)
	wantCode(t, "create a topic", create(), kerr.RequestTimedOut)
	if code := kerr.ErrorForCode(commit()); !kerr.IsRetriable(code) {
		t.Errorf("commit of an offset: %v", code)
	}
	if code := kerr.ErrorForCode(produce(w, topic{name: "nope"}, 0, batchtest.Of("x")).ErrorCode); !kerr.IsRetriable(code) {
		t.Errorf("produce to a topic that is not known here: %v", code)
	}
	resp := ask[*kmsg.FindCoordinatorResponse](w, 3, &kmsg.FindCoordinatorRequest{CoordinatorKey: "group"})
	if code := kerr.ErrorForCode(resp.ErrorCode); code != nil && !kerr.IsRetriable(code) {
		t.Errorf("find the coordinator: %v", code)
	}

	a.database.Refuse(false)
	eventually(t, "the agent goes on", func() bool { return produce(w, tp, 0, batchtest.Of("b")).ErrorCode == 0 })
	eventually(t, "topics are created", func() bool { return create() == 0 })
	eventually(t, "offsets are committed", func() bool { return commit() == 0 })
	if got := values(readLog(w, tp, 0)); got[0] != "a" || got[len(got)-1] != "b" {
		t.Errorf("log %q", got)
	}
}

// A database that is there and does not answer holds up no Metadata, without
// which clients would not even look for another agent.
func TestMetadataWhileTheDatabaseIsFrozen(t *testing.T) {
	t.Parallel()
	a := startIsolated(t, sharedStores(t), named("agent"))
	w := dial(t, a.addr)
	tp := makeTopic(w, "frozen", 1)
	mustProduce(w, tp, 0, batchtest.Of("a"))
	a.database.Pause(testdb.ToClient)
	w.send(produceRequest(12, tp, 0, -1, batchtest.Of("b")))
	other := dial(t, a.addr)
	if got := leaderAddress(other, tp, 0); got != a.addr {
		t.Errorf("metadata names %s", got)
	}
	if got := recordsIn(t, fetchOne(other, fetchRequest(12, tp, 0, 0)).RecordBatches); len(got) != 1 {
		t.Errorf("%d records: what is not committed is not seen", len(got))
	}
	a.database.Resume(testdb.ToClient)
	p := w.receive().(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	if p.ErrorCode != 0 || p.BaseOffset != 1 {
		t.Errorf("the produce that waited: %+v", p)
	}
}

// What can't be read now is told by partition; the others are served.
func TestFetchWhileTheBucketIsAway(t *testing.T) {
	t.Parallel()
	s := sharedStores(t)
	w := dial(t, startAgent(t, s, named("writer")).addr)
	object, inline := makeTopic(w, "object", 1), makeTopic(w, "inline", 1)
	mustProduce(w, object, 0, batchtest.Of(strings.Repeat("x", 200_000)))
	mustProduce(w, inline, 0, batchtest.Of("y"))

	cold := startIsolated(t, s, named("reader"))
	r := dial(t, cold.addr)
	both := fetchRequest(12, object, 0, 0)
	both.Topics = append(both.Topics, fetchRequest(12, inline, 0, 0).Topics...)
	cold.bucket.Refuse(true)
	cold.bucket.CloseAll()
	r.send(both)
	resp := r.receive().(*kmsg.FetchResponse)
	wantCode(t, "in the bucket", resp.Topics[0].Partitions[0].ErrorCode, kerr.KafkaStorageError)
	if got := recordsIn(t, resp.Topics[1].Partitions[0].RecordBatches); len(got) != 1 {
		t.Errorf("inline: %+v", resp.Topics[1])
	}
	cold.bucket.Refuse(false)
	eventually(t, "it is read again", func() bool {
		return len(recordsIn(t, fetchOne(r, fetchRequest(12, object, 0, 0)).RecordBatches)) == 1
	})
}

// Bytes that are not those that were written are never served, nor skipped.
func TestDamagedObjects(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := stores{metadata: "sqlite://" + dir + "/metadata.db", objects: "file://" + dir + "/objects"}
	a := startAgent(t, s, func(s *Settings) { s.Flush.InlineMaxBytes = 0 })
	w := dial(t, a.addr)
	damaged, whole := makeTopic(w, "damaged", 1), makeTopic(w, "whole", 1)
	mustProduce(w, damaged, 0, batchtest.Of("needle"))
	mustProduce(w, whole, 0, batchtest.Of("other"))
	a.end()
	damage(t, filepath.Join(dir, "objects"), "needle")

	r := dial(t, startAgent(t, s).addr)
	both := fetchRequest(12, damaged, 0, 0)
	both.Topics = append(both.Topics, fetchRequest(12, whole, 0, 0).Topics...)
	r.send(both)
	resp := r.receive().(*kmsg.FetchResponse)
	if p := resp.Topics[0].Partitions[0]; p.ErrorCode != kerr.KafkaStorageError.Code || len(p.RecordBatches) != 0 {
		t.Errorf("damaged: %v with %d bytes", kerr.ErrorForCode(p.ErrorCode), len(p.RecordBatches))
	}
	if got := recordsIn(t, resp.Topics[1].Partitions[0].RecordBatches); len(got) != 1 {
		t.Errorf("whole: %+v", resp.Topics[1])
	}
}

// damage changes a byte of what is written in the one file that contains it.
func damage(t *testing.T, dir, needle string) {
	t.Helper()
	found := false
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(data, []byte(needle)) {
			return err
		}
		found = true
		data[bytes.Index(data, []byte(needle))] ^= 1
		if err := os.Chmod(path, 0o600); err != nil {
			return err
		}
		return os.WriteFile(path, data, 0o600)
	})
	if err != nil || !found {
		t.Fatalf("damage %q: found %v, %v", needle, found, err)
	}
}
