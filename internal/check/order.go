package check

import (
	"math"
	"slices"
)

// checkOrder demands that the records of an idempotent producer lie in the order in which it sent them. A duplicate is
// judged by its first place alone.
func (c *checker) checkOrder(p *partition) {
	last := slices.Repeat([]int64{-1}, len(c.history.Producers))
	for offset, name := range p.known.between(0, math.MaxInt64) {
		id := c.id(name)
		if s := c.sent(id); s == nil || !c.history.Producers[id.Producer].Idempotent || c.found[name-1] != offset {
			continue
		}
		if id.Sequence < last[id.Producer] {
			c.wrongRecord(Reordered, p, Record{id, offset}, "lies behind record %d", last[id.Producer])
			continue
		}
		last[id.Producer] = id.Sequence
	}
}

// checkSessions demands that a consumer reads on where it is: no record again, none left out.
func (c *checker) checkSessions(p *partition) {
	for i, s := range p.sessions {
		position := s.From
		for _, poll := range s.Polls {
			for _, r := range poll.Records {
				switch {
				case position == NoOffset:
				case r.Offset < position:
					c.wrongRecord(NonmonotonicPoll, p, r, "was read by consumer %d at its position %d", p.consumers[i], position)
				default:
					if skipped := p.known.first(position, r.Offset); skipped != NoOffset {
						left := Record{c.id(p.known.get(skipped)), skipped}
						c.wrongRecord(PollSkip, p, left, "was left out by consumer %d, which read offset %d at its position %d",
							p.consumers[i], r.Offset, position)
					}
				}
				position = r.Offset + 1
			}
		}
	}
}
