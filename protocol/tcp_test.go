package protocol

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// listen serves r on a port of the loopback interface until the test ends.
func listen(t testing.TB, r *Router) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(ServerConfig{}, r, NewMetrics(nil), slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr().String()
}

// metadata answers with the one broker that the client has reached.
func metadata(_ context.Context, req *Request) Reply {
	resp := req.Body.ResponseKind().(*kmsg.MetadataResponse)
	host, port, _ := net.SplitHostPort(req.Conn.LocalAddr.String())
	broker := kmsg.NewMetadataResponseBroker()
	broker.Host = host
	n, _ := strconv.Atoi(port)
	broker.Port = int32(n)
	resp.Brokers = append(resp.Brokers, broker)
	return Now(resp)
}

// coordinator answers with the key that it was asked for, later.
func coordinator(_ context.Context, req *Request) Reply {
	return Later(func(context.Context) kmsg.Response {
		resp := req.Body.ResponseKind().(*kmsg.FindCoordinatorResponse)
		for _, key := range req.Body.(*kmsg.FindCoordinatorRequest).CoordinatorKeys {
			c := kmsg.NewFindCoordinatorResponseCoordinator()
			c.Key = key
			resp.Coordinators = append(resp.Coordinators, c)
		}
		return resp
	})
}

func TestFranzGo(t *testing.T) {
	var mu sync.Mutex
	software := map[string]bool{}
	addr := listen(t, newRouter(t, map[int16]HandlerFunc{
		3: func(ctx context.Context, req *Request) Reply {
			mu.Lock()
			defer mu.Unlock()
			software[req.Conn.ClientSoftwareName+" of "+req.ClientID] = true
			return metadata(ctx, req)
		},
		10: coordinator,
	}))
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ClientID("me"), kgo.SoftwareNameAndVersion("toy", "1.0"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := cl.Ping(ctx); err != nil {
		t.Fatalf("Ping: %v", err)
	}
	mu.Lock()
	if !software["toy of me"] {
		t.Errorf("software: %v", software)
	}
	mu.Unlock()

	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			req := kmsg.NewPtrFindCoordinatorRequest()
			key := "group-" + strconv.Itoa(i)
			req.CoordinatorKeys = []string{key}
			resp, err := cl.Broker(0).Request(ctx, req)
			if err != nil {
				t.Errorf("%s: %v", key, err)
				return
			}
			if cs := resp.(*kmsg.FindCoordinatorResponse).Coordinators; len(cs) != 1 || cs[0].Key != key {
				t.Errorf("%s was answered %+v", key, cs)
			}
		})
	}
	wg.Wait()
}

func TestALargeReplyArrivesWhole(t *testing.T) {
	const size = 20 << 20
	addr := listen(t, newRouter(t, map[int16]HandlerFunc{keyHeartbeat: respond, 1: func(_ context.Context, req *Request) Reply {
		resp := req.Body.ResponseKind().(*kmsg.FetchResponse)
		topic, partition := kmsg.NewFetchResponseTopic(), kmsg.NewFetchResponseTopicPartition()
		partition.RecordBatches = make([]byte, size)
		topic.Partitions = append(topic.Partitions, partition)
		resp.Topics = append(resp.Topics, topic)
		return Now(resp)
	}}))
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, nc)
	fetch := kmsg.NewPtrFetchRequest()
	fetch.Version = 12
	c.send(1, heartbeat("x"), fetch, heartbeat("x"))
	c.want(1)
	resp := kmsg.NewPtrFetchResponse()
	resp.Version = 12
	if err := resp.ReadFrom(c.want(2)[1:]); err != nil || len(resp.Topics[0].Partitions[0].RecordBatches) != size {
		t.Errorf("Fetch: %v", err)
	}
	c.want(3)
}

// BenchmarkRoundTrip is one Produce after another, with an answer at once, through
// the loopback interface. Its allocations are the server's, and few of the client.
func BenchmarkRoundTrip(b *testing.B) {
	for _, how := range []string{"now", "later"} {
		b.Run(how, func(b *testing.B) {
			handle := respond
			if how == "later" {
				handle = func(_ context.Context, req *Request) Reply {
					return Later(func(context.Context) kmsg.Response { return req.Body.ResponseKind() })
				}
			}
			nc, err := net.Dial("tcp", listen(b, newRouter(b, map[int16]HandlerFunc{0: handle})))
			if err != nil {
				b.Fatal(err)
			}
			defer nc.Close()
			frame, reply := produceFrame(1<<10), make([]byte, 1<<10)
			b.SetBytes(int64(len(frame)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := nc.Write(frame); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(nc, reply[:4]); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(nc, reply[:binary.BigEndian.Uint32(reply)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
