package main

import (
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

// holds says whether the agent holds the lease of a partition.
func (a *testAgent) holds(t topic, partition int32) bool {
	return a.leases.Get(lease.Key{TopicID: t.id, Partition: partition}) != nil
}

// produceUntilTaken tries until the agent takes the batch: for what has to wait
// for the end of another's lease.
func produceUntilTaken(w *wire, t topic, partition int32, records []byte) (p kmsg.ProduceResponseTopicPartition) {
	w.t.Helper()
	eventually(w.t, "the batch is taken", func() bool {
		p = produce(w, t, partition, records)
		switch p.ErrorCode {
		case 0:
			return true
		case kerr.NotLeaderForPartition.Code:
			return false
		}
		w.t.Fatalf("produce: %v", kerr.ErrorForCode(p.ErrorCode))
		return false
	})
	return p
}

// makeShared makes a topic through one agent, and sees that another knows it.
func makeShared(w, other *wire, name string, partitions int32) topic {
	w.t.Helper()
	t := makeTopic(w, name, partitions)
	if _, m := metadataOf(other, name); m.ErrorCode != 0 {
		w.t.Fatalf("another agent does not know of %s: %v", name, kerr.ErrorForCode(m.ErrorCode))
	}
	return t
}

// A client that was told of a topic by one agent finds it at every other, by its
// name and in the list of all topics: some ask once, and anywhere.
func TestTopicsAreKnownEverywhereAtOnce(t *testing.T) {
	t.Parallel()
	s := sharedStores(t)
	first, second := startAgent(t, s, named("first")), startAgent(t, s, named("second"))
	w, other := dial(t, first.addr), dial(t, second.addr)
	for i := range 20 {
		listed := fmt.Sprintf("listed-%d", i)
		makeTopic(w, listed, 1)
		all := ask[*kmsg.MetadataResponse](other, 12, kmsg.NewPtrMetadataRequest())
		if !slices.ContainsFunc(all.Topics, func(t kmsg.MetadataResponseTopic) bool { return str(t.Topic) == listed }) {
			t.Fatalf("%s is not in the list of another agent", listed)
		}
		makeShared(w, other, fmt.Sprintf("named-%d", i), 1)
		described := fmt.Sprintf("described-%d", i)
		makeTopic(w, described, 1)
		page := ask[*kmsg.DescribeTopicPartitionsResponse](other, 0, kmsg.NewPtrDescribeTopicPartitionsRequest())
		if !slices.ContainsFunc(page.Topics, func(t kmsg.DescribeTopicPartitionsResponseTopic) bool { return str(t.Topic) == described }) {
			t.Fatalf("%s is not described by another agent", described)
		}
	}
}

func TestLeaseIsTakenOnTheFirstWrite(t *testing.T) {
	bothStores(t, func(t *testing.T, s stores) {
		a := startAgent(t, s)
		w := dial(t, a.addr)
		tp := makeTopic(w, "lease", 2)
		if a.holds(tp, 0) || a.holds(tp, 1) {
			t.Error("leases were taken before anything was written")
		}
		fetchOne(w, fetchRequest(12, tp, 0, 0))
		offsetOf(w, tp, 0, -1)
		if a.holds(tp, 0) {
			t.Error("the lease was taken by a read")
		}
		mustProduce(w, tp, 1, batchtest.Of("record"))
		if a.holds(tp, 0) || !a.holds(tp, 1) {
			t.Error("a write takes the lease of its partition, and no other")
		}
	})
}

// A write to a partition of another agent's is refused with the name of that
// agent, which is the one that Metadata names (KIP-951).
func TestWriteToAnothersPartition(t *testing.T) {
	t.Parallel()
	s := sharedStores(t)
	first, second := startAgent(t, s, named("first")), startAgent(t, s, named("second"))
	w1, w2 := dial(t, first.addr), dial(t, second.addr)
	tp := makeShared(w1, w2, "shared", 2)
	mustProduce(w1, tp, 0, batchtest.Of("a"))
	mustProduce(w2, tp, 1, batchtest.Of("a"))

	var resp *kmsg.ProduceResponse
	var p kmsg.ProduceResponseTopicPartition
	eventually(t, "the leader is named", func() bool {
		w2.send(produceRequest(12, tp, 0, -1, batchtest.Of("b")))
		resp = w2.receive().(*kmsg.ProduceResponse)
		p = resp.Topics[0].Partitions[0]
		wantCode(t, "write to another's", p.ErrorCode, kerr.NotLeaderForPartition)
		return p.CurrentLeader.LeaderID >= 0
	})
	if p.BaseOffset != -1 || p.CurrentLeader.LeaderID != first.agent.Self().NodeID || len(resp.Brokers) != 1 {
		t.Fatalf("%+v", resp)
	}
	b := resp.Brokers[0]
	if got := net.JoinHostPort(b.Host, fmt.Sprint(b.Port)); b.NodeID != p.CurrentLeader.LeaderID || got != first.addr {
		t.Errorf("endpoint %+v, the leader is at %s", b, first.addr)
	}
	for _, w := range []*wire{w1, w2} {
		eventually(t, "metadata names the same leader", func() bool {
			_, m := metadataOf(w, tp.name)
			return m.Partitions[0].Leader == p.CurrentLeader.LeaderID && m.Partitions[0].LeaderEpoch == p.CurrentLeader.LeaderEpoch
		})
		eventually(t, "partition 1 is led elsewhere", func() bool { return leaderAddress(w, tp, 1) == second.addr })
	}
	// Before v10 there is no room for the name, and acks=0 has no answer at all.
	w2.send(produceRequest(9, tp, 0, -1, batchtest.Of("b")))
	wantCode(t, "v9", w2.receive().(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode, kerr.NotLeaderForPartition)
	w2.send(produceRequest(12, tp, 0, 0, batchtest.Of("b")))
	w2.wantClosed()
	if got := values(readLog(w1, tp, 0)); !slices.Equal(got, []string{"a"}) {
		t.Errorf("log %q", got)
	}
}

// A fetch from an agent that leaves is refused with the name of the leader and its
// address (KIP-951), and without both where there is no room for the address.
func TestFetchFromAnAgentThatLeaves(t *testing.T) {
	t.Parallel()
	s := sharedStores(t)
	leader, leaving := startAgent(t, s, named("leader")), startAgent(t, s, named("leaving"))
	w, r := dial(t, leader.addr), dial(t, leaving.addr)
	tp := makeShared(w, r, "left", 1)
	mustProduce(w, tp, 0, batchtest.Of("a"))
	eventually(t, "the leader is known", func() bool { return leaderAddress(r, tp, 0) == leader.addr })
	leaving.broker.Leave()
	for _, version := range []int16{12, 15, 16, 18} {
		r.send(fetchRequest(version, tp, 0, 0))
		resp := r.receive().(*kmsg.FetchResponse)
		p := resp.Topics[0].Partitions[0]
		wantCode(t, fmt.Sprintf("v%d", version), p.ErrorCode, kerr.NotLeaderForPartition)
		var want int32 = -1
		if version >= 16 {
			want = leader.agent.Self().NodeID
		}
		if p.CurrentLeader.LeaderID != want || len(resp.Brokers) > 0 != (want >= 0) {
			t.Errorf("v%d names leader %d of %+v, want %d", version, p.CurrentLeader.LeaderID, resp.Brokers, want)
		}
	}
}

func TestEveryAgentServesReads(t *testing.T) {
	t.Parallel()
	s := sharedStores(t)
	leader, other := startAgent(t, s, named("leader")), startAgent(t, s, named("other"))
	w, r := dial(t, leader.addr), dial(t, other.addr)
	tp := makeShared(w, r, "reads", 1)
	mustProduce(w, tp, 0, batchtest.Of("a"))
	large := string(make([]byte, 1<<20-100)) // in an object, where small batches are inline
	mustProduce(w, tp, 0, batchtest.Of(large))
	// What was acknowledged is there at once, and never out of range.
	if got := values(readLog(r, tp, 0)); !slices.Equal(got, []string{"a", large}) {
		t.Errorf("%d records at the other agent", len(got))
	}
	for i := int64(2); i < 12; i++ {
		if got := mustProduce(w, tp, 0, batchtest.Of(fmt.Sprint(i))); got != i {
			t.Fatalf("record %d is at %d", i, got)
		}
		if l := offsetOf(r, tp, 0, -1); l.Offset != i+1 {
			t.Fatalf("latest at the other agent is %d, want %d", l.Offset, i+1)
		}
		p := fetchOne(r, fetchRequest(12, tp, 0, i+1))
		wantCode(t, "fetch at the end", p.ErrorCode, nil)
	}
	// A long poll at an agent that does not lead sees what comes.
	poll := fetchRequest(12, tp, 0, 12)
	poll.MinBytes, poll.MaxWaitMillis = 1, int32(testTimeout/time.Millisecond)
	r.send(poll)
	mustProduce(w, tp, 0, batchtest.Of("wanted"))
	got := r.receive().(*kmsg.FetchResponse).Topics[0].Partitions[0]
	if records := recordsIn(t, got.RecordBatches); len(records) != 1 || string(records[0].Value) != "wanted" {
		t.Errorf("long poll: %+v", got)
	}
	if other.holds(tp, 0) {
		t.Error("reads have moved the lease")
	}
}

// An agent that is killed holds its partitions up to the end of its leases. The
// sequences of idempotent producers move with them.
func TestPartitionsOfAKilledAgentMove(t *testing.T) {
	t.Parallel()
	s := sharedStores(t)
	first := startIsolated(t, s, named("first"), hasty)
	second := startAgent(t, s, named("second"), hasty)
	w1, w2 := dial(t, first.addr), dial(t, second.addr)
	tp := makeShared(w1, w2, "moves", 1)
	id := producerID(w1)
	for n := range int32(6) {
		mustProduce(w1, tp, 0, sequenced(id, 0, n, fmt.Sprint(n)))
	}
	before := readLog(w1, tp, 0)
	wantCode(t, "while it lives", produce(w2, tp, 0, sequenced(id, 0, 6, "6")).ErrorCode, kerr.NotLeaderForPartition)
	first.kill()

	p := produceUntilTaken(w2, tp, 0, sequenced(id, 0, 6, "6"))
	if p.BaseOffset != 6 {
		t.Errorf("the first batch at the new leader is at %d", p.BaseOffset)
	}
	for n := int32(2); n <= 6; n++ { // the last five
		again := produce(w2, tp, 0, sequenced(id, 0, n, fmt.Sprint(n)))
		if again.ErrorCode != 0 || again.BaseOffset != int64(n) {
			t.Errorf("duplicate of %d: %v at %d", n, kerr.ErrorForCode(again.ErrorCode), again.BaseOffset)
		}
	}
	wantCode(t, "a gap", produce(w2, tp, 0, sequenced(id, 0, 8, "8")).ErrorCode, kerr.OutOfOrderSequenceNumber)
	after := readLog(w2, tp, 0)
	if !slices.Equal(values(after[:6]), values(before)) || len(after) != 7 {
		t.Errorf("log %q, before %q", values(after), values(before))
	}
	if after[6].epoch <= after[5].epoch {
		t.Errorf("leader epoch %d after %d", after[6].epoch, after[5].epoch)
	}
	eventually(t, "metadata names the new leader", func() bool { return leaderAddress(w2, tp, 0) == second.addr })
}

// An agent that stops gives its leases up, and the next write takes them at once.
func TestPartitionsOfAStoppedAgentAreFree(t *testing.T) {
	t.Parallel()
	s := sharedStores(t)
	first, second := startAgent(t, s, named("first")), startAgent(t, s, named("second"))
	w1, w2 := dial(t, first.addr), dial(t, second.addr)
	tp := makeShared(w1, w2, "stops", 1)
	mustProduce(w1, tp, 0, batchtest.Of("a"))
	first.end()
	if got := mustProduce(w2, tp, 0, batchtest.Of("b")); got != 1 {
		t.Errorf("at offset %d", got)
	}
	eventually(t, "metadata names the new leader", func() bool { return leaderAddress(w2, tp, 0) == second.addr })
}

// An agent that was cut off, and has lost its partition meanwhile, can't write it
// when it is back, and serves what its successor wrote.
func TestAnAgentThatComesBackIsFenced(t *testing.T) {
	t.Parallel()
	s := sharedStores(t)
	first := startIsolated(t, s, named("first"), hasty)
	second := startAgent(t, s, named("second"), hasty)
	w1, w2 := dial(t, first.addr), dial(t, second.addr)
	tp := makeShared(w1, w2, "back", 1)
	mustProduce(w1, tp, 0, batchtest.Of("a"))
	first.database.Refuse(true)
	first.database.CloseAll()
	w1.send(produceRequest(12, tp, 0, -1, batchtest.Of("late"))) // its answer is below
	if p := produceUntilTaken(w2, tp, 0, batchtest.Of("b")); p.BaseOffset != 1 {
		t.Errorf("at offset %d", p.BaseOffset)
	}
	first.database.Refuse(false)
	late := w1.receive().(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	wantCode(t, "the write of the old leader", late.ErrorCode, kerr.NotLeaderForPartition)
	eventually(t, "metadata of the old leader names the new one", func() bool { return leaderAddress(w1, tp, 0) == second.addr })
	for _, w := range []*wire{w1, w2} {
		if got := values(readLog(w, tp, 0)); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("log %q", got)
		}
	}
}

// What was deleted through one agent is gone at the others too, also if they
// have just served it, as soon as one of their readers asks for what is new.
func TestDeletedRecordsAreGoneEverywhere(t *testing.T) {
	t.Parallel()
	s := sharedStores(t)
	leader, other := startAgent(t, s, named("leader")), startAgent(t, s, named("other"))
	w, r := dial(t, leader.addr), dial(t, other.addr)
	tp := makeShared(w, r, "deleted", 1)
	for i := range 4 {
		mustProduce(w, tp, 0, batchtest.Of(fmt.Sprint(i)))
	}
	if got := readLog(r, tp, 0); len(got) != 4 {
		t.Fatalf("%d records", len(got))
	}
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: tp.name, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Offset: 2}}}}
	if p := ask[*kmsg.DeleteRecordsResponse](w, 2, req).Topics[0].Partitions[0]; p.ErrorCode != 0 || p.LowWatermark != 2 {
		t.Fatalf("delete: %+v", p)
	}
	wantCode(t, "at the agent that was asked", fetchOne(w, fetchRequest(12, tp, 0, 1)).ErrorCode, kerr.OffsetOutOfRange)
	eventually(t, "it is gone at the other one", func() bool {
		fetchOne(r, fetchRequest(12, tp, 0, 4))
		return fetchOne(r, fetchRequest(12, tp, 0, 1)).ErrorCode == kerr.OffsetOutOfRange.Code
	})
}
