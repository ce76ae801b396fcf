package model

import (
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// state is the whole of the modelled world at one instant.
type state struct {
	store  store
	agents [maxAgents]agent
	writes [maxWrites]write
	// buried is the leader epoch that ended by the last burial. It is about time
	// only: see checkHolders.
	buried [maxPartitions]int8
}

// write is one object with records of a client: accepted by an agent under its
// leases, uploaded, and committed until there is an answer.
type write struct {
	agent  int8 // none once nothing of it is under way
	in     terms
	status status
	told   fates // what the client was answered
	sends  [maxSends]send
}

const maxSends = 2

type status int8

const (
	unused    status = iota
	open             // the agent will send until it has an answer
	settled          // the client has its answer
	abandoned        // the agent died: the client will never know
)

// send is one attempt to commit a write.
type send struct {
	stage   stage
	waiting bool
	answer  fates
}

func (w *write) awaits() bool {
	return slices.ContainsFunc(w.sends[:], func(s send) bool { return s.waiting })
}

func (w *write) free() *send {
	for i := range w.sends {
		if w.sends[i].stage == idle {
			return &w.sends[i]
		}
	}
	return nil
}

// giveUp ends the agent's wait for an attempt.
func (s *send) giveUp() {
	if s.stage == answered {
		*s = send{}
		return
	}
	s.waiting = false
}

var unusedWrite = write{agent: none, in: noTerms, told: noFates}

func initial() state {
	s := state{store: newStore(), buried: noTerms}
	for a := range s.agents {
		s.agents[a].beliefs = noBeliefs
	}
	for w := range s.writes {
		s.writes[w] = unusedWrite
	}
	return s
}

// forget drops what can't matter any more: requests that nobody waits for and
// that the store will not follow; then writes of which nothing is under way, which
// belong to nobody, and are as if they had not been if they are in no log.
func (s *state) forget() {
	for i := range s.agents {
		for k := range s.agents[i].calls {
			if c := &s.agents[i].calls[k]; !c.waiting && s.store.outdated(c) {
				*c = call{}
			}
		}
	}
	for i := range s.writes {
		w, known := &s.writes[i], s.store.results[i] != noFates
		for k := range w.sends {
			if a := &w.sends[k]; known && a.stage == asked && !a.waiting {
				*a = send{}
			}
		}
		if w.status <= open || w.sends != [maxSends]send{} {
			continue
		}
		w.agent = none
		if s.store.results[i][0] < 0 && s.store.results[i][1] < 0 {
			*w = unusedWrite
			s.store.results[i] = noFates
		}
	}
}

// outdated says of a renewal, a release or a hand-over that all of its terms are over.
// Leader epochs don't fall, which is an invariant, so they stay over.
func (s *store) outdated(c *call) bool {
	for p, term := range c.asked {
		if term != none && (c.kind == acquire || term >= s.rows[p].leaderEpoch) {
			return false
		}
	}
	return true
}

// fingerprint is the same for states that differ in the names of agents, in the
// order of calls or in the numbers of writes: what an agent leads and writes counts
// as part of the agent, and parts are sorted. As in TLC, two states of the same
// fingerprint are taken for one.
func (s *state) fingerprint() uint64 {
	var whole [1 + maxAgents + 1]uint64
	var b bits
	for i := range s.store.rows {
		r := &s.store.rows[i]
		b.add(3, r.leaderEpoch+1, r.left, r.high, s.buried[i]+1)
		b.add(1, bit(r.handed))
	}
	whole[0] = b.word
	for i := range s.agents {
		whole[1+i] = s.print(int8(i))
	}
	slices.Sort(whole[1 : 1+maxAgents])
	whole[1+maxAgents] = s.printWrites(none)
	return digest(whole[:]...)
}

// print is the fingerprint of an agent and what is its.
func (s *state) print(agent int8) uint64 {
	a := &s.agents[agent]
	var b bits
	for p, l := range a.beliefs {
		b.add(3, l.term+1, l.left)
		b.add(1, bit(s.store.rows[p].leader == agent))
		b.add(6, s.comes(agent, p))
	}
	b.add(3, a.drift)
	var calls [maxCalls]uint64
	for i := range a.calls {
		calls[i] = a.calls[i].pack()
	}
	slices.Sort(calls[:])
	return digest(b.word, digest(calls[:]...), s.printWrites(agent))
}

// comes has the leader epochs, as bits, whose hand-over to the agent is under way.
func (s *state) comes(agent int8, partition int) (epochs int8) {
	for i := range s.agents {
		for _, c := range s.agents[i].calls {
			if c.kind == handOver && c.to == agent && c.asked[partition] != none {
				epochs |= 1 << c.asked[partition]
			}
		}
	}
	return epochs
}

// printWrites is the fingerprint of an agent's writes. What a log says is not in
// it: that follows from the results, which the invariants compare with the log.
func (s *state) printWrites(agent int8) uint64 {
	var packed [maxWrites]uint64
	for i := range s.writes {
		if w := &s.writes[i]; w.agent == agent && w.status != unused {
			packed[i] = w.pack(s.store.results[i])
		}
	}
	slices.Sort(packed[:])
	return digest(packed[:]...)
}

func digest(words ...uint64) uint64 {
	var bytes [8 * maxDigest]byte
	for i, word := range words {
		binary.LittleEndian.PutUint64(bytes[8*i:], word)
	}
	return xxhash.Sum64(bytes[:8*len(words)])
}

// maxDigest is the most words that are digested at once.
const maxDigest = 2 + maxAgents

func (c *call) pack() uint64 {
	if c.kind == noCall {
		return 0
	}
	b := bits{}
	b.add(3, int8(c.kind), int8(c.stage))
	b.add(1, bit(c.waiting))
	b.add(3, c.age)
	for p := range c.asked {
		b.add(3, c.asked[p]+1, c.answer[p]+1)
	}
	return b.word
}

func (w *write) pack(result fates) uint64 {
	b := bits{}
	b.add(2, int8(w.status))
	for p := range w.in {
		b.add(3, w.in[p]+1, int8(w.told[p])+2, int8(result[p])+2)
	}
	var sends [maxSends]uint64
	for i := range w.sends {
		sends[i] = w.sends[i].pack()
	}
	slices.Sort(sends[:])
	return (b.word<<9|sends[0])<<9 | sends[1]
}

func (s *send) pack() uint64 {
	if s.stage == idle {
		return 0
	}
	b := bits{}
	b.add(2, int8(s.stage))
	b.add(1, bit(s.waiting))
	for p := range s.answer {
		b.add(3, int8(s.answer[p])+2)
	}
	return b.word
}

// bits is a word that is filled from the right.
type bits struct{ word uint64 }

func (b *bits) add(width int, values ...int8) {
	for _, v := range values {
		b.word = b.word<<width | uint64(v)
	}
}

func bit(b bool) int8 {
	if b {
		return 1
	}
	return 0
}
