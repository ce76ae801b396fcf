package group

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/streamhouse/streamhouse/internal/testdb"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/postgres"
)

// benchCluster is a coordinator of all shards on a PostgreSQL server that syncs its
// log, with the partitions of one topic.
type benchCluster struct {
	*Coordinator
	b          *testing.B
	manager    *lease.Manager
	database   string
	partitions []lease.Key
}

func newBenchCluster(b *testing.B) *benchCluster {
	c := &benchCluster{b: b, database: testdb.StartPostgres(b).Database()}
	store, err := postgres.Open(b.Context(), c.database, postgres.Options{AgentID: "a", Session: uuid.New()})
	if err != nil {
		b.Fatal(err)
	}
	topic := metadata.NewTopic{ID: uuid.New(), Name: "t", Partitions: 1000}
	if err := store.CreateTopic(b.Context(), topic); err != nil {
		b.Fatal(err)
	}
	for p := range topic.Partitions {
		c.partitions = append(c.partitions, lease.Key{TopicID: topic.ID, Partition: p})
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	c.manager = lease.NewManager(store, "a", lease.DefaultConfig(), lease.NewMetrics(prometheus.NewRegistry()), log)
	cfg := DefaultConfig()
	cfg.InitialRebalanceDelay = 50 * time.Millisecond
	c.Coordinator = NewCoordinator(store, c.manager, noTopics, "a", cfg, NewMetrics(prometheus.NewRegistry()), log)
	ctx, end := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	parts.Go(func() { _ = c.manager.Run(ctx) })
	parts.Go(func() { _ = c.Run(ctx) })
	b.Cleanup(func() {
		end()
		parts.Wait()
		if err := store.Close(); err != nil {
			b.Error(err)
		}
	})
	return c
}

// must waits for an answer.
func must[T any](b *testing.B, p Pending[T]) T {
	answer, err := p.Wait(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return answer
}

// join makes a request of a member with a subscription of a common size.
func (c *benchCluster) join(group, member string) Pending[JoinResponse] {
	r := joinRequest(group, member)
	r.SessionTimeout = 5 * time.Minute
	r.Protocols = []Protocol{{Name: "range", Metadata: make([]byte, 100)}}
	return c.Join(r)
}

// rebalance takes members from their joins to their assignments.
func (c *benchCluster) rebalance(group string, joins []Pending[JoinResponse]) []Membership {
	members, syncs := make([]Membership, len(joins)), make([]Pending[SyncResponse], len(joins))
	for i, join := range joins {
		j := must(c.b, join)
		members[i] = Membership{Group: group, MemberID: j.MemberID, Generation: j.Generation}
		sync := SyncRequest{Membership: members[i]}
		for _, m := range j.Members {
			sync.Assignments = append(sync.Assignments, Assignment{m.MemberID, make([]byte, 100)})
		}
		syncs[i] = c.Sync(sync)
	}
	for _, s := range syncs {
		must(c.b, s)
	}
	return members
}

// form makes groups with their members.
func (c *benchCluster) form(groups, members int) (all []Membership) {
	joins := make([][]Pending[JoinResponse], groups)
	for g := range joins {
		for range members {
			joins[g] = append(joins[g], c.join(fmt.Sprintf("group-%d", g), ""))
		}
	}
	for g := range joins {
		all = append(all, c.rebalance(fmt.Sprintf("group-%d", g), joins[g])...)
	}
	return all
}

// BenchmarkGroupsCommit is the commits of 1,000 groups of one member, with 500 under
// way.
func BenchmarkGroupsCommit(b *testing.B) {
	for _, partitions := range []int{1, 10} {
		b.Run(fmt.Sprintf("partitions=%d", partitions), func(b *testing.B) {
			c := newBenchCluster(b)
			members := c.form(1000, 1)
			pending := make([]Pending[[]error], 500)
			before := testdb.Transactions(b, c.database)
			for n := 0; b.Loop(); n++ {
				p := &pending[n%len(pending)]
				if p.call != nil {
					must(b, *p)
				}
				r := CommitRequest{Membership: members[n%len(members)]}
				for i := range partitions {
					r.Offsets = append(r.Offsets, metadata.CommittedOffset{Key: c.partitions[(n+i)%len(c.partitions)], Offset: int64(n)})
				}
				*p = c.Commit(r)
			}
			for _, p := range pending {
				if p.call != nil {
					must(b, p)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
			b.ReportMetric(float64(b.N)/float64(testdb.Transactions(b, c.database)-before), "commits/transaction")
		})
	}
}

// BenchmarkGroupsAtRest is 1,000 groups of ten members each, with a heartbeat every
// three seconds. One operation is a minute, so that the leases are renewed in it.
func BenchmarkGroupsAtRest(b *testing.B) {
	c := newBenchCluster(b)
	members := c.form(1000, 10)
	tick := time.NewTicker(3 * time.Second)
	defer tick.Stop()
	// What forming the groups has cost is reported first.
	for range 5 {
		<-tick.C
	}
	before := testdb.Transactions(b, c.database)
	var busy time.Duration
	for b.Loop() {
		for range 20 {
			start := time.Now()
			for _, m := range members {
				must(b, c.Heartbeat(HeartbeatRequest{m}))
			}
			busy += time.Since(start)
			<-tick.C
		}
	}
	b.ReportMetric(float64(testdb.Transactions(b, c.database)-before)/b.Elapsed().Seconds(), "transactions/s")
	b.ReportMetric(float64(busy.Nanoseconds())/float64(b.N*20*len(members)), "ns/heartbeat")
}

// BenchmarkGroupsRebalance is from the join of the last member to all assignments, of
// a group whose other members learn of it at once.
func BenchmarkGroupsRebalance(b *testing.B) {
	const size = 100
	c := newBenchCluster(b)
	members := c.form(1, size)
	saved := testutil.ToFloat64(c.metrics.saved)
	for b.Loop() {
		joins := []Pending[JoinResponse]{c.join("group-0", "")}
		for _, m := range members {
			joins = append(joins, c.join(m.Group, m.MemberID))
		}
		all := c.rebalance("group-0", joins)

		b.StopTimer() // the newcomer leaves, and the others rebalance
		must(b, c.Leave(LeaveRequest{Group: "group-0", Members: []LeavingMember{{MemberID: all[0].MemberID}}}))
		joins = joins[:0]
		for _, m := range members {
			joins = append(joins, c.join(m.Group, m.MemberID))
		}
		members = c.rebalance("group-0", joins)
		b.StartTimer()
	}
	b.ReportMetric((testutil.ToFloat64(c.metrics.saved)-saved)/float64(2*b.N), "writes/rebalance")
}

// BenchmarkGroupsTakeOver is from a new coordinator's first request to the answers to
// the heartbeats of 1,000 groups of ten members each.
func BenchmarkGroupsTakeOver(b *testing.B) {
	c := newBenchCluster(b)
	members := c.form(1000, 10)
	pending := make([]Pending[struct{}], len(members))
	for b.Loop() {
		b.StopTimer()
		for n := range int32(metadata.GroupShards) {
			if err := c.manager.Release(b.Context(), metadata.GroupShardKey(metadata.DefaultAgentGroup, n)); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		for i, m := range members {
			pending[i] = c.Heartbeat(HeartbeatRequest{m})
		}
		for _, p := range pending {
			must(b, p)
		}
	}
}
