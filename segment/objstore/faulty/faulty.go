// Package faulty makes an object store fail on purpose.
//
// Faults are data: a Rule says which operations it meets and what happens to
// them, so that a test reads as the list of what goes wrong. A Store can be
// told new rules at any time, which is how an outage begins and ends. It also
// keeps a record of all calls, so that a test can pin what a scenario costs.
package faulty

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"path"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/segment/objstore"
)

// Op names an operation of objstore.Store. A List has one call; a Delete too,
// and a rule for it is held against each of its keys.
type Op string

// The operations.
const (
	Put    Op = "put"
	Get    Op = "get"
	Head   Op = "head"
	List   Op = "list"
	Delete Op = "delete"
	Check  Op = "check"
)

// Phase is the moment at which a fault happens.
type Phase int

const (
	// Before is before the store has done anything: what fails is not applied.
	Before Phase = iota
	// After is when the store has done it: a failure there is "applied, but
	// the answer was lost".
	After
)

// Rule is a fault. The fields above the line choose the calls that it meets,
// and all of them must match; those below say what happens, in their order.
type Rule struct {
	// Op is the operation, "" for any.
	Op Op
	// Key is a pattern of path.Match for the key, or List's prefix. "" is any.
	Key string
	// Nth is which of the calls that match otherwise is met, from 1. 0 is each.
	Nth int
	// Probability is the chance that a call is met, by the store's seed. 0 is
	// always.
	Probability float64
	// Phase is when the fault happens.
	Phase Phase

	// ---

	// Gate holds the call until the test lets it go on.
	Gate *Gate
	// Delay is how long the call waits.
	Delay time.Duration
	// Err is what the call fails with.
	Err error
	// Mangle is given what a Get has read, at phase After, and returns what
	// the caller sees: what a store does that lies. See Truncate and FlipBit.
	Mangle func(data []byte) []byte
}

// Truncate is a Mangle that loses the second half.
func Truncate(data []byte) []byte { return data[:len(data)/2] }

// FlipBit is a Mangle that flips one bit in the middle.
func FlipBit(data []byte) []byte {
	data[len(data)/2] ^= 0x10
	return data
}

// Call is one operation, as it came to the store.
type Call struct {
	Op Op
	// Key is the key, List's prefix, or the first of Delete's keys.
	Key string
	// Offset and Length are those of Get. For Put, Length is the body's in
	// bytes; for Delete, it is the number of keys.
	Offset, Length int64
}

// Store is an objstore.Store with faults.
type Store struct {
	inner objstore.Store

	mu    sync.Mutex
	rules []*armed
	rand  *rand.Rand
	calls []Call
}

// armed is a rule and how many calls it has matched.
type armed struct {
	Rule
	matched int
}

var _ objstore.Store = (*Store)(nil)

// New returns inner with the faults of rules.
func New(inner objstore.Store, rules ...Rule) *Store {
	s := &Store{inner: inner}
	s.Seed(1)
	s.Set(rules...)
	return s
}

// Seed makes the probabilities fall as they do with that seed.
func (s *Store) Seed(seed uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rand = rand.New(rand.NewPCG(seed, 0))
}

// Set replaces all rules. Without arguments, the store is sound again. Calls
// that wait already go on waiting.
func (s *Store) Set(rules ...Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = make([]*armed, len(rules))
	for i, r := range rules {
		s.rules[i] = &armed{Rule: r}
	}
}

// Calls returns all calls so far, in the order in which they came.
func (s *Store) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Call(nil), s.calls...)
}

// Count returns how many calls of op came so far.
func (s *Store) Count(op Op) int {
	n := 0
	for _, c := range s.Calls() {
		if c.Op == op {
			n++
		}
	}
	return n
}

func (s *Store) record(c Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, c)
}

// met returns the rules that meet a call of op on key, in their order. It is to
// be asked once a call.
func (s *Store) met(op Op, key string) []Rule {
	s.mu.Lock()
	defer s.mu.Unlock()
	var met []Rule
	for _, r := range s.rules {
		if r.Op != "" && r.Op != op {
			continue
		}
		if ok, err := path.Match(r.Key, key); r.Key != "" && (err != nil || !ok) {
			continue
		}
		r.matched++
		if r.Nth != 0 && r.matched != r.Nth {
			continue
		}
		if r.Probability > 0 && s.rand.Float64() >= r.Probability {
			continue
		}
		met = append(met, r.Rule)
	}
	return met
}

// suffer lets happen what rules have for phase.
func suffer(ctx context.Context, rules []Rule, phase Phase, op Op, key string) error {
	for _, r := range rules {
		if r.Phase != phase {
			continue
		}
		if r.Gate != nil {
			if err := r.Gate.pass(ctx); err != nil {
				return fmt.Errorf("%s %s at a gate: %w", op, key, err)
			}
		}
		if r.Delay > 0 {
			timer := time.NewTimer(r.Delay)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return fmt.Errorf("%s %s delayed: %w", op, key, ctx.Err())
			}
		}
		if r.Err != nil {
			return fmt.Errorf("%s %s: injected: %w", op, key, r.Err)
		}
	}
	return nil
}

// do runs one operation between its faults.
func (s *Store) do(ctx context.Context, op Op, key string, apply func() error) error {
	rules := s.met(op, key)
	if err := suffer(ctx, rules, Before, op, key); err != nil {
		return err
	}
	if err := apply(); err != nil {
		return err
	}
	return suffer(ctx, rules, After, op, key)
}

// Put implements objstore.Store.
func (s *Store) Put(ctx context.Context, key string, body []byte) error {
	s.record(Call{Op: Put, Key: key, Length: int64(len(body))})
	return s.do(ctx, Put, key, func() error { return s.inner.Put(ctx, key, body) })
}

// Get implements objstore.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) ([]byte, error) {
	s.record(Call{Op: Get, Key: key, Offset: offset, Length: length})
	rules := s.met(Get, key)
	if err := suffer(ctx, rules, Before, Get, key); err != nil {
		return nil, err
	}
	data, err := s.inner.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	if err := suffer(ctx, rules, After, Get, key); err != nil {
		return nil, err
	}
	for _, r := range rules {
		if r.Phase == After && r.Mangle != nil {
			data = r.Mangle(data)
		}
	}
	return data, nil
}

// Head implements objstore.Store.
func (s *Store) Head(ctx context.Context, key string) (info objstore.Info, err error) {
	s.record(Call{Op: Head, Key: key})
	err = s.do(ctx, Head, key, func() error {
		info, err = s.inner.Head(ctx, key)
		return err
	})
	if err != nil {
		return objstore.Info{}, err
	}
	return info, nil
}

// List implements objstore.Store. A fault of phase After comes at the end.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		s.record(Call{Op: List, Key: prefix})
		left := false
		err := s.do(ctx, List, prefix, func() error {
			for info, err := range s.inner.List(ctx, prefix, after) {
				if err != nil {
					return err
				}
				if !yield(info, nil) {
					left = true
					return nil
				}
			}
			return nil
		})
		if err != nil && !left {
			yield(objstore.Info{}, err)
		}
	}
}

// Delete implements objstore.Store. Keys whose rules have an error fail alone.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	call := Call{Op: Delete, Length: int64(len(keys))}
	if len(keys) > 0 {
		call.Key = keys[0]
	}
	s.record(call)
	var errs []error
	for _, key := range keys {
		if err := s.do(ctx, Delete, key, func() error { return s.inner.Delete(ctx, key) }); err != nil {
			errs = append(errs, &objstore.KeyError{Key: key, Err: err})
		}
	}
	return errors.Join(errs...)
}

// Check implements objstore.Store.
func (s *Store) Check(ctx context.Context) error {
	s.record(Call{Op: Check})
	return s.do(ctx, Check, "", func() error { return s.inner.Check(ctx) })
}
