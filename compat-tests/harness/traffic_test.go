package harness

import (
	"net"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/internal/testdb"
)

// TestTrafficTellsWhoSpeaks shows requests on the way to the Kafka listener of an agent in zone b.
func TestTrafficTellsWhoSpeaks(t *testing.T) {
	for _, test := range []struct {
		name, source, id string
		want             Flow
	}{
		{"by its address", "127.0.11.100", "client,zone=c", Flow{Clients, "a", "b"}},
		{"by its id", "127.0.0.1", "client,zone=c,more", Flow{Clients, "c", "b"}},
		{"by nothing", "127.0.0.1", "client", Flow{Clients, "", "b"}},
		{"an agent", "127.0.13.1", watcher, Flow{Watchers, "c", "b"}},
		{"an agent of a zone", "127.0.0.1", watcher + ",zone=c", Flow{Watchers, "c", "b"}},
	} {
		c := ZonedCluster{Zones: []string{"a", "b", "c"}}
		c.traffic = newTraffic(c.zoneOf)
		show := c.traffic.watchKafka("b")(&net.TCPAddr{IP: net.ParseIP(test.source)})
		request := kmsg.NewRequestFormatter(kmsg.FormatterClientID(test.id)).AppendRequest(nil, kmsg.NewPtrMetadataRequest(), 1)
		before := c.Flows()
		show(testdb.ToServer, request)
		show(testdb.ToClient, []byte("with a "+Mark+" and a "+Mark))
		flows := c.Flows().Since(before)
		want := Volume{Bytes: int64(len(request) + 14 + 2*len(Mark)), Marks: 2}
		if got := flows[test.want]; got != want || len(flows) != 1 {
			t.Errorf("%s: flows are\n%s, want %v of %v", test.name, flows, want, test.want)
		}
		if sum := flows.Sum(Flow.Crosses); sum != want {
			t.Errorf("%s: %v crossed, want %v", test.name, sum, want)
		}
	}
}

// TestObjectUseKnowsWhatWasGot adds ranges of an object one after the other.
func TestObjectUseKnowsWhatWasGot(t *testing.T) {
	u := newObjectUse()
	for _, step := range []struct {
		span
		again int64
	}{
		{span{10, 20}, 0}, {span{30, 40}, 0}, {span{20, 30}, 0}, {span{0, 50}, 30}, {span{60, 70}, 0}, {span{45, 65}, 10}, {span{0, 70}, 70},
	} {
		if again := u.add("object", step.span); again != step.again {
			t.Errorf("of %v, %d bytes had been got, want %d", step.span, again, step.again)
		}
	}
	if again := u.add("other", span{0, 70}); again != 0 {
		t.Errorf("of another object, %d bytes had been got", again)
	}
}
