package faulty_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/segment/objstore"
	"github.com/streamhouse/streamhouse/segment/objstore/faulty"
	"github.com/streamhouse/streamhouse/segment/objstore/objstoretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errFault = errors.New("fault")

func TestWithoutRulesItIsTheStore(t *testing.T) {
	objstoretest.Run(t, func(*testing.T) objstore.Store { return faulty.New(objstoretest.NewMemory()) })
}

func stored(t *testing.T, s objstore.Store, key string) bool {
	t.Helper()
	_, err := s.Head(t.Context(), key)
	if err != nil && !errors.Is(err, objstore.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

func TestPhases(t *testing.T) {
	for _, test := range []struct {
		phase faulty.Phase
		want  bool
	}{{faulty.Before, false}, {faulty.After, true}} {
		inner := objstoretest.NewMemory()
		s := faulty.New(inner, faulty.Rule{Op: faulty.Put, Phase: test.phase, Err: errFault})
		if err := s.Put(t.Context(), "k", []byte("x")); !errors.Is(err, errFault) {
			t.Errorf("phase %d: got %v, want the fault", test.phase, err)
		}
		if got := stored(t, inner, "k"); got != test.want {
			t.Errorf("phase %d: stored is %t, want %t", test.phase, got, test.want)
		}
	}
}

func TestChoiceOfCalls(t *testing.T) {
	s := faulty.New(objstoretest.NewMemory(),
		faulty.Rule{Op: faulty.Put, Key: "a/*", Nth: 2, Err: errFault})
	var failed []string
	for _, key := range []string{"a/1", "b/1", "a/2", "a/3", "a/b/c"} {
		if err := s.Put(t.Context(), key, []byte("x")); errors.Is(err, errFault) {
			failed = append(failed, key)
		}
	}
	if diff := cmp.Diff([]string{"a/2"}, failed); diff != "" {
		t.Errorf("failed calls (-want +got):\n%s", diff)
	}
	s.Set(faulty.Rule{Err: errFault})
	if _, err := s.Get(t.Context(), "a/1", 0, -1); !errors.Is(err, errFault) {
		t.Errorf("a rule for all met Get with %v", err)
	}
	s.Set()
	if _, err := s.Get(t.Context(), "a/1", 0, -1); err != nil {
		t.Errorf("without rules, Get failed with %v", err)
	}
}

func TestProbabilityFollowsTheSeed(t *testing.T) {
	run := func(seed uint64) (outcomes []bool, failed int) {
		s := faulty.New(objstoretest.NewMemory(), faulty.Rule{Probability: 0.3, Err: errFault})
		s.Seed(seed)
		for range 1000 {
			err := s.Check(t.Context())
			outcomes = append(outcomes, err != nil)
			if err != nil {
				failed++
			}
		}
		return outcomes, failed
	}
	first, failed := run(7)
	again, _ := run(7)
	other, _ := run(8)
	if !cmp.Equal(first, again) || cmp.Equal(first, other) {
		t.Error("the same seed must give the same faults, another one others")
	}
	if failed < 250 || failed > 350 {
		t.Errorf("%d of 1000 failed, want about 300", failed)
	}
}

func TestMangledReads(t *testing.T) {
	inner := objstoretest.NewMemory()
	if err := inner.Put(t.Context(), "k", []byte("abcdefgh")); err != nil {
		t.Fatal(err)
	}
	for want, mangle := range map[string]func([]byte) []byte{"abcd": faulty.Truncate, "abcdufgh": faulty.FlipBit} {
		s := faulty.New(inner, faulty.Rule{Op: faulty.Get, Nth: 1, Phase: faulty.After, Mangle: mangle})
		for _, want := range []string{want, "abcdefgh"} {
			if got, err := s.Get(t.Context(), "k", 0, -1); err != nil || string(got) != want {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
		}
	}
}

func TestDeleteFailsForSomeKeys(t *testing.T) {
	inner := objstoretest.NewMemory()
	for _, key := range []string{"a", "b", "c"} {
		if err := inner.Put(t.Context(), key, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	s := faulty.New(inner, faulty.Rule{Op: faulty.Delete, Key: "b", Err: errFault})
	err := s.Delete(t.Context(), "a", "b", "c")
	if failed := objstore.KeyErrors(err); len(failed) != 1 || failed[0].Key != "b" || !errors.Is(err, errFault) {
		t.Errorf("got %v, want a fault of b alone", err)
	}
	if stored(t, inner, "a") || !stored(t, inner, "b") || stored(t, inner, "c") {
		t.Error("a and c must be gone, b must be there")
	}
}

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		inner, gate := objstoretest.NewMemory(), faulty.NewGate()
		s := faulty.New(inner, faulty.Rule{Op: faulty.Put, Gate: gate})
		done := make(chan error, 3)
		for _, key := range []string{"1", "2", "3"} {
			go func() { done <- s.Put(ctx, key, []byte("x")) }()
		}
		for range 3 {
			if err := gate.Await(ctx); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if len(done) != 0 {
			t.Fatal("a call passed the closed gate")
		}
		if err := gate.Release(ctx); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(done) != 1 {
			t.Fatalf("%d calls passed after one release", len(done))
		}
		gate.Open()
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if err := s.Put(ctx, "4", []byte("x")); err != nil {
			t.Errorf("Put through the open gate: %v", err)
		}

		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if err := faulty.NewGate().Await(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Await of nothing: got %v", err)
		}
	})
}

func TestCallsThatWaitEndWithTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, rule := range map[string]faulty.Rule{
			"gate":  {Gate: faulty.NewGate()},
			"delay": {Delay: time.Hour},
		} {
			inner := objstoretest.NewMemory()
			s := faulty.New(inner, rule)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := s.Put(ctx, "k", []byte("x")); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: got %v, want DeadlineExceeded", name, err)
			}
			cancel()
			if stored(t, inner, "k") {
				t.Errorf("%s: the Put was applied", name)
			}
		}
	})
}

func TestCalls(t *testing.T) {
	s := faulty.New(objstoretest.NewMemory(), faulty.Rule{Op: faulty.Head, Err: errFault})
	ctx := t.Context()
	_ = s.Put(ctx, "k", []byte("abc"))
	_, _ = s.Get(ctx, "k", 1, 2)
	_, _ = s.Head(ctx, "k")
	for range s.List(ctx, "k", "") {
		break
	}
	_ = s.Delete(ctx, "k", "l")
	want := []faulty.Call{
		{Op: faulty.Put, Key: "k", Length: 3},
		{Op: faulty.Get, Key: "k", Offset: 1, Length: 2},
		{Op: faulty.Head, Key: "k"},
		{Op: faulty.List, Key: "k"},
		{Op: faulty.Delete, Key: "k", Length: 2},
	}
	if diff := cmp.Diff(want, s.Calls()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	if got := s.Count(faulty.Get); got != 1 {
		t.Errorf("Count(Get) = %d", got)
	}
}
