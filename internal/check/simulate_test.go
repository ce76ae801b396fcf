package check

import (
	"math/rand/v2"
	"slices"
	"time"
)

const (
	simPartitions = 3
	simAgents     = 3
	simConsumers  = 3
	simStaleness  = 200 * time.Nanosecond
)

var simOptions = Options{Staleness: simStaleness, Legal: []Kind{RepeatedDuplicate}}

// simulation is a correct log, and clients that write down what they see of it. An operation takes place at one instant
// between its beginning and its end.
type simulation struct {
	*rand.Rand
	history History
	now     Instant

	queues    map[[2]int32][]queued    // by producer and partition: sent, and not in the log yet
	logs      [simPartitions][]Record  // as they are
	written   [simPartitions][]Instant // when each offset was
	views     [simAgents][simPartitions]int64
	committed map[string]int64 // of partition 0, by group
}

type queued struct {
	id   ID
	lost bool // it never gets into the log
}

// simulate returns a history of so many operations without an anomaly. Producers 0 and 1 are idempotent, producer 2
// repeats itself.
func simulate(random *rand.Rand, operations int) History {
	s := simulation{Rand: random, now: 1000, queues: make(map[[2]int32][]queued), committed: make(map[string]int64)}
	s.history.Producers = []Producer{{Idempotent: true}, {Idempotent: true}, {}}
	s.history.Consumers = make([]Consumer, simConsumers)
	for range operations {
		s.now += Instant(1 + s.IntN(10))
		partition := s.Int32N(simPartitions)
		switch s.IntN(10) {
		case 0, 1, 2:
			s.send(partition)
		case 3, 4, 5:
			s.write(s.Int32N(3), partition)
		case 6, 7:
			s.poll(partition)
		case 8:
			s.end(partition)
		case 9:
			s.commit()
		}
	}
	for producer := range int32(3) {
		for partition := range int32(simPartitions) {
			for len(s.queues[[2]int32{producer, partition}]) > 0 {
				s.now++
				s.write(producer, partition)
			}
		}
	}
	s.now += 1000
	for agent := range int32(simAgents) {
		for partition, log := range s.logs {
			s.history.Logs = append(s.history.Logs, Log{
				Agent: agent, Partition: int32(partition), End: int64(len(log)), Invoked: s.now, Completed: s.now + 10, Records: slices.Clone(log),
			})
		}
	}
	return s.history
}

func (s *simulation) before() Instant { return s.now - Instant(s.IntN(20)) }
func (s *simulation) after() Instant  { return s.now + Instant(1+s.IntN(20)) }

func (s *simulation) send(partition int32) {
	number := s.Int32N(3)
	producer := &s.history.Producers[number]
	id := ID{number, int64(len(producer.Sends))}
	send := Send{Partition: partition, Offset: NoOffset, Invoked: s.now}
	switch s.IntN(20) {
	case 0:
		send.Outcome, send.Completed = Failed, s.after()
		producer.Sends = append(producer.Sends, send)
		return
	case 1:
		s.queues[[2]int32{number, partition}] = append(s.queues[[2]int32{number, partition}], queued{id, true})
	default:
		s.queues[[2]int32{number, partition}] = append(s.queues[[2]int32{number, partition}], queued{id, false})
	}
	producer.Sends = append(producer.Sends, send)
}

// write takes what a producer sent to a partition first into the log, and mostly acknowledges it.
func (s *simulation) write(producer, partition int32) {
	queue := s.queues[[2]int32{producer, partition}]
	if len(queue) == 0 {
		return
	}
	first := queue[0]
	s.queues[[2]int32{producer, partition}] = queue[1:]
	if first.lost {
		return
	}
	copies := 1
	if producer == 2 && s.IntN(10) == 0 {
		copies = 2
	}
	for range copies {
		s.logs[partition] = append(s.logs[partition], Record{first.id, int64(len(s.logs[partition]))})
		s.written[partition] = append(s.written[partition], s.now)
	}
	if s.IntN(20) > 0 {
		send := &s.history.Producers[producer].Sends[first.id.Sequence]
		send.Outcome, send.Offset, send.Completed = Acked, int64(len(s.logs[partition])-1), s.after()
	}
}

// view is how far an agent sees now: not less than before, and not less than the log was some time ago.
func (s *simulation) view(agent, partition int32) int64 {
	known, _ := slices.BinarySearch(s.written[partition], s.now-Instant(simStaleness))
	view := &s.views[agent][partition]
	*view = max(*view, int64(known))
	*view += s.Int64N(int64(len(s.logs[partition])) - *view + 1)
	return *view
}

func (s *simulation) poll(partition int32) {
	consumer := &s.history.Consumers[s.IntN(simConsumers)]
	agent := s.Int32N(simAgents)
	view := s.view(agent, partition)
	i := len(consumer.Sessions) - 1
	for ; i >= 0 && consumer.Sessions[i].Partition != partition; i-- {
	}
	if i < 0 || s.IntN(10) == 0 {
		session := Session{Partition: partition, From: s.Int64N(view + 1)}
		position := session.From
		if s.IntN(3) == 0 {
			session.From = NoOffset
		}
		session.Polls = []Poll{s.pollAt(agent, partition, position, view)}
		consumer.Sessions = append(consumer.Sessions, session)
		return
	}
	session := &consumer.Sessions[i]
	if read := session.span(); read.from != NoOffset {
		session.Polls = append(session.Polls, s.pollAt(agent, partition, read.to, view))
	}
}

func (s *simulation) pollAt(agent, partition int32, position, view int64) Poll {
	poll := Poll{Agent: agent, Invoked: s.before(), Completed: s.after()}
	if position < view {
		poll.Records = slices.Clone(s.logs[partition][position:min(view, position+1+s.Int64N(5))])
	}
	return poll
}

func (s *simulation) end(partition int32) {
	e := End{Agent: s.Int32N(simAgents), Partition: partition, Source: Source(s.IntN(2)), Invoked: s.before(), Completed: s.after()}
	e.Offset = int64(len(s.logs[partition]))
	if e.Source == Fetched {
		e.Offset = s.view(e.Agent, partition)
	}
	s.history.Ends = append(s.history.Ends, e)
}

// commit has a group commit a position, or ask for it. Positions are arbitrary, so that hardly any is committed twice.
func (s *simulation) commit() {
	group := string(rune('a' + s.IntN(2)))
	value, committed := s.committed[group]
	if s.IntN(2) == 0 {
		if !committed {
			value = NoOffset
		}
		s.history.Positions = append(s.history.Positions, Position{Group: group, Offset: value, Agent: NoAgent, Invoked: s.before(), Completed: s.after()})
		return
	}
	c := Commit{Group: group, Offset: s.Int64N(1 << 40), Invoked: s.before(), Completed: s.after(), Outcome: Outcome(s.IntN(3))}
	if c.Outcome == Acked || c.Outcome == Unknown && s.IntN(2) == 0 {
		s.committed[group] = c.Offset
	}
	s.history.Commits = append(s.history.Commits, c)
}
