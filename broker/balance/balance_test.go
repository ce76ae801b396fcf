package balance

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/lease"
)

// world is a cluster in which odd partitions are another agent's.
type world struct{ alive []string }

func (w world) Alive() []string { return w.alive }

func (w world) Owner(k lease.Key) (string, bool) {
	if k.Partition%2 == 1 {
		return "other", true
	}
	return "self", true
}

func (w world) StandIn(string, lease.Key) (string, bool) { return "", false }

func (w world) OtherLeads(string) bool { return len(w.alive) > 1 }

func leasesOf(n int, age time.Duration) []held {
	all := make([]held, n)
	for i := range all {
		all[i] = held{key: lease.Key{TopicID: uuid.Nil, Partition: int32(i)}, age: age}
	}
	return all
}

var two = world{[]string{"other/1", "self/1"}}

func TestNothingMovesBeforeTheAgentsAreCalm(t *testing.T) {
	p := &planner{self: "self"}
	leases := leasesOf(40, time.Hour)
	for now := time.Duration(0); now < calm; now += interval {
		if got := p.plan(now, two, leases); got != nil {
			t.Fatalf("at %s: %v", now, got)
		}
	}
	if got, want := p.plan(calm, two, leases), []int{1, 3}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	// One that restarts is another one.
	if got := p.plan(calm+interval, world{[]string{"other/2", "self/1"}}, leases); got != nil {
		t.Errorf("got %v", got)
	}
}

func TestAloneNothingMoves(t *testing.T) {
	p := &planner{self: "self"}
	p.plan(0, world{[]string{"self/1"}}, nil)
	if got := p.plan(time.Hour, world{[]string{"self/1"}}, leasesOf(10, time.Hour)); got != nil {
		t.Errorf("got %v", got)
	}
}

func TestALeaseThatWasWonLatelyStays(t *testing.T) {
	p := &planner{self: "self"}
	p.plan(0, two, nil)
	if got := p.plan(time.Hour, two, leasesOf(10, minAge-1)); got != nil {
		t.Errorf("got %v", got)
	}
}

// Whatever is held, no look hands over more than its share, nor what is the
// agent's own, and in the end nothing is left to move.
func TestThePaceOfHandOvers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 2000).Draw(t, "leases")
		p := &planner{self: "self"}
		p.plan(0, two, nil)
		leases := leasesOf(n, time.Hour)
		for now := calm; ; now += interval {
			moves := p.plan(now, two, leases)
			if len(moves) == 0 {
				break
			}
			if len(moves) > most || len(moves) > 1+len(leases)/20 {
				t.Fatalf("%d of %d at once", len(moves), len(leases))
			}
			gone := make(map[lease.Key]bool)
			for _, i := range moves {
				gone[leases[i].key] = true
			}
			leases = slices.DeleteFunc(leases, func(h held) bool { return gone[h.key] })
		}
		if own := (n + 1) / 2; len(leases) != own {
			t.Fatalf("%d are left, want %d", len(leases), own)
		}
	})
}

// objects fails uploads with err, or holds them.
type objects struct {
	err  error
	hold chan struct{}
}

func (o *objects) Put(ctx context.Context, _ string, _ []byte) error {
	if o.hold != nil {
		select {
		case <-o.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return o.err
}

func TestBucketThatIsGivenUpFailsUploadsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &objects{hold: make(chan struct{})}
		b := NewBucket(o)
		failed := make(chan error)
		go func() { failed <- b.Put(t.Context(), "key", nil) }()
		synctest.Wait()
		b.giveUp()
		if err := <-failed; !errors.Is(err, errGivenUp) {
			t.Errorf("under way: %v", err)
		}
		if err := b.Put(t.Context(), "key", nil); !errors.Is(err, errGivenUp) {
			t.Errorf("later: %v", err)
		}
		b.forgive()
		close(o.hold)
		if err := b.Put(t.Context(), "key", nil); err != nil {
			t.Errorf("forgiven: %v", err)
		}
	})
}

func TestBucketCountsFromTheFirstUploadThatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &objects{}
		b := NewBucket(o)
		put := func() { _ = b.Put(t.Context(), "key", nil) }
		want := func(d time.Duration) {
			t.Helper()
			if got := b.Failing(); got != d {
				t.Errorf("failing for %s, want %s", got, d)
			}
		}
		put()
		time.Sleep(time.Minute)
		want(0) // nothing was wanted
		o.err = errors.New("down")
		put()
		time.Sleep(5 * time.Second)
		put()
		want(5 * time.Second)
		time.Sleep(wantedFor + 1)
		want(0) // it is not wanted any more
		put()
		time.Sleep(time.Second)
		want(time.Second)
		o.err = nil
		put()
		want(0)

		// One that hangs counts from its beginning, and from the last success on.
		o.hold = make(chan struct{})
		go put()
		synctest.Wait()
		time.Sleep(3 * time.Second)
		want(3 * time.Second)
		b.forgive()
		time.Sleep(time.Second)
		want(time.Second)
		close(o.hold)
		synctest.Wait()
		want(0)
	})
}
