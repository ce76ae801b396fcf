package model

import (
	"time"

	"github.com/streamhouse/streamhouse/lease"
)

// agent is one process, or the processes that one after the other have its id.
type agent struct {
	beliefs beliefs
	// drift is how far the agent's clock is ahead of the store's, from the lowest
	// that is allowed. Used where clocks are bounded.
	drift int8
	calls [maxCalls]call
}

const maxCalls = 3

// belief is a lease.Belief in small: term is none if the agent has no lease.
type belief struct {
	term int8
	left int8 // ticks of the agent's clock; 0: the deadline has passed
}

type beliefs [maxPartitions]belief

var noBeliefs = beliefs{{term: none}, {term: none}}

func (b beliefs) terms() terms {
	t := noTerms
	for p := range b {
		t[p] = b[p].term
	}
	return t
}

// call is a request to lease.Store: under way, or applied and with its answer
// under way. The zero call is none.
type call struct {
	kind    callKind
	stage   stage
	waiting bool // the agent waits for the answer; else it has given up, or died
	age     int8 // ticks of the agent's clock since it asked, while it waits
	// asked and answer are terms; in an acquisition any term marks the partition.
	asked, answer terms
	to            int8 // the successor, in a hand-over
}

type callKind int8

const (
	noCall callKind = iota
	acquire
	renew
	release
	handOver
)

// stage is how far a request has come.
type stage int8

const (
	idle     stage = iota
	asked          // on its way to the store
	decided        // decided and not written: only where commits are not atomic
	answered       // on its way back
)

// free returns a place for one more call, or nil.
func (a *agent) free() *call {
	for i := range a.calls {
		if a.calls[i].kind == noCall {
			return &a.calls[i]
		}
	}
	return nil
}

// awaits says whether the agent waits for an answer of that kind about any of
// the partitions.
func (a *agent) awaits(kind callKind, partitions ...int) bool {
	for _, c := range a.calls {
		if !c.waiting || c.kind != kind {
			continue
		}
		for _, p := range partitions {
			if c.asked[p] != none {
				return true
			}
		}
	}
	return false
}

// giveUp ends the agent's wait for a call: an answer under way is lost, a request
// under way may still be applied.
func (c *call) giveUp() {
	if c.stage == answered {
		*c = call{}
		return
	}
	c.waiting, c.age = false, 0
}

// machines steps the beliefs of agents with the code of package lease. Beliefs
// are few, so each step is run once and remembered.
type machines struct {
	cfg   lease.Config
	steps map[step]beliefs
	helds map[belief]bool
}

// step is one call of a lease.Stepper on an agent that has the beliefs.
type step struct {
	beliefs  beliefs
	op       op
	age      int8
	of, then terms // the arguments
}

type op int8

const (
	granted op = iota
	renewed
	expire
	remove
)

// tick is the model's unit of time.
const tick = time.Second

func newMachines(b Bounds) *machines {
	return &machines{
		// The other times say when an agent asks; here it may ask at any time.
		cfg:   lease.Config{Duration: time.Duration(b.Duration) * tick, Margin: time.Duration(b.Margin) * tick},
		steps: make(map[step]beliefs),
		helds: make(map[belief]bool),
	}
}

func (m *machines) step(s step) beliefs {
	after, ok := m.steps[s]
	if !ok {
		after = m.run(s)
		m.steps[s] = after
	}
	return after
}

func (m *machines) run(s step) beliefs {
	machine := lease.NewStepper(m.cfg, s.beliefs.full())
	age := time.Duration(s.age) * tick
	switch s.op {
	case granted:
		for _, t := range s.of.full() {
			machine.Granted(age, t)
		}
	case renewed:
		machine.Renewed(age, s.of.full(), s.then.full())
	case expire:
		machine.Expire()
	case remove:
		for _, t := range s.of.full() {
			machine.Remove(t)
		}
	}
	after := noBeliefs
	for _, b := range machine.Beliefs() {
		after[b.Partition] = belief{int8(b.LeaderEpoch), int8(max(0, b.Left/tick))}
	}
	return after
}

// held says whether the agent would write: what Lease.Held says.
func (m *machines) held(b belief) bool {
	held, ok := m.helds[b]
	if !ok {
		all := noBeliefs
		all[0] = b
		held = lease.NewStepper(m.cfg, all.full()).Held(lease.Key{})
		m.helds[b] = held
	}
	return held
}

func (b beliefs) full() []lease.Belief {
	var full []lease.Belief
	for _, t := range b.terms().full() {
		full = append(full, lease.Belief{Term: t, Left: time.Duration(b[t.Partition].left) * tick})
	}
	return full
}

// full are the terms as package lease has them, with an Epoch that nothing reads.
func (t terms) full() []lease.Term {
	var full []lease.Term
	for p, term := range t {
		if term != none {
			full = append(full, lease.Term{Key: lease.Key{Partition: int32(p)}, LeaderEpoch: int32(term)})
		}
	}
	return full
}
