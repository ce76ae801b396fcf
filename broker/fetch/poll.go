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

// Run polls for the long polls of partitions that other agents lead, until ctx
// ends. It returns when nothing of the reader runs any more; the fetches that
// wait are answered.
func (r *Reader) Run(ctx context.Context) error {
	defer r.blocks.close()
	defer r.stop()
	tick := time.NewTicker(r.cfg.PollInterval)
	tick.Stop()
	polling := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.pollWanted:
			if !polling { // a reset would put off those who wait already
				tick.Reset(r.cfg.PollInterval)
				polling = true
			}
		case <-tick.C:
			if r.waiting.Load() == 0 {
				tick.Stop()
				polling = false
				continue
			}
			r.poll(ctx)
		}
	}
}

// poll asks, in one statement, for what is new in the partitions that are
// waited for and whose views this agent's own commits do not keep complete.
func (r *Reader) poll(ctx context.Context) {
	ask, of := r.views.polled(r.ledEpoch)
	if len(ask) == 0 {
		return
	}
	asked := time.Now()
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
