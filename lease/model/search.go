package model

import (
	"fmt"
	"slices"
)

// Clocks says how the clocks of agents and store go.
type Clocks int

const (
	// Free clocks stand still and jump as they like, each on its own.
	Free Clocks = iota
	// Bounded clocks never differ by more than the drift about how much time went
	// by.
	Bounded
)

// Bounds say how much of the world is searched.
type Bounds struct {
	Agents, Partitions int // up to 3 and 2
	LeaderEpochs       int // of each partition: how often it is granted; up to 6
	Writes             int // at a time: in the log or not yet settled; up to 4
	Calls              int // of an agent to lease.Store under way at a time; up to 3
	Sends              int // of one write's commits under way at a time; up to 2
	Clocks             Clocks
	Duration, Margin   int // of a lease, in ticks; Duration up to 7
	Drift              int // of bounded clocks, in ticks; up to 7
	// Depth ends the search after that many actions in a row; 0: never.
	Depth int
}

// Witness is a thing that a search should have met: without it, what the
// invariants say about it would be said of nothing.
type Witness int

// The witnesses.
const (
	GrantedFreed       Witness = iota // a lease was granted after a release or a burial
	GrantedExpired                    // one was taken from a leader that had let it expire
	GrantedAgain                      // one was granted to the agent that led already
	GrantedHanded                     // one was granted that had been handed over
	GrantedLate                       // a request was granted that nobody waited for any more
	BuriedAlive                       // an agent was buried that believed to hold the lease
	TwoBelieve                        // two agents believed to hold one lease
	FencedByOther                     // a commit was refused after another had taken over
	FencedBySelf                      // a commit was refused in an older term of the leader itself
	AnsweredAfterFence                // a retry got its answer though its agent was fenced since
	witnesses
)

// Report says what a search found.
type Report struct {
	States      int // different ones, up to the names of agents, calls and writes
	Transitions int
	Depth       int            // actions on the shortest way to the farthest of them
	Complete    bool           // whether there are no others within the bounds, but for Depth
	Witnesses   [witnesses]int // how often each was met
	// Broken is the invariant that does not hold, empty if all do; Trace is a
	// shortest way there.
	Broken string
	Trace  []string
}

// Model is a search of the states that can be reached within bounds.
type Model struct {
	bounds   Bounds
	rules    rules
	machines *machines
	seen     [witnesses]int
}

// New makes a model of what runs in production.
func New(b Bounds) (*Model, error) { return newModel(b, contract()) }

func newModel(b Bounds, r rules) (*Model, error) {
	for _, limit := range []struct {
		name            string
		is, least, most int
	}{
		{"agents", b.Agents, 1, maxAgents},
		{"partitions", b.Partitions, 1, maxPartitions},
		{"leader epochs", b.LeaderEpochs, 1, 6},
		{"writes", b.Writes, 0, maxWrites},
		{"calls", b.Calls, 1, maxCalls},
		{"sends", b.Sends, 1, maxSends},
		{"ticks of a lease", b.Duration, b.Margin + 1, 7},
		{"ticks of the margin", b.Margin, 0, 6},
		{"ticks of the drift", b.Drift, 0, 7},
	} {
		if limit.is < limit.least || limit.is > limit.most {
			return nil, fmt.Errorf("model: %s are %d, must be in %d to %d", limit.name, limit.is, limit.least, limit.most)
		}
	}
	return &Model{bounds: b, rules: r, machines: newMachines(b)}, nil
}

func (m *Model) witness(w Witness) { m.seen[w]++ }

// came says how a state was reached first: by which of the actions of which state.
type came struct {
	from   uint32
	action uint16
}

// Search visits every state, nearest first, until one breaks an invariant. It
// tells progress, unless that is nil, before each depth.
func (m *Model) Search(progress func(Report)) Report {
	start := initial()
	f := frontier{Model: m, known: map[uint64]struct{}{start.fingerprint(): {}}, found: []came{{}}}
	level := []state{start}
	for first := 0; ; {
		f.report.States = len(f.found)
		if progress != nil {
			progress(f.report)
		}
		next := f.expand(level, uint32(first))
		if len(next) > 0 {
			f.report.Depth++
		}
		f.report.Complete = f.report.Broken == "" && len(next) == 0
		if f.report.Broken != "" || len(next) == 0 || f.report.Depth == m.bounds.Depth {
			f.report.States, f.report.Witnesses = len(f.found), m.seen
			return f.report
		}
		first += len(level)
		level = next
	}
}

// frontier is a search under way.
type frontier struct {
	*Model
	known  map[uint64]struct{} // fingerprints
	found  []came              // by the number of the state
	report Report
}

// expand returns the states that are reached first from those of a level, of
// which the first has the number.
func (f *frontier) expand(level []state, first uint32) (next []state) {
	for i := range level {
		way := came{from: first + uint32(i)}
		f.successors(&level[i], func(_ action, s *state, broken string) {
			switch {
			case f.report.Broken != "":
				return
			case broken != "":
				f.report.Broken, f.report.Trace = broken, f.trace(way)
			case f.isNew(s.fingerprint()):
				f.found = append(f.found, way)
				next = append(next, *s)
			}
			f.report.Transitions++
			way.action++
		})
		if f.report.Broken != "" {
			break
		}
	}
	return next
}

func (f *frontier) isNew(print uint64) bool {
	known := len(f.known)
	f.known[print] = struct{}{}
	return len(f.known) > known
}

// trace goes the way to a state again and says what happens.
func (f *frontier) trace(last came) []string {
	ways := []came{last}
	for at := last.from; at != 0; at = f.found[at].from {
		ways = append(ways, f.found[at])
	}
	slices.Reverse(ways)
	var trace []string
	s := initial()
	for _, way := range ways {
		var (
			after  state
			number uint16
		)
		f.successors(&s, func(a action, next *state, _ string) {
			if number == way.action {
				after = *next
				trace = append(trace, a.String())
			}
			number++
		})
		s = after
	}
	return trace
}
