package group

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// TestConcurrentConsumers has many consumers of many groups and two coordinators,
// while shards move, leases are taken away, and writes fail or leave their outcome
// unknown. Whoever holds the last acknowledged position finds it, a member has one
// assignment in a generation whoever tells it, and members go on in their generation
// with another coordinator.
func TestConcurrentConsumers(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeStore()
				quick := func(c *Config) { c.InitialRebalanceDelay = time.Millisecond }
				agents := []*agent{startAgent(t, f, "a", quick), startAgent(t, f, "b", quick)}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				var all sync.WaitGroup
				var resumed atomic.Int64
				for n := range 40 {
					c := &testConsumer{t: t, ctx: ctx, agents: agents, group: fmt.Sprintf("group-%d", n%8), number: n, resumed: &resumed}
					all.Go(c.run)
				}
				all.Go(func() { disturb(t, ctx, f, agents, rand.New(rand.NewPCG(seed, 0))) })
				all.Wait()
				if resumed.Load() == 0 {
					t.Error("nobody went on with another coordinator")
				}
			})
		})
	}
}

// disturb lets something happen to a shard every few seconds.
func disturb(t *testing.T, ctx context.Context, f *fakeStore, agents []*agent, rnd *rand.Rand) {
	faults := []fault{
		{err: metadata.ErrUnavailable},
		{err: metadata.ErrUnknownOutcome},
		{err: metadata.ErrUnknownOutcome, applied: true},
	}
	for ctx.Err() == nil {
		key := metadata.GroupShard(metadata.DefaultAgentGroup, fmt.Sprintf("group-%d", rnd.IntN(8)))
		switch n := rnd.IntN(6); {
		case n < 2:
			noError(t, agents[n].manager.Release(context.Background(), key))
		case n == 2:
			f.takeOver(key, agents[rnd.IntN(2)].agentID)
		default:
			once := make(chan struct{}, 1)
			once <- struct{}{}
			f.setFault(func(_ context.Context, op string) fault {
				if op == "write" {
					select {
					case <-once:
						return faults[n-3]
					default:
					}
				}
				return fault{}
			})
		}
		time.Sleep(time.Duration(rnd.Int64N(int64(4 * time.Second))))
	}
}

// testConsumer joins, commits and leaves until ctx ends. It has a partition of its
// own, whose position only grows.
type testConsumer struct {
	t       *testing.T
	ctx     context.Context
	agents  []*agent
	group   string
	number  int
	resumed *atomic.Int64 // members that went on with another coordinator

	at           int // the agent that it takes for the coordinator
	id           string
	attempted    int64
	acknowledged int64
}

// moved says whether the consumer has to ask the other agent, and makes it do so.
func (c *testConsumer) moved(err error) bool {
	if !errors.Is(err, kerr.NotCoordinator) && !errors.Is(err, kerr.CoordinatorNotAvailable) {
		return false
	}
	c.at = (c.at + 1) % len(c.agents)
	time.Sleep(100 * time.Millisecond)
	return c.ctx.Err() == nil
}

func (c *testConsumer) run() {
	assigned := make(map[Membership]string)
	for c.ctx.Err() == nil {
		join := joinRequest(c.group, c.id)
		join.KnownMemberID = true
		j, err := c.agents[c.at].Join(join).Wait(c.ctx)
		switch {
		case c.moved(err):
			continue
		case errors.Is(err, kerr.MemberIDRequired):
			c.id = j.MemberID
			continue
		case err != nil:
			c.id = ""
			time.Sleep(100 * time.Millisecond)
			continue
		}
		m := Membership{Group: c.group, MemberID: c.id, Generation: j.Generation}
		sync := SyncRequest{Membership: m}
		for _, o := range j.Members {
			sync.Assignments = append(sync.Assignments, Assignment{o.MemberID, fmt.Appendf(nil, "%s of %s at %v", o.MemberID, c.id, time.Now())})
		}
		s, err := c.agents[c.at].Sync(sync).Wait(c.ctx)
		if c.moved(err) || err != nil {
			continue
		}
		if before, ok := assigned[m]; ok && before != string(s.Assignment) {
			c.t.Errorf("%v: assigned %q, and %q before", m, s.Assignment, before)
		}
		assigned[m] = string(s.Assignment)
		c.consume(m)
		if c.number%3 == 0 {
			_, _ = c.agents[c.at].Leave(LeaveRequest{Group: c.group, Members: []LeavingMember{{MemberID: c.id}}}).Wait(c.ctx)
			c.id = ""
		}
	}
	if c.acknowledged == 0 {
		c.t.Errorf("consumer %d of %s never committed", c.number, c.group)
	}
}

// consume commits in one generation, until it ends.
func (c *testConsumer) consume(m Membership) {
	moved := false
	for range 5 + c.number%7 {
		time.Sleep(3 * time.Second)
		_, err := c.agents[c.at].Heartbeat(HeartbeatRequest{m}).Wait(c.ctx)
		switch {
		case c.moved(err):
			moved = true
			continue
		case err != nil:
			return
		case moved:
			moved = false
			c.resumed.Add(1)
		}
		c.attempted++
		key := lease.Key{Partition: int32(c.number)}
		next := metadata.CommittedOffset{Key: key, Offset: c.attempted}
		commit := c.agents[c.at].Commit(CommitRequest{Membership: m, Offsets: []metadata.CommittedOffset{next}})
		fetch := c.agents[c.at].Fetch(FetchRequest{Group: c.group})
		if _, err := commit.Wait(c.ctx); c.moved(err) {
			continue
		} else if err != nil {
			return
		}
		c.acknowledged = c.attempted
		checkFetched(c.t, c.ctx, fetch, key, c.acknowledged)
	}
}

func checkFetched(t *testing.T, ctx context.Context, fetch Pending[[]metadata.CommittedOffset], key lease.Key, want int64) {
	stored, err := fetch.Wait(ctx)
	if err != nil {
		return
	}
	for _, o := range stored {
		if o.Key == key {
			if o.Offset < want {
				t.Errorf("fetched %d, but %d was acknowledged", o.Offset, want)
			}
			return
		}
	}
	t.Errorf("fetched nothing, but %d was acknowledged", want)
}
