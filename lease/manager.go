package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/google/uuid"
)

// ErrNotLeader says that this agent does not lead a partition, or does not any
// more: nothing was written. It is wrapped together with the reason.
var ErrNotLeader = errors.New("agent does not lead the partition")

// Acquired is the outcome of one key of Manager.Acquire.
type Acquired struct {
	Lease *Lease // nil if Err is not
	// Err is nil, a *HeldByOtherError, ErrUnknownKey, ErrReleased after Retire or
	// ReleaseAll, or says that the store could not be asked in time.
	Err error
}

// Manager keeps the leases of one agent: it acquires them when asked, renews
// them in the background and ends their contexts when they are lost. All
// methods are safe for concurrent use.
type Manager struct {
	store   Store
	agentID string
	cfg     Config
	metrics *Metrics
	log     *slog.Logger

	// clock counts from the manager's making, on the monotonic clock.
	clock clock

	mu       sync.Mutex
	machine  *machine // but for get, under mu
	flights  map[Key]*flight
	queue    []Key // keys of flights that are not under way yet
	maxEpoch int64 // the largest epoch since the last renewal
	retired  int   // how many want no acquisitions
	borrowed map[Key]*Lease

	asked   chan struct{} // has an element if queue may not be empty
	granted chan struct{} // has an element if there is a first lease to be renewed
}

// flight is one request for one key, shared by all who ask meanwhile.
type flight struct {
	done chan struct{} // closed when the fields below are set
	Acquired
	again bool // the store could not be asked: Err may pass
}

// NewManager makes a manager for the agent. The configuration must be valid.
func NewManager(store Store, agentID string, cfg Config, m *Metrics, log *slog.Logger) *Manager {
	start := time.Now()
	since := func() time.Duration { return time.Since(start) }
	return &Manager{
		store: store, agentID: agentID, cfg: cfg, metrics: m, log: log,
		clock:    since,
		machine:  newMachine(cfg, since, func() float64 { return 2*rand.Float64() - 1 }),
		flights:  make(map[Key]*flight),
		borrowed: make(map[Key]*Lease),
		asked:    make(chan struct{}, 1),
		granted:  make(chan struct{}, 1),
	}
}

// Run renews leases, ends the expired ones and serves Acquire until ctx ends,
// and returns nil then. The leases are left as they are: ReleaseAll gives them
// up.
func (m *Manager) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	loops.Go(func() { m.runAcquisitions(ctx) })
	loops.Go(func() { m.runRenewals(ctx) })
	loops.Wait()
	return nil
}

// Get returns the lease of a key if the agent holds it and its deadline has
// not passed, else nil. It takes no lock and allocates nothing.
func (m *Manager) Get(k Key) *Lease {
	if l := m.machine.get(k); l != nil && l.Held() {
		return l
	}
	return nil
}

// Acquire returns the leases of the keys, which are asked from the store in one
// statement if the agent does not hold them. Requests for one key are made once
// whoever asks for it, and what is asked while a statement is under way goes
// into the next one. If the store fails, it is asked again until ctx ends.
// Acquire works only while Run does.
func (m *Manager) Acquire(ctx context.Context, keys []Key) []Acquired {
	out := make([]Acquired, len(keys))
	open := make([]int, len(keys)) // places in keys that are not decided
	for i := range keys {
		open[i] = i
	}
	for delay := acquireRetry; ; delay = min(2*delay, maxAcquireRetry) {
		open = m.acquireOnce(ctx, keys, open, out)
		if len(open) == 0 {
			return out
		}
		select {
		case <-time.After(delay/2 + rand.N(delay)):
		case <-ctx.Done():
			return out
		}
	}
}

// The mean times between two tries of an acquisition that the store failed.
const (
	acquireRetry    = 50 * time.Millisecond
	maxAcquireRetry = time.Second
)

// acquireOnce makes one attempt for the open places, and returns those that
// are worth another.
func (m *Manager) acquireOnce(ctx context.Context, keys []Key, open []int, out []Acquired) (again []int) {
	flights := m.board(keys, open, out)
	for n, i := range open {
		f := flights[n]
		if f == nil {
			continue
		}
		select {
		case <-f.done:
			out[i] = f.Acquired
			if f.again {
				again = append(again, i)
			}
		case <-ctx.Done():
			out[i].Err = fmt.Errorf("acquire lease of %s: %w", keys[i], context.Cause(ctx))
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return again
}

// board decides in out what can be decided without the store, and returns the
// flights of the other open places.
func (m *Manager) board(keys []Key, open []int, out []Acquired) []*flight {
	flights := make([]*flight, len(open))
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	for n, i := range open {
		k := keys[i]
		switch l, refusal := m.Get(k), m.machine.refusal(now, k); {
		case refusal != nil:
			out[i] = Acquired{Err: refusal}
		case m.retired > 0:
			out[i].Err = fmt.Errorf("acquire lease of %s: %w", k, ErrReleased)
		case l != nil:
			out[i] = Acquired{Lease: l}
		default:
			f := m.flights[k]
			if f == nil {
				f = &flight{done: make(chan struct{})}
				m.flights[k] = f
				m.queue = append(m.queue, k)
				signal(m.asked)
			}
			flights[n] = f
		}
	}
	return flights
}

func (m *Manager) runAcquisitions(ctx context.Context) {
	defer m.ground()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.asked:
		}
		m.mu.Lock()
		keys := m.queue
		m.queue = nil
		m.mu.Unlock()
		if len(keys) > 0 {
			m.acquire(ctx, keys)
		}
	}
}

// ground refuses what was asked for and is not under way, and all that is asked
// for from now on: nobody would ask the store.
func (m *Manager) ground() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.retired++
	m.queue = nil
	for k, f := range m.flights {
		delete(m.flights, k)
		f.Err = fmt.Errorf("acquire lease of %s: %w", k, ErrReleased)
		close(f.done)
	}
}

// acquire asks the store for the keys and lands their flights.
func (m *Manager) acquire(ctx context.Context, keys []Key) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.RequestTimeout)
	defer cancel()
	sent := m.clock()
	results, err := m.store.Acquire(ctx, m.agentID, m.cfg.Duration, keys)
	if err == nil && len(results) != len(keys) {
		err = fmt.Errorf("%d answers to %d keys", len(results), len(keys))
	}

	m.mu.Lock()
	now := m.clock()
	var expired []*Lease
	for i, k := range keys {
		f := m.flights[k]
		delete(m.flights, k)
		if err != nil {
			f.Err = fmt.Errorf("acquire lease of %s: %w", k, err)
			f.again = true
		} else {
			if old := m.machine.get(k); old != nil && m.machine.remove(old) {
				expired = append(expired, old) // past its deadline, or it would not have been asked for
			}
			f.Acquired = m.land(sent, now, k, results[i])
		}
		close(f.done)
	}
	m.mu.Unlock()
	m.end(expired, ErrExpired)
}

// land takes in the store's answer for one key.
func (m *Manager) land(sent, now time.Duration, k Key, r Result) Acquired {
	if r.Err != nil {
		var held *HeldByOtherError
		if errors.As(r.Err, &held) {
			m.machine.refused(now, held)
		}
		return Acquired{Err: r.Err}
	}
	l, takeover := m.machine.granted(sent, now, r)
	if m.machine.count == 1 || m.machine.renewAt <= now {
		signal(m.granted)
	}
	m.maxEpoch = max(m.maxEpoch, l.epoch.Load())
	m.metrics.acquisitions.Inc()
	m.metrics.held.Set(float64(m.machine.count))
	m.metrics.epoch.Set(float64(m.maxEpoch))
	if takeover >= 0 {
		m.metrics.failover.Observe(takeover.Seconds())
	}
	m.log.Debug("lease acquired", "key", k, "leader_epoch", l.leaderEpoch)
	return Acquired{Lease: l}
}

func (m *Manager) runRenewals(ctx context.Context) {
	timer := time.NewTimer(never)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.granted:
		case <-timer.C:
		}
		now := m.clock()
		m.mu.Lock()
		expired := m.machine.expired(now)
		due := m.machine.count > 0 && now >= m.machine.renewAt
		m.mu.Unlock()
		m.end(expired, ErrExpired)
		if due {
			m.renew(ctx)
		}

		m.mu.Lock()
		timer.Reset(m.machine.next() - m.clock())
		m.mu.Unlock()
	}
}

// minRenewTimeout is the least time that a renewal is given, while there is any.
const minRenewTimeout = 100 * time.Millisecond

// renew renews all leases in one request.
func (m *Manager) renew(ctx context.Context) {
	m.mu.Lock()
	var terms []Term
	for _, l := range m.machine.leases() {
		terms = append(terms, l.Term())
	}
	sent := m.clock()
	// Half of what is left, so that one that hangs leaves time for another; and
	// no longer than to the first deadline, so that the lease ends on time.
	left := m.machine.firstDeadline() - sent
	timeout := min(m.cfg.RequestTimeout, max(left/2, minRenewTimeout), left)
	m.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	renewed, err := m.store.Renew(ctx, m.agentID, m.cfg.Duration, terms)
	if err != nil {
		m.metrics.renewals.WithLabelValues(renewalFailed).Inc()
		m.log.Warn("leases could not be renewed, will try again", "leases", len(terms), "error", err)
		m.mu.Lock()
		m.machine.renewalFailed(m.clock())
		m.mu.Unlock()
		return
	}
	m.metrics.renewals.WithLabelValues(renewalOK).Inc()
	m.mu.Lock()
	lost := m.machine.renewed(sent, terms, renewed)
	m.maxEpoch = 0
	for _, t := range renewed {
		m.maxEpoch = max(m.maxEpoch, t.Epoch)
	}
	m.metrics.epoch.Set(float64(m.maxEpoch))
	m.mu.Unlock()
	m.end(lost, ErrTaken)
}

// Lose gives up a lease that the agent learned to have lost, and ends its
// context with the cause. It does nothing if the lease has ended already; a
// later lease of the same key is never touched.
func (m *Manager) Lose(l *Lease, cause error) {
	m.mu.Lock()
	lost, returned := m.machine.remove(l), m.giveBack(l)
	m.mu.Unlock()
	if lost {
		m.end([]*Lease{l}, cause)
	}
	if returned {
		l.end(cause)
	}
}

// Forget ends the leases of a topic that was deleted: nobody has them now, and
// their renewal would look as if another agent had.
func (m *Manager) Forget(topic uuid.UUID) {
	var forgotten []*Lease
	m.mu.Lock()
	for _, l := range m.machine.leases() {
		if l.key.TopicID == topic && m.machine.remove(l) {
			forgotten = append(forgotten, l)
		}
	}
	m.mu.Unlock()
	m.end(forgotten, ErrUnknownKey)
	m.endBorrowed(ofTopic(topic), ErrUnknownKey)
}

// Release ends the leases of the keys and frees them in the store. It waits
// for nothing that is done under them: callers drain first. If the store can't
// be asked, the leases end by themselves.
func (m *Manager) Release(ctx context.Context, keys ...Key) error {
	m.mu.Lock()
	var leases []*Lease
	for _, k := range keys {
		if l := m.machine.get(k); l != nil && m.machine.remove(l) {
			leases = append(leases, l)
		}
	}
	m.mu.Unlock()
	return m.free(ctx, leases)
}

// ReleaseAll releases every lease, for good: nothing can be acquired any more.
// What is being acquired is waited for, and released too.
func (m *Manager) ReleaseAll(ctx context.Context) error {
	m.Retire(ctx)
	m.mu.Lock()
	leases := m.machine.leases()
	for _, l := range leases {
		m.machine.remove(l)
	}
	m.mu.Unlock()
	return m.free(ctx, leases)
}

// free tells the store that leases, which were taken out, are free.
func (m *Manager) free(ctx context.Context, leases []*Lease) error {
	if len(leases) == 0 {
		return nil
	}
	m.end(leases, ErrReleased)
	terms := make([]Term, len(leases))
	for i, l := range leases {
		terms[i] = l.Term()
	}
	if err := m.store.Release(ctx, m.agentID, terms); err != nil {
		return fmt.Errorf("release %d leases: %w", len(terms), err)
	}
	return nil
}

// Held lists the terms of the leases that are held, in no order.
func (m *Manager) Held() []Term {
	m.mu.Lock()
	defer m.mu.Unlock()
	var terms []Term
	for _, l := range m.machine.leases() {
		if l.Held() {
			terms = append(terms, l.Term())
		}
	}
	return terms
}

// Count is the number of leases that are held.
func (m *Manager) Count() int { return len(m.Held()) }

// end ends the contexts of leases that were taken out of the machine. They are
// counted before: who learns of a loss finds it in the metrics.
func (m *Manager) end(leases []*Lease, cause error) {
	if len(leases) == 0 {
		return
	}
	now := m.clock()
	m.mu.Lock()
	m.metrics.held.Set(float64(m.machine.count))
	m.mu.Unlock()
	for _, l := range leases {
		m.metrics.lasted(now - l.since)
		m.metrics.lost(cause)
		l.end(cause)
	}
	if !errors.Is(cause, ErrReleased) && !errors.Is(cause, ErrUnknownKey) {
		m.log.Warn("leases lost", "leases", len(leases), "first", leases[0].key, "cause", cause)
	}
}

// signal makes sure that c has an element.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
