package compattests

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/internal/testdb"
)

const (
	chaosTopic      = "chaos"
	chaosPartitions = 12
	chaosMembers    = 3 // of each group
	chaosAgents     = 3
	// chaosCalm is how long all is well before the first fault.
	chaosCalm = 8 * time.Second
	// chaosProduceInterval is the time between two records of a partition, chaosWatchInterval that between two looks at
	// the committed offsets.
	chaosProduceInterval = 100 * time.Millisecond
	chaosWatchInterval   = 200 * time.Millisecond
	// chaosRecovery is how long after the last fault every group has committed all there is.
	chaosRecovery = 2 * time.Minute
)

// chaosGroup is a group, and how its members join.
type chaosGroup struct {
	kind, name string
	// protocols are those that its members choose from, each time they start: names in chaosProtocols.
	protocols []string
	static    bool // members have a group.instance.id (KIP-345)
}

// chaosProtocols are the ways to be a member.
var chaosProtocols = map[string][]kgo.Opt{
	"eager":       {kgo.Balancers(kgo.RangeBalancer())},
	"cooperative": {kgo.Balancers(kgo.CooperativeStickyBalancer())},                // KIP-429
	"consumer":    {kgo.Balancers(kgo.StickyBalancer()), kgo.ServerSideBalancer()}, // KIP-848
}

// chaosGroups are two groups of each kind, so that they are on different agents now and then. Members of some speak the
// classic protocol and that of KIP-848 at once, as in an online upgrade.
func chaosGroups() (groups []chaosGroup) {
	for _, g := range []chaosGroup{
		{kind: "eager", protocols: []string{"eager"}},
		{kind: "cooperative", protocols: []string{"cooperative"}},
		{kind: "static", protocols: []string{"cooperative"}, static: true},
		{kind: "consumer", protocols: []string{"consumer"}},
		{kind: "upgrade", protocols: []string{"cooperative", "consumer"}},
		{kind: "eager-upgrade", protocols: []string{"eager", "consumer"}},
	} {
		for n := range 2 {
			g.name = fmt.Sprintf("%s-%d", g.kind, n+1)
			groups = append(groups, g)
		}
	}
	return groups
}

// TestGroupsChaos lets groups of all kinds consume and commit, with members that come and go, while agents are killed,
// drained, and frozen past their leases, and the database is frozen and killed. COMPAT_CHAOS is for how many seconds.
// Through it all, a partition has one owner in a group, and no committed offset goes back; afterwards, each group gets
// to the end of each partition.
func TestGroupsChaos(t *testing.T) {
	if !slow(t) {
		return
	}
	seed := seed(t)
	length := time.Duration(environmentInt(t, "COMPAT_CHAOS", 60)) * time.Second
	database := testdb.StartPostgres(t)
	agents := harness.Cluster(t, harness.Stores{Metadata: database.Database(), Objects: testdb.S3(t)}, chaosAgents, shortLeases...)
	c := startChaos(t, agents, seed, chaosCalm+length)
	f := faults{agents: agents, database: database, random: rand.New(rand.NewPCG(seed, 0))}
	pause(t.Context(), chaosCalm)
	for c.churning.Err() == nil && !t.Failed() {
		f.inject(t)
		pause(t.Context(), 3*time.Second+time.Duration(f.random.IntN(5000))*time.Millisecond)
	}
	c.finish(t)
	t.Logf("%d faults", f.injected)
	for _, what := range slices.Sorted(maps.Keys(c.history.counts)) {
		t.Logf("%s: %d", what, c.history.counts[what])
	}
}

// pause returns after d, or when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// faults are what befalls the agents and their database, one at a time.
type faults struct {
	agents   []*harness.Agent
	database *testdb.PostgresServer
	random   *rand.Rand
	injected int
}

// inject makes one fault and ends it again. A freeze may be shorter than a lease (shortLeases) or more than twice as
// long.
func (f *faults) inject(t *testing.T) {
	t.Helper()
	for _, a := range f.agents {
		if err := a.Exited(); err != nil {
			t.Errorf("agent %s ended by itself: %v", a.Address(), err)
			return
		}
	}
	ctx := deadline(t, 2*time.Minute)
	agent := f.agents[f.random.IntN(len(f.agents))]
	length := time.Duration(1+f.random.IntN(11)) * time.Second
	switch f.random.IntN(6) {
	case 0:
		f.note(t, "kill agent %s for %s", agent.Address(), length/3)
		if err := agent.Kill(); err != nil {
			t.Error(err)
		}
		pause(ctx, length/3)
		if err := agent.Start(ctx); err != nil {
			t.Error(err)
		}
	case 1, 2:
		f.note(t, "freeze agent %s for %s", agent.Address(), length)
		if err := syscall.Kill(agent.PID(), syscall.SIGSTOP); err != nil {
			t.Error(err)
		}
		pause(ctx, length)
		if err := syscall.Kill(agent.PID(), syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	case 3:
		f.note(t, "drain agent %s", agent.Address())
		if err := agent.Stop(ctx); err != nil {
			t.Error(err)
		}
		if err := agent.Start(ctx); err != nil {
			t.Error(err)
		}
	case 4:
		f.note(t, "freeze database for %s", length)
		f.database.Pause()
		pause(ctx, length)
		f.database.Resume()
	case 5:
		f.note(t, "kill database")
		f.database.Kill()
		f.database.Start()
	}
}

// note counts a fault and logs when it was.
func (f *faults) note(t *testing.T, format string, args ...any) {
	t.Helper()
	f.injected++
	t.Logf("%s %s", time.Now().UTC().Format("15:04:05.000"), fmt.Sprintf(format, args...))
}

// chaos is the groups at work, and their history.
type chaos struct {
	seeds    []string
	groups   []chaosGroup
	client   *kgo.Client // produces, and looks at the groups
	history  *groupHistory
	churning context.Context // while members leave

	stopProducing, stop context.CancelFunc
	producing, working  sync.WaitGroup
}

// startChaos starts a producer, the members, and the watch over their committed offsets. Members leave and join for
// length, and stay after that.
func startChaos(t *testing.T, agents []*harness.Agent, seed uint64, length time.Duration) *chaos {
	t.Helper()
	c := &chaos{groups: chaosGroups(), history: newGroupHistory()}
	for _, a := range agents {
		c.seeds = append(c.seeds, a.Address())
	}
	var err error
	if c.client, err = kgo.NewClient(
		kgo.SeedBrokers(c.seeds...), kgo.AlwaysRetryEOF(), kgo.RequestRetries(100), kgo.RecordPartitioner(kgo.ManualPartitioner()),
	); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.client.Close)
	if _, err := kadm.NewClient(c.client).CreateTopic(deadline(t, time.Minute), chaosPartitions, -1, nil, chaosTopic); err != nil {
		t.Fatal(err)
	}
	var working, producing context.Context
	working, c.stop = context.WithCancel(t.Context())
	producing, c.stopProducing = context.WithCancel(working)
	c.churning = deadline(t, length)
	t.Cleanup(func() {
		c.stop()
		c.producing.Wait()
		c.working.Wait()
	})
	c.producing.Go(func() { c.produce(producing) })
	c.working.Go(func() { c.watchCommitted(working) })
	for i, g := range c.groups {
		for number := range chaosMembers {
			random := rand.New(rand.NewPCG(seed, uint64(1+i*chaosMembers+number)))
			c.working.Go(func() { c.seat(working, t, g, number, random) })
		}
	}
	return c
}

// produce sends a record to each partition at a steady pace until ctx ends.
func (c *chaos) produce(ctx context.Context) {
	ticker := time.NewTicker(chaosProduceInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for partition := range int32(chaosPartitions) {
			// A record that fails is no matter of groups.
			c.client.Produce(context.Background(), &kgo.Record{Topic: chaosTopic, Partition: partition, Value: []byte("v")}, nil)
		}
	}
}

// seat is one place in a group: a member, and when that has left, the next. The first seat's member stays.
func (c *chaos) seat(ctx context.Context, t *testing.T, g chaosGroup, number int, random *rand.Rand) {
	for life := 0; ctx.Err() == nil; life++ {
		m := chaosMember{
			chaos: c, group: g,
			name:     fmt.Sprintf("%s-%d-%d", g.name, number, life),
			protocol: g.protocols[random.IntN(len(g.protocols))],
		}
		var options []kgo.Opt
		if g.static {
			options = append(options, kgo.InstanceID(fmt.Sprint("seat-", number)))
		}
		alive, leave := ctx, context.CancelFunc(func() {})
		if number > 0 && c.churning.Err() == nil {
			alive, leave = context.WithTimeout(ctx, time.Duration(5+random.IntN(40))*time.Second)
		}
		err := m.run(alive, options...)
		leave()
		if err != nil {
			t.Errorf("member %s: %v", m.name, err)
			return
		}
	}
}

// watchCommitted fetches the committed offsets of all groups, again and again, until ctx ends.
func (c *chaos) watchCommitted(ctx context.Context) {
	admin := kadm.NewClient(c.client)
	for ctx.Err() == nil {
		for _, g := range c.groups {
			acknowledged := c.history.acknowledged()
			asking, cancel := context.WithTimeout(ctx, 5*time.Second)
			offsets, err := admin.FetchOffsets(asking, g.name)
			cancel()
			if err == nil { // otherwise the faults may be why; finish sees whether it passes
				c.history.fetchedOffsets(g.name, offsets, acknowledged)
			}
		}
		pause(ctx, chaosWatchInterval)
	}
}

// finish waits until every group has committed the end of each partition, ends the members, and judges.
func (c *chaos) finish(t *testing.T) {
	t.Helper()
	ctx := deadline(t, chaosRecovery)
	c.stopProducing()
	await(ctx, t, "the producer", &c.producing)
	if err := c.client.Flush(ctx); err != nil {
		t.Errorf("flush: %v", err)
	}
	admin := kadm.NewClient(c.client)
	ends, err := admin.ListEndOffsets(ctx, chaosTopic)
	if err != nil {
		t.Fatalf("list end offsets: %v", err)
	}
	begun := time.Now()
	behind := c.behind(ctx, admin, ends)
	for len(behind) > 0 && ctx.Err() == nil {
		pause(ctx, time.Second)
		if now := c.behind(ctx, admin, ends); ctx.Err() == nil {
			behind = now
		}
	}
	for _, b := range behind {
		t.Errorf("after %s: %s", chaosRecovery, b)
	}
	t.Logf("waited for the groups for %s", time.Since(begun).Round(time.Second))
	c.stop()
	await(afterTest(t, time.Minute), t, "the members", &c.working)
	c.history.judge(t, c.groups)
}

// behind says which groups have not committed the end of which partitions.
func (c *chaos) behind(ctx context.Context, admin *kadm.Client, ends kadm.ListedOffsets) (behind []string) {
	for _, g := range c.groups {
		offsets, err := admin.FetchOffsets(ctx, g.name)
		if err != nil {
			behind = append(behind, fmt.Sprintf("%s: %v", g.name, err))
			continue
		}
		ends.Each(func(end kadm.ListedOffset) {
			if o, ok := offsets.Lookup(chaosTopic, end.Partition); !ok || o.At < end.Offset {
				behind = append(behind, fmt.Sprintf("%s has committed %d of %d of partition %d", g.name, o.At, end.Offset, end.Partition))
			}
		})
	}
	return behind
}
