package model

// The invariants, as a report names them.
const (
	epochFell       = "the leader epoch of a partition fell"
	epochShared     = "two terms have one leader epoch"
	offsetRewritten = "an offset has two writers"
	offsetGap       = "the offsets of a log are not dense"
	staleWriter     = "a record was accepted that is not of the leader's own term"
	writtenTwice    = "a write is in a log twice"
	answerChanged   = "a retry got another answer"
	ackLost         = "an acknowledged write is not where its client was told"
	refusedWritten  = "a write that was refused is in a log"
	notHolder       = "an agent believes to hold a lease that the store has not as its"
)

// change says what is wrong with a change of the store; empty if nothing is.
func change(before, after *store, writes *[maxWrites]write) string {
	for p := range after.rows {
		was, is := &before.rows[p], &after.rows[p]
		if is.leaderEpoch < was.leaderEpoch {
			return epochFell
		}
		if is.leader != none && is.leader != was.leader && is.leaderEpoch == was.leaderEpoch {
			return epochShared
		}
		for o := range is.log {
			switch old, e := was.log[o], is.log[o]; {
			case e == old:
			case old != noEntry:
				return offsetRewritten
			case int8(o) >= is.high || int8(o) < was.high:
				return offsetGap
			case writes[e.write].agent != was.leader || e.leaderEpoch != was.leaderEpoch:
				return staleWriter
			}
		}
		for w, f := range before.results {
			if writes[w].status != unused && f[p] != none && after.results[w][p] != f[p] {
				return answerChanged
			}
		}
	}
	return ""
}

// check says what is wrong with a state; empty if nothing is. The time says
// whether clocks can be relied on.
func (m *Model) check(s *state) string {
	for p := range s.store.rows {
		if broken := s.checkLog(p); broken != "" {
			return broken
		}
		if broken := s.checkAnswers(p); broken != "" {
			return broken
		}
		if m.bounds.Clocks == Bounded {
			if broken := m.checkHolders(s, p); broken != "" {
				return broken
			}
		}
	}
	return ""
}

func (s *state) checkLog(p int) string {
	r := &s.store.rows[p]
	var times [maxWrites]int
	for o, e := range r.log {
		switch {
		case int8(o) >= r.high && e != noEntry, int8(o) < r.high && e == noEntry:
			return offsetGap
		case e == noEntry:
		case o > 0 && e.leaderEpoch < r.log[o-1].leaderEpoch:
			return staleWriter
		default:
			if times[e.write]++; times[e.write] > 1 {
				return writtenTwice
			}
		}
	}
	return ""
}

func (s *state) checkAnswers(p int) string {
	r := &s.store.rows[p]
	for i := range s.writes {
		w := &s.writes[i]
		if at := w.told[p]; at >= 0 && r.log[at] != (entry{int8(i), w.in[p]}) {
			return ackLost
		}
		if at := s.store.results[i][p]; at >= 0 && r.log[at] != (entry{int8(i), w.in[p]}) {
			return ackLost
		}
		if w.told[p] != fenced && s.store.results[i][p] != fenced {
			continue
		}
		for _, e := range r.log {
			if e.write == int8(i) {
				return refusedWritten
			}
		}
	}
	return ""
}

// checkHolders is what time is good for: who believes to hold a lease is right,
// unless it was buried. A burial ends all that the agent was ever granted; older
// terms of others were looked at when they ended.
func (m *Model) checkHolders(s *state, p int) string {
	r := &s.store.rows[p]
	for a := range s.agents {
		b := s.agents[a].beliefs[p]
		if b.term == none || !m.machines.held(b) || b.term <= s.buried[p] {
			continue
		}
		if r.leader != int8(a) || r.left == 0 {
			return notHolder
		}
	}
	return ""
}
