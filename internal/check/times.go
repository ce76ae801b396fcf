package check

import (
	"cmp"
	"fmt"
	"slices"
)

// moment is an instant at which something about the end of a partition was asked or became known.
type moment struct {
	at    Instant
	index uint32 // of the send, the read or the end
	what  what
}

type what uint8

// What was asked comes before what became known at the same instant: that is concurrent.
const (
	beginning what = iota // no end is below 0
	sending
	askingEnd
	askingStaleEnd // Options.Staleness after this moment, an end was asked for
	pollingStale   // likewise, a poll that returned nothing
	acked
	read
	answered
)

// readUpTo is a poll or a final log: what it had, and if it had nothing, where it looked.
type readUpTo struct {
	consumer  int // or finalRead
	agent     int32
	end       int64
	invoked   Instant
	completed Instant
}

const finalRead = -1

// floor is the highest end that is proven, and by what.
type floor struct {
	end int64
	by  moment
}

func (f *floor) raise(end int64, by moment) {
	if end > f.end {
		*f = floor{end, by}
	}
}

// timeline is the moments of a partition, and what is proven when they are gone through in their order.
type timeline struct {
	*checker
	*partition
	reads   []readUpTo
	moments []moment

	end     floor           // by anything
	written floor           // by acknowledgements and reads alone
	agents  map[int32]floor // by the high watermarks of each agent
}

// checkTimes demands that what is told of a partition's end is not older than what was known when it was asked. An end
// is proven by an acknowledgement below it, by a record that was read below it, and by an agent that said so.
func (c *checker) checkTimes(p *partition) {
	t := timeline{checker: c, partition: p, agents: make(map[int32]floor)}
	t.moments = make([]moment, 0, 2*(len(p.sends)+len(p.ends)))
	t.addSends()
	t.addReads()
	t.addEnds()
	slices.SortFunc(t.moments, func(a, b moment) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.what, b.what))
	})
	for _, m := range t.moments {
		t.step(m)
	}
}

// firstPlace returns where a record was found first; if it was not found, where it was acknowledged, or NoOffset.
func (t *timeline) firstPlace(name ref) int64 {
	s := t.sent(t.id(name))
	if found := t.found[name-1]; found != NoOffset || s.Outcome != Acked {
		return found
	}
	return s.Offset
}

// ackedPlace returns where an acknowledged record was acknowledged; if that was wrong, where it was found.
func (t *timeline) ackedPlace(name ref) int64 {
	if s := t.sent(t.id(name)); t.known.get(s.Offset) == name {
		return s.Offset
	}
	return t.firstPlace(name)
}

func (t *timeline) addSends() {
	for i, name := range t.sends {
		if t.firstPlace(name) == NoOffset {
			continue
		}
		s := t.sent(t.id(name))
		t.moments = append(t.moments, moment{s.Invoked, uint32(i), sending})
		if s.Outcome == Acked {
			t.moments = append(t.moments, moment{s.Completed, uint32(i), acked})
		}
	}
}

func (t *timeline) addReads() {
	add := func(what what, at Instant, r readUpTo) {
		t.moments = append(t.moments, moment{at, uint32(len(t.reads)), what})
		t.reads = append(t.reads, r)
	}
	for i, s := range t.sessions {
		position := s.From
		for _, poll := range s.Polls {
			r := readUpTo{t.consumers[i], poll.Agent, position, poll.Invoked, poll.Completed}
			if n := len(poll.Records); n > 0 {
				position = poll.Records[n-1].Offset + 1
				r.end = t.proven(poll.Records)
				add(read, poll.Completed, r)
			} else if position != NoOffset && t.options.Staleness > 0 {
				add(pollingStale, poll.Invoked-Instant(t.options.Staleness), r)
			}
		}
	}
	for _, l := range t.logs {
		add(read, l.Completed, readUpTo{finalRead, l.Agent, t.proven(l.Records), l.Invoked, l.Completed})
	}
}

// proven returns the end that records prove which were read together: that of the last which lies where it was read.
// One that does not is an anomaly of its own, and no reason to blame others.
func (t *timeline) proven(records []Record) int64 {
	for _, r := range slices.Backward(records) {
		if t.known.get(r.Offset) == t.ref(r.ID) {
			return r.Offset + 1
		}
	}
	return 0
}

func (t *timeline) addEnds() {
	last := int64(0)
	for _, l := range t.logs {
		last = max(last, l.End)
	}
	for i, e := range t.ends {
		if len(t.logs) > 0 && e.Offset > last {
			t.wrongOffset(BeyondEnd, t.number, e.Offset, "agent %d answered to %v at %v that this is the end; in the final read it was %d",
				e.Agent, e.Source, e.Completed, last)
			continue
		}
		t.moments = append(t.moments, moment{e.Invoked, uint32(i), askingEnd}, moment{e.Completed, uint32(i), answered})
		if t.options.Staleness > 0 && e.Source == Fetched {
			t.moments = append(t.moments, moment{e.Invoked - Instant(t.options.Staleness), uint32(i), askingStaleEnd})
		}
	}
}

// step goes through one moment.
func (t *timeline) step(m moment) {
	switch m.what {
	case sending:
		name := t.sends[m.index]
		if place := t.firstPlace(name); place < t.written.end {
			t.wrongRecord(NonmonotonicSend, t.partition, Record{t.id(name), place}, "was sent at %v, when the end was %d at least: %s",
				m.at, t.written.end, t.describe(t.written.by))
		}
	case askingEnd:
		t.askEnd(t.ends[m.index])
	case askingStaleEnd:
		if e := t.ends[m.index]; e.Offset < t.end.end {
			t.wrongOffset(StaleWatermark, t.number, e.Offset, "agent %d had this as the high watermark when asked at %v; %v earlier the end was %d at least: %s",
				e.Agent, e.Invoked, t.options.Staleness, t.end.end, t.describe(t.end.by))
		}
	case pollingStale:
		if r := t.reads[m.index]; r.end < t.end.end {
			t.wrongOffset(StaleRead, t.number, r.end, "consumer %d got nothing here from agent %d at %v; %v earlier the end was %d at least: %s",
				r.consumer, r.agent, r.invoked, t.options.Staleness, t.end.end, t.describe(t.end.by))
		}
	case acked:
		end := t.ackedPlace(t.sends[m.index]) + 1
		t.end.raise(end, m)
		t.written.raise(end, m)
	case read:
		t.end.raise(t.reads[m.index].end, m)
		t.written.raise(t.reads[m.index].end, m)
	case answered:
		e := t.ends[m.index]
		t.end.raise(e.Offset, m)
		if e.Source == Fetched {
			f := t.agents[e.Agent]
			f.raise(e.Offset, m)
			t.agents[e.Agent] = f
		}
	}
}

// askEnd judges an answer by what was proven when it was asked for. A high watermark may be late, but not go back.
func (t *timeline) askEnd(e *End) {
	if e.Source == Listed {
		if e.Offset < t.end.end {
			t.wrongOffset(StaleEnd, t.number, e.Offset, "agent %d listed this as the end when asked at %v; the end was %d at least: %s",
				e.Agent, e.Invoked, t.end.end, t.describe(t.end.by))
		}
		return
	}
	if f := t.agents[e.Agent]; e.Offset < f.end {
		t.wrongOffset(EndWentBack, t.number, e.Offset, "agent %d had this as the high watermark when asked at %v; it had said %d before: %s",
			e.Agent, e.Invoked, f.end, t.describe(f.by))
	}
}

// describe says what happened at a moment at which something became known.
func (t *timeline) describe(m moment) string {
	switch m.what {
	case beginning:
		return "no end is below 0"
	case acked:
		return t.describeSend(t.id(t.sends[m.index]))
	case read:
		r := t.reads[m.index]
		who := "the final read"
		if r.consumer != finalRead {
			who = fmt.Sprintf("consumer %d", r.consumer)
		}
		return fmt.Sprintf("%s had offset %d from agent %d between %v and %v", who, r.end-1, r.agent, r.invoked, r.completed)
	default:
		e := t.ends[m.index]
		return fmt.Sprintf("agent %d answered %d to %v between %v and %v", e.Agent, e.Offset, e.Source, e.Invoked, e.Completed)
	}
}
