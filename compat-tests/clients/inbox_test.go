package clients

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/scenario"
)

// poll returns the offsets of what Poll returns at once.
func poll(t *testing.T, b *inbox, limit int) []int64 {
	t.Helper()
	records, err := b.Poll(t.Context(), limit, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var offsets []int64
	for _, r := range records {
		offsets = append(offsets, r.Offset)
	}
	return offsets
}

// give puts records of partition 0 at the given offsets.
func give(t *testing.T, b *inbox, c *claim, offsets ...int64) {
	t.Helper()
	for _, offset := range offsets {
		if !b.put(t.Context(), c, scenario.Record{Offset: offset}) {
			t.Fatalf("offset %d was not taken", offset)
		}
	}
}

func demand(t *testing.T, what string, got, want []int64) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: polled %v, want %v", what, got, want)
	}
}

func TestInboxGivesWhatArrived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newInbox()
		b.assign(0)
		demand(t, "empty", poll(t, b, 10), nil)
		give(t, b, b.claimOf(0), 0, 1, 2)
		demand(t, "limited", poll(t, b, 2), []int64{0, 1})
		if next := b.positions()[0]; next != 2 {
			t.Errorf("position %d, want 2", next)
		}
		demand(t, "the rest", poll(t, b, 2), []int64{2})
	})
}

func TestInboxDropsWhatARebalanceTookAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newInbox()
		b.assign(0)
		stale := b.claimOf(0)
		give(t, b, stale, 0)
		b.assign(0)
		give(t, b, stale, 1)
		give(t, b, b.claimOf(0), 0)
		demand(t, "after a rebalance", poll(t, b, 10), []int64{0})
		b.assign()
		if positions := b.positions(); len(positions) > 0 {
			t.Errorf("positions %v of a member without partitions", positions)
		}
	})
}

func TestInboxSeeks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newInbox()
		b.assign(0)
		give(t, b, b.claimOf(0), 0, 1)
		b.seek(0, 5)
		give(t, b, b.claimOf(0), 2, 5, 6)
		demand(t, "forwards", poll(t, b, 10), []int64{5, 6})
		give(t, b, b.claimOf(0), 7)
		b.seek(0, 1)
		give(t, b, b.claimOf(0), 1, 2)
		demand(t, "backwards", poll(t, b, 10), []int64{1, 2})
	})
}

func TestInboxHoldsWhatIsPaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newInbox()
		b.assign(0)
		b.pause(0, true)
		give(t, b, b.claimOf(0), 0, 1)
		demand(t, "paused", poll(t, b, 10), nil)
		if positions := b.positions(); len(positions) > 0 {
			t.Errorf("positions %v, though nothing was returned", positions)
		}
		b.pause(0, false)
		give(t, b, b.claimOf(0), 2)
		demand(t, "resumed", poll(t, b, 1), []int64{0})
		demand(t, "resumed, and what came later", poll(t, b, 10), []int64{1, 2})
	})
}

func TestInboxHoldsItsGoroutinesUpAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newInbox()
		b.assign(0)
		ctx, cancel := context.WithCancel(t.Context())
		put := 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			for b.put(ctx, b.claimOf(0), scenario.Record{Offset: int64(put)}) {
				put++
			}
		}()
		synctest.Wait()
		cancel()
		<-done
		if put == 0 || put > 1000 {
			t.Errorf("%d records were buffered", put)
		}
		broken := errors.New("broken")
		b.assign()
		b.fail(broken)
		if _, err := b.Poll(t.Context(), 1, time.Second); !errors.Is(err, broken) {
			t.Errorf("Poll: %v", err)
		}
	})
}
