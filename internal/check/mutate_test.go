package check

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// mutation spoils a right history at a random place, and tells whether it found one.
type mutation struct {
	want  Kind
	spoil func(*rand.Rand, *History) bool
}

// pick returns a random element that will do.
func pick[T any](random *rand.Rand, all []T, will func(*T) bool) *T {
	var good []*T
	for i := range all {
		if will(&all[i]) {
			good = append(good, &all[i])
		}
	}
	if len(good) == 0 {
		return nil
	}
	return good[random.IntN(len(good))]
}

// pickPoll returns a random poll that will do, with its session.
func pickPoll(random *rand.Rand, h *History, will func(*Session, *Poll) bool) (*Session, *Poll) {
	type at struct {
		s *Session
		p *Poll
	}
	var good []at
	for i := range h.Consumers {
		for j := range h.Consumers[i].Sessions {
			s := &h.Consumers[i].Sessions[j]
			for k := range s.Polls {
				if will(s, &s.Polls[k]) {
					good = append(good, at{s, &s.Polls[k]})
				}
			}
		}
	}
	if len(good) == 0 {
		return nil, nil
	}
	chosen := good[random.IntN(len(good))]
	return chosen.s, chosen.p
}

func pickProducer(random *rand.Rand, h *History) (int32, *Producer) {
	number := random.Int32N(int32(len(h.Producers)))
	return number, &h.Producers[number]
}

func sendOf(h *History, id ID) *Send { return &h.Producers[id.Producer].Sends[id.Sequence] }

// logsOf returns the final logs of a partition.
func logsOf(h *History, partition int32) []*Log {
	var logs []*Log
	for i := range h.Logs {
		if h.Logs[i].Partition == partition {
			logs = append(logs, &h.Logs[i])
		}
	}
	return logs
}

// appendToLogs has every agent serve one more record.
func appendToLogs(h *History, partition int32, id ID) {
	for _, l := range logsOf(h, partition) {
		l.Records = append(l.Records, Record{id, l.End})
		l.End++
	}
}

// exchange swaps the offsets of two records wherever they show.
func exchange(h *History, partition int32, a, b Record) {
	swap := func(records []Record) {
		for i := range records {
			switch records[i] {
			case a:
				records[i].ID = b.ID
			case b:
				records[i].ID = a.ID
			}
		}
	}
	for _, l := range logsOf(h, partition) {
		swap(l.Records)
	}
	for _, c := range h.Consumers {
		for _, s := range c.Sessions {
			for _, p := range s.Polls {
				if s.Partition == partition {
					swap(p.Records)
				}
			}
		}
	}
	x, y := sendOf(h, a.ID), sendOf(h, b.ID)
	x.Offset, y.Offset = y.Offset, x.Offset
}

// ackedBefore returns the highest end that acknowledgements before an instant prove.
func ackedBefore(h *History, partition int32, at Instant) int64 {
	end := int64(0)
	for _, l := range logsOf(h, partition)[:1] {
		for _, r := range l.Records {
			if s := sendOf(h, r.ID); s.Outcome == Acked && s.Completed < at && s.Offset == r.Offset {
				end = r.Offset + 1
			}
		}
	}
	return end
}

// twoOf returns two records of a partition of which the first lies in front of the second.
func twoOf(random *rand.Rand, h *History, will func(a, b Record) bool) (partition int32, a, b Record, ok bool) {
	log := h.Logs[random.IntN(len(h.Logs))]
	for range 100 {
		if len(log.Records) < 2 {
			break
		}
		i := random.IntN(len(log.Records) - 1)
		j := i + 1 + random.IntN(min(len(log.Records)-i-1, 20))
		if a, b := log.Records[i], log.Records[j]; a.ID != b.ID && will(a, b) {
			return log.Partition, a, b, true
		}
	}
	return 0, Record{}, Record{}, false
}

var mutations = map[string]mutation{
	"an acknowledged record disappears": {Lost, func(random *rand.Rand, h *History) bool {
		_, producer := pickProducer(random, h)
		s := pick(random, producer.Sends, func(s *Send) bool { return s.Outcome == Acked && producer.Idempotent })
		if s == nil {
			return false
		}
		for _, l := range logsOf(h, s.Partition) {
			l.Records = slices.DeleteFunc(l.Records, func(r Record) bool { return r.Offset == s.Offset })
		}
		return true
	}},
	"an offset is empty": {Gap, func(random *rand.Rand, h *History) bool {
		l := pick(random, h.Logs, func(l *Log) bool { return len(l.Records) > 0 })
		if l == nil {
			return false
		}
		offset := random.Int64N(l.End)
		for _, l := range logsOf(h, l.Partition) {
			l.Records = slices.DeleteFunc(l.Records, func(r Record) bool { return r.Offset == offset })
		}
		return true
	}},
	"an agent lacks a record": {Divergence, func(random *rand.Rand, h *History) bool {
		l := pick(random, h.Logs, func(l *Log) bool { return len(l.Records) > 0 })
		if l == nil {
			return false
		}
		i := random.IntN(len(l.Records))
		l.Records = slices.Delete(l.Records, i, i+1)
		return true
	}},
	"an agent has another record": {Divergence, func(random *rand.Rand, h *History) bool {
		l := pick(random, h.Logs, func(l *Log) bool { return len(l.Records) > 1 && l.Records[0].ID != l.Records[1].ID })
		if l == nil {
			return false
		}
		l.Records[0].ID = l.Records[1].ID
		return true
	}},
	"an agent ends early": {Divergence, func(random *rand.Rand, h *History) bool {
		l := pick(random, h.Logs, func(l *Log) bool { return len(l.Records) > 0 })
		if l == nil {
			return false
		}
		l.End--
		l.Records = l.Records[:l.End]
		return true
	}},
	"a record is there twice": {Duplicate, func(random *rand.Rand, h *History) bool {
		partition, a, _, ok := twoOf(random, h, func(a, _ Record) bool { return h.Producers[a.Producer].Idempotent })
		if ok {
			appendToLogs(h, partition, a.ID)
		}
		return ok
	}},
	"records of a producer change places": {Reordered, func(random *rand.Rand, h *History) bool {
		partition, a, b, ok := twoOf(random, h, func(a, b Record) bool {
			return a.Producer == b.Producer && h.Producers[a.Producer].Idempotent
		})
		if ok {
			exchange(h, partition, a, b)
		}
		return ok
	}},
	"a later record lies in front": {NonmonotonicSend, func(random *rand.Rand, h *History) bool {
		partition, a, b, ok := twoOf(random, h, func(a, b Record) bool {
			x, y := sendOf(h, a.ID), sendOf(h, b.ID)
			return h.Producers[a.Producer].Idempotent && h.Producers[b.Producer].Idempotent &&
				x.Outcome == Acked && y.Outcome == Acked && x.Completed < y.Invoked
		})
		if ok {
			exchange(h, partition, a, b)
		}
		return ok
	}},
	"an acknowledgement tells another offset": {WrongOffset, func(random *rand.Rand, h *History) bool {
		_, producer := pickProducer(random, h)
		s := pick(random, producer.Sends, func(s *Send) bool { return s.Outcome == Acked && producer.Idempotent })
		if s != nil {
			s.Offset += 1 + random.Int64N(3)
		}
		return s != nil
	}},
	"an acknowledgement tells offset 0": {WrongOffset, func(random *rand.Rand, h *History) bool {
		_, producer := pickProducer(random, h)
		s := pick(random, producer.Sends, func(s *Send) bool { return s.Outcome == Acked && producer.Idempotent && s.Offset > 0 })
		if s != nil {
			s.Offset = 0
		}
		return s != nil
	}},
	"a failed write is there": {FailedRead, func(random *rand.Rand, h *History) bool {
		number, producer := pickProducer(random, h)
		s := pick(random, producer.Sends, func(s *Send) bool { return s.Outcome == Failed })
		if s == nil {
			return false
		}
		for i := range producer.Sends {
			if s == &producer.Sends[i] {
				appendToLogs(h, s.Partition, ID{number, int64(i)})
			}
		}
		return true
	}},
	"a record that nobody sent is there": {Phantom, func(random *rand.Rand, h *History) bool {
		number, producer := pickProducer(random, h)
		appendToLogs(h, random.Int32N(simPartitions), ID{number, int64(len(producer.Sends))})
		return true
	}},
	"a record of another partition is there": {Phantom, func(random *rand.Rand, h *History) bool {
		partition, a, _, ok := twoOf(random, h, func(a, _ Record) bool { return true })
		if ok {
			appendToLogs(h, (partition+1)%simPartitions, a.ID)
		}
		return ok
	}},
	"a record is read before it was sent": {Phantom, func(random *rand.Rand, h *History) bool {
		_, poll := pickPoll(random, h, func(_ *Session, p *Poll) bool { return len(p.Records) > 0 })
		if poll == nil {
			return false
		}
		sendOf(h, poll.Records[0].ID).Invoked = poll.Completed + 1
		return true
	}},
	"a consumer reads another record": {InconsistentOffset, func(random *rand.Rand, h *History) bool {
		_, poll := pickPoll(random, h, func(_ *Session, p *Poll) bool { return len(p.Records) > 1 && p.Records[0].ID != p.Records[1].ID })
		if poll == nil {
			return false
		}
		poll.Records[0].ID = poll.Records[1].ID
		return true
	}},
	"a consumer reads a record that vanishes": {Vanished, func(random *rand.Rand, h *History) bool {
		_, poll := pickPoll(random, h, func(s *Session, p *Poll) bool { return len(p.Records) > 0 && p == &s.Polls[len(s.Polls)-1] })
		if poll == nil {
			return false
		}
		poll.Records = append(poll.Records, Record{poll.Records[0].ID, 1000})
		return true
	}},
	"a consumer leaves a record out": {PollSkip, func(random *rand.Rand, h *History) bool {
		_, poll := pickPoll(random, h, func(_ *Session, p *Poll) bool { return len(p.Records) > 2 })
		if poll == nil {
			return false
		}
		i := 1 + random.IntN(len(poll.Records)-2)
		poll.Records = slices.Delete(poll.Records, i, i+1)
		return true
	}},
	"a consumer does not begin where it should": {PollSkip, func(random *rand.Rand, h *History) bool {
		_, poll := pickPoll(random, h, func(s *Session, p *Poll) bool {
			return s.From != NoOffset && p == &s.Polls[0] && len(p.Records) > 1
		})
		if poll == nil {
			return false
		}
		poll.Records = poll.Records[1:]
		return true
	}},
	"a consumer reads a record again": {NonmonotonicPoll, func(random *rand.Rand, h *History) bool {
		_, poll := pickPoll(random, h, func(_ *Session, p *Poll) bool { return len(p.Records) > 0 })
		if poll == nil {
			return false
		}
		i := random.IntN(len(poll.Records))
		poll.Records = slices.Insert(poll.Records, i+1, poll.Records[random.IntN(i+1)])
		return true
	}},
	"a consumer gets nothing where there is something": {StaleRead, func(random *rand.Rand, h *History) bool {
		_, poll := pickPoll(random, h, func(s *Session, p *Poll) bool {
			return len(p.Records) > 0 && (s.From != NoOffset || p != &s.Polls[0]) &&
				p.Records[0].Offset < ackedBefore(h, s.Partition, p.Invoked-Instant(simStaleness))
		})
		if poll == nil {
			return false
		}
		poll.Records = nil
		return true
	}},
	"a listed end is old": {StaleEnd, func(random *rand.Rand, h *History) bool {
		e := pick(random, h.Ends, func(e *End) bool { return e.Source == Listed && ackedBefore(h, e.Partition, e.Invoked) > 0 })
		if e == nil {
			return false
		}
		e.Offset = random.Int64N(ackedBefore(h, e.Partition, e.Invoked))
		return true
	}},
	"a high watermark is too old": {StaleWatermark, func(random *rand.Rand, h *History) bool {
		before := func(e *End) int64 { return ackedBefore(h, e.Partition, e.Invoked-Instant(simStaleness)) }
		e := pick(random, h.Ends, func(e *End) bool { return e.Source == Fetched && before(e) > 0 })
		if e == nil {
			return false
		}
		e.Offset = random.Int64N(before(e))
		return true
	}},
	"a high watermark goes back": {EndWentBack, func(random *rand.Rand, h *History) bool {
		old := pick(random, h.Ends, func(e *End) bool { return e.Source == Fetched && e.Offset > 0 })
		if old == nil {
			return false
		}
		e := pick(random, h.Ends, func(e *End) bool {
			return e.Source == Fetched && e.Agent == old.Agent && e.Partition == old.Partition && old.Completed < e.Invoked
		})
		if e == nil {
			return false
		}
		e.Offset = random.Int64N(old.Offset)
		return true
	}},
	"an end is too high": {BeyondEnd, func(random *rand.Rand, h *History) bool {
		e := pick(random, h.Ends, func(*End) bool { return true })
		if e == nil {
			return false
		}
		e.Offset = logsOf(h, e.Partition)[0].End + 1
		return true
	}},
	"a committed position goes back": {CommitWentBack, func(random *rand.Rand, h *History) bool {
		old := pick(random, h.Commits, func(c *Commit) bool { return c.Outcome == Acked })
		if old == nil {
			return false
		}
		newer := pick(random, h.Commits, func(c *Commit) bool {
			return c.Outcome == Acked && c.Group == old.Group && old.Completed < c.Invoked
		})
		if newer == nil {
			return false
		}
		p := pick(random, h.Positions, func(p *Position) bool { return p.Group == old.Group && newer.Completed < p.Invoked })
		if p == nil {
			return false
		}
		p.Offset = old.Offset
		if random.IntN(2) == 0 {
			p.Offset = NoOffset
		}
		return true
	}},
	"a position was never committed": {PhantomCommit, func(random *rand.Rand, h *History) bool {
		p := pick(random, h.Positions, func(*Position) bool { return true })
		if p == nil {
			return false
		}
		p.Offset = 1 << 50
		if c := pick(random, h.Commits, func(c *Commit) bool { return c.Outcome == Failed && c.Group == p.Group }); c != nil {
			p.Offset = c.Offset
		}
		return true
	}},
}

func TestEveryMutationIsCaught(t *testing.T) {
	for name, m := range mutations {
		t.Run(name, func(t *testing.T) {
			caught := 0
			rapid.Check(t, func(t *rapid.T) {
				random := draw(t)
				h := simulate(random, rapid.IntRange(0, 2000).Draw(t, "operations"))
				if !m.spoil(random, &h) {
					return
				}
				caught++
				anomalies := Check(h, simOptions)
				if !slices.ContainsFunc(anomalies, func(a Anomaly) bool { return a.Kind == m.want }) {
					t.Errorf("no %q among %v", m.want, anomalies)
				}
			})
			t.Logf("%d histories", caught)
			if caught == 0 {
				t.Error("no history had a place for it")
			}
		})
	}
}
