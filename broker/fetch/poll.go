package fetch

import (
	"context"
	"errors"
	"time"

	"github.com/streamhouse/streamhouse/metadata"
)

// pollBytes bounds the extents of one partition that a poll brings. Where more
// came in the meantime, those who waited ask themselves.
const pollBytes = 1 << 20

// soonest is the part of a poll interval that lies at least between two polls for
// what feeds have told of.
const soonest = 4

// Run polls for the long polls of partitions that other agents lead, and follows
// the agents that lead them, until ctx ends. It returns when nothing of the reader
// runs any more; the fetches that wait are answered.
func (r *Reader) Run(ctx context.Context) error {
	defer r.blocks.close()
	defer r.stop()
	pursuit := newPursuit(ctx, r)
	defer pursuit.close()
	tick := time.NewTicker(r.cfg.PollInterval)
	tick.Stop()
	ticking := false
	soon := time.NewTimer(r.cfg.PollInterval)
	soon.Stop()
	var polled time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.pollWanted:
			if !ticking { // a reset would put off those who wait already
				tick.Reset(r.cfg.PollInterval)
				ticking = true
			}
		case <-r.soon:
			if early := r.cfg.PollInterval/soonest - time.Since(polled); early > 0 {
				soon.Reset(early)
				continue
			}
			polled = time.Now()
			r.poll(ctx, true)
		case <-soon.C:
			polled = time.Now()
			r.poll(ctx, true)
		case <-tick.C:
			if pursuit.home(); r.waiting.Load() > 0 {
				r.poll(ctx, false)
			} else if pursuit.idle() {
				tick.Stop()
				ticking = false
			}
		}
	}
}

// pollSoon has the index asked for what a feed told of without extents.
func (r *Reader) pollSoon() {
	select {
	case r.soon <- struct{}{}:
	default:
	}
}

// poll asks, in one statement, for what is new in the partitions that are
// waited for and whose views neither this agent's own commits nor a feed keep
// complete; if soon, only for what feeds have told of.
func (r *Reader) poll(ctx context.Context, soon bool) {
	asked := time.Now()
	ask, of := r.views.polled(asked, soon, r.ledEpoch)
	if len(ask) == 0 {
		return
	}
	r.metrics.polls.Inc()
	answers, err := r.index.Read(ctx, ask)
	if err != nil {
		if ctx.Err() == nil {
			r.log.Warn("cannot ask for new records of partitions led elsewhere", "partitions", len(ask), "error", err)
		}
		return
	}
	for i := range answers {
		a := &answers[i]
		switch {
		case a.Err == nil:
			of[i].read(a.Watermarks, a.Extents, asked)
		case errors.Is(a.Err, metadata.ErrUnknownTopic):
			r.views.remove(ask[i].Key)
		}
	}
}

// wait counts a long poll as one that waits, until it calls done.
func (r *Reader) wait() (done func()) {
	r.metrics.waiting.Inc()
	r.waiting.Add(1)
	select {
	case r.pollWanted <- struct{}{}:
	default:
	}
	return func() {
		r.waiting.Add(-1)
		r.metrics.waiting.Dec()
	}
}
