package harness

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/streamhouse/streamhouse/internal/testdb"
)

// Mark is what the records have in them whose way through a zoned cluster is to be seen, in bytes that no client
// compresses.
const Mark = "mark-of-a-record"

// Kind is a kind of connection.
type Kind string

// The kinds of connections of a zoned cluster.
const (
	Clients   Kind = "clients"  // to the Kafka listener
	Watchers  Kind = "watchers" // agents, to the Kafka listener: are you there?
	Peers     Kind = "peers"    // agents, to the listener for peers
	Databases Kind = "database"
)

// Flow is who speaks to whom.
type Flow struct {
	Kind Kind
	// From and To are zones. From is that of the address that the connection came from, else that of the client id; ""
	// if neither tells. The database is in none.
	From, To string
}

// Crosses says whether what flows there may have left a zone.
func (f Flow) Crosses() bool { return f.From != f.To }

// Volume is what flowed, both ways, above TCP.
type Volume struct {
	Bytes int64
	// Marks is how many times Mark was seen: at least once for each batch of marked records, unless it was encrypted.
	// One that is spread over two reads of the proxy is not seen.
	Marks int64
}

// Flows are what has flowed between all pairs.
type Flows map[Flow]Volume

// Since is what has flowed since an earlier look.
func (f Flows) Since(before Flows) Flows {
	since := make(Flows, len(f))
	for flow, v := range f {
		since[flow] = Volume{v.Bytes - before[flow].Bytes, v.Marks - before[flow].Marks}
	}
	return since
}

// Sum adds up the flows that which wants.
func (f Flows) Sum(which func(Flow) bool) (sum Volume) {
	for flow, v := range f {
		if which(flow) {
			sum.Bytes += v.Bytes
			sum.Marks += v.Marks
		}
	}
	return sum
}

// String is a table.
func (f Flows) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-10s %-4s %-4s %14s %8s\n", "kind", "from", "to", "bytes", "marks")
	for _, flow := range slices.SortedFunc(maps.Keys(f), func(a, b Flow) int {
		return strings.Compare(string(a.Kind)+"/"+a.From+"/"+a.To, string(b.Kind)+"/"+b.From+"/"+b.To)
	}) {
		if v := f[flow]; v.Bytes > 0 {
			fmt.Fprintf(&b, "%-10s %-4s %-4s %14d %8d\n", flow.Kind, flow.From, flow.To, v.Bytes, v.Marks)
		}
	}
	return b.String()
}

// traffic counts flows. Its methods may be called by any number of goroutines.
type traffic struct {
	zoneOf func(net.Addr) string // "" if the address is in none

	mu    sync.Mutex
	flows map[Flow]*volume
}

type volume struct{ bytes, marks atomic.Int64 }

// count adds a chunk.
func (v *volume) count(chunk []byte) {
	v.bytes.Add(int64(len(chunk)))
	v.marks.Add(int64(bytes.Count(chunk, []byte(Mark))))
}

func newTraffic(zoneOf func(net.Addr) string) *traffic {
	return &traffic{zoneOf: zoneOf, flows: make(map[Flow]*volume)}
}

func (t *traffic) volume(f Flow) *volume {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.flows[f] == nil {
		t.flows[f] = new(volume)
	}
	return t.flows[f]
}

// read returns what has flowed so far.
func (t *traffic) read() Flows {
	t.mu.Lock()
	defer t.mu.Unlock()
	flows := make(Flows, len(t.flows))
	for f, v := range t.flows {
		flows[f] = Volume{v.bytes.Load(), v.marks.Load()}
	}
	return flows
}

// watch returns what counts the connections to an agent of a zone.
func (t *traffic) watch(kind Kind, to string) func(net.Addr) func(testdb.Direction, []byte) {
	return func(client net.Addr) func(testdb.Direction, []byte) {
		v := t.volume(Flow{kind, t.zoneOf(client), to})
		return func(_ testdb.Direction, chunk []byte) { v.count(chunk) }
	}
}

// watchDatabase returns what counts the connections of an agent in a zone to the database.
func (t *traffic) watchDatabase(from string) func(net.Addr) func(testdb.Direction, []byte) {
	v := t.volume(Flow{Kind: Databases, From: from})
	return func(net.Addr) func(testdb.Direction, []byte) {
		return func(_ testdb.Direction, chunk []byte) { v.count(chunk) }
	}
}

// watchKafka returns what counts the connections to the Kafka listener of an agent of a zone. Who a connection is of, and
// where no address tells its zone, is in the client id of its first request.
func (t *traffic) watchKafka(to string) func(net.Addr) func(testdb.Direction, []byte) {
	return func(client net.Addr) func(testdb.Direction, []byte) {
		var found atomic.Pointer[volume] // stored before the agent has anything to answer
		zone := t.zoneOf(client)
		return func(d testdb.Direction, chunk []byte) {
			if d == testdb.ToServer && found.Load() == nil {
				flow := Flow{Clients, zone, to}
				id := clientID(chunk)
				if strings.HasPrefix(id, watcher) {
					flow.Kind = Watchers
				}
				if flow.From == "" {
					_, tagged, _ := strings.Cut(id, zoneTag)
					flow.From, _, _ = strings.Cut(tagged, ",")
				}
				found.Store(t.volume(flow))
			}
			if v := found.Load(); v != nil {
				v.count(chunk)
			}
		}
	}
}

const (
	watcher = "streamhouse-peer" // begins the client ids of agents that watch others
	zoneTag = "zone="
)

// clientID is that of the request with which a chunk begins, "" if it has none.
func clientID(chunk []byte) string {
	const before = 4 + 2 + 2 + 4 // size, key, version, correlation id
	if len(chunk) < before+2 {
		return ""
	}
	length := int(int16(binary.BigEndian.Uint16(chunk[before:])))
	if length <= 0 || len(chunk) < before+2+length {
		return ""
	}
	return string(chunk[before+2:][:length])
}
