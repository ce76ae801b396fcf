package check

import (
	"sync"
	"sync/atomic"
	"time"
)

// Recorder writes a history down while it happens. Its methods, and those of its Senders and Pollers, may be called by
// any number of goroutines. Clients share nothing but the clock, and each operation costs two looks at it and one
// entry in memory.
type Recorder struct {
	start time.Time
	last  atomic.Int64 // Instant that was given out

	mu      sync.Mutex
	senders []*Sender
	pollers []*Poller
	history History // but for producers and consumers
}

// NewRecorder returns a recorder whose history begins now.
func NewRecorder() *Recorder { return &Recorder{start: time.Now()} }

// Now returns the instant, for operations that are about to be invoked. No two calls return the same, and a call that
// began when another had ended returns more: also where time stands still, in a simulation.
func (r *Recorder) Now() Instant {
	for {
		last := r.last.Load()
		now := max(int64(time.Since(r.start)), last+1)
		if r.last.CompareAndSwap(last, now) {
			return Instant(now)
		}
	}
}

// History returns what was recorded. It shares memory with the recorder, so the clients have to be done.
func (r *Recorder) History() History {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.history
	for _, s := range r.senders {
		s.mu.Lock()
		h.Producers = append(h.Producers, s.producer)
		s.mu.Unlock()
	}
	for _, p := range r.pollers {
		p.mu.Lock()
		h.Consumers = append(h.Consumers, p.consumer)
		p.mu.Unlock()
	}
	return h
}

// Log records a final read that completes now.
func (r *Recorder) Log(l Log) {
	l.Completed = r.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.Logs = append(r.history.Logs, l)
}

// End records an end offset that an agent gives now.
func (r *Recorder) End(e End) {
	e.Completed = r.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.Ends = append(r.history.Ends, e)
}

// Commit records a commit that completes now.
func (r *Recorder) Commit(c Commit) {
	c.Completed = r.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.Commits = append(r.history.Commits, c)
}

// Position records a committed position that an agent gives now.
func (r *Recorder) Position(p Position) {
	p.Completed = r.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.Positions = append(r.history.Positions, p)
}

// Sender records what one producer sends.
type Sender struct {
	recorder *Recorder
	number   int32
	mu       sync.Mutex
	producer Producer
}

// Sender adds a producer to the history.
func (r *Recorder) Sender(idempotent bool) *Sender {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &Sender{recorder: r, number: int32(len(r.senders)), producer: Producer{Idempotent: idempotent}}
	r.senders = append(r.senders, s)
	return s
}

// Send is to be called before a record is handed to the producer, in the order of handing over. It returns the record's
// id, of which Value makes the value. Until Acked or Failed is called, the outcome is unknown.
func (s *Sender) Send(partition int32) ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.producer.Sends = append(s.producer.Sends, Send{Partition: partition, Offset: NoOffset, Invoked: s.recorder.Now()})
	return ID{s.number, int64(len(s.producer.Sends) - 1)}
}

// Acked records that a record, whose id Send returned, was acknowledged at an offset.
func (s *Sender) Acked(id ID, offset int64) { s.complete(id, Acked, offset) }

// Failed records that a record, whose id Send returned, is certainly not in the log and will not be.
func (s *Sender) Failed(id ID) { s.complete(id, Failed, NoOffset) }

func (s *Sender) complete(id ID, outcome Outcome, offset int64) {
	now := s.recorder.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	send := &s.producer.Sends[id.Sequence]
	send.Outcome, send.Offset, send.Completed = outcome, offset, now
}

// Poller records what one consumer reads.
type Poller struct {
	recorder *Recorder
	mu       sync.Mutex
	consumer Consumer
	current  map[int32]int // by partition: index into the consumer's sessions
}

// Poller adds a consumer to the history.
func (r *Recorder) Poller() *Poller {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &Poller{recorder: r, current: make(map[int32]int)}
	r.pollers = append(r.pollers, p)
	return p
}

// Begin records that the consumer was assigned a partition, or has set its position there, and reads on from an offset,
// or from one that it does not know yet (NoOffset).
func (p *Poller) Begin(partition int32, from int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begin(partition, from)
}

func (p *Poller) begin(partition int32, from int64) int {
	p.current[partition] = len(p.consumer.Sessions)
	p.consumer.Sessions = append(p.consumer.Sessions, Session{Partition: partition, From: from})
	return p.current[partition]
}

// Revoke records that a partition was taken from the consumer.
func (p *Poller) Revoke(partition int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.current, partition)
}

// Poll records what a poll, which was invoked at an instant and completes now, returned of a partition, and of which
// agent (or NoAgent). No records means that an agent answered and had none: a poll that no agent answered says nothing.
// Polls have to be recorded in their order. The records now belong to the history.
func (p *Poller) Poll(invoked Instant, agent, partition int32, records []Record) {
	now := p.recorder.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	current, ok := p.current[partition]
	if !ok {
		current = p.begin(partition, NoOffset)
	}
	s := &p.consumer.Sessions[current]
	s.Polls = append(s.Polls, Poll{Agent: agent, Invoked: invoked, Completed: now, Records: records})
}
