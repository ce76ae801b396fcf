package bench

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"
)

const (
	rebalancedMembers = 100
	manyGroups        = 1000
	membersAtRest     = 10 // of each group
	groupLanes        = 100
	javaHeartbeats    = 3 * time.Second // what the Java client's heartbeat.interval.ms is by default
	groupsTime        = 3 * time.Minute // for each scenario, at most
	// statisticsTime is longer than PostgreSQL keeps what an idle connection did before it shows it: ten seconds.
	statisticsTime = 15 * time.Second
)

// The quantities of groups.
const (
	joinP50, joinMaximum, joinRounds    = "join-p50-ms", "join-max-ms", "join-rounds"
	leaveP50, leaveMaximum, leaveRounds = "leave-p50-ms", "leave-max-ms", "leave-rounds"
	commitsPerSecond                    = "commits/s"
	commitsPerTransaction               = "commits/transaction"
	cpuPerCommit                        = "CPU-µs/commit"
	heartbeatsPerSecond                 = "heartbeats/s"
)

// groupResults are the tables of consumer groups.
type groupResults struct {
	classic, consumer, consumerMoving, commits, atRest Table
}

func newGroupResults() groupResults {
	classic := []Column{{Unit: joinP50}, {Unit: joinMaximum}, {Unit: leaveP50}, {Unit: leaveMaximum}}
	consumer := []Column{
		{Unit: joinP50},
		{Unit: joinMaximum},
		{Unit: joinRounds},
		{Unit: leaveP50},
		{Unit: leaveMaximum},
		{Unit: leaveRounds},
	}
	const (
		classicNote = "From the newcomer's first JoinGroup, or from LeaveGroup, until all members have been synced in one generation. " +
			"Members don't wait for their next heartbeat to learn of it: they ask at once, and again after pauses that begin at 1 ms."
		consumerNote = "From the newcomer's first heartbeat, or its last, until all members are in the new epoch and have all partitions between them. " +
			"Heartbeats come in rounds, of all members at once, without the interval in between that clients keep; rounds are those of the median. " +
			"consumer.assignment.interval.ms is 0."
	)
	of := func(protocol string, partitions int) string {
		return fmt.Sprintf("Rebalance of %d members, %s protocol, a topic of %d partitions: member %d joins, and leaves",
			rebalancedMembers, protocol, partitions, rebalancedMembers+1)
	}
	return groupResults{
		classic:        Table{Title: of("classic", rebalancedMembers), Note: classicNote, Columns: classic},
		consumer:       Table{Title: of("consumer", rebalancedMembers), Note: consumerNote, Columns: consumer},
		consumerMoving: Table{Title: of("consumer", 10*rebalancedMembers), Note: "The same, but that a newcomer takes partitions from others.", Columns: consumer},
		commits: Table{
			Title: fmt.Sprintf("Offset commits of %d groups of 1 member, 1 partition each, %d connections with %d commits in flight each",
				manyGroups, groupLanes, manyGroups/groupLanes),
			Columns: []Column{
				{Unit: commitsPerSecond},
				{Unit: p50},
				{Unit: p99},
				{Unit: cpuPerCommit},
				{Unit: transactionsPerSecond},
				{Unit: commitsPerTransaction},
			},
		},
		atRest: Table{
			Title: fmt.Sprintf("%d groups of %d members at rest, heartbeats every %s, %d connections",
				manyGroups, membersAtRest, javaHeartbeats, groupLanes*membersAtRest),
			Columns: []Column{
				{Unit: percentOfCore},
				{Unit: queriesPerSecond, Goal: 20},
				{Unit: transactionsPerSecond, Goal: 20},
				{Unit: heartbeatsPerSecond},
				{Unit: p50},
				{Unit: p99},
				{Unit: residentMiB},
			},
		},
	}
}

func (r *groupResults) tables() []*Table {
	return []*Table{&r.classic, &r.consumer, &r.consumerMoving, &r.commits, &r.atRest}
}

// groupsLoad makes a topic for groups to be about, on a target whose coordinators answer. The context bounds the
// scenario.
func groupsLoad(ctx context.Context, b *testing.B, t target, topic string, partitions int) Load {
	b.Helper()
	if err := AwaitCoordinators(ctx, t.Address()); err != nil {
		b.Fatal(err)
	}
	if err := CreateTopics(ctx, t.Address(), partitions, topic); err != nil {
		b.Fatal(err)
	}
	return Load{Address: t.Address(), Topic: topic, Partitions: partitions}
}

func (r *groupResults) measureRebalances(b *testing.B, t target) {
	type measurement func(ctx context.Context, load Load, members, times int) (joins, leaves []Rebalance, err error)
	for _, m := range []struct {
		name       string
		table      *Table
		rebalance  measurement
		partitions int
	}{
		{"classic", &r.classic, ClassicRebalances, rebalancedMembers},
		{"consumer", &r.consumer, ConsumerRebalances, rebalancedMembers},
		{"consumer-moving", &r.consumerMoving, ConsumerRebalances, 10 * rebalancedMembers},
	} {
		ctx, cancel := context.WithTimeout(b.Context(), groupsTime)
		defer cancel()
		load := groupsLoad(ctx, b, t, m.name, m.partitions)
		profiled := t.profile(ctx, b, m.name)
		joins, leaves, err := m.rebalance(ctx, load, rebalancedMembers, *rebalances)
		profiled()
		if err != nil {
			b.Fatal(err)
		}
		byTime := func(x, y Rebalance) int { return cmp.Compare(x.Took, y.Took) }
		slices.SortFunc(joins, byTime)
		slices.SortFunc(leaves, byTime)
		join, leave := joins[(len(joins)-1)/2], leaves[(len(leaves)-1)/2]
		values := map[string]float64{
			joinP50: milliseconds(join), joinMaximum: milliseconds(joins[len(joins)-1]),
			leaveP50: milliseconds(leave), leaveMaximum: milliseconds(leaves[len(leaves)-1]),
		}
		if join.Rounds > 0 {
			values[joinRounds], values[leaveRounds] = float64(join.Rounds), float64(leave.Rounds)
		}
		add(b, m.table, t.name, m.name+"-", values)
	}
}

func milliseconds(r Rebalance) float64 { return r.Took.Seconds() * 1e3 }

func (r *groupResults) measureCommits(b *testing.B, t target) {
	ctx, cancel := context.WithTimeout(b.Context(), groupsTime)
	defer cancel()
	groups, err := FormGroups(ctx, groupsLoad(ctx, b, t, "committed", 100), manyGroups, 1, groupLanes)
	if err != nil {
		b.Fatal(err)
	}
	defer groups.Close()
	if _, err := groups.Commit(*warmUp); err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	begin := time.Now()
	profiled := t.profile(ctx, b, "OffsetCommit")
	used := t.usage(ctx, b, func() { took, err = groups.Commit(*commits) })
	profiled()
	if err != nil {
		b.Fatal(err)
	}
	rate := float64(len(took)) / time.Since(begin).Seconds()
	values := map[string]float64{
		commitsPerSecond: rate, p50: Quantile(took, 0.5), p99: Quantile(took, 0.99),
		cpuPerCommit: used[percentOfCore] / 100 / rate * 1e6,
	}
	if transactions, ok := used[transactionsPerSecond]; ok {
		values[transactionsPerSecond], values[commitsPerTransaction] = transactions, rate/transactions
	}
	add(b, &r.commits, t.name, "", values)
}

func (r *groupResults) measureAtRest(b *testing.B, t target) {
	ctx, cancel := context.WithTimeout(b.Context(), groupsTime)
	defer cancel()
	groups, err := FormGroups(ctx, groupsLoad(ctx, b, t, "rested", 100), manyGroups, membersAtRest, groupLanes)
	if err != nil {
		b.Fatal(err)
	}
	defer groups.Close()
	if _, err := groups.Rest(ctx, javaHeartbeats, statisticsTime); err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	profiled := t.profile(ctx, b, "Heartbeat")
	values := t.usage(ctx, b, func() { took, err = groups.Rest(ctx, javaHeartbeats, *idle) })
	profiled()
	if err != nil {
		b.Fatal(err)
	}
	values[heartbeatsPerSecond] = float64(len(took)) / idle.Seconds()
	values[p50], values[p99] = Quantile(took, 0.5), Quantile(took, 0.99)
	values[residentMiB] = t.residentMiB(b)
	add(b, &r.atRest, t.name, "", values)
}
