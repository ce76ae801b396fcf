package lease

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Lease is one leadership that this agent won, or borrows from the agent that has
// it. It is safe for concurrent use.
type Lease struct {
	key         Key
	holder      string // "" is this agent
	leaderEpoch int32
	epoch       atomic.Int64
	deadline    atomic.Int64  // an instant; moves forward, but for machine.doubt; none if borrowed
	since       time.Duration // the instant at which it was acquired or borrowed
	clock       clock

	ctx context.Context
	end context.CancelCauseFunc
}

// Key is what is leased.
func (l *Lease) Key() Key { return l.key }

// Holder is the agent from which the lease is borrowed, and which commits what is
// accepted under it; "" if this agent won it.
func (l *Lease) Holder() string { return l.holder }

// LeaderEpoch is fixed for the life of the lease.
func (l *Lease) LeaderEpoch() int32 { return l.leaderEpoch }

// Term names the leadership with the epoch of its last known renewal.
func (l *Lease) Term() Term {
	return Term{Key: l.key, Epoch: l.epoch.Load(), LeaderEpoch: l.leaderEpoch}
}

// Context ends when the lease is lost or given up; its cause is one of this
// package's causes, or what Manager.Lose was told. Work that is done under the
// lease runs under it.
func (l *Lease) Context() context.Context { return l.ctx }

// Age is the time since it was acquired or borrowed.
func (l *Lease) Age() time.Duration { return l.clock() - l.since }

// Held says whether the agent may still write under the lease, or have its holder
// write. It is a filter and no proof: only the commit knows. It takes no lock.
func (l *Lease) Held() bool {
	return l.ctx.Err() == nil && l.clock() < time.Duration(l.deadline.Load())
}

// clock tells the instant: the monotonic time since its manager was made.
type clock func() time.Duration

// machine is what an agent knows about leases, and the rules by which it
// learns. It does no I/O and reads no clock: instants are arguments. The caller
// serialises all calls but get, and ends the contexts of the leases that a call
// returns as lost.
type machine struct {
	cfg    Config
	clock  clock          // handed to the leases
	jitter func() float64 // in [-1, 1]

	// held has a *Lease for each Key; count is its size. A lease that is past
	// its deadline stays until expired takes it out.
	held  sync.Map
	count int
	// denied remembers who was seen with a lease.
	denied map[Key]denial
	// renewAt is when the next renewal is due. Meaningless while count is 0.
	renewAt time.Duration
	// doubted is when the leases were last in doubt: what the store was asked
	// before says nothing any more.
	doubted time.Duration
}

// denial is a lease that was seen with another agent.
type denial struct {
	holder Holder
	until  time.Duration // believed until then
	ends   time.Duration // when the lease ends if its holder does not renew it
}

func newMachine(cfg Config, c clock, jitter func() float64) *machine {
	return &machine{cfg: cfg, clock: c, jitter: jitter, denied: make(map[Key]denial)}
}

// get returns the lease of a key whether or not its deadline has passed. It is
// safe at any time.
func (m *machine) get(k Key) *Lease {
	if v, ok := m.held.Load(k); ok {
		return v.(*Lease)
	}
	return nil
}

// refusal returns what is known against asking the store for a key.
func (m *machine) refusal(now time.Duration, k Key) error {
	d, ok := m.denied[k]
	if !ok || now >= d.until {
		return nil
	}
	return &HeldByOtherError{Key: k, Holder: d.holder}
}

// granted takes in the answer to an acquisition that was sent at the instant
// sent. takeover is how long the key had been without a leader, or -1 if the
// agent did not know of an earlier one.
func (m *machine) granted(sent, now time.Duration, r Result) (l *Lease, takeover time.Duration) {
	k := r.Term.Key
	takeover = -1
	if d, ok := m.denied[k]; ok {
		takeover = max(0, now-d.ends)
		delete(m.denied, k)
	}
	l = &Lease{key: k, leaderEpoch: r.Term.LeaderEpoch, since: now, clock: m.clock}
	l.epoch.Store(r.Term.Epoch)
	l.deadline.Store(int64(m.deadline(sent)))
	l.ctx, l.end = context.WithCancelCause(context.Background())
	switch {
	case sent < m.doubted:
		m.renewAt = now
	case m.count == 0:
		m.scheduleRenewal(now)
	}
	m.held.Store(k, l)
	m.count++
	return l, takeover
}

// refused takes in that another agent has the lease.
func (m *machine) refused(now time.Duration, e *HeldByOtherError) {
	m.denied[e.Key] = denial{
		holder: e.Holder,
		until:  now + min(m.cfg.HeldByOtherFor, e.Holder.ExpiresIn),
		ends:   now + e.Holder.ExpiresIn,
	}
}

// disbelieve takes in that another agent may not have the lease any more.
func (m *machine) disbelieve(k Key) {
	if d, ok := m.denied[k]; ok {
		d.until = 0
		m.denied[k] = d
	}
}

// renewed takes in the answer to a renewal of the asked terms, and returns the
// leases that the store no longer has as this agent's.
func (m *machine) renewed(sent time.Duration, asked, got []Term) (lost []*Lease) {
	type leadership struct {
		Key
		epoch int32
	}
	renewed := make(map[leadership]struct{}, len(got))
	for _, t := range got {
		renewed[leadership{t.Key, t.LeaderEpoch}] = struct{}{}
		if l := m.get(t.Key); l != nil && l.leaderEpoch == t.LeaderEpoch {
			l.epoch.Store(t.Epoch)
			l.deadline.Store(int64(m.deadline(sent)))
		}
	}
	for _, t := range asked {
		if _, ok := renewed[leadership{t.Key, t.LeaderEpoch}]; ok {
			continue
		}
		// The lease may have gone, or been won anew, while the store was asked.
		if l := m.get(t.Key); l != nil && l.leaderEpoch == t.LeaderEpoch && m.remove(l) {
			lost = append(lost, l)
		}
	}
	m.scheduleRenewal(sent)
	if sent < m.doubted {
		m.renewAt = m.doubted
	}
	m.forgetDenials(sent)
	return lost
}

// renewalFailed schedules another try of a renewal whose outcome is unknown.
// Renewing twice is harmless: a term is named by its leadership.
func (m *machine) renewalFailed(now time.Duration) {
	m.renewAt = now + time.Duration((1+m.jitter()/2)*float64(renewRetry))
}

// doubtFor is how long leases in doubt are used without the store's word.
const doubtFor = time.Second

// doubt takes in that the leases may have been freed: those that the store does
// not confirm within doubtFor end.
func (m *machine) doubt(now time.Duration) {
	m.doubted, m.renewAt = now, now
	for _, l := range m.leases() {
		l.deadline.Store(min(l.deadline.Load(), int64(now+doubtFor)))
	}
}

// renewRetry is the mean time until a failed renewal is tried again.
const renewRetry = 500 * time.Millisecond

// expired takes out the leases whose deadline has passed.
func (m *machine) expired(now time.Duration) (lost []*Lease) {
	for _, l := range m.leases() {
		if now >= time.Duration(l.deadline.Load()) && m.remove(l) {
			lost = append(lost, l)
		}
	}
	return lost
}

// remove takes a lease out, unless it is gone already.
func (m *machine) remove(l *Lease) bool {
	if !m.held.CompareAndDelete(l.key, l) {
		return false
	}
	m.count--
	return true
}

// never is an instant that does not come.
const never time.Duration = math.MaxInt64

// next returns when something is due: the renewal, or a lease's end before it.
func (m *machine) next() time.Duration {
	if m.count == 0 {
		return never
	}
	return min(m.renewAt, m.firstDeadline())
}

// firstDeadline is the earliest deadline of the held leases.
func (m *machine) firstDeadline() time.Duration {
	first := never
	for _, l := range m.leases() {
		first = min(first, time.Duration(l.deadline.Load()))
	}
	return first
}

// leases lists what is held, in no order.
func (m *machine) leases() []*Lease {
	all := make([]*Lease, 0, m.count)
	m.held.Range(func(_, v any) bool {
		all = append(all, v.(*Lease))
		return true
	})
	return all
}

// deadline is that of leases which the store granted when it was asked at the
// instant sent.
func (m *machine) deadline(sent time.Duration) time.Duration {
	d := sent + m.cfg.Duration - m.cfg.Margin
	if sent < m.doubted {
		return min(d, m.doubted+doubtFor)
	}
	return d
}

func (m *machine) scheduleRenewal(from time.Duration) {
	m.renewAt = from + time.Duration((1+renewJitter*m.jitter())*float64(m.cfg.RenewInterval))
}

// forgetDenials drops what was seen so long ago that the time of a takeover
// counted from it would say nothing.
func (m *machine) forgetDenials(now time.Duration) {
	for k, d := range m.denied {
		if now > d.ends+2*m.cfg.Duration {
			delete(m.denied, k)
		}
	}
}
