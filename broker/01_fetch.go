package broker

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/fetch"
	"github.com/streamhouse/streamhouse/protocol"
)

// Fetch, v4 to v18. KIP-227 (sessions), KIP-320 (leader epochs), KIP-516
// (topic ids, v13), KIP-951 (the new leader in the answer).
//
// Any agent serves any partition, whoever leads it: NOT_LEADER_OR_FOLLOWER is
// answered by one that leaves, and to a client whose leader epoch has ended while
// another agent leads: it goes there, where FENCED_LEADER_EPOCH would have it look
// around first, for seconds if it has done so lately. The last fetched epoch (KIP-595) is a follower's
// and is ignored: no log here ever diverges.
//
// A client that is known to be of another zone is sent home with the same answer, and
// asks Metadata where that is. A preferred replica (KIP-392) would be worse: Java goes
// only to one that its Metadata lists as a replica, and asks here again otherwise, and
// no client but Java takes records from an answer that names one.

// maxFetchBytes bounds what one fetch returns, whatever the client asks for.
const maxFetchBytes = 64 << 20

// maxFetchWait bounds how long a fetch waits. The departure of a client that has
// asked for more than may be in flight is noticed only when it is answered.
const maxFetchWait = time.Minute

func (b *Broker) fetch(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.FetchRequest)
	resp := r.ResponseKind().(*kmsg.FetchResponse)
	b.departure.note()
	b.Zones.Learn(req.ClientID, req.Conn.RemoteAddr, r.Rack)
	session, err := b.Sessions.Begin(sessionRequest(r))
	if err != nil {
		resp.ErrorCode = readErrorCode(err)
		return protocol.Now(resp)
	}
	resp.SessionID = session.ID
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		o := fetchOptions(r)
		o.Reserve = req.Reserve
		b.fetchSession(ctx, req, session, o, resp)
		return resp
	})
}

func sessionRequest(r *kmsg.FetchRequest) fetch.SessionRequest {
	s := fetch.SessionRequest{ID: r.SessionID, Epoch: r.SessionEpoch, ByTopicID: r.Version >= 13}
	if r.Version < 7 {
		s.Epoch = -1 // sessions came with v7
	}
	for i := range r.Topics {
		t := &r.Topics[i]
		for j := range t.Partitions {
			p := &t.Partitions[j]
			s.Partitions = append(s.Partitions, fetch.SessionPartition{
				PartitionRef: fetch.PartitionRef{Name: t.Topic, ID: t.TopicID, Partition: p.Partition},
				Offset:       p.FetchOffset, MaxBytes: p.PartitionMaxBytes,
				LeaderEpoch: p.CurrentLeaderEpoch,
			})
		}
	}
	for i := range r.ForgottenTopics {
		t := &r.ForgottenTopics[i]
		for _, p := range t.Partitions {
			s.Forgotten = append(s.Forgotten, fetch.PartitionRef{Name: t.Topic, ID: t.TopicID, Partition: p})
		}
	}
	return s
}

// fetchSession reads all partitions of a session and fills in the response.
func (b *Broker) fetchSession(ctx context.Context, req *protocol.Request, session *fetch.SessionFetch, o fetch.Options, resp *kmsg.FetchResponse) {
	from, version := b.visit(req), req.Body.GetVersion()
	hints := fetchHints{b: b, ctx: ctx, version: version, zone: from.zone}
	answers := make([]kmsg.FetchResponseTopicPartition, len(session.Partitions))
	var reqs []fetch.Request
	var at []int // the partition of each request
	resolve := b.resolve(ctx)
	for i, p := range session.Partitions {
		answers[i] = newFetchAnswer(p.Partition)
		_, key, err := resolve.partition(topicRef{version >= 13, p.Name, p.ID}, p.Partition)
		if err == nil {
			if err = from.check(key); err != nil {
				hints.sendOn(&answers[i], key, -1)
			}
		}
		if err != nil {
			answers[i].ErrorCode = readErrorCode(err)
			continue
		}
		reqs = append(reqs, fetch.Request{Key: key, Offset: p.Offset, MaxBytes: p.MaxBytes, LeaderEpoch: p.LeaderEpoch})
		at = append(at, i)
	}
	if len(reqs) < len(answers) {
		o.MaxWait = 0 // there is something to say already
	}
	results, done := b.departure.read(ctx, b.Reader, reqs, o)
	for n := range results {
		a := &answers[at[n]]
		if !done {
			a.ErrorCode = kerr.NotLeaderForPartition.Code
			hints.sendOn(a, reqs[n].Key, -1)
			continue
		}
		fillFetchAnswer(a, &results[n], session.Partitions[at[n]], o.ReadCommitted)
		if a.ErrorCode == kerr.FencedLeaderEpoch.Code {
			hints.sendOn(a, reqs[n].Key, results[n].Watermarks.LeaderEpoch)
		}
	}
	hints.fill(resp)
	assembleFetch(resp, session, answers)
}

// fetchOptions are those that the client asks for, in bounds.
func fetchOptions(r *kmsg.FetchRequest) fetch.Options {
	maxBytes := min(int64(r.MaxBytes), maxFetchBytes)
	return fetch.Options{
		MinBytes:      min(int64(r.MinBytes), maxBytes),
		MaxBytes:      maxBytes,
		MaxWait:       min(time.Duration(r.MaxWaitMillis)*time.Millisecond, maxFetchWait),
		ReadCommitted: r.IsolationLevel == 1,
	}
}

func newFetchAnswer(partition int32) kmsg.FetchResponseTopicPartition {
	a := kmsg.NewFetchResponseTopicPartition()
	a.Partition, a.HighWatermark, a.LastStableOffset, a.LogStartOffset = partition, -1, -1, -1
	a.RecordBatches = []byte{} // of errors too: librdkafka cannot read an answer with null, and asks again at once
	return a
}

func fillFetchAnswer(a *kmsg.FetchResponseTopicPartition, res *fetch.Result, p fetch.SessionPartition, readCommitted bool) {
	outOfRange := errors.Is(res.Err, fetch.ErrOffsetOutOfRange)
	if res.Err != nil && !outOfRange {
		a.ErrorCode = readErrorCode(res.Err)
		return
	}
	// The epoch comes first: a client that is behind may be wrong about the offset.
	a.ErrorCode = checkLeaderEpoch(p.LeaderEpoch, res.Watermarks.LeaderEpoch)
	if a.ErrorCode == 0 && outOfRange {
		a.ErrorCode = readErrorCode(res.Err)
	}
	if a.ErrorCode != 0 {
		return
	}
	if readCommitted {
		a.AbortedTransactions = []kmsg.FetchResponseTopicPartitionAbortedTransaction{} // null is read_uncommitted's
	}
	a.HighWatermark, a.LastStableOffset, a.LogStartOffset = res.Watermarks.High, res.Watermarks.LastStable, res.Watermarks.LogStart
	if res.Records != nil {
		a.RecordBatches = res.Records
	}
}

// assembleFetch groups the partitions that belong into the response by topic,
// in the order in which they were filled.
func assembleFetch(resp *kmsg.FetchResponse, session *fetch.SessionFetch, answers []kmsg.FetchResponseTopicPartition) {
	type topic struct {
		name string
		id   uuid.UUID
	}
	at := map[topic]int{}
	for i := range answers {
		a, p := &answers[i], &session.Partitions[i]
		if !session.Include(i, fetch.SessionAnswer{
			High: a.HighWatermark, LastStable: a.LastStableOffset, LogStart: a.LogStartOffset,
			Records: len(a.RecordBatches) > 0, Error: a.ErrorCode != 0,
		}) {
			continue
		}
		key := topic{p.Name, p.ID}
		n, ok := at[key]
		if !ok {
			n = len(resp.Topics)
			at[key] = n
			t := kmsg.NewFetchResponseTopic()
			t.Topic, t.TopicID = p.Name, p.ID
			resp.Topics = append(resp.Topics, t)
		}
		resp.Topics[n].Partitions = append(resp.Topics[n].Partitions, *a)
	}
}
