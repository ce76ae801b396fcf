package bench

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
)

const (
	scalingPartitions = 64
	scalingProducers  = 16
	scalingValueBytes = 16 << 10
	// scalingRate is in records a second: 8 MiB. In the table of growing load, each agent adds scalingStep, 2 MiB.
	scalingRate = 512
	scalingStep = 128
)

// scalingSizes are how many agents are measured.
var scalingSizes = []int{1, 2, 4, 8}

// The quantities of scaling.
const (
	statementsPerMiB  = "statements/MiB"
	databaseCPUPerMiB = "database-ms/MiB"
	agentCPUPerMiB    = "agents'-CPU-ms/MiB"
	putsPerMiB        = "PUTs/MiB"
)

// scalingResults are the tables of one load on more and more agents, and of a load that grows with them.
type scalingResults struct{ fixed, growing Table }

func newScalingResults() scalingResults {
	columns := []Column{
		{Unit: mibPerSecond},
		{Unit: statementsPerMiB},
		{Unit: databaseCPUPerMiB},
		{Unit: agentCPUPerMiB},
		{Unit: putsPerMiB},
		{Unit: p50},
		{Unit: p99},
	}
	note := fmt.Sprintf("%d producers write records of %d KiB to %d partitions, by a schedule. Statements, and the time that they took, are by the database's own statistics; "+
		"the agents' CPU time is that of all of them.", scalingProducers, scalingValueBytes>>10, scalingPartitions)
	return scalingResults{
		fixed:   Table{Title: "The same load on more and more agents", Note: note, Columns: columns},
		growing: Table{Title: "A load that grows with the number of agents", Note: note, Columns: columns},
	}
}

// measure measures clusters of all sizes.
func (r *scalingResults) measure(b *testing.B) {
	for _, size := range scalingSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			stores, statistics := countingStores(b)
			agents := harness.Cluster(b, stores, size, otherSettings()...)
			load := Load{
				Address: agents[0].Address(), Topic: "scaling",
				Partitions: scalingPartitions, ValueBytes: scalingValueBytes, Producers: scalingProducers,
			}
			if err := CreateTopics(b.Context(), load.Address, load.Partitions, load.Topic); err != nil {
				b.Fatal(err)
			}
			if _, err := load.OpenLoop(b.Context(), scalingRate, 0, *warmUp); err != nil {
				b.Fatal(err)
			}
			row := fmt.Sprintf("%d agents", size)
			add(b, &r.fixed, row, "fixed-", scalingUse(b, agents, statistics, load, scalingRate))
			add(b, &r.growing, row, "growing-", scalingUse(b, agents, statistics, load, scalingStep*size))
		})
	}
}

// scalingUse is what a load costs.
func scalingUse(b *testing.B, agents []*harness.Agent, statistics *DatabaseStatistics, load Load, rate int) map[string]float64 {
	b.Helper()
	ctx := b.Context()
	read := func() (use DatabaseUse, cpu time.Duration, puts float64) {
		use, err := statistics.Read(ctx)
		if err != nil {
			b.Fatal(err)
		}
		for _, agent := range agents {
			used, err := CPUTime(agent.PID())
			if err != nil {
				b.Fatal(err)
			}
			cpu += used
			metrics, err := Scrape(ctx, agent.AdminAddress())
			if err != nil {
				b.Fatal(err)
			}
			puts += metrics[`streamhouse_object_store_requests_total{operation="put",outcome="ok"}`]
		}
		return use, cpu, puts
	}
	use, cpu, puts := read()
	took, err := load.OpenLoop(ctx, rate, 0, *scaling)
	if err != nil {
		b.Fatal(err)
	}
	if len(took) == 0 {
		b.Fatal("nothing was acknowledged")
	}
	useAfter, cpuAfter, putsAfter := read()
	use = useAfter.Since(use)
	mib := float64(len(took)*load.ValueBytes) / mebibyte
	values := map[string]float64{
		mibPerSecond:      mib / scaling.Seconds(),
		statementsPerMiB:  use.Calls() / mib,
		databaseCPUPerMiB: use.Seconds() * 1e3 / mib,
		agentCPUPerMiB:    (cpuAfter - cpu).Seconds() * 1e3 / mib,
		putsPerMiB:        (putsAfter - puts) / mib,
	}
	latencies := quantiles(took, *scaling)
	maps.DeleteFunc(latencies, func(unit string, _ float64) bool { return !slices.Contains([]string{p50, p99}, unit) })
	maps.Copy(values, latencies)
	return values
}
