package bench

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/internal/testdb"
)

const (
	manyAgents     = 10
	manyTopics     = 10
	manyPartitions = 100 // of each topic
	manyProducers  = 20
	manyValueBytes = 100

	joinTime = 15 * time.Second // a group's first assignment, and its commits after that

	trickleRate = manyTopics * manyPartitions // records a second: one in each partition
	streamRate  = 10 * trickleRate
)

// The scenarios of many agents, and the name of the only row of tables that have none of them.
const (
	trickle          = "trickle"
	stream           = "stream"
	trickleConsumers = "trickle-and-consumers"
	nothing          = "idle"
	manyLine         = cluster
)

// The quantities of many agents.
const (
	coreInStatements = "%-of-a-core-in-statements"
	walPerSecond     = "WAL-KiB/s"
	updatesPerSecond = "row-updates/s"
	percentHOT       = "%-HOT"
	deadRowsLeft     = "dead-rows"
)

// manyResults are the tables of many agents.
type manyResults struct {
	lone, steady, idle, statements Table
	calls                          map[string]map[string]float64 // a second, by statement and scenario
}

func newManyResults() manyResults {
	latencies := []Column{{Unit: p50}, {Unit: p90}, {Unit: p99}, {Unit: maximum}, {Unit: acksPerSecond}}
	database := []Column{
		{Unit: queriesPerSecond},
		{Unit: coreInStatements},
		{Unit: walPerSecond},
		{Unit: updatesPerSecond},
		{Unit: percentHOT},
		{Unit: deadRowsLeft},
	}
	below := func(goal float64) []Column {
		columns := slices.Clone(database)
		columns[0].Goal = goal
		return columns
	}
	statements := Table{
		Title:   "The statements of that, calls a second",
		Columns: []Column{{Unit: trickle}, {Unit: stream}, {Unit: trickleConsumers}, {Unit: nothing}},
	}
	of := fmt.Sprintf("%d agents that lead %d partitions", manyAgents, manyTopics*manyPartitions)
	return manyResults{
		lone: Table{
			Title:   fmt.Sprintf("%d agents, one producer, one connection, one partition, one request in flight, %d bytes", manyAgents, manyValueBytes),
			Columns: latencies,
		},
		steady: Table{
			Title: of + ": what the database bears of steady load",
			Note: fmt.Sprintf("By the database's own statistics: queries are the statements that pg_stat_statements counted. %d producers have %d partitions each, "+
				"send records of %d bytes, and don't linger. A trickle is one record a second in each partition, a stream is ten. "+
				"Consumers are one group of as many members, which commit every 5 s.", manyProducers, manyTopics*manyPartitions/manyProducers, manyValueBytes),
			Columns: append(below(100), latencies...),
		},
		idle:       Table{Title: of + ": what the database bears without clients", Columns: below(5)},
		statements: statements,
		calls:      map[string]map[string]float64{},
	}
}

func (r *manyResults) tables() []*Table {
	r.statements.Rows = nil
	most := func(statement string) float64 { return slices.Max(slices.Collect(maps.Values(r.calls[statement]))) }
	for _, statement := range slices.SortedFunc(maps.Keys(r.calls), func(a, b string) int {
		return int(max(min(most(b)-most(a), 1), -1))
	}) {
		r.statements.Add(statement, r.calls[statement])
	}
	return []*Table{&r.lone, &r.steady, &r.idle, &r.statements}
}

// crowd is a cluster of many agents on a database that counts statements.
type crowd struct {
	load       Load
	topics     []string
	statistics *DatabaseStatistics
}

func startCrowd(b *testing.B) crowd {
	b.Helper()
	ctx := b.Context()
	stores, statistics := countingStores(b)
	agents := harness.Cluster(b, stores, manyAgents, otherSettings()...)
	c := crowd{
		load: Load{
			Address: agents[0].Address(), Topic: "lone",
			Partitions: manyPartitions, ValueBytes: manyValueBytes, Producers: manyProducers,
		},
		statistics: statistics,
	}
	for i := range manyTopics {
		c.topics = append(c.topics, fmt.Sprintf("many-%d", i))
	}
	if err := CreateTopics(ctx, c.load.Address, manyPartitions, append(c.topics, c.load.Topic)...); err != nil {
		b.Fatal(err)
	}
	if err := c.load.OneEach(ctx, c.topics); err != nil {
		b.Fatal(err)
	}
	led := 0.0
	for _, agent := range agents {
		m, err := Scrape(ctx, agent.AdminAddress())
		if err != nil {
			b.Fatal(err)
		}
		led += m.Sum("streamhouse_agent_lease_count")
	}
	if led < manyTopics*manyPartitions {
		b.Fatalf("%v partitions are led", led)
	}
	return c
}

// countingStores are durable stores of one measurement, whose database counts statements.
func countingStores(b *testing.B) (harness.Stores, *DatabaseStatistics) {
	b.Helper()
	postgres := testdb.StartPostgres(b, "shared_preload_libraries=pg_stat_statements")
	stores := harness.Stores{Metadata: postgres.Database(), Objects: testdb.StartS3(b).Bucket()}
	statistics, err := OpenDatabaseStatistics(b.Context(), stores.Metadata, postgres.Database())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := statistics.Close(context.WithoutCancel(b.Context())); err != nil {
			b.Error(err)
		}
	})
	return stores, statistics
}

// otherSettings are those of the flag.
func otherSettings() []string {
	return strings.FieldsFunc(*settings, func(r rune) bool { return r == ',' })
}

// measure measures what many agents ask of one database.
func (r *manyResults) measure(b *testing.B) {
	c := startCrowd(b)
	ctx := b.Context()
	if _, err := c.load.Steady(ctx, c.topics, trickleRate, 0, *warmUp); err != nil {
		b.Fatal(err)
	}
	b.Run(trickle, func(b *testing.B) { r.measureSteady(b, c, trickle, trickleRate) })
	b.Run(stream, func(b *testing.B) { r.measureSteady(b, c, stream, streamRate) })
	b.Run(trickleConsumers, func(b *testing.B) {
		consuming, end := context.WithCancel(ctx)
		var members sync.WaitGroup
		var err error
		members.Go(func() { err = c.load.Consume(consuming, "many", c.topics) })
		elapse(b, joinTime)
		r.measureSteady(b, c, trickleConsumers, trickleRate)
		end()
		if members.Wait(); err != nil {
			b.Fatal(err)
		}
	})
	b.Run(nothing, func(b *testing.B) {
		elapse(b, statisticsTime)
		values := r.use(b, c, nothing, func() { elapse(b, *manyIdle) })
		add(b, &r.idle, manyLine, "", values)
	})
	b.Run("one-by-one", func(b *testing.B) {
		took, err := c.load.ClosedLoop(ctx, *warmUp, *oneByOne)
		if err != nil {
			b.Fatal(err)
		}
		add(b, &r.lone, manyLine, "", quantiles(took, *oneByOne))
	})
}

func (r *manyResults) measureSteady(b *testing.B, c crowd, scenario string, rate int) {
	var (
		took []time.Duration
		err  error
	)
	values := r.use(b, c, scenario, func() { took, err = c.load.Steady(b.Context(), c.topics, rate, 0, *steady) })
	if err != nil {
		b.Fatal(err)
	}
	maps.Copy(values, quantiles(took, *steady))
	add(b, &r.steady, scenario, "", values)
}

// use is what the database did a second while work ran.
func (r *manyResults) use(b *testing.B, c crowd, scenario string, work func()) map[string]float64 {
	b.Helper()
	read := func() DatabaseUse {
		use, err := c.statistics.Read(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		return use
	}
	before, begin := read(), time.Now()
	work()
	seconds := time.Since(begin).Seconds()
	use := read().Since(before)
	for statement, u := range use.Statements {
		if r.calls[brief(statement)] == nil {
			r.calls[brief(statement)] = map[string]float64{}
		}
		r.calls[brief(statement)][scenario] += u.Calls / seconds
	}
	return map[string]float64{
		queriesPerSecond: use.Calls() / seconds,
		coreInStatements: use.Seconds() / seconds * 100,
		walPerSecond:     use.WALBytes / 1024 / seconds,
		updatesPerSecond: use.Updates / seconds,
		percentHOT:       use.HOTUpdates / max(use.Updates, 1) * 100,
		deadRowsLeft:     use.DeadRows,
	}
}
