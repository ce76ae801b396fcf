package rpc

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// view is what all agents of a test see.
type view struct {
	mu     sync.Mutex
	agents map[string]metadata.Agent
	hidden map[string]metadata.Agent // that a refresh finds
	asked  int                       // refreshes
}

func newView() *view {
	return &view{agents: map[string]metadata.Agent{}, hidden: map[string]metadata.Agent{}}
}

func (v *view) Agent(id string) (metadata.Agent, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	a, ok := v.agents[id]
	return a, ok
}

func (v *view) Refresh(context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asked++
	maps.Copy(v.agents, v.hidden)
	return nil
}

func (v *view) put(a metadata.Agent) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.agents[a.ID] = a
}

// party is an agent of a test.
type party struct {
	*Client
	self metadata.Agent
	reg  *prometheus.Registry
	log  *logLines
	stop func() // ends client and server, and waits for them
}

// options are what is particular about a party.
type options struct {
	view     *view
	id, zone string
	identity Identity
	handlers Handlers
	cfg      Config
	listener net.Listener
	address  string // if not the listener's
}

// testSecret returns the identity that parties have if nothing is said.
func testSecret(t testing.TB) Identity {
	t.Helper()
	id, err := FromSecret([]byte("a secret of the test"), "", func() string { return "cluster" })
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func start(t testing.TB, o options) *party {
	t.Helper()
	var err error
	if o.listener == nil {
		if o.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	if o.identity == nil {
		o.identity = testSecret(t)
	}
	if o.address == "" {
		o.address = o.listener.Addr().String()
	}
	p := &party{self: metadata.Agent{ID: o.id, Session: uuid.New(), Zone: o.zone, PeerAddress: o.address}}
	p.reg, p.log = prometheus.NewRegistry(), new(logLines)
	m, log := NewMetrics(p.reg), slog.New(p.log)
	p.Client = NewClient(o.cfg, p.self, o.view, o.identity, m, log)
	server := NewServer(o.cfg, p.self, o.view, o.identity, o.handlers, m, log)
	o.view.put(p.self)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	running.Go(func() {
		if err := server.Serve(ctx, o.listener); err != nil {
			t.Error(err)
		}
	})
	p.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(p.stop)
	return p
}

// metric returns the sum of a metric over all labels but those that are given.
func (p *party) metric(t *testing.T, name string, labels ...string) (sum float64) {
	t.Helper()
	families, err := p.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	series:
		for _, m := range f.GetMetric() {
			for i := 0; i < len(labels); i += 2 {
				found := false
				for _, l := range m.GetLabel() {
					found = found || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
				}
				if !found {
					continue series
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// logLines keeps the messages of a log from the level of warnings on.
type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *logLines) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }
func (l *logLines) WithAttrs([]slog.Attr) slog.Handler               { return l }
func (l *logLines) WithGroup(string) slog.Handler                    { return l }
func (l *logLines) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, r.Message)
	return nil
}

func (l *logLines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines
}

// await waits for an event of another goroutine.
func await[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(time.Minute):
		t.Fatalf("%s does not happen", what)
	}
	return v
}

// commitOf is a commit of n batches to an agent.
func commitOf(agentID string, n int) *metadata.Commit {
	c := &metadata.Commit{AgentID: agentID, Objects: []metadata.CommitObject{{ID: segment.NewID(), Size: int64(n) << 14}}}
	topic := uuid.New()
	for i := range n {
		c.Objects[0].Batches = append(c.Objects[0].Batches, metadata.CommitBatch{
			Key: lease.Key{TopicID: topic, Partition: int32(i)}, LeaderEpoch: 1,
			Position: int64(i) << 14, Length: 1 << 14, Records: 10, ProducerID: 7, MaxTimestamp: 1_795_000_000_000,
		})
	}
	return c
}

// committed are results for a commit: all batches are at 40.
func committed(_ context.Context, _ metadata.Agent, c *metadata.Commit) ([][]metadata.CommitResult, error) {
	results := make([][]metadata.CommitResult, len(c.Objects))
	for i, o := range c.Objects {
		results[i] = make([]metadata.CommitResult, len(o.Batches))
		for j := range results[i] {
			results[i][j] = metadata.CommitResult{BaseOffset: 40, AppendTime: -1}
		}
	}
	return results, nil
}

// channelFeed tells what it is given.
type channelFeed struct {
	news   chan []metadata.Growth
	wants  chan [2][]lease.Key
	closed chan struct{}
}

func newChannelFeed() *channelFeed {
	return &channelFeed{news: make(chan []metadata.Growth), wants: make(chan [2][]lease.Key, 100), closed: make(chan struct{})}
}

func (f *channelFeed) Want(add, drop []lease.Key) { f.wants <- [2][]lease.Key{add, drop} }
func (f *channelFeed) Close()                     { close(f.closed) }
func (f *channelFeed) Next(ctx context.Context) ([]metadata.Growth, error) {
	select {
	case news := <-f.news:
		return news, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// channelFollower wants what it is given, and hands on what it hears.
type channelFollower struct {
	mu        sync.Mutex
	add, drop []lease.Key
	changed   chan struct{}
	grown     chan []metadata.Growth
}

func newChannelFollower(add ...lease.Key) *channelFollower {
	return &channelFollower{add: add, changed: make(chan struct{}), grown: make(chan []metadata.Growth)}
}

func (f *channelFollower) want(add, drop []lease.Key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.add, f.drop = append(f.add, add...), append(f.drop, drop...)
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *channelFollower) Wanted() (add, drop []lease.Key, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	add, drop, f.add, f.drop = f.add, f.drop, nil, nil
	return add, drop, f.changed
}

func (f *channelFollower) Grown(news []metadata.Growth) { f.grown <- news }
