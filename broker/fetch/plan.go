package fetch

import (
	"context"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/metadata"
)

// plan is what one partition's answer will be made of.
type plan struct {
	marks   metadata.Watermarks
	extents []metadata.Extent // from the one that contains the offset
	bytes   int64             // an upper bound of what the extents give
	err     error
	view    *view
}

// plan looks at every partition, and asks the index once for all that the
// views do not cover.
func (r *Reader) plan(ctx context.Context, reqs []Request, o Options) []plan {
	plans := make([]plan, len(reqs))
	lookahead := max(int64(r.cfg.ReadAheadBlocks), 0) * r.cfg.BlockBytes
	asOf := time.Now().Add(-r.cfg.PollInterval)
	var ask []metadata.ReadRequest
	var askFor []int
	for i := range reqs {
		q := &reqs[i]
		p := &plans[i]
		p.view = r.views.get(q.Key)
		limit := min(int64(q.MaxBytes), o.MaxBytes) + lookahead
		l := p.view.look(q.Offset, limit, asOf, r.ledEpoch(q.Key))
		if !l.covered || q.LeaderEpoch > l.marks.LeaderEpoch {
			ask = append(ask, metadata.ReadRequest{Key: q.Key, Offset: q.Offset, MaxBytes: limit})
			askFor = append(askFor, i)
			continue
		}
		p.marks, p.extents = l.marks, l.extents
	}
	if len(ask) > 0 {
		r.ask(ctx, reqs, ask, askFor, plans)
	}
	for i := range plans {
		plans[i].limit(reqs[i].Offset, o)
	}
	return plans
}

// ask fills in plans from the index.
func (r *Reader) ask(ctx context.Context, reqs []Request, ask []metadata.ReadRequest, askFor []int, plans []plan) {
	asked := time.Now()
	answers, err := r.index.Read(ctx, ask)
	for n, i := range askFor {
		p := &plans[i]
		if err != nil {
			p.err = err
			continue
		}
		a := &answers[n]
		if a.Err != nil {
			p.err = a.Err
			continue
		}
		p.marks, p.extents = a.Watermarks, a.Extents
		p.view.read(a.Watermarks, a.Extents, asked)
		if o := reqs[i].Offset; o < p.marks.LogStart || o > p.marks.High {
			p.err = ErrOffsetOutOfRange
		}
	}
}

// limit cuts a plan at the last stable offset, and counts its bytes.
func (p *plan) limit(offset int64, o Options) {
	if p.err != nil {
		return
	}
	p.bytes = 0
	for i, e := range p.extents {
		if o.ReadCommitted && e.BaseOffset >= p.marks.LastStable {
			p.extents = p.extents[:i]
			break
		}
		if e.EndOffset > offset {
			p.bytes += e.Length
		}
	}
}

// await plans until there is enough to answer with, or something to say, or no
// time left.
func (r *Reader) await(ctx context.Context, reqs []Request, o Options) []plan {
	plans := r.plan(ctx, reqs, o)
	if o.MaxWait <= 0 || len(reqs) == 0 || enough(plans, reqs, o) {
		return plans
	}
	w := newWaiter()
	for i := range plans {
		plans[i].view.join(w)
		defer plans[i].view.leave(w)
	}
	r.metrics.waiting.Inc()
	defer r.metrics.waiting.Dec()
	r.wantPoll()
	timeout := time.NewTimer(o.MaxWait)
	defer timeout.Stop()
	for {
		// Planned again after joining, for what was committed in between.
		plans = r.plan(ctx, reqs, o)
		if enough(plans, reqs, o) {
			return plans
		}
		select {
		case <-w.woken:
		case <-timeout.C:
			return plans
		case <-ctx.Done():
			return plans
		case <-r.running.Done():
			return plans
		}
	}
}

// enough says whether the answer may go out before the wait is over.
func enough(plans []plan, reqs []Request, o Options) bool {
	var total int64
	for i := range plans {
		if plans[i].err != nil {
			return true
		}
		total += min(plans[i].bytes, int64(reqs[i].MaxBytes))
		if reqs[i].LeaderEpoch >= 0 && reqs[i].LeaderEpoch != plans[i].marks.LeaderEpoch {
			return true // the client has to hear of the leader epoch
		}
	}
	return total >= o.MinBytes
}

func (r *Reader) wantPoll() {
	select {
	case r.pollWanted <- struct{}{}:
	default:
	}
}

// Run polls for the long polls of partitions that other agents lead, until ctx
// ends. It returns when nothing of the reader runs any more.
func (r *Reader) Run(ctx context.Context) error {
	var loaders sync.WaitGroup
	defer loaders.Wait()
	defer r.stop()
	for range readAheadLoaders {
		loaders.Go(func() { r.loadAhead(ctx) })
	}
	tick := time.NewTicker(r.cfg.PollInterval)
	tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.pollWanted:
			tick.Reset(r.cfg.PollInterval)
		case <-tick.C:
			waited := r.views.waited(nil)
			if len(waited) == 0 {
				tick.Stop()
				continue
			}
			r.poll(ctx, waited)
		}
	}
}
