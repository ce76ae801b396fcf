package model

// Sizes of the arrays that a state is made of; Bounds lie within them. Arrays
// make a state a value that is copied and compared without allocating.
const (
	maxAgents     = 3
	maxPartitions = 2
	maxWrites     = 4
)

// none is no agent, no leader epoch, or nothing known yet.
const none = -1

// terms has the leader epoch of each partition that a request or a write is
// about, else none.
type terms [maxPartitions]int8

var noTerms = terms{none, none}

// fate is what became of a write in one partition: its offset, fenced, or none
// while it is not known or if the write has nothing there.
type fate int8

const fenced fate = -2

type fates [maxPartitions]fate

var noFates = fates{none, none}

// store is what the metadata store keeps, as the contracts of lease.Store and
// metadata.Committer have it. The results are the store's memory of the names of
// objects.
type store struct {
	rows    [maxPartitions]row
	results [maxWrites]fates
}

// row is a partition.
type row struct {
	leader      int8
	leaderEpoch int8
	left        int8 // ticks of the store's clock until the lease expires; 0: it has
	handed      bool // to the leader, which has not acquired it yet
	high        int8
	log         [maxWrites]entry // by offset
	// epoch counts grants and renewals. No rule reads it, so states that differ
	// in it alone are the same.
	epoch int16
}

// entry is the record of a write, with the leader epoch that it is stamped with.
type entry struct{ write, leaderEpoch int8 }

var noEntry = entry{none, none}

func newStore() store {
	var s store
	for p := range s.rows {
		s.rows[p] = row{leader: none, leaderEpoch: none}
		for o := range s.rows[p].log {
			s.rows[p].log[o] = noEntry
		}
	}
	for w := range s.results {
		s.results[w] = noFates
	}
	return s
}

// rules are the store's decisions. Each can be exchanged, so that tests show that
// a store which decides otherwise is found out.
type rules struct {
	// take grants a row to an agent until ttl from now, if it may have it.
	take func(r *row, agent, ttl int8) bool
	// renew extends the row's lease, if the agent still leads in that term.
	renew func(r *row, agent, term, ttl int8) bool
	// hand makes another agent the leader, in a term that its first acquisition
	// goes on in.
	hand func(r *row, to, ttl int8)
	// free ends the lease of a row.
	free func(r *row)
	// admits is the fence: whether the agent may write in that term.
	admits func(r *row, agent, term int8) bool
	// remembers says that a name which was committed before is answered from
	// memory.
	remembers bool
	// atomic says that a commit decides and writes in one transaction.
	atomic bool
	// countsFromAnswer says that agents count a deadline from the answer and not
	// from the request. It is no decision of the store, but it can be as wrong.
	countsFromAnswer bool
}

// contract are the rules that the real stores follow.
func contract() rules {
	return rules{
		take: func(r *row, agent, ttl int8) bool {
			if r.leader != none && r.leader != agent && r.left > 0 {
				return false
			}
			if !r.handed || r.leader != agent {
				r.leaderEpoch++
			}
			r.leader, r.left, r.handed = agent, ttl, false
			r.epoch++
			return true
		},
		renew: func(r *row, agent, term, ttl int8) bool {
			if r.leader != agent || r.leaderEpoch != term {
				return false
			}
			r.left = ttl
			r.epoch++
			return true
		},
		hand: func(r *row, to, ttl int8) {
			r.leader, r.left, r.handed = to, ttl, true
			r.leaderEpoch++
			r.epoch++
		},
		free:      func(r *row) { r.leader, r.left, r.handed = none, 0, false },
		admits:    func(r *row, agent, term int8) bool { return r.leader == agent && r.leaderEpoch == term },
		remembers: true,
		atomic:    true,
	}
}

// acquire returns the leader epoch that was granted, or none.
func (ru *rules) acquire(s *store, agent int8, partition int, ttl int8) int8 {
	if r := &s.rows[partition]; ru.take(r, agent, ttl) {
		return r.leaderEpoch
	}
	return none
}

// renewAll returns the terms that were renewed.
func (ru *rules) renewAll(s *store, agent int8, asked terms, ttl int8) terms {
	got := noTerms
	for p, term := range asked {
		if term != none && ru.renew(&s.rows[p], agent, term, ttl) {
			got[p] = term
		}
	}
	return got
}

// release frees the terms of which the agent is still the leader.
func (ru *rules) release(s *store, agent int8, of terms) {
	for p, term := range of {
		if r := &s.rows[p]; term != none && r.leader == agent && r.leaderEpoch == term {
			ru.free(r)
		}
	}
}

// handOver gives the terms of which the agent is still the leader to another.
func (ru *rules) handOver(s *store, agent, to int8, of terms, ttl int8) {
	for p, term := range of {
		if r := &s.rows[p]; term != none && r.leader == agent && r.leaderEpoch == term {
			ru.hand(r, to, ttl)
		}
	}
}

// bury frees whatever an agent leads, whether or not it is dead.
func (ru *rules) bury(s *store, agent int8) {
	for p := range s.rows {
		if r := &s.rows[p]; r.leader == agent {
			ru.free(r)
		}
	}
}

// decide is the first half of a commit: what is to become of a write's records.
func (ru *rules) decide(s *store, agent, write int8, in terms) fates {
	if ru.remembers && s.results[write] != noFates {
		return s.results[write]
	}
	f := noFates
	for p, term := range in {
		switch r := &s.rows[p]; {
		case term == none:
		case ru.admits(r, agent, term):
			f[p] = fate(r.high)
		default:
			f[p] = fenced
		}
	}
	return f
}

// write is the other half: it makes it so.
func (ru *rules) write(s *store, write int8, in terms, f fates) {
	if ru.remembers && s.results[write] != noFates {
		return
	}
	s.results[write] = f
	for p, offset := range f {
		if r := &s.rows[p]; offset >= 0 {
			r.log[offset] = entry{write, in[p]}
			r.high = int8(offset) + 1
		}
	}
}

// tick passes a tick of the store's clock.
func (s *store) tick() {
	for p := range s.rows {
		s.rows[p].left = max(0, s.rows[p].left-1)
	}
}
