package broker

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol"
)

// InitProducerId, v0 to v5, for idempotent producers (KIP-98, KIP-360): each
// call gives a new id with epoch 0, whatever the producer had before, as
// Kafka does for producers without a transactional id. Transactions are
// refused with a code that ends the producer at once instead of after its
// timeout.
func (b *Broker) initProducerID(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.InitProducerIDRequest)
	resp := r.ResponseKind().(*kmsg.InitProducerIDResponse)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	if r.TransactionalID != nil {
		resp.ErrorCode = kerr.TransactionalIDAuthorizationFailed.Code
		if *r.TransactionalID == "" {
			resp.ErrorCode = kerr.InvalidRequest.Code
		}
		return protocol.Now(resp)
	}
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		id, err := b.producerIDs.next(ctx)
		if err != nil {
			b.Log.Warn("cannot give out a producer id", "error", err)
			resp.ErrorCode = kerr.CoordinatorNotAvailable.Code
			return resp
		}
		resp.ProducerID, resp.ProducerEpoch = id, 0
		return resp
	})
}

// producerIDBlock is how many producer ids an agent takes at once. What is left
// of a block is never given out.
const producerIDBlock = 1000

// producerIDBlockAge is how long ids of a block are given out. The store takes
// the age of its block for that of an id, when it decides whether a producer that
// it does not know may have written before; an id that looks much older than it
// is would be believed to have.
const producerIDBlockAge = 100 * time.Millisecond

// idBlock gives out producer ids from blocks that the store hands out.
type idBlock struct {
	store metadata.Producers

	mu    sync.Mutex
	first int64     // the next id to be given out
	left  int64     // ids from first on that are this agent's
	asked time.Time // from before the store was asked for the block
}

func (p *idBlock) next(ctx context.Context) (int64, error) {
	if id, ok := p.take(); ok {
		return id, nil
	}
	var first int64
	asked := time.Now()
	err := untilKnown(ctx, func() (err error) { // a block is lost at worst
		first, err = p.store.AllocateProducerIDs(ctx, producerIDBlock)
		return err
	})
	if err != nil {
		return -1, err
	}
	p.refill(first+1, asked)
	return first, nil
}

func (p *idBlock) take() (id int64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left == 0 || time.Since(p.asked) > producerIDBlockAge {
		return -1, false
	}
	id = p.first
	p.first++
	p.left--
	return id, true
}

// refill keeps the rest of a new block; of two that arrive at once the last one
// counts.
func (p *idBlock) refill(first int64, asked time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.first, p.left, p.asked = first, producerIDBlock-1, asked
}
