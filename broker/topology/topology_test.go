package topology_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// source is a store that answers with what a test has put there.
type source struct {
	mu      sync.Mutex
	answers []*metadata.Topology // the next ones; without them: nothing changed
	agents  []metadata.Agent
	version int64
	asked   []int64 // since
	took    time.Duration
	err     error
}

func (s *source) Topology(ctx context.Context, since int64) (*metadata.Topology, error) {
	select {
	case <-time.After(s.took):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, since)
	if s.err != nil {
		return nil, s.err
	}
	d := &metadata.Topology{}
	if len(s.answers) > 0 {
		d, s.answers = s.answers[0], s.answers[1:]
	}
	s.version++
	d.ClusterID, d.Version, d.Agents = "cluster", s.version, s.agents
	return d, nil
}

// fail makes the store fail; nil ends that.
func (s *source) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *source) statements() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

const (
	interval = 10 * time.Second
	fresh    = 30 * time.Second
)

// rig is a watcher on a source.
type rig struct {
	*topology.Watcher
	t       *testing.T
	source  *source
	deleted []uuid.UUID
}

func newRig(t *testing.T) *rig {
	t.Helper()
	static, err := config.NewBroker(map[string]string{"message.max.bytes": "100"})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, source: &source{}}
	r.Watcher = topology.NewWatcher(topology.Config{
		Interval: interval, AgentFresh: fresh, Broker: static,
		Deleted: func(id uuid.UUID) { r.deleted = append(r.deleted, id) },
	}, r.source, slog.New(slog.DiscardHandler))
	return r
}

// apply has the watcher read the answer.
func (r *rig) apply(d metadata.Topology) *topology.Snapshot {
	r.t.Helper()
	r.source.answers = append(r.source.answers, &d)
	s, err := r.Refresh(r.t.Context(), 0)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func id(n byte) uuid.UUID { return uuid.UUID{n} }

func key(topic byte, partition int32) lease.Key {
	return lease.Key{TopicID: id(topic), Partition: partition}
}

func topic(n byte, name string, partitions int32) metadata.Topic {
	return metadata.Topic{ID: id(n), Name: name, Partitions: partitions}
}

// names renders the topics of a snapshot, by each way to find them.
func names(t *testing.T, s *topology.Snapshot) string {
	t.Helper()
	out := ""
	for _, found := range s.Topics() {
		if s.TopicByName(found.Name) != found || s.TopicByID(found.ID) != found {
			t.Errorf("topic %s is not found by name or id", found.Name)
		}
		out += fmt.Sprintf("%s=%d/%d ", found.Name, found.ID[0], found.Partitions)
	}
	return out
}

func TestTopicsComeChangeAndGo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if s := r.Snapshot(); names(t, s) != "" || s.Controller("") != -1 || s.TopicByName("a") != nil || s.TopicByID(id(1)) != nil {
		t.Error("the first snapshot is not empty")
	}
	for _, step := range []struct {
		change metadata.Topology
		want   string
	}{
		{metadata.Topology{Topics: []metadata.Topic{topic(2, "b", 1), topic(1, "a", 1)}}, "a=1/1 b=2/1 "},
		{metadata.Topology{}, "a=1/1 b=2/1 "},
		{metadata.Topology{Topics: []metadata.Topic{topic(1, "a", 5)}}, "a=1/5 b=2/1 "},
		{metadata.Topology{Deleted: []uuid.UUID{id(1), id(9)}}, "b=2/1 "},
		// Made again under its name, between two looks at the store.
		{metadata.Topology{Deleted: []uuid.UUID{id(2)}, Topics: []metadata.Topic{topic(3, "b", 2)}}, "b=3/2 "},
		// A deletion that is told late, or twice.
		{metadata.Topology{Deleted: []uuid.UUID{id(2)}}, "b=3/2 "},
		{metadata.Topology{Topics: []metadata.Topic{topic(4, "b", 1)}}, "b=4/1 "},
		{metadata.Topology{Deleted: []uuid.UUID{id(4)}}, ""},
		{metadata.Topology{Deleted: []uuid.UUID{id(3)}}, ""},
		// A deletion that is told after the topic was made again.
		{metadata.Topology{Topics: []metadata.Topic{topic(5, "c", 1)}}, "c=5/1 "},
		{metadata.Topology{Topics: []metadata.Topic{topic(6, "c", 2)}}, "c=6/2 "},
		{metadata.Topology{Deleted: []uuid.UUID{id(5)}}, "c=6/2 "},
	} {
		before := r.Snapshot()
		was := names(t, before)
		if got := names(t, r.apply(step.change)); got != step.want {
			t.Fatalf("after %+v: %s, want %s", step.change, got, step.want)
		}
		if is := names(t, before); is != was {
			t.Fatalf("a snapshot has changed from %s to %s", was, is)
		}
	}
	if diff := cmp.Diff([]int64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, r.source.asked); diff != "" {
		t.Errorf("versions asked for (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]uuid.UUID{id(1), id(9), id(2), id(2), id(4), id(3), id(5)}, r.deleted); diff != "" {
		t.Errorf("told of deletions (-want +got):\n%s", diff)
	}
}

func TestConfigsFollowTheBrokers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	own := topic(1, "own", 1)
	own.Configs = map[string]string{"max.message.bytes": "7"}
	limits := func(s *topology.Snapshot) [2]int32 {
		return [2]int32{s.TopicByName("own").Config.MaxMessageBytes, s.TopicByName("default").Config.MaxMessageBytes}
	}
	s := r.apply(metadata.Topology{Topics: []metadata.Topic{own, topic(2, "default", 1)}})
	if got := limits(s); got != [2]int32{7, 100} {
		t.Errorf("as started: %v", got)
	}
	kept := s.TopicByName("default")
	altered := map[string]string{"message.max.bytes": "200", "num.partitions": "3"}
	if got := limits(r.apply(metadata.Topology{Configs: altered})); got != [2]int32{7, 200} {
		t.Errorf("altered cluster-wide: %v", got)
	}
	if n := r.Snapshot().Broker.NumPartitions(); n != 3 {
		t.Errorf("num.partitions is %d", n)
	}
	own.Configs = nil
	if got := limits(r.apply(metadata.Topology{Configs: altered, Topics: []metadata.Topic{own}})); got != [2]int32{200, 200} {
		t.Errorf("without the topic's own: %v", got)
	}
	if got := limits(r.apply(metadata.Topology{})); got != [2]int32{100, 100} {
		t.Errorf("without the alteration: %v", got)
	}
	if kept.Config.MaxMessageBytes != 100 {
		t.Error("a topic of an old snapshot has changed")
	}
}

func agent(node int32, age time.Duration) metadata.Agent {
	return metadata.Agent{ID: fmt.Sprintf("agent-%d", node), NodeID: node, HeartbeatAge: age}
}

func leader(k lease.Key, node, epoch int32) metadata.Leader {
	l := metadata.Leader{Key: k, LeaderEpoch: epoch}
	if node > 0 {
		l.AgentID = fmt.Sprintf("agent-%d", node)
	}
	return l
}

func TestAgents(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.source.agents = []metadata.Agent{agent(3, 0), agent(1, fresh), agent(2, fresh-1)}
	s := r.apply(metadata.Topology{})
	if diff := cmp.Diff([]metadata.Agent{agent(1, fresh), agent(2, fresh-1), agent(3, 0)}, s.Agents()); diff != "" {
		t.Errorf("agents (-want +got):\n%s", diff)
	}
	if s.Controller("") != 2 {
		t.Errorf("controller %d, want the first that is heard of", s.Controller(""))
	}
	if a, ok := s.Agent("agent-3"); !ok || a.NodeID != 3 {
		t.Errorf("agent-3: %+v, %v", a, ok)
	}
	if _, ok := s.Agent("agent-9"); ok {
		t.Error("agent-9 is listed")
	}
	r.source.agents = []metadata.Agent{agent(5, fresh), agent(4, fresh)}
	if s = r.apply(metadata.Topology{}); s.Controller("") != 4 {
		t.Errorf("controller %d of agents that are not heard of", s.Controller(""))
	}
}

func TestLeaderIsTheHolderWhileItIsHeardOf(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k, shard := key(1, 0), metadata.GroupShardKey(metadata.DefaultAgentGroup, 3)
	r.source.agents = []metadata.Agent{agent(1, 0), agent(2, 0), agent(3, 0)}
	expect := func(s *topology.Snapshot, k lease.Key, node, epoch int32) {
		t.Helper()
		a, e, ok := s.Leader(k)
		if !ok || node != 0 && a.NodeID != node || e != epoch {
			t.Errorf("leader of %v: node %d in epoch %d, %v; want %d in %d", k, a.NodeID, e, ok, node, epoch)
		}
	}
	expect(r.apply(metadata.Topology{}), k, 0, -1)
	s := r.apply(metadata.Topology{Leaders: []metadata.Leader{leader(k, 2, 5)}, Shards: []metadata.Leader{leader(shard, 3, 1)}})
	expect(s, k, 2, 5)
	expect(s, shard, 3, 1)
	s = r.apply(metadata.Topology{Leaders: []metadata.Leader{leader(k, 1, 6)}})
	expect(s, k, 1, 6)
	expect(s, shard, 3, 1)

	// Released, gone and silent holders: another agent, in the same epoch.
	expect(r.apply(metadata.Topology{Leaders: []metadata.Leader{leader(k, 0, 6)}}), k, 0, 6)
	expect(r.apply(metadata.Topology{Leaders: []metadata.Leader{leader(k, 9, 7)}}), k, 0, 7)
	r.source.agents = []metadata.Agent{agent(1, fresh), agent(2, 0)}
	expect(r.apply(metadata.Topology{Leaders: []metadata.Leader{leader(k, 1, 8)}}), k, 2, 8)
	r.source.agents = []metadata.Agent{agent(1, 0), agent(2, 0)}
	expect(r.apply(metadata.Topology{}), k, 1, 8)

	// One that others are to be asked instead of.
	one, two := agent(1, 0), agent(2, 0)
	one.Session, two.Session = id(11), id(12)
	r.source.agents = []metadata.Agent{one, two}
	s = r.apply(metadata.Topology{})
	without := s.Without([]uuid.UUID{one.Session})
	expect(without, k, 2, 8)
	if len(without.Agents()) != 1 || s.Without([]uuid.UUID{id(13)}) != s {
		t.Errorf("listed without one: %v", without.Agents())
	}
	expect(s, k, 1, 8)

	// Those that are not heard of are better than nobody.
	r.source.agents = []metadata.Agent{agent(2, fresh)}
	expect(r.apply(metadata.Topology{}), k, 2, 8)
	r.source.agents = nil
	if _, _, ok := r.apply(metadata.Topology{}).Leader(k); ok {
		t.Error("a leader without agents")
	}

	// Nothing is left of a topic that was deleted.
	r.source.agents = []metadata.Agent{agent(1, 0), agent(2, 0)}
	s = r.apply(metadata.Topology{Deleted: []uuid.UUID{id(1)}})
	expect(s, k, 0, -1)
	expect(s, shard, 0, 1)
}

// A store that was away has heard of nobody meanwhile. For a moment that is held
// against no agent, and afterwards against those that have not come back.
func TestNobodyIsOverdueWhenTheStoreIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		k := key(1, 0)
		r.source.agents = []metadata.Agent{agent(1, 20*time.Second), agent(2, 0)}
		r.apply(metadata.Topology{Topics: []metadata.Topic{topic(1, "t", 1)}, Leaders: []metadata.Leader{leader(k, 1, 3)}})
		const outage = 2*interval + time.Second
		time.Sleep(outage)
		for _, step := range []struct {
			age  time.Duration // of the leader's heartbeat
			want int32
		}{{20*time.Second + outage, 1}, {fresh + outage, 2}, {fresh - 1, 1}} {
			r.source.agents = []metadata.Agent{agent(1, step.age), agent(2, 0)}
			if a, _, _ := r.apply(metadata.Topology{}).Leader(k); a.NodeID != step.want {
				t.Errorf("heard of %s ago: the leader is %d, want %d", step.age, a.NodeID, step.want)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(interval / 2)
		r.source.agents = []metadata.Agent{agent(1, fresh), agent(2, 0)}
		if a, _, _ := r.apply(metadata.Topology{}).Leader(k); a.NodeID != 2 {
			t.Errorf("later: the leader is %d", a.NodeID)
		}
	})
}

func TestConfigsOfResources(t *testing.T) {
	t.Parallel()
	r := newRig(t) // the agent is node 0
	of := func(kind kmsg.ConfigResourceType, name string, configs map[string]string) metadata.ResourceConfigs {
		return metadata.ResourceConfigs{Resource: metadata.Resource{Type: int8(kind), Name: name}, Configs: configs}
	}
	const group, broker = kmsg.ConfigResourceTypeGroupConfig, kmsg.ConfigResourceTypeBroker
	first := r.apply(metadata.Topology{
		Topics: []metadata.Topic{topic(1, "a", 1)},
		Resources: []metadata.ResourceConfigs{
			of(group, "g", map[string]string{"consumer.session.timeout.ms": "50000"}),
			of(group, "f", map[string]string{"consumer.session.timeout.ms": "51000"}),
			of(broker, "0", map[string]string{"message.max.bytes": "200"}),
			of(broker, "1", map[string]string{"message.max.bytes": "300"}),
		},
	})
	second := r.apply(metadata.Topology{Resources: []metadata.ResourceConfigs{of(group, "g", nil), of(broker, "0", nil)}})
	for _, test := range []struct {
		name     string
		s        *topology.Snapshot
		groups   []string
		session  time.Duration // of g
		maxBytes int32
	}{
		{"set", first, []string{"f", "g"}, 50 * time.Second, 200},
		{"removed", second, []string{"f"}, 45 * time.Second, 100},
	} {
		if got := test.s.Resources(group); !slices.Equal(got, test.groups) {
			t.Errorf("%s: groups with configs %v, want %v", test.name, got, test.groups)
		}
		if got := test.s.Group("g").SessionTimeout; got != test.session {
			t.Errorf("%s: session timeout %v, want %v", test.name, got, test.session)
		}
		if got := test.s.TopicByName("a").Config.MaxMessageBytes; got != test.maxBytes {
			t.Errorf("%s: max.message.bytes of a topic %d, want %d", test.name, got, test.maxBytes)
		}
	}
	if got := second.Resource(metadata.Resource{Type: int8(broker), Name: "1"})["message.max.bytes"]; got != "300" {
		t.Errorf("another agent's message.max.bytes is %q", got)
	}
}

// Agents place alike whatever the order in which they know each other; one that
// comes or goes moves no partition but its own.
func TestPlacement(t *testing.T) {
	t.Parallel()
	place := func(t *rapid.T, nodes []int32) map[lease.Key]int32 {
		src := &source{}
		for _, n := range nodes {
			src.agents = append(src.agents, agent(n, 0))
		}
		static, err := config.NewBroker(nil)
		if err != nil {
			t.Fatal(err)
		}
		w := topology.NewWatcher(topology.Config{Interval: interval, AgentFresh: fresh, Broker: static, Deleted: func(uuid.UUID) {}},
			src, slog.New(slog.DiscardHandler))
		s, err := w.Refresh(context.Background(), 0)
		if err != nil {
			t.Fatal(err)
		}
		placed := map[lease.Key]int32{}
		for p := range int32(300) {
			a, _, _ := s.Leader(key(1, p))
			placed[key(1, p)] = a.NodeID
		}
		return placed
	}
	rapid.Check(t, func(t *rapid.T) {
		nodes := rapid.SliceOfNDistinct(rapid.Int32Range(1, 1000), 2, 8, rapid.ID[int32]).Draw(t, "nodes")
		all := place(t, nodes)
		if !maps.Equal(all, place(t, rapid.Permutation(nodes).Draw(t, "order"))) {
			t.Fatal("another order places differently")
		}
		count := map[int32]int{}
		without := place(t, nodes[1:])
		for k, node := range all {
			count[node]++
			if node != nodes[0] && without[k] != node {
				t.Fatalf("%v moved from %d to %d though %d left", k, node, without[k], nodes[0])
			}
		}
		for _, n := range nodes {
			if share := 300 / len(nodes); count[n] < share/3 || count[n] > share*3 {
				t.Fatalf("of 300 partitions over %d agents, %d has %d", len(nodes), n, count[n])
			}
		}
	})
}

// refreshing is a Refresh under way in a synctest bubble.
type refreshing struct {
	ended    chan struct{}
	snapshot *topology.Snapshot // with err, once it has ended
	err      error
}

func (f *refreshing) done() bool {
	select {
	case <-f.ended:
		return true
	default:
		return false
	}
}

func (r *rig) refresh(ctx context.Context, maxAge time.Duration) *refreshing {
	f := &refreshing{ended: make(chan struct{})}
	go func() {
		defer close(f.ended)
		f.snapshot, f.err = r.Refresh(ctx, maxAge)
	}()
	synctest.Wait()
	return f
}

func TestRefreshesShareARoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.source.took = time.Second
		var all []*refreshing
		for range 10 {
			all = append(all, r.refresh(t.Context(), 0), r.refresh(t.Context(), time.Hour))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		for i, f := range all {
			if !f.done() || f.err != nil || f.snapshot.Version != 1 {
				t.Fatalf("refresh %d: %+v", i, f)
			}
		}
		if n := r.source.statements(); n != 1 {
			t.Errorf("%d statements", n)
		}
	})
}

// A round trip that began before a change may not have seen it.
func TestRefreshWaitsForARoundTripThatBeganLateEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.source.took = time.Second
		first := r.refresh(t.Context(), 0)
		time.Sleep(300 * time.Millisecond)
		old, now1, now2 := r.refresh(t.Context(), 300*time.Millisecond), r.refresh(t.Context(), 0), r.refresh(t.Context(), 299*time.Millisecond)
		time.Sleep(700 * time.Millisecond)
		synctest.Wait()
		if !first.done() || !old.done() || now1.done() || now2.done() {
			t.Fatalf("after the first round trip: %v %v %v %v", first.done(), old.done(), now1.done(), now2.done())
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if !now1.done() || !now2.done() || now1.snapshot.Version != 2 || r.source.statements() != 2 {
			t.Errorf("after the second: %+v, %+v, %d statements", now1, now2, r.source.statements())
		}
	})
}

func TestRefreshMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.apply(metadata.Topology{})
		time.Sleep(time.Second)
		if f := r.refresh(t.Context(), time.Second); !f.done() || f.snapshot.Version != 1 || r.source.statements() != 1 {
			t.Errorf("young enough: %+v", f)
		}
		if f := r.refresh(t.Context(), time.Second-1); !f.done() || f.snapshot.Version != 2 {
			t.Errorf("too old: %+v", f)
		}
	})
}

func TestRefreshErrorKeepsTheLastSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		last := r.apply(metadata.Topology{Topics: []metadata.Topic{topic(1, "a", 1)}})
		r.source.fail(metadata.ErrUnavailable)
		time.Sleep(time.Second)
		f := r.refresh(t.Context(), 0)
		if !f.done() || !errors.Is(f.err, metadata.ErrUnavailable) || f.snapshot != last || r.Snapshot() != last {
			t.Errorf("%+v", f)
		}
		r.source.fail(nil)
		if s := r.apply(metadata.Topology{}); names(t, s) != "a=1/1 " {
			t.Errorf("after the error: %s", names(t, s))
		}
	})
}

// Nor is the error of a round trip that began too early an answer.
func TestRefreshOutlivesTheErrorOfAnOlderRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.source.took = time.Second
		r.source.fail(metadata.ErrUnavailable)
		first := r.refresh(t.Context(), 0)
		time.Sleep(time.Millisecond)
		second := r.refresh(t.Context(), 0)
		time.Sleep(time.Second)
		r.source.fail(nil)
		time.Sleep(time.Second)
		synctest.Wait()
		if !errors.Is(first.err, metadata.ErrUnavailable) || !second.done() || second.err != nil || second.snapshot.Version != 1 {
			t.Errorf("%+v, %+v", first, second)
		}
	})
}

func TestRefreshOfAStoreThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.source.took = time.Hour
		ctx, cancel := context.WithCancel(t.Context())
		first, second := r.refresh(ctx, 0), r.refresh(t.Context(), 0)
		cancel()
		synctest.Wait()
		if !first.done() || !errors.Is(first.err, context.Canceled) || first.snapshot == nil || second.done() {
			t.Fatalf("when the first leaves: %+v, %+v", first, second)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if !second.done() || !errors.Is(second.err, context.DeadlineExceeded) {
			t.Errorf("after the timeout: %+v", second)
		}
	})
}

func TestRunLooksAtASteadyPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.source.answers = []*metadata.Topology{{Topics: []metadata.Topic{topic(1, "a", 1)}}, {Deleted: []uuid.UUID{id(1)}}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		time.Sleep(interval + time.Second)
		if names(t, r.Snapshot()) != "a=1/1 " {
			t.Errorf("after one interval: %s", names(t, r.Snapshot()))
		}
		// A view that somebody has just asked for does.
		time.Sleep(interval - 2*time.Second)
		if f := r.refresh(t.Context(), 0); f.err != nil || len(r.deleted) != 1 {
			t.Fatalf("%+v, told of %d deletions", f, len(r.deleted))
		}
		time.Sleep(2 * time.Second)
		if n := r.source.statements(); n != 2 {
			t.Errorf("%d statements", n)
		}
		r.source.fail(metadata.ErrUnavailable)
		time.Sleep(3 * interval)
		if n := r.source.statements(); n != 5 || r.Snapshot().Version != 2 {
			t.Errorf("%d statements; version %d", n, r.Snapshot().Version)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func BenchmarkLeader(b *testing.B) {
	src := &source{}
	for n := range int32(50) {
		src.agents = append(src.agents, agent(n, 0))
	}
	static, err := config.NewBroker(nil)
	if err != nil {
		b.Fatal(err)
	}
	w := topology.NewWatcher(topology.Config{Interval: interval, AgentFresh: fresh, Broker: static}, src, slog.New(slog.DiscardHandler))
	src.answers = []*metadata.Topology{{Leaders: []metadata.Leader{leader(key(1, 0), 49, 1)}}}
	s, err := w.Refresh(b.Context(), 0)
	if err != nil {
		b.Fatal(err)
	}
	for name, k := range map[string]lease.Key{"held": key(1, 0), "placed": key(1, 1)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.Leader(k)
			}
		})
	}
}
