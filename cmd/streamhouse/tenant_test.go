package main

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker"
	"github.com/streamhouse/streamhouse/internal/testdb"
	"github.com/streamhouse/streamhouse/protocol"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

// strangers are agents that share a database and a bucket with a tenant's, and
// are to know nothing of it. That of another virtual cluster is of a group of the
// same name.
var strangers = []struct {
	id     string
	change func(*Settings)
	// asked are the versions, at first and once it has a topic and groups of the same
	// names itself.
	asked []chosen
}{
	{"of-another-group", func(s *Settings) { s.AgentGroup = "blue" }, []chosen{everything, newest}},
	{"of-the-default-group", func(s *Settings) { s.AgentGroup = "" }, []chosen{newest, newest}},
	{"of-another-cluster", func(s *Settings) { s.Cluster, s.AgentGroup = "other", "tenant" }, []chosen{newest, newest}},
}

// neighbours starts the strangers, on stores of their own but for one tenant.
func neighbours(t *testing.T) (s stores, database string, agents []*testAgent) {
	database = testdb.Postgres(t)
	s = stores{metadata: unsafe(database), objects: testdb.S3(t)}
	for i, stranger := range strangers {
		agents = append(agents, startAgent(t, s, named(stranger.id), tenancy, stranger.change, func(s *Settings) {
			s.AdvertisedAddress = fmt.Sprint("127.0.0.1:", 1000+i) // the same wherever it is started
		}))
	}
	return s, database, agents
}

// tenancy keeps what a test compares from changing by itself.
func tenancy(s *Settings) {
	const long = "1800000" // ms
	s.LeaseDuration = 10 * time.Minute
	s.Kafka.AutoCreateTopics = false
	s.Kafka.Configs["group.initial.rebalance.delay.ms"] = "0"
	s.Kafka.Configs["group.consumer.session.timeout.ms"], s.Kafka.Configs["group.consumer.max.session.timeout.ms"] = long, long
}

// Nobody learns anything of a tenant from agents of another group, however they are
// asked, with all its names and ids in hand, by every API, and one of them in every
// version: they
// answer as they do where there is no tenant. And nobody changes anything of it.
func TestTenantsDoNotMeet(t *testing.T) {
	t.Parallel()
	s, database, agents := neighbours(t)
	home := startAgent(t, s, named("of-the-tenant"), tenancy, func(s *Settings) { s.AgentGroup = "tenant" })
	n := moveIn(t, home)
	_, _, elsewhere := neighbours(t)
	producerID(dial(t, elsewhere[0].addr)) // as the tenant's did

	probes := n.probes()
	if missing := withoutProbe(probes); len(missing) > 0 {
		t.Errorf("no probe asks %v", missing)
	}
	shown := n.play(t, home, probes, reading)
	rows := tenantRows(t, database, n)
	if len(rows) < 10 || len(shown) == 0 {
		t.Fatalf("the tenant has %d rows, and is told %d answers", len(rows), len(shown))
	}
	beside, without := make([][][]reply, len(agents)), make([][][]reply, len(agents))
	t.Run("strangers", func(t *testing.T) {
		for i, stranger := range strangers {
			for name, world := range map[string]struct {
				agent *testAgent
				told  *[][]reply
			}{"beside": {agents[i], &beside[i]}, "without": {elsewhere[i], &without[i]}} {
				t.Run(stranger.id+" "+name, func(t *testing.T) {
					t.Parallel()
					for _, which := range stranger.asked {
						*world.told = append(*world.told, n.play(t, world.agent, probes, which))
					}
				})
			}
		}
	})
	for i, stranger := range strangers {
		for r := range stranger.asked {
			sameReplies(t, fmt.Sprintf("%s, round %d: without a tenant, and beside it", stranger.id, r), without[i][r], beside[i][r])
		}
	}
	for _, a := range agents {
		for _, path := range []string{"/agents", "/leases", "/cost", "/metrics"} {
			status, body := get(testContext(t), t, a.admin.Addr().String(), path)
			if status != http.StatusOK || strings.Contains(body, "of-the-tenant") || strings.Contains(body, n.topic.id.String()) {
				t.Errorf("%s of %s: status %d, %s", path, a.settings.AgentID, status, body)
			}
		}
	}
	if diff := cmp.Diff(rows, tenantRows(t, database, n)); diff != "" {
		t.Errorf("the tenant's rows (-before +after):\n%s", diff)
	}
	sameReplies(t, "to the tenant, before and after", shown, n.play(t, home, probes, reading))
	// The probes do ask for what the tenant has.
	own := n.play(t, home, probes, everything)
	for _, p := range probes {
		ofOthers := func(a reply) bool { return a.key != p.key }
		same := slices.Equal(slices.DeleteFunc(slices.Clone(own), ofOthers), slices.DeleteFunc(slices.Clone(beside[0][0]), ofOthers))
		if same != p.nameless {
			t.Errorf("%s: its tenant is told the same as strangers: %v", p.key.Name(), same)
		}
	}
}

// withoutProbe are the APIs that are served and nobody asks.
func withoutProbe(probes []probe) (missing []string) {
	for _, r := range append(new(broker.Broker).Routes(), protocol.Route{Key: kmsg.ApiVersions.Int16()}) {
		if !slices.ContainsFunc(probes, func(p probe) bool { return p.key.Int16() == r.Key }) {
			missing = append(missing, kmsg.NameForKey(r.Key))
		}
	}
	return missing
}

// moveIn gives the tenant something of everything.
func moveIn(t *testing.T, a *testAgent) *tenant {
	t.Helper()
	w := dial(t, a.addr)
	n := &tenant{
		agentGroup: a.settings.AgentGroup, node: a.node.Agent.Self().NodeID, topic: makeTopic(w, "orders", 2, "retention.ms", "12345678"),
		group: "billing", instance: "till", consumers: "couriers", consumer: uuid.NewString(), idle: "archive", metrics: "watch",
	}
	n.producer = producerID(w)
	mustProduce(w, n.topic, 0, batchtest.Of("one", "two"))
	mustProduce(w, n.topic, 1, batchtest.Of("three"))
	mustProduce(w, n.topic, 0, batchtest.Build(batchtest.Options{
		Producer: &batchtest.Producer{ID: n.producer}, Records: []batchtest.Record{{Value: []byte("four"), Timestamp: 4}},
	}))
	wantCode(t, "position", commitOffset(w, n.idle, n.topic, 1), nil)

	join := kmsg.NewPtrJoinGroupRequest()
	join.Group, join.InstanceID, join.ProtocolType = n.group, &n.instance, "consumer"
	join.SessionTimeoutMillis, join.RebalanceTimeoutMillis = 1_800_000, 1_800_000
	join.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range"}}
	joined := ask[*kmsg.JoinGroupResponse](w, 7, join)
	wantCode(t, "join", joined.ErrorCode, nil)
	m := &groupMember{wire: w, group: n.group, instance: n.instance, id: joined.MemberID, generation: joined.Generation}
	sync := m.syncRequest()
	sync.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: m.id, MemberAssignment: []byte(m.instance)}}
	w.send(sync)
	m.synced()
	wantCode(t, "position of a member", m.commit(n.topic, 2), nil)
	n.member, n.generation = m.id, m.generation

	c := &consumerMember{wire: w, group: n.consumers, id: n.consumer}
	for range 2 { // the second says that it has what the first gave it
		if err := c.beat(n.topic.name); err != nil {
			t.Fatal(err)
		}
	}
	if c.partitions() != 2 {
		t.Fatalf("the member has %d partitions", c.partitions())
	}
	n.epoch = c.epoch
	for _, r := range n.configured() {
		if r.kind != kmsg.ConfigResourceTypeTopic && !strings.HasPrefix(r.name, "\x01") {
			wantCode(t, r.kind.String(), incrementally(w, false, r.kind, r.name, change{opSet, r.key, tenantValue[r.key]}), nil)
		}
	}
	return n
}

// tenantValue are the tenant's values of configs.
var tenantValue = map[string]string{
	"log.roll.ms": "98765432", "root": "INFO", "consumer.heartbeat.interval.ms": "6000", "interval.ms": "6000",
}

// reply is what a request was answered, as text.
type reply struct {
	key  kmsg.Key
	text string
}

// sameReplies compares the replies to the same requests.
func sameReplies(t *testing.T, what string, want, got []reply) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%s: %d and %d replies", what, len(want), len(got))
	}
	for i := range want {
		if want[i] != got[i] {
			t.Errorf("%s:\n- %s\n+ %s", what, want[i].text, got[i].text)
		}
	}
}

// chosen says whether a probe is made in a version.
type chosen func(p probe, version, latest int16) bool

func everything(probe, int16, int16) bool         { return true }
func newest(_ probe, version, latest int16) bool  { return version == latest }
func reading(p probe, version, latest int16) bool { return p.reads && version == latest }

// play sends the requests of probes to an agent, and returns what is answered.
func (n *tenant) play(t *testing.T, a *testAgent, probes []probe, which chosen) (all []reply) {
	t.Helper()
	versions := ask[*kmsg.ApiVersionsResponse](dial(t, a.addr), 0, kmsg.NewPtrApiVersionsRequest())
	for _, p := range probes {
		i := slices.IndexFunc(versions.ApiKeys, func(k kmsg.ApiVersionsResponseApiKey) bool { return k.ApiKey == p.key.Int16() })
		if i < 0 {
			continue
		}
		w, oldest, latest := dial(t, a.addr), versions.ApiKeys[i].MinVersion, versions.ApiKeys[i].MaxVersion
		for v := oldest; v <= latest; v++ {
			if !which(p, v, latest) {
				continue
			}
			for number, r := range p.requests(v) {
				resp := ask[kmsg.Response](w, v, r)
				all = append(all, reply{p.key, fmt.Sprintf("%s v%d, %d: %s", p.key.Name(), v, number, n.render(resp))})
			}
		}
		w.conn.Close()
	}
	return all
}

// chance are fields whose values are made anew each time, or are those of the
// agent's own stores.
var chance = map[string]bool{"ClusterID": true, "ProducerID": true, "MemberID": true, "LeaderID": true, "Dir": true, "LastTimestamp": true}

// render writes an answer as text, without what is left to chance: but ids of the
// tenant's are shown wherever they are.
func (n *tenant) render(resp kmsg.Response) string {
	var b strings.Builder
	var walk func(field string, v reflect.Value)
	walk = func(field string, v reflect.Value) {
		switch {
		case v.Kind() == reflect.Pointer && v.IsNil():
			b.WriteString("null")
		case v.Kind() == reflect.Pointer:
			walk(field, v.Elem())
		case v.Type() == reflect.TypeFor[[16]byte]() && !v.IsZero() && uuid.UUID(v.Interface().([16]byte)) != n.topic.id:
			b.WriteString("(id)")
		case v.Kind() == reflect.Struct:
			b.WriteString("{")
			for i := range v.NumField() {
				if f := v.Type().Field(i); f.IsExported() && f.Name != "UnknownTags" {
					b.WriteString(f.Name + ":")
					walk(f.Name, v.Field(i))
					b.WriteString(" ")
				}
			}
			b.WriteString("}")
		case v.Kind() == reflect.Slice && v.Type().Elem().Kind() != reflect.Uint8:
			b.WriteString("[")
			for i := range v.Len() {
				walk(field, v.Index(i))
				b.WriteString(" ")
			}
			b.WriteString("]")
		case field == "ErrorCode":
			fmt.Fprint(&b, kerr.ErrorForCode(int16(v.Int())))
		case chance[field] && !v.IsZero() && !slices.Contains([]string{n.member, n.consumer}, fmt.Sprint(v)) && fmt.Sprint(v) != fmt.Sprint(n.producer):
			b.WriteString("(chance)")
		default:
			fmt.Fprintf(&b, "%v", v)
		}
	}
	walk("", reflect.ValueOf(resp))
	return b.String()
}

// tenantRows are the rows of all tables that name what the tenant has, as text,
// without what time alone changes.
func tenantRows(t *testing.T, database string, n *tenant) (rows []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	list := func(query string) []string {
		found, err := conn.Query(ctx, query)
		if err != nil {
			t.Fatal(err)
		}
		all, err := pgx.CollectRows(found, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	// Its ids, and names of its own and of the store's.
	marks := []string{strings.ReplaceAll(n.topic.id.String(), "-", ""), `"tenant"`, `"of-the-tenant"`, `"\u0001tenant\u0001`}
	for _, table := range list(`SELECT table_name FROM information_schema.tables
			WHERE table_schema = current_schema() AND table_type = 'BASE TABLE' AND table_name <> 'cluster' ORDER BY table_name`) {
		for _, row := range list(`SELECT (to_jsonb(t) - '{epoch,lease_expires_at,heartbeat_at}'::text[])::text FROM ` + pgx.Identifier{table}.Sanitize() + ` t ORDER BY 1`) {
			if slices.ContainsFunc(marks, func(mark string) bool { return strings.Contains(row, mark) }) {
				rows = append(rows, table+" "+row)
			}
		}
	}
	return rows
}
