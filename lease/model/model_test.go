package model

import (
	"flag"
	"strings"
	"testing"
	"time"
)

var large = flag.Bool("large", false, "search the large bounds, which takes minutes and memory (make model)")

// quickBounds are searched in every run of the tests: all that can happen within
// a number of actions. largeBounds are searched to their end.
var (
	quickBounds = []Bounds{
		{Agents: 2, Partitions: 1, LeaderEpochs: 3, Writes: 2, Calls: 2, Sends: 2, Clocks: Free, Duration: 1, Depth: 12},
		{Agents: 2, Partitions: 1, LeaderEpochs: 3, Writes: 1, Calls: 1, Sends: 2, Clocks: Bounded, Duration: 3, Margin: 1, Drift: 1, Depth: 11},
		{Agents: 3, Partitions: 2, LeaderEpochs: 3, Writes: 1, Calls: 2, Sends: 1, Clocks: Free, Duration: 1, Depth: 8},
	}
	largeBounds = []Bounds{
		{Agents: 2, Partitions: 1, LeaderEpochs: 2, Writes: 1, Calls: 1, Sends: 2, Clocks: Free, Duration: 1},
		{Agents: 2, Partitions: 1, LeaderEpochs: 3, Writes: 1, Calls: 1, Sends: 1, Clocks: Free, Duration: 1},
		{Agents: 3, Partitions: 1, LeaderEpochs: 2, Writes: 1, Calls: 1, Sends: 1, Clocks: Free, Duration: 1},
		{Agents: 2, Partitions: 1, LeaderEpochs: 3, Calls: 1, Sends: 1, Clocks: Bounded, Duration: 2, Margin: 1, Drift: 1},
		{Agents: 2, Partitions: 1, LeaderEpochs: 2, Calls: 1, Sends: 1, Clocks: Bounded, Duration: 3, Margin: 1, Drift: 1},
	}
)

func TestSearch(t *testing.T) {
	all := quickBounds
	if *large {
		all = largeBounds
	}
	var met [witnesses]int
	for _, b := range all {
		r := search(t, b, contract())
		if r.Broken != "" {
			t.Errorf("%+v: %s:\n%s", b, r.Broken, strings.Join(r.Trace, "\n"))
		}
		if b.Depth == 0 && !r.Complete {
			t.Errorf("%+v: the search has no end", b)
		}
		for w, times := range r.Witnesses {
			met[w] += times
		}
	}
	for w, times := range met {
		if times == 0 {
			t.Errorf("witness %d was never met", w)
		}
	}
}

func search(t *testing.T, b Bounds, r rules) Report {
	t.Helper()
	m, err := newModel(b, r)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	report := m.Search(func(r Report) {
		if *large {
			t.Logf("depth %d: %d states", r.Depth, r.States)
		}
	})
	t.Logf("%+v: %d states, %d transitions, depth %d, complete %v, %v",
		b, report.States, report.Transitions, report.Depth, report.Complete, time.Since(start).Round(time.Millisecond))
	return report
}

// TestMutants shows that the search finds out each of these mistakes.
func TestMutants(t *testing.T) {
	free := Bounds{Agents: 2, Partitions: 1, LeaderEpochs: 3, Writes: 2, Calls: 1, Sends: 2, Clocks: Free, Duration: 1, Depth: 12}
	bounded := Bounds{Agents: 2, Partitions: 1, LeaderEpochs: 2, Calls: 1, Sends: 1, Clocks: Bounded, Duration: 2, Margin: 1, Drift: 1, Depth: 12}
	fast := bounded
	fast.Drift = fast.Margin + 1
	for _, mutant := range []struct {
		name   string
		bounds Bounds
		mutate func(*rules)
		broken string
	}{
		{"no fence", free, func(r *rules) {
			r.admits = func(*row, int8, int8) bool { return true }
		}, staleWriter},
		{"the fence checks the holder only", free, func(r *rules) {
			r.admits = func(r *row, agent, _ int8) bool { return r.leader == agent }
		}, staleWriter},
		{"the fence checks the leader epoch only", free, func(r *rules) {
			r.admits = func(r *row, _, term int8) bool { return r.leaderEpoch == term }
		}, staleWriter},
		{"the fence stands before the transaction", free, func(r *rules) { r.atomic = false }, staleWriter},
		{"a renewal revives a lost term", free, func(r *rules) {
			r.renew = func(r *row, agent, term, ttl int8) bool {
				r.leader, r.leaderEpoch, r.left = agent, term, ttl
				return true
			}
		}, epochShared},
		{"results are not remembered", free, func(r *rules) { r.remembers = false }, answerChanged},
		{"a buried lease is taken in its old leader epoch", free, func(r *rules) {
			take := r.take
			r.take = func(r *row, agent, ttl int8) bool {
				if r.leader == none && r.leaderEpoch != none {
					r.leader, r.left = agent, ttl
					return true
				}
				return take(r, agent, ttl)
			}
		}, epochShared},
		{"an agent that starts again goes on in its old term", free, func(r *rules) {
			take := r.take
			r.take = func(r *row, agent, ttl int8) bool {
				r.handed = r.handed || r.leader == agent
				return take(r, agent, ttl)
			}
		}, epochShared},
		{"a lease is taken before it ends", bounded, func(r *rules) {
			take := r.take
			r.take = func(r *row, agent, ttl int8) bool {
				r.left = 0
				return take(r, agent, ttl)
			}
		}, notHolder},
		{"a deadline counts from the answer", bounded, func(r *rules) { r.countsFromAnswer = true }, notHolder},
		{"clocks are apart by more than the margin", fast, func(*rules) {}, notHolder},
	} {
		t.Run(mutant.name, func(t *testing.T) {
			r := contract()
			mutant.mutate(&r)
			report := search(t, mutant.bounds, r)
			if report.Broken != mutant.broken {
				t.Errorf("found %q, want %q", report.Broken, mutant.broken)
			}
			t.Log("\n" + strings.Join(report.Trace, "\n"))
		})
	}
}

// TestTwoWriters makes the mistake that an offset has two writers, which is not
// the nearest that a search finds: two commits of one leader decide at once.
func TestTwoWriters(t *testing.T) {
	r, s := contract(), newStore()
	r.acquire(&s, 0, 0, 1)
	in := terms{0, none}
	writes := [maxWrites]write{{agent: 0, in: in, status: open}, {agent: 0, in: in, status: open}}
	first, second := r.decide(&s, 0, 0, in), r.decide(&s, 0, 1, in)
	before := s
	r.write(&s, 0, in, first)
	if broken := change(&before, &s, &writes); broken != "" {
		t.Error(broken)
	}
	before = s
	r.write(&s, 1, in, second)
	if broken := change(&before, &s, &writes); broken != offsetRewritten {
		t.Errorf("found %q, want %q", broken, offsetRewritten)
	}
}

func TestBounds(t *testing.T) {
	if _, err := New(Bounds{Agents: maxAgents + 1, Partitions: 1, LeaderEpochs: 1, Calls: 1, Sends: 1, Duration: 1}); err == nil {
		t.Error("made a model of too many agents")
	}
}
