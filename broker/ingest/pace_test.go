package ingest_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/broker/ingest"
)

// among gives the rig's agent the company of others.
func among(r *rig, agents int) *rig {
	r.agents.Store(int64(agents))
	return slow(r)
}

// steadyLoad has producers send single batches, independently of answers, at a
// mean rate for all of them, and returns the commits of the time.
func steadyLoad(t *testing.T, r *rig, perSecond float64, span time.Duration, longest time.Duration) (commits int) {
	before := r.commitCount()
	random := rand.New(rand.NewPCG(1, 2))
	var sends []*send
	var answered sync.WaitGroup
	begun := time.Now()
	for i := int64(0); time.Since(begun) < span; i++ {
		s := r.add(int32(i%100), one(t, i, 0, 100))
		sends = append(sends, s...)
		accepted := time.Now()
		answered.Go(func() {
			<-s[0].done
			if took := time.Since(accepted); took > longest {
				t.Errorf("answered after %v", took)
			}
		})
		<-time.After(time.Duration(random.ExpFloat64() / perSecond * float64(time.Second)))
	}
	await(t, sends)
	answered.Wait()
	return r.commitCount() - before
}

func TestSteadyLoadOfManyIsSpacedByTheNumberOfAgents(t *testing.T) {
	const span = 20 * time.Second
	c := ingest.DefaultConfig()
	for name, tc := range map[string]struct {
		agents    int
		perSecond float64
	}{
		"two agents":                        {2, 500},
		"three agents":                      {3, 100},
		"ten agents":                        {10, 100},
		"ten agents, many":                  {10, 1000},
		"ten agents, hardly above the pace": {10, 10},
		"ten agents, a little above it":     {10, 14},
		"ten agents, three times the pace":  {10, 21},
		"ten agents, below the pace":        {10, 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := among(newRig(t, nil), tc.agents)
				interval := min(c.CommitSpacing*time.Duration(tc.agents-1), c.MaxLinger)
				commits := steadyLoad(t, r, tc.perSecond, span, interval+putTime+2*commitTime)
				// Some requests are held to be all, and wait for nobody.
				limit := 1.4 * float64(span) / float64(interval)
				if float64(commits) > limit {
					t.Errorf("%d commits in %v, the pace allows %.0f", commits, span, limit)
				}
				t.Logf("%.1f commits/s, the pace is %.1f", float64(commits)/span.Seconds(), 1/interval.Seconds())
				r.check()
			})
		})
	}
}

// closedLoop is a producer with one batch in flight. It returns how many were
// answered in each of the spans of time.
func closedLoop(t *testing.T, r *rig, partition int32, size, spans int, span time.Duration) []int {
	answered := make([]int, spans)
	begun := time.Now()
	for i := int32(0); ; i++ {
		at := int(time.Since(begun) / span)
		if at >= spans {
			return answered
		}
		await(t, r.add(partition, one(t, int64(partition), i, size)))
		answered[at]++
		<-time.After(200 * time.Microsecond) // the client and the network
	}
}

func TestProducersWithNobodyToWaitForAreNotSpaced(t *testing.T) {
	for name, producers := range map[string]int32{"one": 1, "two": 2, "eight": 8} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := among(newRig(t, nil), 10)
				var loops sync.WaitGroup
				for p := range producers {
					loops.Go(func() {
						const full = int(time.Second / (commitTime + 200*time.Microsecond))
						answered := closedLoop(t, r, p, 100, 4, time.Second)
						// It takes vainWaits of 144 ms to see that they are all.
						if last := answered[3]; last < full*9/10 {
							t.Errorf("%d were answered in each second, alone it would be %d", answered, full)
						}
					})
				}
				loops.Wait()
				r.check()
			})
		})
	}
}

func TestSpacingComesAndGoesWithOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := among(newRig(t, nil), 10)
		var loop sync.WaitGroup
		var answered []int
		loop.Go(func() { answered = closedLoop(t, r, 1000, 100, 6, time.Second) })
		<-time.After(2 * time.Second)
		before := r.commitCount()
		steadyLoad(t, r, 100, 2*time.Second, 200*time.Millisecond)
		if commits := r.commitCount() - before; commits > 20 {
			t.Errorf("%d commits in two seconds with others", commits)
		}
		loop.Wait()
		if answered[5] < 250 {
			t.Errorf("%d were answered in each second, with others only in the third and fourth", answered)
		}
		r.check()
	})
}

func TestBulkIsNotSpaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := among(newRig(t, nil), 10)
		const producers, seconds = 8, 5
		var loops sync.WaitGroup
		answered := make([][]int, producers)
		for p := range answered {
			loops.Go(func() { answered[p] = closedLoop(t, r, int32(1000+p), 64<<10, seconds, time.Second) })
		}
		steadyLoad(t, r, 20, seconds*time.Second, 200*time.Millisecond)
		loops.Wait()
		for p, n := range answered {
			// Spaced by 144 ms, it would be 7.
			if slices.Min(n) < 14 {
				t.Errorf("%d batches of producer %d were answered in each second", n, p)
			}
		}
		r.check()
	})
}

func TestQuietAgentIsNotSpaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := among(newRig(t, nil), 10)
		for i := range int32(100) {
			begun := time.Now()
			await(t, r.add(0, one(t, 1, i, 100)))
			if took := time.Since(begun); took != commitTime {
				t.Fatalf("batch %d took %v, a commit takes %v", i, took, commitTime)
			}
			<-time.After(200 * time.Millisecond)
		}
		r.check()
	})
}

func TestHurryWaitsForNoBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := among(newRig(t, func(c *ingest.Config) { c.PutsPerSecond, c.PutBurst = 0.001, 1 }), 10)
		await(t, r.add(0, one(t, 1, 0, 20<<10))) // the only put of the budget
		steadyLoad(t, r, 100, time.Second, 200*time.Millisecond)
		for name, size := range map[string]int{"inline": 100, "object": 20 << 10} {
			begun := time.Now()
			s := r.add(0, one(t, int64(1000+size), 0, size))
			r.pool.Hasten()
			await(t, s)
			if took := time.Since(begun); took > putTime+commitTime {
				t.Errorf("%s took %v in a hurry", name, took)
			}
		}
		begun := time.Now()
		await(t, append(r.add(0, one(t, 1, 1, 100)), r.add(1, one(t, 1, 0, 100))...))
		if time.Since(begun) <= 2*commitTime {
			t.Error("the hurry goes on")
		}
		r.check()
	})
}
