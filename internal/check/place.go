package check

import (
	"cmp"
	"slices"
)

// checkLogs reads the final logs of a partition: they are dense up to the end, and the same from every agent.
func (c *checker) checkLogs(p *partition) {
	for i, l := range p.logs {
		if first := p.logs[0]; l.End != first.End {
			c.wrongOffset(Divergence, p.number, min(l.End, first.End), "the log of agent %d ends at %d, that of agent %d at %d",
				first.Agent, first.End, l.Agent, l.End)
		}
		next := int64(0)
		for _, r := range l.Records {
			c.checkGap(p, i, next, r.Offset)
			switch {
			case r.Offset < 0 || r.Offset >= l.End:
				c.wrongRecord(BeyondEnd, p, r, "is in the log of agent %d, outside of [0, %d)", l.Agent, l.End)
			case r.Offset < next:
				c.wrongRecord(NonmonotonicPoll, p, r, "follows offset %d in the log of agent %d", next-1, l.Agent)
			}
			c.checkLogged(p, i, r)
			next = max(next, r.Offset+1)
		}
		c.checkGap(p, i, next, l.End)
	}
}

// checkGap judges that log i has nothing in [from, to).
func (c *checker) checkGap(p *partition, i int, from, to int64) {
	l := p.logs[i]
	to = min(to, l.End)
	if from >= to {
		return
	}
	if there := p.known.first(from, to); there != NoOffset {
		r := Record{c.id(p.known.get(there)), there}
		c.wrongRecord(Divergence, p, r, "is not in the log of agent %d, which has nothing in [%d, %d)", l.Agent, from, to)
		return
	}
	c.wrongOffset(Gap, p.number, from, "the log of agent %d has nothing in [%d, %d), and ends at %d", l.Agent, from, to, l.End)
}

// checkLogged compares a record of log i with what is known to be at its offset.
func (c *checker) checkLogged(p *partition, i int, r Record) {
	if r.Offset < 0 {
		return
	}
	l, first := p.logs[i], p.logs[0]
	c.checkCause(p, r, l.Completed)
	name, known := c.ref(r.ID), p.known.get(r.Offset)
	switch {
	case known == name:
	case known == nothing:
		if i > 0 && r.Offset < first.End {
			c.wrongRecord(Divergence, p, r, "is in the log of agent %d, where agent %d has nothing", l.Agent, first.Agent)
		}
		c.place(p, r, name)
	case i == 0:
		c.wrongRecord(InconsistentOffset, p, r, "is there, and %v too, in the log of agent %d", c.id(known), l.Agent)
	default:
		c.wrongRecord(Divergence, p, r, "is in the log of agent %d, where another agent has %v", l.Agent, c.id(known))
	}
}

// place notes where a record is, and judges whether it may be there.
func (c *checker) place(p *partition, r Record, name ref) {
	p.known.set(r.Offset, name)
	if !c.mayBeRead(p, r) {
		return
	}
	if other := c.found[name-1]; other != NoOffset {
		kind := RepeatedDuplicate
		if c.history.Producers[r.Producer].Idempotent {
			kind = Duplicate
		}
		c.wrongRecord(kind, p, r, "is at offset %d too", other)
		return
	}
	c.found[name-1] = r.Offset
}

// mayBeRead tells whether the record was sent to the partition. It reports a record that should not be there.
func (c *checker) mayBeRead(p *partition, r Record) bool {
	s := c.sent(r.ID)
	switch {
	case s == nil:
		c.wrongRecord(Phantom, p, r, "was never sent")
		return false
	case s.Partition != p.number:
		c.wrongRecord(Phantom, p, r, "was sent to partition %d", s.Partition)
		return false
	case s.Outcome == Failed:
		c.wrongRecord(FailedRead, p, r, "was read, but its producer was told that it is not there")
	}
	return true
}

// checkCause demands that a record was sent before a read of it completed.
func (c *checker) checkCause(p *partition, r Record, completed Instant) {
	if s := c.sent(r.ID); s != nil && completed < s.Invoked {
		c.wrongRecord(Phantom, p, r, "was read by %v, and sent at %v", completed, s.Invoked)
	}
}

// checkPolls compares what consumers saw with the final logs; where there are none, with each other.
func (c *checker) checkPolls(p *partition) {
	for _, s := range p.sessions {
		for i := range s.Polls {
			for _, r := range s.Polls[i].Records {
				c.checkPolled(p, &s.Polls[i], r)
			}
		}
	}
}

func (c *checker) checkPolled(p *partition, poll *Poll, r Record) {
	if r.Offset < 0 {
		c.wrongRecord(BeyondEnd, p, r, "was read at an offset below 0")
		return
	}
	c.checkCause(p, r, poll.Completed)
	name, known := c.ref(r.ID), p.known.get(r.Offset)
	switch {
	case known == name:
	case known != nothing:
		c.wrongRecord(InconsistentOffset, p, r, "was read there, and %v too", c.id(known))
	case len(p.logs) == 0:
		c.place(p, r, name)
	case c.mayBeRead(p, r):
		// A failed write should be gone. An acknowledged one that is nowhere is lost, which says it better.
		s := c.sent(r.ID)
		if s.Outcome == Unknown || s.Outcome == Acked && c.found[name-1] != NoOffset {
			c.wrongRecord(Vanished, p, r, "was read there, and no final log has anything there")
		}
	}
}

// checkFates looks for what was acknowledged.
func (c *checker) checkFates(p *partition) {
	covered := p.covered()
	for _, name := range p.sends {
		id := c.id(name)
		s := c.sent(id)
		r := Record{id, s.Offset}
		// What is at every offset is known where there are final logs, and where somebody read on.
		judged := len(p.logs) > 0 || covers(covered, s.Offset)
		switch found := c.found[name-1]; {
		case s.Outcome != Acked || found == s.Offset || p.known.get(s.Offset) == name:
		case found != NoOffset && (judged || c.history.Producers[id.Producer].Idempotent):
			c.wrongRecord(WrongOffset, p, r, "was acknowledged at this offset, and found at %d", found)
		case found == NoOffset && judged:
			c.wrongRecord(Lost, p, r, "was acknowledged, and is not in what was read across its offset")
		}
	}
}

// span is the offsets in [from, to).
type span struct{ from, to int64 }

// covered returns, sorted and apart, what the sessions read. Final logs have everything, and need no such proof.
func (p *partition) covered() []span {
	if len(p.logs) > 0 {
		return nil
	}
	var spans []span
	for _, s := range p.sessions {
		if read := s.span(); read.from < read.to {
			spans = append(spans, read)
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	apart := spans[:0]
	for _, s := range spans {
		if last := len(apart) - 1; last >= 0 && s.from <= apart[last].to {
			apart[last].to = max(apart[last].to, s.to)
			continue
		}
		apart = append(apart, s)
	}
	return apart
}

// span returns from where to where a session read.
func (s *Session) span() span {
	read := span{s.From, s.From}
	for _, poll := range s.Polls {
		for _, r := range poll.Records {
			if read.from == NoOffset {
				read.from = r.Offset
			}
			read.to = max(read.to, r.Offset+1)
		}
	}
	return read
}

// covers tells whether an offset lies in one of the spans, which are sorted and apart.
func covers(spans []span, offset int64) bool {
	i, exact := slices.BinarySearchFunc(spans, offset, func(s span, offset int64) int { return cmp.Compare(s.from, offset) })
	return exact || i > 0 && offset < spans[i-1].to
}
