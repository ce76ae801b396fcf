package lease

import (
	"slices"
	"time"
)

// Belief is what an agent believes of one lease, as a value.
type Belief struct {
	Term
	Left time.Duration // until the deadline, not above Config.Duration - Config.Margin; <= 0: it has passed
}

// Stepper runs the rules of a Manager one step at a time, from given beliefs
// and without a store, a clock or a goroutine. It lets a search of everything
// that agents can come to believe (package lease/model) apply the code that
// runs in production. No time passes: ages of requests count back from now. It
// is not safe for concurrent use.
type Stepper struct{ machine *machine }

// stepperNow is the instant of every step, long after all requests.
const stepperNow = 1000 * time.Hour

// NewStepper makes a stepper of an agent that has these beliefs, one a key.
func NewStepper(cfg Config, beliefs []Belief) *Stepper {
	still := func() time.Duration { return stepperNow }
	s := &Stepper{machine: newMachine(cfg, still, func() float64 { return 0 })}
	lasts := s.machine.deadline(stepperNow) - stepperNow
	for _, b := range beliefs {
		s.machine.granted(stepperNow+b.Left-lasts, stepperNow, Result{Term: b.Term})
	}
	return s
}

// Beliefs lists what the agent believes now, in the order of Key.Compare.
func (s *Stepper) Beliefs() []Belief {
	var beliefs []Belief
	for _, l := range s.machine.leases() {
		beliefs = append(beliefs, Belief{Term: l.Term(), Left: time.Duration(l.deadline.Load()) - stepperNow})
	}
	slices.SortFunc(beliefs, func(a, b Belief) int { return a.Compare(b.Key) })
	return beliefs
}

// Held says whether the agent would write under the lease of the key.
func (s *Stepper) Held(k Key) bool {
	l := s.machine.get(k)
	return l != nil && l.Held()
}

// Granted takes in that an acquisition of that age won the term. The agent must
// have no lease of the key.
func (s *Stepper) Granted(age time.Duration, won Term) {
	s.machine.granted(stepperNow-age, stepperNow, Result{Term: won})
}

// Renewed takes in the answer to a renewal of that age.
func (s *Stepper) Renewed(age time.Duration, asked, got []Term) {
	s.machine.renewed(stepperNow-age, asked, got)
}

// Expire takes out the leases whose deadline has passed.
func (s *Stepper) Expire() { s.machine.expired(stepperNow) }

// Remove takes the term's lease out, unless it is gone or of another leadership.
func (s *Stepper) Remove(t Term) {
	if l := s.machine.get(t.Key); l != nil && l.leaderEpoch == t.LeaderEpoch {
		s.machine.remove(l)
	}
}
