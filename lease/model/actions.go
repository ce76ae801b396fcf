package model

import "fmt"

// action is what leads from one state to the next.
type action struct {
	verb      string
	agent     int8 // none: the store
	partition int8 // none: all, or as the write has it
	write     int8 // none: not about a write
}

func (a action) String() string {
	who := "store"
	if a.agent != none {
		who = fmt.Sprintf("agent %d", a.agent)
	}
	text := who + ": " + a.verb
	if a.partition != none {
		text += fmt.Sprintf(", partition %d", a.partition)
	}
	if a.write != none {
		text += fmt.Sprintf(", write %d", a.write)
	}
	return text
}

// explorer yields what can come of one state.
type explorer struct {
	*Model
	from   *state
	yield  func(a action, next *state, broken string)
	broken string // what an action found wrong with itself
}

// try yields the state that an action leads to.
func (x *explorer) try(a action, do func(next *state)) {
	next := *x.from
	x.broken = ""
	do(&next)
	broken := x.broken
	if broken == "" {
		broken = change(&x.from.store, &next.store, &x.from.writes)
	}
	if broken == "" {
		broken = x.check(&next)
	}
	if broken == "" {
		next.forget()
	}
	x.yield(a, &next, broken)
}

// successors yields every action that is possible, in a fixed order.
func (m *Model) successors(from *state, yield func(a action, next *state, broken string)) {
	x := &explorer{Model: m, from: from, yield: yield}
	for a := range int8(m.bounds.Agents) {
		for p := range int8(m.bounds.Partitions) {
			x.agentAsks(a, p)
		}
		x.agentActs(a)
		for slot := range from.agents[a].calls {
			x.callMoves(a, slot)
		}
		x.agentAccepts(a)
	}
	for w := range int8(m.bounds.Writes) {
		x.writeMoves(w)
	}
	x.timePasses()
}

// agentAsks is what an agent does about one lease: as Manager, it acquires what it
// does not hold, has one acquisition of a partition under way, and takes out what
// it releases or hands over before it says so.
func (x *explorer) agentAsks(i, p int8) {
	a := &x.from.agents[i]
	b := a.beliefs[p]
	if a.free() == nil {
		return
	}
	if x.bounded(acquire, i, p) && !x.machines.held(b) && !a.awaits(acquire, int(p)) {
		x.try(action{"asks for the lease", i, p, none}, func(n *state) {
			of := noTerms
			of[p] = 0
			*n.agents[i].free() = call{kind: acquire, stage: asked, waiting: true, asked: of}
		})
	}
	if b.term != none {
		x.try(action{"gives the lease up", i, p, none}, func(n *state) {
			of := noTerms
			of[p] = b.term
			x.remove(n, i, of)
			*n.agents[i].free() = call{kind: release, stage: asked, asked: of}
		})
	}
	for to := range int8(x.bounds.Agents) {
		if b.term == none || to == i {
			continue
		}
		x.try(action{fmt.Sprintf("hands the lease to agent %d", to), i, p, none}, func(n *state) {
			of := noTerms
			of[p] = b.term
			x.remove(n, i, of)
			*n.agents[i].free() = call{kind: handOver, stage: asked, asked: of, to: to}
		})
	}
}

// bounded says whether a request, if it is followed, keeps the number of leader
// epochs within the bounds.
func (x *explorer) bounded(kind callKind, agent, p int8) bool {
	r := &x.from.store.rows[p]
	switch kind {
	case renew, release:
		return true
	case acquire:
		if r.handed && r.leader == agent {
			return true
		}
	}
	return int(r.leaderEpoch)+1 < x.bounds.LeaderEpochs
}

// remove takes the agent's leases of the terms out.
func (x *explorer) remove(n *state, agent int8, of terms) {
	a := &n.agents[agent]
	a.beliefs = x.machines.step(step{beliefs: a.beliefs, op: remove, of: of})
}

func (x *explorer) agentActs(i int8) {
	a := &x.from.agents[i]
	if a.beliefs != noBeliefs && a.free() != nil && !a.awaits(renew, 0, 1) {
		x.try(action{"renews its leases", i, none, none}, func(n *state) {
			*n.agents[i].free() = call{kind: renew, stage: asked, waiting: true, asked: a.beliefs.terms()}
		})
	}
	if after := x.machines.step(step{beliefs: a.beliefs, op: expire}); after != a.beliefs {
		x.try(action{"ends the leases that are past their deadline", i, none, none}, func(n *state) {
			n.agents[i].beliefs = after
		})
	}
	if x.from.knows(i) {
		x.try(action{"is killed and starts again", i, none, none}, func(n *state) { n.restart(i) })
	}
	if x.from.leads(i) {
		x.try(action{"is buried", i, none, none}, func(n *state) {
			for p := range n.store.rows {
				r := &n.store.rows[p]
				if r.leader != i {
					continue
				}
				n.buried[p] = r.leaderEpoch
				if x.machines.held(a.beliefs[p]) {
					x.witness(BuriedAlive)
				}
			}
			x.rules.bury(&n.store, i)
		})
	}
}

// knows says whether the agent has anything to forget.
func (s *state) knows(i int8) bool {
	for w := range s.writes {
		if s.writes[w].agent == i && s.writes[w].status == open {
			return true
		}
	}
	for _, c := range s.agents[i].calls {
		if c.waiting {
			return true
		}
	}
	return s.agents[i].beliefs != noBeliefs
}

func (s *state) leads(i int8) bool {
	for p := range s.store.rows {
		if s.store.rows[p].leader == i {
			return true
		}
	}
	return false
}

// restart ends an agent and starts another under its id. What it had sent may
// still arrive.
func (s *state) restart(i int8) {
	a := &s.agents[i]
	a.beliefs = noBeliefs
	for c := range a.calls {
		if a.calls[c].waiting {
			a.calls[c].giveUp()
		}
	}
	for w := range s.writes {
		if s.writes[w].agent != i || s.writes[w].status != open {
			continue
		}
		s.writes[w].status = abandoned
		for k := range s.writes[w].sends {
			if s.writes[w].sends[k].waiting {
				s.writes[w].sends[k].giveUp()
			}
		}
	}
}

// callMoves is what can become of a request to lease.Store.
func (x *explorer) callMoves(i int8, slot int) {
	c := &x.from.agents[i].calls[slot]
	of := func(n *state) *call { return &n.agents[i].calls[slot] }
	if c.kind == noCall {
		return
	}
	if c.stage == asked && x.allBounded(c, i) {
		x.try(action{callNames[c.kind] + " is applied", i, none, none}, func(n *state) { x.apply(n, i, of(n)) })
	}
	if c.stage == answered {
		x.try(action{callNames[c.kind] + " is answered", i, none, none}, func(n *state) { x.land(n, i, of(n)) })
	}
	if c.waiting {
		x.try(action{callNames[c.kind] + " is given up", i, none, none}, func(n *state) { of(n).giveUp() })
	} else {
		x.try(action{callNames[c.kind] + " is lost", i, none, none}, func(n *state) { *of(n) = call{} })
	}
}

var callNames = [...]string{acquire: "acquisition", renew: "renewal", release: "release", handOver: "hand-over"}

func (x *explorer) allBounded(c *call, agent int8) bool {
	for p, t := range c.asked {
		if t != none && !x.bounded(c.kind, agent, int8(p)) {
			return false
		}
	}
	return true
}

// apply has the store take a request in.
func (x *explorer) apply(n *state, agent int8, c *call) {
	ttl := int8(x.bounds.Duration)
	c.answer = noTerms
	switch c.kind {
	case acquire:
		for p, t := range c.asked {
			if t == none {
				continue
			}
			was := n.store.rows[p]
			c.answer[p] = x.rules.acquire(&n.store, agent, p, ttl)
			if c.answer[p] == none {
				continue
			}
			if goesOn := was.handed && was.leader == agent; c.answer[p] <= was.leaderEpoch && !goesOn {
				x.broken = epochShared
			}
			x.witnessGrant(&was, agent, c.waiting)
		}
	case renew:
		c.answer = x.rules.renewAll(&n.store, agent, c.asked, ttl)
	case release:
		x.rules.release(&n.store, agent, c.asked)
	case handOver:
		x.rules.handOver(&n.store, agent, c.to, c.asked, ttl)
	}
	if c.stage = answered; !c.waiting {
		*c = call{}
	}
}

func (x *explorer) witnessGrant(was *row, agent int8, waiting bool) {
	switch {
	case was.leader == agent && was.handed:
		x.witness(GrantedHanded)
	case was.leader == agent:
		x.witness(GrantedAgain)
	case was.leader != none:
		x.witness(GrantedExpired)
	case was.leaderEpoch != none:
		x.witness(GrantedFreed)
	}
	if !waiting {
		x.witness(GrantedLate)
	}
}

// land has the agent take an answer in, as Manager does.
func (x *explorer) land(n *state, agent int8, c *call) {
	a := &n.agents[agent]
	age := c.age
	if x.rules.countsFromAnswer {
		age = 0
	}
	switch c.kind {
	case acquire:
		old := noTerms // past its deadline, or it would not have been asked for
		for p, t := range c.asked {
			if t != none {
				old[p] = a.beliefs[p].term
			}
		}
		x.remove(n, agent, old)
		a.beliefs = x.machines.step(step{beliefs: a.beliefs, op: granted, age: age, of: c.answer})
	case renew:
		a.beliefs = x.machines.step(step{beliefs: a.beliefs, op: renewed, age: age, of: c.asked, then: c.answer})
	}
	*c = call{}
	for p := range a.beliefs {
		x.witnessHolders(n, p)
	}
}

func (x *explorer) witnessHolders(n *state, p int) {
	holders := 0
	for a := range n.agents {
		if b := n.agents[a].beliefs[p]; b.term != none && x.machines.held(b) {
			holders++
		}
	}
	if holders > 1 {
		x.witness(TwoBelieve)
	}
}

// agentAccepts has the agent accept a write to any set of partitions whose leases
// it believes to hold.
func (x *explorer) agentAccepts(i int8) {
	w := x.from.unused(x.bounds.Writes)
	if w == none {
		return
	}
	held := x.from.agents[i].beliefs
	for set := 1; set < 1<<x.bounds.Partitions; set++ {
		in, possible := noTerms, true
		for p := range x.bounds.Partitions {
			if set&(1<<p) == 0 {
				continue
			}
			in[p] = held[p].term
			possible = possible && in[p] != none && x.machines.held(held[p])
		}
		if possible {
			x.try(action{"accepts a write", i, none, w}, func(n *state) {
				n.writes[w] = write{agent: i, in: in, status: open, told: noFates}
			})
		}
	}
}

// unused returns the number of a write that is not used, or none.
func (s *state) unused(writes int) int8 {
	for w := range int8(writes) {
		if s.writes[w].status == unused {
			return w
		}
	}
	return none
}

// writeMoves is what can become of a write and its commits.
func (x *explorer) writeMoves(i int8) {
	w := &x.from.writes[i]
	if w.status == open && !w.awaits() && w.free() != nil {
		x.try(action{"sends the commit", w.agent, none, i}, func(n *state) {
			*n.writes[i].free() = send{stage: asked, waiting: true}
		})
	}
	for k := range w.sends {
		x.sendMoves(i, k)
	}
}

func (x *explorer) sendMoves(i int8, k int) {
	w := &x.from.writes[i]
	s := &w.sends[k]
	of := func(n *state) *send { return &n.writes[i].sends[k] }
	switch s.stage {
	case idle:
		return
	case asked:
		x.try(action{"commit is applied", w.agent, none, i}, func(n *state) {
			x.decideCommit(n, i, of(n))
			if x.rules.atomic {
				x.writeCommit(n, i, of(n))
			}
		})
	case decided:
		x.try(action{"commit is written", w.agent, none, i}, func(n *state) { x.writeCommit(n, i, of(n)) })
	case answered:
		x.try(action{"commit is answered", w.agent, none, i}, func(n *state) { x.settle(n, i, of(n)) })
	}
	if s.waiting {
		x.try(action{"commit is given up", w.agent, none, i}, func(n *state) { of(n).giveUp() })
	} else {
		x.try(action{"commit is lost", w.agent, none, i}, func(n *state) { *of(n) = send{} })
	}
}

func (x *explorer) decideCommit(n *state, i int8, s *send) {
	w := &n.writes[i]
	known := n.store.results[i] != noFates
	s.stage, s.answer = decided, x.rules.decide(&n.store, w.agent, i, w.in)
	for p, f := range s.answer {
		switch r := &n.store.rows[p]; {
		case f >= 0 && known && !x.rules.admits(r, w.agent, w.in[p]):
			x.witness(AnsweredAfterFence)
		case f == fenced && r.leader == w.agent:
			x.witness(FencedBySelf)
		case f == fenced:
			x.witness(FencedByOther)
		}
	}
}

func (x *explorer) writeCommit(n *state, i int8, s *send) {
	x.rules.write(&n.store, i, n.writes[i].in, s.answer)
	if s.stage = answered; !s.waiting {
		*s = send{}
	}
}

// settle answers the client. An agent that learns that it was fenced has lost the
// lease.
func (x *explorer) settle(n *state, i int8, s *send) {
	w := &n.writes[i]
	w.status, w.told = settled, s.answer
	*s = send{}
	lost := noTerms
	for p, f := range w.told {
		if f == fenced {
			lost[p] = w.in[p]
		}
	}
	x.remove(n, w.agent, lost)
}

// timePasses moves the clocks.
func (x *explorer) timePasses() {
	if x.bounds.Clocks == Free {
		x.anythingEnds()
		return
	}
	storeMay := true
	for i := range int8(x.bounds.Agents) {
		drift := x.from.agents[i].drift
		storeMay = storeMay && drift > 0
		if int(drift) < x.bounds.Drift {
			x.try(action{"tick of its clock", i, none, none}, func(n *state) { x.tickAgent(&n.agents[i]) })
		}
	}
	if storeMay {
		x.try(action{"tick of its clock", none, none, none}, func(n *state) {
			n.store.tick()
			for i := range x.bounds.Agents {
				n.agents[i].drift--
			}
		})
	}
}

// anythingEnds is time by clocks that can't be relied on: each lease and each
// deadline ends at any instant, so ages say nothing.
func (x *explorer) anythingEnds() {
	for p := range int8(x.bounds.Partitions) {
		if x.from.store.rows[p].left > 0 {
			x.try(action{"the lease ends", none, p, none}, func(n *state) { n.store.rows[p].left = 0 })
		}
		for i := range int8(x.bounds.Agents) {
			if x.from.agents[i].beliefs[p].left > 0 {
				x.try(action{"the deadline passes", i, p, none}, func(n *state) { n.agents[i].beliefs[p].left = 0 })
			}
		}
	}
}

func (x *explorer) tickAgent(a *agent) {
	a.drift++
	for p := range a.beliefs {
		a.beliefs[p].left = max(0, a.beliefs[p].left-1)
	}
	// An answer to an older request grants nothing but a deadline in the past.
	oldest := int8(x.bounds.Duration - x.bounds.Margin)
	for c := range a.calls {
		if a.calls[c].waiting {
			a.calls[c].age = min(oldest, a.calls[c].age+1)
		}
	}
}
