package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/protocol/batch"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

// wire is one connection of a client that sends just what a test wants.
type wire struct {
	t    testing.TB
	id   string // the client's
	conn net.Conn
	in   *bufio.Reader
	sent []kmsg.Request // not answered yet
	next int32          // correlation id
}

func dial(t testing.TB, addr string) *wire {
	t.Helper()
	w, err := tryDial(t, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.conn.Close() })
	return w
}

func tryDial(t testing.TB, addr string) (*wire, error) {
	conn, err := net.DialTimeout("tcp", addr, testTimeout)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(testTimeout)); err != nil {
		return nil, err
	}
	return &wire{t: t, id: "wire", conn: conn, in: bufio.NewReader(conn)}, nil
}

// write sends a request, whose version is set.
func (w *wire) write(req kmsg.Request) error { return w.writeAs(req, req.GetVersion()) }

// writeAs is write with another version in the header.
func (w *wire) writeAs(req kmsg.Request, version int16) error {
	frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID(w.id)).AppendRequest(nil, req, w.next)
	binary.BigEndian.PutUint16(frame[6:], uint16(version))
	w.next++
	w.sent = append(w.sent, req)
	_, err := w.conn.Write(frame)
	return err
}

// read returns the next answer, which must be that of the oldest request.
func (w *wire) read() (kmsg.Response, error) {
	var head [8]byte
	if _, err := io.ReadFull(w.in, head[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:4])-4)
	if _, err := io.ReadFull(w.in, body); err != nil {
		return nil, err
	}
	req := w.sent[0]
	w.sent = w.sent[1:]
	want := w.next - int32(len(w.sent)) - 1
	if got := int32(binary.BigEndian.Uint32(head[4:])); got != want {
		return nil, fmt.Errorf("answer with correlation id %d, want %d", got, want)
	}
	resp := req.ResponseKind()
	if resp.IsFlexible() && resp.Key() != kmsg.ApiVersions.Int16() {
		body = body[1:] // no tags in the header
	}
	return resp, resp.ReadFrom(body)
}

// send is write for tests whose connection is fine.
func (w *wire) send(req kmsg.Request) {
	w.t.Helper()
	if err := w.write(req); err != nil {
		w.t.Fatal(err)
	}
}

// receive is read for tests whose connection is fine.
func (w *wire) receive() kmsg.Response {
	w.t.Helper()
	resp, err := w.read()
	if err != nil {
		w.t.Fatal(err)
	}
	return resp
}

// wantClosed checks that the agent closes the connection without a further
// answer.
func (w *wire) wantClosed() {
	w.t.Helper()
	if resp, err := w.read(); err == nil {
		w.t.Fatalf("got the answer %+v, want the connection closed", resp)
	} else if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		w.t.Fatal("the connection was not closed")
	}
}

// ask sends a request in a version and returns its answer.
func ask[S kmsg.Response](w *wire, version int16, req kmsg.Request) S {
	w.t.Helper()
	req.SetVersion(version)
	w.send(req)
	return w.receive().(S)
}

// errorsIn lists all error codes of an answer, in order.
func errorsIn(resp kmsg.Response) (codes []int16) {
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				walk(v.Elem())
			}
		case reflect.Slice:
			for i := range v.Len() {
				walk(v.Index(i))
			}
		case reflect.Struct:
			for i := range v.NumField() {
				if f := v.Type().Field(i); f.Name == "ErrorCode" {
					codes = append(codes, int16(v.Field(i).Int()))
				} else if f.IsExported() {
					walk(v.Field(i))
				}
			}
		}
	}
	walk(reflect.ValueOf(resp))
	return codes
}

// wantCode compares an error code with the one that is meant, nil for none.
func wantCode(t testing.TB, what string, got int16, want *kerr.Error) {
	t.Helper()
	code := int16(0)
	if want != nil {
		code = want.Code
	}
	if got != code {
		t.Errorf("%s: error %v, want %v", what, kerr.ErrorForCode(got), kerr.ErrorForCode(code))
	}
}

// topic is what a test knows of a topic that it made.
type topic struct {
	name string
	id   uuid.UUID
}

// makeTopic creates a topic with configs as key and value in turn.
func makeTopic(w *wire, name string, partitions int32, configs ...string) topic {
	w.t.Helper()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, partitions, 1
	for i := 0; i < len(configs); i += 2 {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = configs[i], &configs[i+1]
		t.Configs = append(t.Configs, c)
	}
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Topics = append(req.Topics, t)
	resp := ask[*kmsg.CreateTopicsResponse](w, 7, req)
	if e := resp.Topics[0].ErrorCode; e != 0 {
		w.t.Fatalf("create topic %s: %v %s", name, kerr.ErrorForCode(e), str(resp.Topics[0].ErrorMessage))
	}
	return topic{name, resp.Topics[0].TopicID}
}

func str(s *string) string {
	if s == nil {
		return "<null>"
	}
	return *s
}

// produceRequest asks to append records to one partition, by topic id from v13.
func produceRequest(version int16, t topic, partition int32, acks int16, records []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(version)
	req.Acks, req.TimeoutMillis = acks, int32(testTimeout/time.Millisecond)
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic, rt.TopicID = t.name, t.id
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = partition, records
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

// produce appends records to one partition with acks=all.
func produce(w *wire, t topic, partition int32, records []byte) kmsg.ProduceResponseTopicPartition {
	w.t.Helper()
	w.send(produceRequest(12, t, partition, -1, records))
	return w.receive().(*kmsg.ProduceResponse).Topics[0].Partitions[0]
}

// mustProduce is produce for records that must be taken; it returns their base
// offset.
func mustProduce(w *wire, t topic, partition int32, records []byte) int64 {
	w.t.Helper()
	p := produce(w, t, partition, records)
	if p.ErrorCode != 0 {
		w.t.Fatalf("produce: %v %s", kerr.ErrorForCode(p.ErrorCode), str(p.ErrorMessage))
	}
	return p.BaseOffset
}

// sequenced builds a batch of an idempotent producer.
func sequenced(producer int64, epoch int16, sequence int32, values ...string) []byte {
	o := batchtest.Options{Producer: &batchtest.Producer{ID: producer, Epoch: epoch, BaseSequence: sequence}}
	now := time.Now().UnixMilli()
	for _, v := range values {
		o.Records = append(o.Records, batchtest.Record{Value: []byte(v), Timestamp: now})
	}
	return batchtest.Build(o)
}

// producerID asks for a producer id.
func producerID(w *wire) int64 {
	w.t.Helper()
	resp := ask[*kmsg.InitProducerIDResponse](w, 5, kmsg.NewPtrInitProducerIDRequest())
	if resp.ErrorCode != 0 || resp.ProducerEpoch != 0 {
		w.t.Fatalf("InitProducerId: %+v", resp)
	}
	return resp.ProducerID
}

// fetchRequest asks for one partition from an offset on, outside of a session.
func fetchRequest(version int16, t topic, partition int32, offset int64) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.SetVersion(version)
	req.SessionEpoch, req.MaxBytes = -1, 64<<20
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = t.name, t.id
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = partition, offset, 16<<20
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

// fetchOne sends a fetch of one partition and returns its answer.
func fetchOne(w *wire, req *kmsg.FetchRequest) kmsg.FetchResponseTopicPartition {
	w.t.Helper()
	w.send(req)
	resp := w.receive().(*kmsg.FetchResponse)
	if resp.ErrorCode != 0 || len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		w.t.Fatalf("fetch: %+v", resp)
	}
	return resp.Topics[0].Partitions[0]
}

// logged is a record as it lies in a log.
type logged struct {
	batchtest.Record
	offset int64
	epoch  int32 // leader epoch
}

// recordsIn decodes what a fetch returned.
func recordsIn(t testing.TB, raw []byte) (all []logged) {
	t.Helper()
	for len(raw) > 0 {
		b, rest, err := batch.Next(raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.CheckCRC(); err != nil {
			t.Fatal(err)
		}
		records, err := batchtest.Records(b)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range records {
			all = append(all, logged{Record: r, offset: b.BaseOffset() + int64(i), epoch: b.PartitionLeaderEpoch()})
		}
		raw = rest
	}
	return all
}

// readLog reads a whole partition and checks that its offsets are dense and its
// leader epochs never go back.
func readLog(w *wire, t topic, partition int32) (all []logged) {
	w.t.Helper()
	for {
		req := fetchRequest(12, t, partition, int64(len(all)))
		p := fetchOne(w, req)
		if p.ErrorCode != 0 {
			w.t.Fatalf("fetch at %d: %v", len(all), kerr.ErrorForCode(p.ErrorCode))
		}
		if p.HighWatermark == int64(len(all)) {
			return all
		}
		for _, r := range recordsIn(w.t, p.RecordBatches) {
			switch {
			case r.offset < int64(len(all)): // the batch begins before
			case r.offset > int64(len(all)):
				w.t.Fatalf("%s-%d: offset %d follows %d", t.name, partition, r.offset, len(all)-1)
			case len(all) > 0 && r.epoch < all[len(all)-1].epoch:
				w.t.Fatalf("%s-%d: leader epoch %d at offset %d follows %d", t.name, partition, r.epoch, r.offset, all[len(all)-1].epoch)
			default:
				all = append(all, r)
			}
		}
	}
}

// values are those of records.
func values(records []logged) (all []string) {
	for _, r := range records {
		all = append(all, string(r.Value))
	}
	return all
}

// offsetOf asks for the offset of a timestamp or of one of the special ones.
func offsetOf(w *wire, t topic, partition int32, timestamp int64) kmsg.ListOffsetsResponseTopicPartition {
	w.t.Helper()
	req := kmsg.NewPtrListOffsetsRequest()
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = t.name
	rp := kmsg.NewListOffsetsRequestTopicPartition()
	rp.Partition, rp.Timestamp = partition, timestamp
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return ask[*kmsg.ListOffsetsResponse](w, 10, req).Topics[0].Partitions[0]
}

// metadataOf asks for the metadata of one topic.
func metadataOf(w *wire, name string) (*kmsg.MetadataResponse, kmsg.MetadataResponseTopic) {
	w.t.Helper()
	req := kmsg.NewPtrMetadataRequest()
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = &name
	req.Topics = append(req.Topics, rt)
	resp := ask[*kmsg.MetadataResponse](w, 12, req)
	if len(resp.Topics) != 1 {
		w.t.Fatalf("metadata of %s: %+v", name, resp)
	}
	return resp, resp.Topics[0]
}

// leaderAddress is where Metadata sends the clients of a partition.
func leaderAddress(w *wire, t topic, partition int32) string {
	w.t.Helper()
	resp, answer := metadataOf(w, t.name)
	for _, b := range resp.Brokers {
		if b.NodeID == answer.Partitions[partition].Leader {
			return net.JoinHostPort(b.Host, fmt.Sprint(b.Port))
		}
	}
	w.t.Fatalf("no broker leads %s-%d: %+v", t.name, partition, resp)
	return ""
}
