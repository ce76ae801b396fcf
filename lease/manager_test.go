package lease_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamhouse/streamhouse/lease"
)

// fakeStore is a lease.Store in memory. Its clock is the bubble's.
type fakeStore struct {
	mu    sync.Mutex
	rows  map[lease.Key]*fakeRow
	calls []string // names of the requests, in order
	keys  [][]lease.Key

	// before and after, if not nil, are called around every request; an error
	// fails it.
	before, after func(ctx context.Context, op string) error
}

type fakeRow struct {
	agent  string
	term   lease.Term
	expiry time.Time
}

func newFakeStore() *fakeStore { return &fakeStore{rows: make(map[lease.Key]*fakeRow)} }

func (s *fakeStore) do(ctx context.Context, op string, keys []lease.Key, apply func()) error {
	s.mu.Lock()
	s.calls = append(s.calls, op)
	s.keys = append(s.keys, keys)
	before, after := s.before, s.after
	s.mu.Unlock()
	if before != nil {
		if err := before(ctx, op); err != nil {
			return err
		}
	}
	s.mu.Lock()
	apply()
	s.mu.Unlock()
	if after != nil {
		return after(ctx, op)
	}
	return nil
}

func (s *fakeStore) Acquire(ctx context.Context, agent string, ttl time.Duration, keys []lease.Key) (results []lease.Result, err error) {
	err = s.do(ctx, "acquire", keys, func() {
		for _, k := range keys {
			if k.Partition >= 1000 {
				results = append(results, lease.Result{Err: lease.ErrUnknownKey})
				continue
			}
			r := s.rows[k]
			if r == nil {
				r = &fakeRow{term: lease.Term{Key: k}}
				s.rows[k] = r
			}
			if left := time.Until(r.expiry); r.agent != "" && r.agent != agent && left > 0 {
				holder := lease.Holder{AgentID: r.agent, LeaderEpoch: r.term.LeaderEpoch, ExpiresIn: left}
				results = append(results, lease.Result{Err: &lease.HeldByOtherError{Key: k, Holder: holder}})
				continue
			}
			r.agent, r.expiry = agent, time.Now().Add(ttl)
			r.term.Epoch++
			r.term.LeaderEpoch++
			results = append(results, lease.Result{Term: r.term})
		}
	})
	return results, err
}

func (s *fakeStore) Renew(ctx context.Context, agent string, ttl time.Duration, terms []lease.Term) (renewed []lease.Term, err error) {
	err = s.do(ctx, "renew", nil, func() {
		for _, t := range terms {
			if r := s.rows[t.Key]; r != nil && r.agent == agent && r.term.LeaderEpoch == t.LeaderEpoch {
				r.expiry = time.Now().Add(ttl)
				r.term.Epoch++
				renewed = append(renewed, r.term)
			}
		}
	})
	return renewed, err
}

func (s *fakeStore) HandOver(ctx context.Context, agent string, ttl time.Duration, moves []lease.Move) (given []lease.Term, err error) {
	err = s.do(ctx, "hand over", nil, func() {
		for _, m := range moves {
			if r := s.rows[m.Key]; r != nil && r.agent == agent && r.term.LeaderEpoch == m.LeaderEpoch {
				r.agent, r.expiry = m.To, time.Now().Add(ttl)
				r.term.Epoch++
				r.term.LeaderEpoch++
				given = append(given, r.term)
			}
		}
	})
	return given, err
}

func (s *fakeStore) Release(ctx context.Context, agent string, terms []lease.Term) error {
	return s.do(ctx, "release", nil, func() {
		for _, t := range terms {
			if r := s.rows[t.Key]; r != nil && r.agent == agent && r.term.LeaderEpoch == t.LeaderEpoch {
				r.agent, r.expiry = "", time.Time{}
			}
		}
	})
}

// fail sets what happens around every request from now on.
func (s *fakeStore) fail(before, after func(ctx context.Context, op string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before, s.after = before, after
}

// count tells how many requests of a kind were made.
func (s *fakeStore) count(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.calls {
		if c == op {
			n++
		}
	}
	return n
}

var topic = uuid.MustParse("00000000-0000-4000-8000-000000000007")

func key(p int32) lease.Key { return lease.Key{TopicID: topic, Partition: p} }

var errDown = errors.New("store is down")

func down(context.Context, string) error { return errDown }

// start runs a manager until the test ends.
func start(t *testing.T, store lease.Store, agent string) (*lease.Manager, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	m := lease.NewManager(store, agent, lease.DefaultConfig(), lease.NewMetrics(reg), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return m, reg
}

func acquire(t *testing.T, m *lease.Manager, keys ...lease.Key) []*lease.Lease {
	t.Helper()
	var leases []*lease.Lease
	for i, a := range m.Acquire(t.Context(), keys) {
		if a.Err != nil {
			t.Fatalf("acquire %s: %v", keys[i], a.Err)
		}
		leases = append(leases, a.Lease)
	}
	return leases
}

func TestAcquireIsOneStatementForAllKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		m, _ := start(t, store, "a")
		leases := acquire(t, m, key(0), key(1), key(2))
		if n := store.count("acquire"); n != 1 {
			t.Errorf("%d statements, want 1", n)
		}
		for p, l := range leases {
			if m.Get(key(int32(p))) != l || l.LeaderEpoch() != 1 || !l.Held() {
				t.Errorf("partition %d: got %+v", p, l.Term())
			}
		}
		if again := acquire(t, m, key(1)); again[0] != leases[1] || store.count("acquire") != 1 {
			t.Error("a held lease was asked for again")
		}
		if m.Get(key(9)) != nil || m.Count() != 3 {
			t.Errorf("count is %d", m.Count())
		}
	})
}

func TestAcquireIsMadeOnceWhoeverAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		release := make(chan struct{})
		store.fail(func(context.Context, string) error { <-release; return nil }, nil)
		m, _ := start(t, store, "a")
		var got [4][]*lease.Lease
		var callers sync.WaitGroup
		callers.Go(func() { got[0] = acquire(t, m, key(0)) })
		synctest.Wait() // the first statement is under way
		for i := 1; i < len(got); i++ {
			callers.Go(func() { got[i] = acquire(t, m, key(0), key(int32(i))) })
			synctest.Wait()
		}
		close(release)
		callers.Wait()
		if n := store.count("acquire"); n != 2 {
			t.Errorf("%d statements, want one and one for all that came meanwhile", n)
		}
		for i := range got {
			if got[i][0] != got[0][0] {
				t.Errorf("caller %d has another lease of the same key", i)
			}
		}
		if want := []lease.Key{key(1), key(2), key(3)}; !slices.Equal(store.keys[1], want) {
			t.Errorf("second statement asked for %v, want %v", store.keys[1], want)
		}
	})
}

func TestAcquireTriesAgainUntilItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		store.fail(down, nil)
		m, _ := start(t, store, "a")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		a := m.Acquire(ctx, []lease.Key{key(0), key(1)})
		if !errors.Is(a[0].Err, errDown) || !errors.Is(a[1].Err, errDown) {
			t.Errorf("got %v and %v, want the store's error", a[0].Err, a[1].Err)
		}
		if n := store.count("acquire"); n < 5 || n > 50 {
			t.Errorf("%d tries in 10 s", n)
		}

		time.AfterFunc(5*time.Second, func() { store.fail(nil, nil) })
		acquire(t, m, key(0))
	})
}

func TestAcquireOfUnknownKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := start(t, newFakeStore(), "a")
		a := m.Acquire(t.Context(), []lease.Key{key(1000), key(0)})
		if !errors.Is(a[0].Err, lease.ErrUnknownKey) || a[1].Err != nil {
			t.Errorf("got %v and %v", a[0].Err, a[1].Err)
		}
	})
}

func TestHeldByOtherIsRememberedForAShortTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		if _, err := store.Acquire(t.Context(), "b", 2*time.Second, []lease.Key{key(0)}); err != nil {
			t.Fatal(err)
		}
		m, reg := start(t, store, "a")
		var last error
		for range 200 { // one each 10 ms
			last = m.Acquire(t.Context(), []lease.Key{key(0)})[0].Err
			if last == nil {
				break
			}
			synctest.Wait()
			<-time.After(10 * time.Millisecond)
		}
		var held *lease.HeldByOtherError
		if !errors.As(last, &held) || held.Holder.AgentID != "b" || !errors.Is(last, lease.ErrLeaseHeldByOther) {
			t.Fatalf("got %v, want held by b", last)
		}
		if n := store.count("acquire") - 1; n != 4 {
			t.Errorf("%d statements in 2 s, want 4", n)
		}
		l := acquire(t, m, key(0))[0] // b's lease has just ended
		if l.LeaderEpoch() != 2 {
			t.Errorf("leader epoch %d, want 2", l.LeaderEpoch())
		}
		if n := metric(t, reg, "streamhouse_partition_failover_duration_seconds"); n != 1 {
			t.Errorf("%v failovers were measured", n)
		}
	})
}

func TestLeasesAreRenewedBeforeTheyEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		m, reg := start(t, store, "a")
		l := acquire(t, m, key(0))[0]
		<-time.After(19 * time.Second)
		acquire(t, m, key(1)) // rides along with the others
		<-time.After(10*time.Minute - 19*time.Second)
		if !l.Held() || m.Count() != 2 {
			t.Fatalf("lost: %v", context.Cause(l.Context()))
		}
		if n := store.count("renew"); n < 600/22 || n > 600/18+1 {
			t.Errorf("%d renewals in 10 min", n)
		}
		if term := l.Term(); term.LeaderEpoch != 1 || term.Epoch != 1+int64(store.count("renew")) {
			t.Errorf("term is %+v after %d renewals", term, store.count("renew"))
		}
		if epoch := metric(t, reg, "streamhouse_partition_lease_epoch"); epoch != float64(l.Term().Epoch) {
			t.Errorf("epoch is measured as %v", epoch)
		}
		if n := metric(t, reg, "streamhouse_agent_lease_count"); n != 2 {
			t.Errorf("%v leases are measured", n)
		}
	})
}

func TestIdleManagerAsksNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		start(t, store, "a")
		<-time.After(time.Hour)
		if len(store.calls) != 0 {
			t.Errorf("asked %v", store.calls)
		}
	})
}

// renewalFaults are the ways in which a renewal gets no answer.
var renewalFaults = map[string]struct {
	before, after func(context.Context, string) error
}{
	"not applied":              {before: down},
	"applied, but answer lost": {after: down},
	"hangs":                    {before: func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }},
}

func TestFailedRenewalIsTriedAgain(t *testing.T) {
	for name, fault := range renewalFaults {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newFakeStore()
				m, _ := start(t, store, "a")
				l := acquire(t, m, key(0))[0]
				store.fail(fault.before, fault.after)
				<-time.After(24 * time.Second)
				store.fail(nil, nil)
				<-time.After(10 * time.Minute)
				if !l.Held() || l.LeaderEpoch() != 1 {
					t.Errorf("lost: %v", context.Cause(l.Context()))
				}
			})
		})
	}
}

func TestLeaseEndsWhenItCannotBeRenewed(t *testing.T) {
	for name, fault := range renewalFaults {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newFakeStore()
				m, reg := start(t, store, "a")
				sent := time.Now()
				l := acquire(t, m, key(0))[0]
				store.fail(fault.before, fault.after)
				<-l.Context().Done()
				if lasted := time.Since(sent); lasted != 28*time.Second {
					t.Errorf("ended after %v, want duration less margin", lasted)
				}
				if cause := context.Cause(l.Context()); !errors.Is(cause, lease.ErrExpired) {
					t.Errorf("cause is %v", cause)
				}
				if m.Get(key(0)) != nil || l.Held() || m.Count() != 0 {
					t.Error("still held")
				}
				store.fail(nil, nil)
				if again := acquire(t, m, key(0))[0]; again == l || again.LeaderEpoch() != 2 {
					t.Errorf("got %+v again", again.Term())
				}
				if n := metric(t, reg, "streamhouse_partition_lease_expirations_total", "expired"); n != 1 {
					t.Errorf("%v expirations were counted", n)
				}
			})
		})
	}
}

func TestLeaseThatWasTakenIsLostAtItsRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		m, _ := start(t, store, "a")
		leases := acquire(t, m, key(0), key(1))
		store.mu.Lock()
		store.rows[key(0)].expiry = time.Now()
		store.mu.Unlock()
		if _, err := store.Acquire(t.Context(), "b", time.Hour, []lease.Key{key(0)}); err != nil {
			t.Fatal(err)
		}
		<-leases[0].Context().Done()
		if cause := context.Cause(leases[0].Context()); !errors.Is(cause, lease.ErrTaken) {
			t.Errorf("cause is %v", cause)
		}
		if !leases[1].Held() {
			t.Error("the other lease was lost too")
		}
	})
}

func TestLeasesOfADeletedTopicAreNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		m, reg := start(t, store, "a")
		of := func(topic byte) lease.Key { return lease.Key{TopicID: uuid.UUID{topic}} }
		leases := acquire(t, m, of(1), of(2))
		m.Forget(of(1).TopicID)
		if cause := context.Cause(leases[0].Context()); !errors.Is(cause, lease.ErrUnknownKey) {
			t.Errorf("cause is %v", cause)
		}
		if !leases[1].Held() {
			t.Error("the lease of another topic was forgotten too")
		}
		if n := metric(t, reg, "streamhouse_partition_lease_expirations_total", "taken"); n != 0 {
			t.Errorf("%v leases count as taken", n)
		}
	})
}

func TestDeadlineCountsFromBeforeTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		m, _ := start(t, store, "a")
		store.fail(nil, func(context.Context, string) error { <-time.After(4 * time.Second); return nil })
		l := acquire(t, m, key(0))[0]
		granted := time.Now()
		store.fail(down, nil)
		<-l.Context().Done()
		if lasted := time.Since(granted); lasted != 24*time.Second {
			t.Errorf("ended %v after the answer, want 24 s", lasted)
		}
	})
}

func TestLoseNamesTheExactLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := start(t, newFakeStore(), "a")
		first := acquire(t, m, key(0))[0]
		m.Lose(first, lease.ErrFenced)
		if cause := context.Cause(first.Context()); !errors.Is(cause, lease.ErrFenced) {
			t.Errorf("cause is %v", cause)
		}
		second := acquire(t, m, key(0))[0]
		m.Lose(first, lease.ErrFenced)
		if first == second || !second.Held() || m.Get(key(0)) != second {
			t.Error("a late fence of the first lease ended the second")
		}
	})
}

func TestReleasedLeaseIsFreeForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		a, _ := start(t, store, "a")
		b, _ := start(t, store, "b")
		leases := acquire(t, a, key(0), key(1), key(2))
		if err := a.Release(t.Context(), key(1), key(7)); err != nil {
			t.Fatal(err)
		}
		if cause := context.Cause(leases[1].Context()); !errors.Is(cause, lease.ErrReleased) || a.Count() != 2 {
			t.Errorf("cause is %v, %d are left", cause, a.Count())
		}
		acquire(t, b, key(1))
		if err := a.ReleaseAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		acquire(t, b, key(0), key(1), key(2))
		if err := a.Acquire(t.Context(), []lease.Key{key(3)})[0].Err; !errors.Is(err, lease.ErrReleased) {
			t.Errorf("acquire after the end: %v", err)
		}
		if n := store.count("release"); n != 2 {
			t.Errorf("%d statements, want 2", n)
		}
	})
}

func TestConfigLeavesTimeToRetry(t *testing.T) {
	c := lease.DefaultConfig()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	c.RenewInterval = 26 * time.Second // 28.6 with jitter
	if c.Validate() == nil {
		t.Error("a renewal after the lease's end was accepted")
	}
	if (&lease.Config{}).Validate() == nil {
		t.Error("no times were accepted")
	}
}

func TestGetAllocatesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := start(t, newFakeStore(), "a")
		acquire(t, m, key(0))
		if n := testing.AllocsPerRun(100, func() {
			if m.Get(key(0)) == nil || m.Get(key(1)) != nil {
				t.Error("wrong lease")
			}
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

func BenchmarkGet(b *testing.B) {
	m := lease.NewManager(newFakeStore(), "a", lease.DefaultConfig(), lease.NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() { defer close(done); m.Run(ctx) }()
	m.Acquire(ctx, []lease.Key{key(0)})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if m.Get(key(0)) == nil {
				b.Fatal("lost")
			}
		}
	})
	cancel()
	<-done
}

func TestLossesAreCountedByCause(t *testing.T) {
	for cause, label := range map[error]string{
		lease.ErrExpired:                    "expired",
		lease.ErrTaken:                      "taken",
		lease.ErrFenced:                     "fenced",
		errors.New("nothing to do with it"): "given_up",
	} {
		t.Run(label, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, reg := start(t, newFakeStore(), "a")
				m.Lose(acquire(t, m, key(0))[0], cause)
				for _, other := range []string{"expired", "taken", "fenced", "given_up"} {
					want := 0.0
					if other == label {
						want = 1
					}
					if n := metric(t, reg, "streamhouse_partition_lease_expirations_total", other); n != want {
						t.Errorf("%v are counted as %s, want %v", n, other, want)
					}
				}
			})
		})
	}
}
