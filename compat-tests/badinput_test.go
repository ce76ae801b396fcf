package compattests

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
)

// TestBadInput sends what no client sends, while a producer and a consumer are at work beside it. What is malformed is
// answered with the code that Kafka gives or with the end of its connection, and the others notice nothing.
func TestBadInput(t *testing.T) {
	forEachTarget(t, harness.FastStores, func(t *testing.T, target target) {
		t.Parallel()
		b := badInput{target: target, address: target.bootstrap()[0], random: rand.New(rand.NewPCG(seed(t), 0))}
		b.versions = b.askVersions(t)
		bystander := startBystander(t, target)
		for _, c := range []struct {
			name string
			test func(t *testing.T)
		}{
			{"what is no request", b.noRequests},
			{"malformed requests", b.malformed},
			{"names of topics", b.topicNames},
			{"strings that are no text", b.strings},
			{"compressed records", b.compressed},
			{"topics of a million partitions", b.tooMany},
			{"questions about a million partitions", b.million},
			{"claims of large requests", b.claims},
			{"a byte at a time", b.byteByByte},
			{"answers that nobody reads", b.unreadAnswers},
		} {
			t.Run(c.name, func(t *testing.T) {
				c.test(t)
				bystander.awaitProgress(t)
			})
		}
		bystander.finish(t)
		if n := bystander.disconnects.Load(); n != 0 {
			t.Errorf("another's client lost %d connections", n)
		}
		for _, n := range target.nodes {
			if agent, ok := n.(*harness.Agent); ok && measure(t, agent).panics != 0 {
				t.Error("a handler panicked")
			}
		}
	})
}

// badInput is one that sends nonsense to a broker.
type badInput struct {
	target   target
	address  string
	random   *rand.Rand
	versions map[int16][2]int16 // lowest and highest of each API that is served
}

// badInputTimeout bounds each thing that a broker is awaited for.
const badInputTimeout = 30 * time.Second

// rawConn is a connection on which anything can be sent.
type rawConn struct{ *net.TCPConn }

func (b *badInput) dial(t *testing.T) rawConn {
	t.Helper()
	c, err := b.connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return rawConn{c}
}

// connect makes a connection that lasts no longer than a broker is awaited.
func (b *badInput) connect() (*net.TCPConn, error) {
	c, err := net.DialTimeout("tcp", b.address, badInputTimeout)
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(badInputTimeout)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c.(*net.TCPConn), nil
}

// frame is a request as it is sent, behind its size.
func frame(request kmsg.Request) []byte { return frameOf("nonsense", request) }

// frameOf is frame for a client that calls itself so.
func frameOf(clientID string, request kmsg.Request) []byte {
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID(clientID)).AppendRequest(nil, request, correlationID)
}

// correlationID is that of all requests of badInput.
const correlationID = 0x5eed

// sized puts a size in front of bytes.
func sized(b []byte) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...) }

// receive returns the next answer without its header's correlation id.
func (c rawConn) receive() ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	answer := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(c, answer); err != nil {
		return nil, err
	}
	if id := binary.BigEndian.Uint32(answer); id != correlationID {
		return nil, fmt.Errorf("an answer to request %#x", id)
	}
	return answer[4:], nil
}

// closed says whether the broker ended the connection without an answer.
func (c rawConn) closed() error {
	switch answer, err := c.receive(); {
	case err == nil:
		return fmt.Errorf("answered with %d bytes, want the end of the connection", len(answer))
	case isEnd(err):
		return nil
	default:
		return err
	}
}

// isEnd says whether an error is the end of a connection, in good order or not.
func isEnd(err error) bool { return errors.Is(err, io.EOF) || isReset(err) }

// isReset says whether an error is that of a peer that closed without reading all that was sent.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ENOTCONN)
}

// resident is the memory of the broker in bytes.
func (b *badInput) resident(t *testing.T) int64 {
	t.Helper()
	pid := b.target.nodes[0].(interface{ PID() int }).PID()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(content))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// ask sends a request on a connection of its own and returns the answer.
func ask[R kmsg.Response](t *testing.T, b *badInput, request kmsg.Request) R {
	t.Helper()
	c := b.dial(t)
	defer c.Close()
	return askAs[R](t, c, "nonsense", request)
}

// askAs sends a request of a client that calls itself so, and returns the answer.
func askAs[R kmsg.Response](t *testing.T, c rawConn, clientID string, request kmsg.Request) R {
	t.Helper()
	// A broker that closes may do so before all is sent.
	if _, err := c.Write(frameOf(clientID, request)); err != nil && !isReset(err) {
		t.Fatal(err)
	}
	answer, err := c.receive()
	if err != nil {
		t.Fatalf("%s v%d of %.40q: %v", kmsg.NameForKey(request.Key()), request.GetVersion(), clientID, err)
	}
	response := request.ResponseKind()
	if response.IsFlexible() && request.Key() != kmsg.ApiVersions.Int16() {
		answer = answer[1:] // no tagged fields
	}
	if err := response.ReadFrom(answer); err != nil {
		t.Fatalf("%s v%d: %v", kmsg.NameForKey(request.Key()), request.GetVersion(), err)
	}
	return response.(R)
}

// askVersions returns the APIs and versions that both the broker and kmsg know.
func (b *badInput) askVersions(t *testing.T) map[int16][2]int16 {
	t.Helper()
	versions := map[int16][2]int16{}
	for _, k := range ask[*kmsg.ApiVersionsResponse](t, b, kmsg.NewPtrApiVersionsRequest()).ApiKeys {
		if request := kmsg.RequestForKey(k.ApiKey); request != nil {
			versions[k.ApiKey] = [2]int16{k.MinVersion, min(k.MaxVersion, request.MaxVersion())}
		}
	}
	return versions
}

// request returns a request of an API in the highest version that is served, up to most.
func request[R kmsg.Request](b *badInput, request R, most int16) R {
	request.SetVersion(min(b.versions[request.Key()][1], most))
	return request
}

// noRequests sends what is no frame, and frames that are no requests.
func (b *badInput) noRequests(t *testing.T) {
	size := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	header := func(key, version int16) []byte {
		h := binary.BigEndian.AppendUint16(nil, uint16(key))
		h = binary.BigEndian.AppendUint16(h, uint16(version))
		h = binary.BigEndian.AppendUint32(h, correlationID)
		return sized(append(h, 0xff, 0xff)) // no client id
	}
	tlsHello := append([]byte{0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03}, make([]byte, 506)...)
	noise := make([]byte, 64<<10)
	for i := range noise {
		noise[i] = byte(b.random.Uint32())
	}
	noise[0] |= 0x80 // a negative size, or the broker would wait for the rest
	for name, bytes := range map[string][]byte{
		"HTTP":                    []byte("GET / HTTP/1.1\r\nHost: kafka\r\n\r\n"),
		"TLS":                     tlsHello,
		"noise":                   noise,
		"size 0":                  size(0),
		"a size below a header's": append(size(7), make([]byte, 7)...),
		"size -1":                 size(0xffffffff),
		"size -2^31":              size(0x80000000),
		"size 2^31-1":             size(0x7fffffff),
		"100 MiB and a byte":      size(100<<20 + 1),
		"unknown key":             header(9999, 0),
		"negative key":            header(-1, 0),
		"unknown version":         header(kmsg.Metadata.Int16(), 99),
		"negative version":        header(kmsg.Metadata.Int16(), -1),
		"a key of brokers":        header(kmsg.LeaderAndISR.Int16(), 0),
		"half a header":           sized(header(kmsg.Metadata.Int16(), 0)[4:12]),
		"a client id beyond the end": sized(append(binary.BigEndian.AppendUint32(
			[]byte{0, 3, 0, 0}, correlationID), 0x7f, 0xff, 'x')),
		"nothing but a size": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := b.dial(t)
			if _, err := c.Write(bytes); err != nil && !isReset(err) {
				t.Fatal(err)
			}
			if len(bytes) == 0 {
				c.CloseWrite()
			}
			if err := c.closed(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("unknown version of ApiVersions", func(t *testing.T) {
		t.Parallel()
		c := b.dial(t)
		future := append(header(kmsg.ApiVersions.Int16(), 99), 0) // no tagged fields: the header is a flexible one
		future[3]++
		if _, err := c.Write(future); err != nil {
			t.Fatal(err)
		}
		answer, err := c.receive() // of version 0 (KIP-511)
		if err != nil || len(answer) < 2 || int16(binary.BigEndian.Uint16(answer)) != kerr.UnsupportedVersion.Code {
			t.Errorf("answered %x, %v, want UNSUPPORTED_VERSION", answer, err)
		}
	})
}

// byteByByte sends a request slowly. That is no error.
func (b *badInput) byteByByte(t *testing.T) {
	var connections sync.WaitGroup
	for range 20 {
		connections.Go(func() {
			c := b.dial(t)
			for _, octet := range frame(kmsg.NewPtrApiVersionsRequest()) {
				if _, err := c.Write([]byte{octet}); err != nil {
					t.Error(err)
					return
				}
			}
			if _, err := c.receive(); err != nil {
				t.Error(err)
			}
		})
	}
	connections.Wait()
}

// claims sends the beginning of large requests and no more of them, on more connections than there is memory for all
// that they claim.
func (b *badInput) claims(t *testing.T) {
	if b.target.name == "apachekafka" {
		return // it allocates what is claimed, and has no memory left
	}
	const connections, claimed, sent = 200, 99 << 20, 64 << 10
	begun := append(binary.BigEndian.AppendUint32(nil, claimed), make([]byte, sent)...)
	var all []rawConn
	for range connections {
		c := b.dial(t)
		if _, err := c.Write(begun); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	// Requests of all sizes get on beside them.
	const size = 900 << 10
	partition := kmsg.NewMetadataRequestTopic()
	partition.Topic = kmsg.StringPtr(strings.Repeat("x", 30_000))
	large := kmsg.NewPtrMetadataRequest()
	large.Topics = slices.Repeat([]kmsg.MetadataRequestTopic{partition}, size/30_000)
	ask[*kmsg.MetadataResponse](t, b, request(b, large, 12))
	for _, c := range all {
		c.Close()
	}
}

// unreadAnswers asks for more and more and reads nothing.
func (b *badInput) unreadAnswers(t *testing.T) {
	all := request(b, kmsg.NewPtrMetadataRequest(), 12)
	asked := frame(all)
	for range 3 {
		c := b.dial(t)
		if err := c.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		sent := 0
		for sent < 64<<20 {
			n, err := c.Write(slices.Repeat(asked, 1000))
			if sent += n; err != nil {
				break
			}
		}
		if sent >= 64<<20 {
			t.Errorf("the broker has read %d bytes of requests from one that reads no answer", sent)
		}
		c.SetLinger(0)
		c.Close()
	}
}

// bystander is a producer and a consumer that must not notice what others do.
type bystander struct {
	topic         string
	producer      *kgo.Client
	stopProducing context.CancelFunc
	producing     sync.WaitGroup
	sent          atomic.Int64
	acked         atomic.Int64
	disconnects   atomic.Int64
	longest       atomic.Int64 // ns from a record to its acknowledgement
	failure       atomic.Pointer[error]
	progress      chan struct{}
}

// OnBrokerDisconnect counts connections that the broker ended.
func (b *bystander) OnBrokerDisconnect(kgo.BrokerMetadata, net.Conn) { b.disconnects.Add(1) }

const (
	bystanderTopic    = "bystander"
	bystanderInterval = 10 * time.Millisecond
	// bystanderPatience is far above what a record ever takes, on a machine that is busy with the nonsense of others.
	bystanderPatience = 20 * time.Second
)

func startBystander(t *testing.T, target target) *bystander {
	t.Helper()
	b := &bystander{topic: bystanderTopic, progress: make(chan struct{}, 1)}
	var err error
	b.producer, err = kgo.NewClient(kgo.SeedBrokers(target.bootstrap()...), kgo.RecordDeliveryTimeout(bystanderPatience),
		kgo.ConnIdleTimeout(15*time.Minute), kgo.WithHooks(b)) // it closes no connection itself
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.producer.Close)
	if _, err := kadm.NewClient(b.producer).CreateTopic(deadline(t, time.Minute), 1, 1, nil, b.topic); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	b.stopProducing = stop
	b.producing.Go(func() { b.produce(ctx) })
	t.Cleanup(func() { stop(); b.producing.Wait() })
	return b
}

func (b *bystander) produce(ctx context.Context) {
	ticker := time.NewTicker(bystanderInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		begun := time.Now()
		b.sent.Add(1)
		b.producer.Produce(context.WithoutCancel(ctx), &kgo.Record{Topic: b.topic, Value: []byte("well")}, func(_ *kgo.Record, err error) {
			if err != nil {
				b.failure.CompareAndSwap(nil, &err)
				return
			}
			b.acked.Add(1)
			if took := int64(time.Since(begun)); took > b.longest.Load() {
				b.longest.Store(took)
			}
			select {
			case b.progress <- struct{}{}:
			default:
			}
		})
	}
}

// awaitProgress returns when records that are sent from now on were acknowledged.
func (b *bystander) awaitProgress(t *testing.T) {
	t.Helper()
	ctx := deadline(t, 2*bystanderPatience)
	for until := b.sent.Load() + 10; b.acked.Load() < until; {
		if err := b.failure.Load(); err != nil {
			t.Fatalf("another's producer failed: %v", *err)
		}
		select {
		case <-b.progress:
		case <-ctx.Done():
			t.Fatalf("another's producer has %d of %d records acknowledged", b.acked.Load(), b.sent.Load())
		}
	}
}

// finish ends the producer and demands that all that it wrote is there.
func (b *bystander) finish(t *testing.T) {
	t.Helper()
	b.stopProducing()
	b.producing.Wait()
	ctx := deadline(t, time.Minute)
	if err := b.producer.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	ends, err := kadm.NewClient(b.producer).ListEndOffsets(ctx, b.topic)
	if err != nil {
		t.Fatal(err)
	}
	if end, _ := ends.Lookup(b.topic, 0); end.Offset != b.sent.Load() {
		t.Errorf("another's topic has %d records, want %d", end.Offset, b.sent.Load())
	}
	t.Logf("another's producer wrote %d records; the slowest took %v", b.acked.Load(), time.Duration(b.longest.Load()))
}
