package fetch

import (
	"container/list"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Incremental fetch sessions (KIP-227): the client names its partitions once
// and then only what changes, and the broker answers only what changed. The
// sessions live in this agent's memory; a client that comes to another agent,
// or back after an eviction, is told so and starts over.

// Epochs of a session with a meaning of their own.
const (
	initialEpoch = 0  // asks for a new session
	finalEpoch   = -1 // asks for none, and ends the one named
)

// Errors of Sessions.Begin.
var (
	ErrSessionNotFound = errors.New("no such fetch session")
	ErrSessionEpoch    = errors.New("fetch session epoch is not the next one")
	ErrSessionTopicID  = errors.New("fetch session was begun by topic names, or by topic ids, and is continued by the other")
)

// PartitionRef is how a request names a partition: by topic id from v13 on,
// else by name.
type PartitionRef struct {
	Name      string
	ID        uuid.UUID
	Partition int32
}

// SessionPartition is one partition of a session as the client last asked for it.
type SessionPartition struct {
	PartitionRef
	Offset      int64
	MaxBytes    int32
	LeaderEpoch int32 // current leader epoch, -1 if not said
}

// SessionRequest is the part of a Fetch that sessions are about.
type SessionRequest struct {
	ID, Epoch  int32
	Partitions []SessionPartition
	Forgotten  []PartitionRef
	ByTopicID  bool
}

// maxTopicName is how many bytes the name of a topic may have.
const maxTopicName = 249

// keepable says whether the names are those of topics that may be: others would be
// kept for nothing, and take the more memory the longer they are.
func (r *SessionRequest) keepable() bool {
	return !slices.ContainsFunc(r.Partitions, func(p SessionPartition) bool { return len(p.Name) > maxTopicName })
}

// SessionAnswer is what an incremental answer depends on.
type SessionAnswer struct {
	High, LastStable, LogStart int64
	Records                    bool // has any
	Error                      bool // has one
}

// Sessions is the cache of fetch sessions. Safe for concurrent use.
type Sessions struct {
	mu         sync.Mutex
	byID       map[int32]*session
	lru        *list.List // of *session, the one used last in front
	partitions int        // of all sessions together
}

// The bounds of Kafka's max.incremental.fetch.session.cache.slots and of the
// age at which a session may be evicted for another.
const (
	sessionSlots = 1000
	sessionIdle  = 2 * time.Minute
)

// sessionPartitions bounds the partitions of all sessions together, each of which
// is some 300 bytes of memory. Kafka has no such bound: a thousand clients that
// ask for a million partitions each would take all memory.
const sessionPartitions = 500_000

// NewSessions returns an empty cache.
func NewSessions() *Sessions {
	return &Sessions{byID: map[int32]*session{}, lru: list.New()}
}

// session is guarded by its own lock, so that a large one holds up nobody else.
type session struct {
	id        int32
	byTopicID bool

	// Guarded by Sessions.mu.
	place    *list.Element
	created  time.Time
	lastUsed time.Time
	size     int // partitions when it was last used

	mu    sync.Mutex
	epoch int32      // the next one that is accepted
	order *list.List // of *sessionPartition: the order in which they are filled
	parts map[PartitionRef]*list.Element
}

// sessionPartition remembers what the client was last told.
type sessionPartition struct {
	SessionPartition
	told SessionAnswer
	full bool // tell it all next time
}

// SessionFetch is one fetch in, or outside of, a session.
type SessionFetch struct {
	// ID goes into the response; 0: no session.
	ID int32
	// Partitions are to be fetched, in the order in which they are to be filled.
	Partitions []SessionPartition

	s     *session // nil outside of one
	parts []*list.Element
	full  bool // answer every partition
}

// Begin finds or makes the session and returns what is to be fetched.
func (c *Sessions) Begin(req SessionRequest) (*SessionFetch, error) {
	switch req.Epoch {
	case finalEpoch:
		c.remove(req.ID)
		return outside(req), nil
	case initialEpoch:
		c.remove(req.ID)
		s := c.create(req)
		if s == nil {
			return outside(req), nil
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		f := s.fetch()
		f.full = true
		return f, nil
	}
	return c.goOn(req)
}

// outside is a fetch outside of a session. As in one, a partition that is named
// more than once is fetched once, as it was named last.
func outside(req SessionRequest) *SessionFetch {
	at := make(map[PartitionRef]int, len(req.Partitions))
	f := &SessionFetch{Partitions: make([]SessionPartition, 0, len(req.Partitions)), full: true}
	for _, p := range req.Partitions {
		if i, again := at[p.PartitionRef]; again {
			f.Partitions[i] = p
			continue
		}
		at[p.PartitionRef] = len(f.Partitions)
		f.Partitions = append(f.Partitions, p)
	}
	return f
}

// goOn takes the next step of a session.
func (c *Sessions) goOn(req SessionRequest) (*SessionFetch, error) {
	s := c.find(req.ID)
	if s == nil {
		return nil, ErrSessionNotFound
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.epoch != req.Epoch:
		return nil, ErrSessionEpoch
	case s.byTopicID != req.ByTopicID:
		return nil, ErrSessionTopicID
	}
	if !req.keepable() {
		c.remove(s.id)
		return nil, ErrSessionNotFound
	}
	s.update(req)
	if s.order.Len() == 0 {
		c.remove(s.id)
		return &SessionFetch{full: true}, nil
	}
	s.epoch = nextEpoch(s.epoch)
	if !c.touch(s, s.order.Len()) {
		return nil, ErrSessionNotFound
	}
	return s.fetch(), nil
}

// nextEpoch counts on, from the largest int32 to 1.
func nextEpoch(e int32) int32 {
	if e == 1<<31-1 {
		return 1
	}
	return e + 1
}

// Include says whether partition i of the fetch belongs into the response, and
// takes note of what the client is told. Call it once for each.
func (f *SessionFetch) Include(i int, a SessionAnswer) bool {
	if f.s == nil {
		return true
	}
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	e := f.parts[i]
	p := e.Value.(*sessionPartition)
	told := p.told
	include := f.full || p.full || a.Records || a.Error ||
		a.High != told.High || a.LastStable != told.LastStable || a.LogStart != told.LogStart
	p.told, p.full = a, a.Error // an error is followed by the whole truth
	if a.Records && f.s.parts[p.PartitionRef] == e {
		f.s.order.MoveToBack(e) // the others come first next time
	}
	return include
}

// fetch lists the session's partitions. The caller holds s.mu.
func (s *session) fetch() *SessionFetch {
	f := &SessionFetch{ID: s.id, s: s}
	for e := s.order.Front(); e != nil; e = e.Next() {
		f.Partitions = append(f.Partitions, e.Value.(*sessionPartition).SessionPartition)
		f.parts = append(f.parts, e)
	}
	return f
}

// update applies what the request changes. The caller holds s.mu.
func (s *session) update(req SessionRequest) {
	for _, p := range req.Partitions {
		if e := s.parts[p.PartitionRef]; e != nil {
			e.Value.(*sessionPartition).SessionPartition = p
			continue
		}
		s.parts[p.PartitionRef] = s.order.PushBack(&sessionPartition{SessionPartition: p, full: true})
	}
	for _, ref := range req.Forgotten {
		if e := s.parts[ref]; e != nil {
			s.order.Remove(e)
			delete(s.parts, ref)
		}
	}
}

// create makes a session, in place of one that is idle if need be; nil if
// there is no room, or nothing to remember.
func (c *Sessions) create(req SessionRequest) *session {
	if len(req.Partitions) == 0 || !req.keepable() {
		return nil
	}
	s := &session{byTopicID: req.ByTopicID, epoch: 1, order: list.New(), parts: make(map[PartitionRef]*list.Element, len(req.Partitions))}
	s.update(req)
	s.size = s.order.Len()
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if s.size > sessionPartitions {
		return nil
	}
	for len(c.byID) >= sessionSlots || c.partitions+s.size > sessionPartitions {
		victim := c.victim(s.size, now)
		if victim == nil {
			return nil
		}
		c.drop(victim)
	}
	c.partitions += s.size
	for s.id == 0 || c.byID[s.id] != nil {
		s.id = 1 + rand.Int32N(1<<31-2)
	}
	c.byID[s.id] = s
	s.created, s.lastUsed, s.place = now, now, c.lru.PushFront(s)
	return s
}

// victim returns the session that gives way to a new one of that size, by
// Kafka's rules: one that was not used for long; else, of those that are in use
// for long, the smallest, if it is smaller. nil if there is none.
func (c *Sessions) victim(size int, now time.Time) *session {
	if oldest := c.lru.Back().Value.(*session); now.Sub(oldest.lastUsed) > sessionIdle {
		return oldest
	}
	var smallest *session
	for _, s := range c.byID {
		if s.lastUsed.Sub(s.created) > sessionIdle && s.size < size && (smallest == nil || s.size < smallest.size) {
			smallest = s
		}
	}
	return smallest
}

func (c *Sessions) find(id int32) *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byID[id]
}

// touch marks a session as used, unless it was dropped meanwhile. It drops one that
// has grown too large, and says so.
func (c *Sessions) touch(s *session, size int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byID[s.id] != s {
		return true
	}
	if size > s.size && c.partitions+size-s.size > sessionPartitions {
		c.drop(s)
		return false
	}
	c.partitions += size - s.size
	s.lastUsed, s.size = time.Now(), size
	c.lru.MoveToFront(s.place)
	return true
}

func (c *Sessions) remove(id int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.byID[id]; s != nil {
		c.drop(s)
	}
}

// drop removes a session. The caller holds c.mu.
func (c *Sessions) drop(s *session) {
	delete(c.byID, s.id)
	c.lru.Remove(s.place)
	c.partitions -= s.size
}
