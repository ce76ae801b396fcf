package compattests

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
)

// What each example is for.

// productionAndStaging are agent groups.
func productionAndStaging(ctx context.Context, t *testing.T, x *example) {
	strangers(ctx, t, x.side(ctx, t, "production"), x.side(ctx, t, "staging"))
}

// twoRegions are agent groups whose records are in buckets of their own.
func twoRegions(ctx context.Context, t *testing.T, x *example) {
	eu, us := x.side(ctx, t, "eu"), x.side(ctx, t, "us")
	strangers(ctx, t, eu, us)
	eu.write(ctx, t, "large", large(eu))
	us.write(ctx, t, "large", large(us))
	x.demandObjects(ctx, t, map[*side]string{eu: "s3/eu-west-1/", us: "s3-us/us-east-1/"})
}

// saasTenants are virtual clusters.
func saasTenants(ctx context.Context, t *testing.T, x *example) {
	acme, globex := x.side(ctx, t, "acme"), x.side(ctx, t, "globex")
	strangers(ctx, t, acme, globex)
	acme.write(ctx, t, "large", large(acme))
	globex.write(ctx, t, "large", large(globex))
	x.demandObjects(ctx, t, map[*side]string{acme: "s3/tenants/acme/", globex: "s3/tenants/globex/"})
	if id := clusterID(ctx, t, acme); id == "" || id == clusterID(ctx, t, globex) {
		t.Errorf("both have the cluster id %q", id)
	}
}

func clusterID(ctx context.Context, t *testing.T, s *side) string {
	t.Helper()
	metadata, err := s.admin.BrokerMetadata(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return metadata.Cluster
}

// large is the value of a record that is no small one, and from which it is seen whose it is.
func large(s *side) string {
	random := make([]byte, 32<<10)
	_, _ = rand.NewChaCha8([32]byte{}).Read(random)
	return mark(s) + hex.EncodeToString(random)
}

func mark(s *side) string { return "a large record of " + s.name + ": " }

// demandObjects demands that the large record of each side lies below that bucket and prefix, and nowhere else.
func (x *example) demandObjects(ctx context.Context, t *testing.T, below map[*side]string) {
	t.Helper()
	seen := make(map[*side]int)
	for service := range x.buckets {
		for name, content := range x.contents(ctx, t, service) {
			for s, place := range below {
				if !bytes.Contains(content, []byte(mark(s))) {
					continue
				}
				seen[s]++
				if !strings.HasPrefix(name, place) {
					t.Errorf("a record of %s is in %s, not below %s", s.name, name, place)
				}
			}
		}
	}
	for s := range below {
		if seen[s] == 0 {
			t.Errorf("no object has the record of %s", s.name)
		}
	}
}

// contents are all objects of the bucket that stands for a service, as service/key.
func (x *example) contents(ctx context.Context, t *testing.T, service string) map[string][]byte {
	t.Helper()
	bucket, err := url.Parse(x.buckets[service])
	if err != nil {
		t.Fatal(err)
	}
	endpoint, err := url.Parse(bucket.Query().Get("endpoint"))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client, err := minio.New(endpoint.Host, &minio.Options{
		Creds: credentials.NewEnvAWS(), Region: bucket.Query().Get("region"), Transport: transport,
	})
	if err != nil {
		t.Fatal(err)
	}
	contents := make(map[string][]byte)
	for info := range client.ListObjects(ctx, bucket.Host, minio.ListObjectsOptions{Recursive: true}) {
		if info.Err != nil {
			t.Fatal(info.Err)
		}
		object, err := client.GetObject(ctx, bucket.Host, info.Key, minio.GetObjectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if contents[service+"/"+info.Key], err = io.ReadAll(object); err != nil {
			t.Fatalf("read %s: %v", info.Key, err)
		}
		object.Close()
	}
	return contents
}

const examplePartitions = 12

// clientsInZones is one cluster whose clients stay in their zones.
func clientsInZones(ctx context.Context, t *testing.T, x *example) {
	all := x.side(ctx, t, "")
	if _, err := all.admin.CreateTopic(ctx, examplePartitions, -1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	zones := []string{"a", "b", "c"}
	homes := make(map[string]*home)
	for _, zone := range zones {
		h := x.home(t, zone)
		homes[zone] = h
		eventually(ctx, t, func() error { return h.told(ctx) })
		// An agent that is slow may be taken for dead by others for a moment. Its zone's clients go elsewhere then.
		rounds := 0
		eventually(ctx, t, func() error { rounds++; return h.write(ctx, t, rounds) })
	}
	for _, zone := range zones {
		for _, writer := range zones {
			homes[zone].read(ctx, t, homes[writer])
		}
	}
}

// home is a zone of an example and a client in it.
type home struct {
	zone   string
	agents map[string]bool // addresses
	client *kgo.Client
	admin  *kadm.Client
	asked  *asked
	ends   [examplePartitions]int64 // the offsets of the last records written
}

// home returns a zone, and a client that knows agents of all zones and says in its client id that it is in this one.
func (x *example) home(t *testing.T, zone string) *home {
	t.Helper()
	h := &home{zone: zone, agents: make(map[string]bool), asked: &asked{away: make(map[string]int)}}
	var agents []*harness.Agent
	for name, a := range x.agents {
		agents = append(agents, a)
		if strings.HasPrefix(name, zone+"-") {
			h.agents[a.Address()] = true
		}
	}
	h.asked.home = h.agents
	h.client = dialAgents(t, agents, kgo.ClientID("zone="+zone), kgo.WithHooks(h.asked), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	h.admin = kadm.NewClient(h.client)
	return h
}

// told returns nil if the client is told of its zone's agents, and of one of another zone, which leads nothing.
func (h *home) told(ctx context.Context) error {
	metadata, err := h.admin.Metadata(ctx, "orders")
	if err != nil {
		return err
	}
	zones, home := make(map[int32]string), 0
	for _, b := range metadata.Brokers {
		if zones[b.NodeID] = *b.Rack; *b.Rack == h.zone {
			home++
		}
	}
	if home != len(h.agents) || len(zones) != home+1 {
		return fmt.Errorf("a client of zone %s is told of agents in zones %v", h.zone, zones)
	}
	leading := metadata.Topics["orders"].Partitions
	for _, p := range leading {
		if zones[p.Leader] != h.zone {
			return fmt.Errorf("a client of zone %s is told that %d leads partition %d", h.zone, p.Leader, p.Partition)
		}
	}
	if len(leading) != examplePartitions {
		return fmt.Errorf("a client of zone %s is told of partitions %v", h.zone, leading)
	}
	return nil
}

func (h *home) value(round int) []byte { return fmt.Appendf(nil, "%s %d", h.zone, round) }

// write writes to all partitions, and returns nil if the client took all of it to agents of its zone.
func (h *home) write(ctx context.Context, t *testing.T, round int) error {
	t.Helper()
	h.asked.reset()
	for p := range int32(examplePartitions) {
		r, err := h.client.ProduceSync(ctx, &kgo.Record{Topic: "orders", Partition: p, Value: h.value(round)}).First()
		if err != nil {
			t.Fatalf("zone %s writes: %v", h.zone, err)
		}
		h.ends[p] = r.Offset
	}
	return h.asked.elsewhere()
}

// read reads what clients of a zone wrote last.
func (h *home) read(ctx context.Context, t *testing.T, writer *home) {
	t.Helper()
	eventually(ctx, t, func() error {
		h.asked.reset()
		at := make(map[int32]kgo.Offset)
		for p, end := range writer.ends {
			at[int32(p)] = kgo.NewOffset().At(end)
		}
		h.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{"orders": at})
		defer h.client.PurgeTopicsFromConsuming("orders")
		for len(at) > 0 {
			fetches := h.client.PollFetches(ctx)
			if err := fetches.Err(); err != nil {
				t.Fatalf("zone %s reads: %v", h.zone, err)
			}
			fetches.EachRecord(func(r *kgo.Record) {
				if r.Offset != writer.ends[r.Partition] {
					return // a later one
				}
				if delete(at, r.Partition); !strings.HasPrefix(string(r.Value), writer.zone+" ") {
					t.Errorf("zone %s reads %q, where zone %s wrote", h.zone, r.Value, writer.zone)
				}
			})
		}
		return h.asked.elsewhere()
	})
}

// asked counts a client's Produce and Fetch requests to agents outside of its zone.
type asked struct {
	home map[string]bool // addresses
	mu   sync.Mutex
	away map[string]int // by address
}

var _ kgo.HookBrokerE2E = (*asked)(nil)

// OnBrokerE2E is called by the client after each request.
func (a *asked) OnBrokerE2E(to kgo.BrokerMetadata, key int16, _ kgo.BrokerE2E) {
	const produce, fetch = 0, 1
	address := net.JoinHostPort(to.Host, fmt.Sprint(to.Port))
	if (key != produce && key != fetch) || a.home[address] {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.away[address]++
}

func (a *asked) reset() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.away)
}

// elsewhere returns an error if requests went elsewhere since reset.
func (a *asked) elsewhere() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.away) > 0 {
		return fmt.Errorf("requests went to agents of other zones: %v", a.away)
	}
	return nil
}
