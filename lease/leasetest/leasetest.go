// Package leasetest says what the durable side of leases must do, as tests that
// every store runs on its real database. Their names are the specification.
package leasetest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
)

// Setup is a store and what the suite needs besides. Agents that nobody registered are
// of the default agent group.
type Setup struct {
	Store lease.Store
	// NewKeys makes n keys of the default agent group that the store knows and nobody
	// ever led.
	NewKeys func(t testing.TB, n int) []lease.Key
	// Strangers registers an agent of another agent group, and makes n such keys there.
	Strangers func(t testing.TB, n int) (agent string, keys []lease.Key)
}

// Run runs the suite on a store that open opens on an empty database and closes
// at the test's end.
func Run(t *testing.T, open func(t testing.TB) Setup) {
	setup := open(t)
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			tc.run(&env{T: t, ctx: ctx, Setup: setup, store: setup.Store})
		})
	}
}

type test struct {
	name string
	run  func(*env)
}

// long and short are times of leases: one that does not end within a test, and
// one that is waited for.
const (
	long  = time.Hour
	short = 20 * time.Millisecond
)

type env struct {
	*testing.T
	ctx context.Context
	Setup
	store lease.Store
}

func (e *env) keys(n int) []lease.Key { return e.NewKeys(e, n) }

// acquire asks for keys.
func (e *env) acquire(agent string, ttl time.Duration, keys ...lease.Key) []lease.Result {
	e.Helper()
	results, err := e.store.Acquire(e.ctx, agent, ttl, keys)
	if err != nil {
		e.Fatal(err)
	}
	if len(results) != len(keys) {
		e.Fatalf("%d results for %d keys", len(results), len(keys))
	}
	return results
}

// granted asks for keys and must get them.
func (e *env) granted(agent string, ttl time.Duration, keys ...lease.Key) []lease.Term {
	e.Helper()
	terms := make([]lease.Term, len(keys))
	for i, r := range e.acquire(agent, ttl, keys...) {
		if r.Err != nil {
			e.Fatal(r.Err)
		}
		if r.Term.Key != keys[i] {
			e.Fatalf("granted %s for %s", r.Term.Key, keys[i])
		}
		terms[i] = r.Term
	}
	return terms
}

// refused checks that a result names the holder, and returns it.
func (e *env) refused(r lease.Result, holder string, leaderEpoch int32) lease.Holder {
	e.Helper()
	var held *lease.HeldByOtherError
	if !errors.As(r.Err, &held) || !errors.Is(r.Err, lease.ErrLeaseHeldByOther) {
		e.Fatalf("got %+v, want a refusal", r)
	}
	if held.Holder.AgentID != holder || held.Holder.LeaderEpoch != leaderEpoch {
		e.Errorf("holder %+v, want %s in leader epoch %d", held.Holder, holder, leaderEpoch)
	}
	return held.Holder
}

// untilGranted asks for a key until it is granted.
func (e *env) untilGranted(agent string, key lease.Key) lease.Term {
	e.Helper()
	for {
		r := e.acquire(agent, long, key)[0]
		if r.Err == nil {
			return r.Term
		}
		if !errors.Is(r.Err, lease.ErrLeaseHeldByOther) || e.ctx.Err() != nil {
			e.Fatal(r.Err)
		}
	}
}

func (e *env) renew(agent string, ttl time.Duration, terms ...lease.Term) []lease.Term {
	e.Helper()
	renewed, err := e.store.Renew(e.ctx, agent, ttl, terms)
	if err != nil {
		e.Fatal(err)
	}
	slices.SortFunc(renewed, func(a, b lease.Term) int { return a.Compare(b.Key) })
	return renewed
}

func (e *env) release(agent string, terms ...lease.Term) {
	e.Helper()
	if err := e.store.Release(e.ctx, agent, terms); err != nil {
		e.Fatal(err)
	}
}

func (e *env) handOver(agent string, moves ...lease.Move) []lease.Term {
	e.Helper()
	given, err := e.store.HandOver(e.ctx, agent, long, moves)
	if err != nil {
		e.Fatal(err)
	}
	slices.SortFunc(given, func(a, b lease.Term) int { return a.Compare(b.Key) })
	return given
}

// counters checks a term's counters.
func (e *env) counters(t lease.Term, epoch int64, leaderEpoch int32) {
	e.Helper()
	if t.Epoch != epoch || t.LeaderEpoch != leaderEpoch {
		e.Errorf("epoch %d in leader epoch %d, want %d in %d", t.Epoch, t.LeaderEpoch, epoch, leaderEpoch)
	}
}

var tests = []test{
	{"a free key is granted, in leader epoch 0", func(e *env) {
		e.counters(e.granted("a", long, e.keys(1)...)[0], 1, 0)
	}},
	{"a held key is refused with its holder and the time it has left", func(e *env) {
		k := e.keys(1)[0]
		e.granted("a", long, k)
		h := e.refused(e.acquire("b", long, k)[0], "a", 0)
		if h.ExpiresIn <= 0 || h.ExpiresIn > long {
			e.Errorf("expires in %v", h.ExpiresIn)
		}
	}},
	{"a holder of the same agent id gets a new leadership", func(e *env) {
		k := e.keys(1)[0]
		e.granted("a", long, k)
		e.counters(e.granted("a", long, k)[0], 2, 1)
	}},
	{"an expired lease is granted to who asks first", func(e *env) {
		k := e.keys(1)[0]
		e.granted("a", short, k)
		e.counters(e.untilGranted("b", k), 2, 1)
		e.refused(e.acquire("a", long, k)[0], "b", 1)
	}},
	{"each key of a call is decided alone, in the order asked", func(e *env) {
		ks := e.keys(4)
		e.granted("a", long, ks[1])
		unknown := lease.Key{TopicID: uuid.New()}
		r := e.acquire("b", long, ks[3], ks[1], unknown, ks[0])
		if r[0].Err != nil || r[0].Term.Key != ks[3] || r[3].Err != nil || r[3].Term.Key != ks[0] {
			e.Errorf("got %+v", r)
		}
		e.refused(r[1], "a", 0)
		if !errors.Is(r[2].Err, lease.ErrUnknownKey) {
			e.Errorf("unknown key: %v", r[2].Err)
		}
	}},
	{"a renewal raises the epoch, keeps the leadership and extends the lease", func(e *env) {
		k := e.keys(1)[0]
		t := e.granted("a", short, k)[0]
		for epoch := range int64(3) {
			renewed := e.renew("a", long, t)
			if len(renewed) != 1 || renewed[0].Key != k {
				e.Fatalf("renewed %+v", renewed)
			}
			t = renewed[0]
			e.counters(t, 2+epoch, 0)
		}
		if h := e.refused(e.acquire("b", long, k)[0], "a", 0); h.ExpiresIn <= short {
			e.Errorf("expires in %v", h.ExpiresIn)
		}
	}},
	{"a renewal by an older epoch of the same leadership is good", func(e *env) {
		t := e.granted("a", long, e.keys(1)...)[0]
		e.renew("a", long, t) // the answer is lost
		e.counters(e.renew("a", long, t)[0], 3, 0)
	}},
	{"an expired lease that nobody took is renewed", func(e *env) {
		t := e.granted("a", 0, e.keys(1)...)[0]
		e.counters(e.renew("a", long, t)[0], 2, 0)
		e.refused(e.acquire("b", long, t.Key)[0], "a", 0)
	}},
	{"a renewal leaves out what is lost, and it stays as it is", func(e *env) {
		terms := e.granted("a", long, e.keys(4)...)
		e.release("a", terms[0])
		e.release("a", terms[1])
		e.granted("b", long, terms[1].Key)
		e.granted("a", long, terms[2].Key) // a later leadership of the same agent
		gone := terms[3]
		gone.TopicID = uuid.New()
		renewed := e.renew("a", long, append(terms, gone)...)
		if len(renewed) != 1 || renewed[0].Key != terms[3].Key {
			e.Errorf("renewed %+v", renewed)
		}
		e.refused(e.acquire("c", long, terms[1].Key)[0], "b", 1)
		e.granted("c", long, terms[0].Key)
	}},
	{"a released lease is free at once, and its counters go on", func(e *env) {
		t := e.granted("a", long, e.keys(1)...)[0]
		e.release("a", t)
		if renewed := e.renew("a", long, t); len(renewed) != 0 {
			e.Errorf("renewed %+v", renewed)
		}
		e.counters(e.granted("b", long, t.Key)[0], 2, 1)
	}},
	{"a release after a renewal that it does not know of is good", func(e *env) {
		t := e.granted("a", long, e.keys(1)...)[0]
		e.renew("a", long, t)
		e.release("a", t)
		e.granted("b", long, t.Key)
	}},
	{"a release of another's lease, or of a past leadership, changes nothing", func(e *env) {
		t := e.granted("a", long, e.keys(1)...)[0]
		e.release("b", t)
		e.refused(e.acquire("c", long, t.Key)[0], "a", 0)
		e.granted("a", long, t.Key)
		e.release("a", t)
		e.refused(e.acquire("c", long, t.Key)[0], "a", 1)
	}},
	{"calls for nothing are answered", func(e *env) {
		e.granted("a", long)
		e.renew("a", long)
		e.release("a")
	}},
	{"of agents that ask at once one gets the lease", func(e *env) {
		const agents = 6
		for range 5 {
			ks := e.keys(10)
			var (
				wg      sync.WaitGroup
				results [agents][]lease.Result
			)
			for n := range agents {
				wg.Go(func() {
					asked := slices.Clone(ks)
					if n%2 == 1 {
						slices.Reverse(asked) // locks are taken in one order all the same
					}
					r, err := e.store.Acquire(e.ctx, string(rune('a'+n)), long, asked)
					if err != nil {
						e.Error(err)
						return
					}
					if n%2 == 1 {
						slices.Reverse(r)
					}
					results[n] = r
				})
			}
			wg.Wait()
			for i := range ks {
				winners := 0
				for _, r := range results {
					if r != nil && r[i].Err == nil {
						winners++
						e.counters(r[i].Term, 1, 0)
					}
				}
				if winners != 1 {
					e.Errorf("%d winners", winners)
				}
			}
		}
	}},
	{"a leadership that is handed over is the successor's, in the next leader epoch", func(e *env) {
		ks := e.keys(2)
		terms := e.granted("a", long, ks...)
		given := e.handOver("a", lease.Move{Term: terms[0], To: "b"}, lease.Move{Term: terms[1], To: "c"})
		if len(given) != 2 {
			e.Fatalf("%d were handed over", len(given))
		}
		for i, t := range given {
			if t.Key != ks[i] {
				e.Errorf("handed over %s, want %s", t.Key, ks[i])
			}
			e.counters(t, 2, 1)
		}
		for i, holder := range []string{"b", "c"} {
			left := e.refused(e.acquire("a", long, ks[i])[0], holder, 1).ExpiresIn
			if left <= 0 || left > long {
				e.Errorf("expires in %s", left)
			}
		}
		e.counters(e.granted("b", long, ks[0])[0], 3, 1) // goes on in the leadership
		e.counters(e.granted("b", long, ks[0])[0], 4, 2) // a later life, as ever
	}},
	{"what was handed over and is taken before the successor acquires it, is a leadership of its own", func(e *env) {
		old := e.granted("a", long, e.keys(1)...)[0]
		given, err := e.store.HandOver(e.ctx, "a", short, []lease.Move{{Term: old, To: "b"}})
		if err != nil || len(given) != 1 {
			e.Fatalf("got %v, %v", given, err)
		}
		e.counters(e.untilGranted("c", old.Key), 3, 2)
		e.refused(e.acquire("b", long, old.Key)[0], "c", 2)
	}},
	{"what another leads, or led since, is not handed over", func(e *env) {
		ks := e.keys(3)
		mine, old := e.granted("a", long, ks[0])[0], e.granted("a", long, ks[1])[0]
		again, others := e.granted("a", long, ks[1])[0], e.granted("b", long, ks[2])[0]
		given := e.handOver("a", lease.Move{Term: old, To: "c"}, lease.Move{Term: others, To: "c"}, lease.Move{Term: mine, To: "c"})
		if len(given) != 1 || given[0].Key != mine.Key {
			e.Errorf("handed over %v", given)
		}
		e.renew("a", long, again)
		e.refused(e.acquire("c", long, ks[1])[0], "a", again.LeaderEpoch)
		e.refused(e.acquire("c", long, ks[2])[0], "b", 0)
	}},
	{"a lease that was handed over is renewed and released by its old leader no more", func(e *env) {
		old := e.granted("a", long, e.keys(1)...)[0]
		e.handOver("a", lease.Move{Term: old, To: "b"})
		if renewed := e.renew("a", long, old); len(renewed) != 0 {
			e.Errorf("renewed %v", renewed)
		}
		e.release("a", old)
		e.refused(e.acquire("c", long, old.Key)[0], "b", 1)
	}},
	{"a key of another agent group is not there, whoever leads it", func(e *env) {
		stranger, theirs := e.Strangers(e, 2)
		led := e.granted(stranger, long, theirs[0])[0]
		ks := e.keys(1)
		r := e.acquire("a", long, theirs[0], ks[0], theirs[1])
		if !errors.Is(r[0].Err, lease.ErrUnknownKey) || r[1].Err != nil || !errors.Is(r[2].Err, lease.ErrUnknownKey) {
			e.Errorf("got %+v", r)
		}
		if r := e.acquire(stranger, long, ks...); !errors.Is(r[0].Err, lease.ErrUnknownKey) {
			e.Errorf("got %+v", r)
		}
		if renewed := e.renew("a", long, led); len(renewed) != 0 {
			e.Errorf("renewed %v", renewed)
		}
		e.release("a", led)
		if given := e.handOver("a", lease.Move{Term: led, To: "a"}); len(given) != 0 {
			e.Errorf("handed over %v", given)
		}
		if renewed := e.renew(stranger, long, led); len(renewed) != 1 {
			e.Errorf("renewed %v", renewed)
		}
	}},
	{"a successor of another agent group gets nothing, and the lease is free", func(e *env) {
		stranger, _ := e.Strangers(e, 0)
		terms := e.granted("a", long, e.keys(2)...)
		given := e.handOver("a", lease.Move{Term: terms[0], To: stranger}, lease.Move{Term: terms[1], To: "b"})
		if len(given) != 1 || given[0].Key != terms[1].Key {
			e.Errorf("handed over %v", given)
		}
		if t := e.granted("c", long, terms[0].Key)[0]; t.LeaderEpoch != 1 {
			e.Errorf("granted in leader epoch %d", t.LeaderEpoch)
		}
	}},
	{"a thousand leases are one call each to acquire, to renew and to release", func(e *env) {
		terms := e.granted("a", long, e.keys(1000)...)
		if renewed := e.renew("a", long, terms...); len(renewed) != len(terms) {
			e.Errorf("renewed %d", len(renewed))
		}
		e.release("a", terms...)
		e.granted("b", long, terms[500].Key, terms[999].Key)
	}},
}
