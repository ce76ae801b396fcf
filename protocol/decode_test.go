package protocol

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"runtime"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// everything is a router of all of Kafka's APIs.
var everything = sync.OnceValue(func() *Router {
	var routes []Route
	for key := int16(0); key <= kmsg.MaxKey; key++ {
		if req := kmsg.RequestForKey(key); req != nil && key != keyApiVersions {
			routes = append(routes, Route{Key: key, MaxVersion: req.MaxVersion(), Handle: respond})
		}
	}
	r, err := NewRouter(routes)
	if err != nil {
		panic(err)
	}
	return r
})

// allocated returns the bytes that fn allocates.
func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A count of tagged fields that are not there would keep kmsg busy for a minute
// each, so this test ends in time only if none gets that far.
func TestCountsThatLie(t *testing.T) {
	const perFrame = 2*freeExpansion + 64<<10
	lies := [][]byte{
		{0x7f, 0xff, 0xff, 0xff},             // an array or bytes
		{0xff, 0xff, 0xff, 0xff, 0x07},       // compact
		{0xff, 0xff, 0xff, 0xff, 0x0f},       // compact, or tagged fields
		{0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, // too long a varint
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	allRequests(func(key, version int16) {
		req := kmsg.RequestForKey(key)
		fill(rnd, reflect.ValueOf(req).Elem())
		req.SetVersion(version)
		frame := frameOf(req, 1)[4:]
		frames := 0
		bytes := allocated(func() {
			for at := minHeader; at < len(frame); at++ {
				for _, lie := range lies {
					f := append(bytes.Clone(frame[:at]), lie...)
					f = append(f, frame[min(at+1, len(frame)):]...)
					everything().decode(f, new(Request), anyRoom)
					frames++
				}
			}
		})
		if bytes > uint64(frames)*perFrame {
			t.Errorf("%s v%d: %d bytes for %d frames of %d bytes", kmsg.NameForKey(key), version, bytes, frames, len(frame))
		}
	})
}

func TestCheckBoundsWhatDecodingTakes(t *testing.T) {
	// Topics without a name are two bytes each, and 48 in Go.
	l, err := layoutOf(3, 9)
	if err != nil {
		t.Fatal(err)
	}
	metadata := func(topics int) []byte {
		b := binary.AppendUvarint(nil, uint64(topics)+1)
		b = append(b, bytes.Repeat([]byte{1, 0}, topics)...)
		return append(b, 0, 0, 0, 0)
	}
	if _, _, err := l.check(metadata(1000)); err != nil {
		t.Errorf("a small body: %v", err)
	}
	if _, _, err := l.check(metadata(1_000_000)); !errors.Is(err, errExpands) {
		t.Errorf("a large body: %v", err)
	}
}

func TestCheckErrors(t *testing.T) {
	heartbeat, err := layoutOf(keyHeartbeat, 4)
	if err != nil {
		t.Fatal(err)
	}
	fetch, err := layoutOf(1, 15)
	if err != nil {
		t.Fatal(err)
	}
	// A Fetch with nothing in it, up to its tagged fields, of which 1 is a struct of
	// 12 bytes and tagged fields.
	empty := append(make([]byte, 4+4+4+1+4+4), 1, 1, 1)
	replica := func(size byte, value ...byte) []byte { return append(append(bytes.Clone(empty), 1, 1, size), value...) }
	tests := map[string]struct {
		l    *layout
		body []byte
		want error
	}{
		"whole":                       {heartbeat, []byte{1, 0, 0, 0, 0, 1, 0, 0}, nil},
		"unknown tagged field":        {heartbeat, []byte{1, 0, 0, 0, 0, 1, 0, 1, 5, 1, 9}, nil},
		"bytes after it":              {heartbeat, []byte{1, 0, 0, 0, 0, 1, 0, 0, 0}, nil},
		"a string beyond the end":     {heartbeat, []byte{99, 0, 0, 0, 0, 1, 0, 0}, errShort},
		"a tagged field beyond it":    {heartbeat, []byte{1, 0, 0, 0, 0, 1, 0, 1, 5, 3, 9, 9}, errShort},
		"a varint cut short":          {heartbeat, []byte{0x80}, errShort},
		"a varint of 33 bits":         {heartbeat, []byte{0xff, 0xff, 0xff, 0xff, 0x1f, 0, 0, 0}, errLength},
		"a varint of 6 bytes":         {heartbeat, []byte{0x80, 0x80, 0x80, 0x80, 0x80, 0, 0, 0}, errLength},
		"a length of 2^32-2":          {heartbeat, []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0}, errLength},
		"known tagged field":          {fetch, replica(13, make([]byte, 13)...), nil},
		"known tagged field too long": {fetch, replica(14, make([]byte, 14)...), errTrailing},
		"known tagged field lies":     {fetch, replica(17, append(make([]byte, 12), 0xff, 0xff, 0xff, 0xff, 0x0f)...), errShort},
	}
	for name, test := range tests {
		if _, _, err := test.l.check(test.body); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

func TestABodyIsAllocatedAsItArrives(t *testing.T) {
	const claimed = 100 << 20
	for _, sent := range []int{0, 1000, probe, 3 << 20} {
		stream := make([]byte, 4+sent)
		binary.BigEndian.PutUint32(stream, claimed)
		var err error
		got := allocated(func() { err = readAll(bytes.NewReader(stream), func([]byte) {}) })
		if bound := uint64(2*firstAlloc + growth*(sent-sent%probe)); got > bound || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes sent: %d allocated, allowed are %d; %v", sent, got, bound, err)
		}
	}
}

func TestALargeBodyIsReadWhole(t *testing.T) {
	for _, size := range []int{minHeader, readBuffer, firstAlloc, firstAlloc + 1, 2*firstAlloc + 1, 10 << 20} {
		stream := make([]byte, 4+size)
		binary.BigEndian.PutUint32(stream, uint32(size))
		rand.NewChaCha8([32]byte{}).Read(stream[4:])
		frames := 0
		err := readAll(bytes.NewReader(append(stream, stream...)), func(frame []byte) {
			frames++
			if !bytes.Equal(frame, stream[4:]) {
				t.Errorf("%d bytes came out different", size)
			}
		})
		if err != io.EOF || frames != 2 {
			t.Errorf("%d bytes: %d frames, %v", size, frames, err)
		}
	}
}

// anyRoom is room for all that is decoded.
func anyRoom(int) *closeError { return nil }

// readAll reads frames until an error, which it returns.
func readAll(r io.Reader, each func(frame []byte)) error {
	f := frameReader{br: bufio.NewReaderSize(r, readBuffer), max: 100 << 20, extend: func() error { return nil }}
	for {
		size, err := f.size()
		if err != nil {
			return err
		}
		if err := f.begun(size); err != nil {
			return err
		}
		frame, err := f.body(size, func(have int) (int, error) { return roomy(size, have), nil })
		if err != nil {
			return err
		}
		each(frame)
	}
}

// FuzzFrame reads a stream of frames and decodes them: no panic, no allocation
// beyond the bound, and what was decoded can be encoded and decoded again.
func FuzzFrame(f *testing.F) {
	rnd := rand.New(rand.NewPCG(3, 4))
	allRequests(func(key, version int16) {
		req := kmsg.RequestForKey(key)
		fill(rnd, reflect.ValueOf(req).Elem())
		req.SetVersion(version)
		f.Add(frameOf(req, 1))
	})
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte{0x7f, 0xff, 0xff, 0xff})
	r := everything()
	f.Fuzz(func(t *testing.T, stream []byte) {
		var decoded []Request
		bytes := allocated(func() {
			readAll(bytes.NewReader(stream), func(frame []byte) {
				var req Request
				if handle, err := r.decode(frame, &req, anyRoom); (handle == nil) != (err != nil) {
					t.Fatalf("handler and error: %v", err)
				} else if err == nil {
					decoded = append(decoded, req)
				}
			})
		})
		// A frame of 8 bytes may take as much as it is free to, and an error's text.
		if bound := 4*firstAlloc + (4*maxExpansion+freeExpansion/minHeader)*uint64(len(stream)); bytes > bound {
			t.Errorf("%d bytes allocated for %d read", bytes, len(stream))
		}
		for _, req := range decoded {
			again := req.Body.AppendTo(nil)
			l, err := layoutOf(req.Key, req.Body.GetVersion())
			if err == nil {
				_, _, err = l.check(again)
			}
			if err != nil {
				t.Errorf("%s: encoded again: %v\n%x", fmt.Sprintf("%#v", req.Body), err, again)
			}
		}
	})
}

func produceFrame(records int) []byte {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = 12, -1, 30_000
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic = "orders"
	partition := kmsg.NewProduceRequestTopicPartition()
	partition.Records = make([]byte, records)
	topic.Partitions = append(topic.Partitions, partition)
	req.Topics = append(req.Topics, topic)
	return frameOf(req, 1)
}

func TestRecordBytesAliasTheFrame(t *testing.T) {
	frame := produceFrame(1000)[4:]
	var req Request
	if _, err := everything().decode(frame, &req, anyRoom); err != nil {
		t.Fatal(err)
	}
	records := req.Body.(*kmsg.ProduceRequest).Topics[0].Partitions[0].Records
	clear(records)
	records[0] = 42
	if !bytes.Contains(frame, append([]byte{42}, make([]byte, 999)...)) {
		t.Error("the records were copied")
	}
}

func BenchmarkDecodeProduce(b *testing.B) {
	frame := produceFrame(16 << 10)[4:]
	r := everything()
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		req := Request{ClientID: "test"}
		if _, err := r.decode(frame, &req, anyRoom); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCheckProduce is the share of BenchmarkDecodeProduce that the walk takes.
func BenchmarkCheckProduce(b *testing.B) {
	body := produceFrame(16 << 10)[4+minHeader+2+4+1:]
	l := everything().find(0).layouts[12]
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := l.check(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNewRouter(b *testing.B) {
	routes := make([]Route, 0, len(everything().entries))
	for _, e := range everything().entries {
		if e != nil && e.Key != keyApiVersions {
			routes = append(routes, e.Route)
		}
	}
	for b.Loop() {
		if _, err := NewRouter(routes); err != nil {
			b.Fatal(err)
		}
	}
}
