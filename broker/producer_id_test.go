package broker

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/metadata"
)

// blocks gives out blocks of producer ids.
type blocks struct {
	metadata.Producers
	delay time.Duration
	next  int64
}

func (b *blocks) AllocateProducerIDs(_ context.Context, count int64) (int64, error) {
	time.Sleep(b.delay)
	first := b.next
	b.next += count
	return first, nil
}

// A producer's id is not given out from a block that is older than the producer:
// the store would believe that it may have written before.
func TestProducerIDsAreOfAYoungBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &blocks{}
		ids := &idBlock{store: store}
		next := func(want int64) {
			t.Helper()
			if id, err := ids.next(t.Context()); id != want || err != nil {
				t.Errorf("got %d, %v, want %d", id, err, want)
			}
		}
		next(0)
		next(1)
		time.Sleep(producerIDBlockAge + 1)
		next(producerIDBlock)
		next(producerIDBlock + 1)

		// A slow store must not mean no ids.
		store.delay = 2 * producerIDBlockAge
		time.Sleep(producerIDBlockAge + 1)
		next(2 * producerIDBlock)
		next(3 * producerIDBlock)
	})
}

func TestProducerIDBlockIsUsedUp(t *testing.T) {
	ids := &idBlock{store: &blocks{}}
	synctest.Test(t, func(t *testing.T) {
		for want := range int64(2*producerIDBlock + 1) {
			if id, err := ids.next(t.Context()); id != want || err != nil {
				t.Fatalf("got %d, %v, want %d", id, err, want)
			}
		}
	})
}
