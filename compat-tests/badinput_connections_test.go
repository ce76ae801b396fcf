package compattests

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
)

// TestTenThousandConnections opens as many connections as an agent takes, which say nothing, then half a request each.
// Who is at work already goes on, who is new finds a place, and nothing is left of it all afterwards.
func TestTenThousandConnections(t *testing.T) {
	test := func(t *testing.T, agents ...*harness.Agent) { // one after the other: this process may not have so many files open
		target := target{name: t.Name()}
		for _, agent := range agents {
			target.nodes = append(target.nodes, agent)
		}
		crowd(t, target, agents[0])
	}
	t.Run("embedded", func(t *testing.T) { test(t, harness.Embedded(t)) })
	if slow(t) {
		t.Run("cluster", func(t *testing.T) { test(t, harness.Cluster(t, harness.FastStores(t), 2)...) })
	}
}

func crowd(t *testing.T, target target, agent *harness.Agent) {
	connections := allowedConnections(t, 10_000)
	bystander := startBystander(t, target)
	bystander.awaitProgress(t)
	before := measure(t, agent)
	b := badInput{target: target, address: agent.Address()}

	var silent []rawConn
	for range connections {
		silent = append(silent, b.dial(t))
	}
	b.newcomer(t)
	bystander.awaitProgress(t)
	full := measure(t, agent)

	begun := append(binary.BigEndian.AppendUint32(nil, 1<<20), make([]byte, 100)...)
	for _, c := range silent {
		// Those that gave their places to others are closed.
		if _, err := c.Write(begun); err != nil && !isReset(err) {
			t.Fatal(err)
		}
	}
	b.newcomer(t)
	bystander.awaitProgress(t)
	half := measure(t, agent)

	for _, c := range silent {
		c.Close()
	}
	after := awaitLevel(t, agent, before)
	bystander.finish(t)
	t.Logf("before: %v; %d silent connections: %v; half a request each: %v; after: %v", before, connections, full, half, after)
	const perConnection = 64 << 10
	if grown := half.resident - before.resident; grown > float64(connections*perConnection) {
		t.Errorf("%d connections took %.0f MiB", connections, grown/(1<<20))
	}
}

// newcomer is a client that comes now.
func (b *badInput) newcomer(t *testing.T) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(b.address))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Ping(deadline(t, badInputTimeout)); err != nil {
		t.Errorf("a new client: %v", err)
	}
}

// allowedConnections is how many of the connections that are wanted this process may have.
func allowedConnections(t *testing.T, wanted int) int {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	const others = 500 // files of this process and of other tests beside this one
	return min(wanted, int(limit.Cur)-others)
}

// level is what an agent says of itself.
type level struct{ connections, goroutines, resident, panics float64 }

func (l level) String() string {
	return fmt.Sprintf("%.0f connections, %.0f goroutines, %.0f MiB resident", l.connections, l.goroutines, l.resident/(1<<20))
}

func measure(t *testing.T, agent *harness.Agent) level {
	t.Helper()
	request, err := http.NewRequestWithContext(deadline(t, badInputTimeout), http.MethodGet, "http://"+agent.AdminAddress()+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var l level
	at := map[string]*float64{
		"streamhouse_kafka_connections": &l.connections, "streamhouse_kafka_handler_panics_total": &l.panics,
		"go_goroutines": &l.goroutines, "process_resident_memory_bytes": &l.resident,
	}
	for scanner := bufio.NewScanner(response.Body); scanner.Scan(); {
		name, value, _ := strings.Cut(scanner.Text(), " ")
		if p := at[name]; p != nil {
			if *p, err = strconv.ParseFloat(value, 64); err != nil {
				t.Fatal(err)
			}
		}
	}
	return l
}

// awaitLevel returns when the agent has about as many goroutines and connections as before.
func awaitLevel(t *testing.T, agent *harness.Agent, before level) (now level) {
	t.Helper()
	const slack = 50 // connections to stores and what clients opened meanwhile
	ctx, cancel := context.WithTimeout(t.Context(), badInputTimeout)
	defer cancel()
	eventually(ctx, t, func() error {
		now = measure(t, agent)
		if now.connections > before.connections+slack || now.goroutines > before.goroutines+slack {
			return fmt.Errorf("%v, before it was %v", now, before)
		}
		return nil
	})
	return now
}
