package fetch

import (
	"context"
	"errors"
	"time"

	"github.com/streamhouse/streamhouse/metadata"
)

// plan is what one partition's answer will be made of.
type plan struct {
	view    *view
	marks   metadata.Watermarks
	extents []metadata.Extent // from the one that contains the offset
	bytes   int64             // an upper bound of what the extents give
	err     error
}

// How old a view may be that answers for a partition that others lead.
const (
	// endAge, in poll intervals, is for a fetch at the log's end. While
	// somebody waits the views are younger, and a fetch asks nothing.
	endAge = 2
	// tailAge is for a fetch before it. It bounds how long records are still
	// served that DeleteRecords deleted through another agent.
	tailAge = time.Minute
)

// plan looks at every partition, and asks the index once for all that the
// views do not cover.
func (r *Reader) plan(ctx context.Context, reqs []Request, plans []plan, oldest ages, o Options) {
	lookahead := max(int64(r.cfg.ReadAheadBlocks), 0) * r.cfg.BlockBytes
	var ask []metadata.ReadRequest
	var askFor []int
	for i := range reqs {
		q, p := &reqs[i], &plans[i]
		if p.view == nil {
			p.view = r.views.get(q.Key)
		}
		limit := min(int64(q.MaxBytes), o.MaxBytes) + lookahead
		l := p.view.look(q.Offset, limit, oldest, r.ledEpoch(q.Key))
		if !l.covered || q.LeaderEpoch > l.marks.LeaderEpoch {
			ask = append(ask, metadata.ReadRequest{Key: q.Key, Offset: q.Offset, MaxBytes: limit})
			askFor = append(askFor, i)
			continue
		}
		p.marks, p.extents, p.err = l.marks, l.extents, nil
	}
	if len(ask) > 0 {
		share(ask, o.MaxBytes+lookahead)
		r.ask(ctx, ask, askFor, plans)
	}
	for i := range plans {
		plans[i].measure(reqs[i].Offset, o)
	}
}

// share gives each partition its part of the bytes that are asked for, so that
// what the index answers, inline batches above all, grows with the fetch and not
// with its partitions.
func share(ask []metadata.ReadRequest, total int64) {
	part := max(total/int64(len(ask)), 1)
	for i := range ask {
		ask[i].MaxBytes = min(ask[i].MaxBytes, part)
	}
}

// ask fills in plans from the index.
func (r *Reader) ask(ctx context.Context, ask []metadata.ReadRequest, askFor []int, plans []plan) {
	asked := time.Now()
	answers, err := r.index.Read(ctx, ask)
	for n, i := range askFor {
		p := &plans[i]
		if err != nil {
			*p = plan{view: p.view, err: err}
			continue
		}
		a := &answers[n]
		if a.Err != nil {
			*p = plan{view: p.view, err: a.Err}
			if errors.Is(a.Err, metadata.ErrUnknownTopic) {
				r.views.remove(ask[n].Key)
			}
			continue
		}
		p.marks, p.extents, p.err = a.Watermarks, a.Extents, nil
		p.view.read(a.Watermarks, a.Extents, asked)
		if o := ask[n].Offset; o < p.marks.LogStart || o > p.marks.High {
			p.err = ErrOffsetOutOfRange
		}
	}
}

// measure counts the bytes of the extents that the fetch may see.
func (p *plan) measure(offset int64, o Options) {
	p.bytes = 0
	if p.err != nil {
		p.extents = nil
		return
	}
	until := o.until(&p.marks)
	if offset >= until {
		p.extents = nil
	}
	for i := range p.extents {
		if p.extents[i].BaseOffset >= until {
			p.extents = p.extents[:i]
			return
		}
		p.bytes += p.extents[i].Length
	}
}

// until is the offset from which on nothing is returned.
func (o *Options) until(m *metadata.Watermarks) int64 {
	if o.ReadCommitted {
		return m.LastStable
	}
	return m.High
}

// await plans until there is enough to answer with, or something to say, or no
// time left. since is when that became known.
func (r *Reader) await(ctx context.Context, reqs []Request, o Options) (plans []plan, since time.Time) {
	since = time.Now()
	oldest := ages{now: since, end: since.Add(-endAge * r.cfg.PollInterval), tail: since.Add(-tailAge)}
	plans = make([]plan, len(reqs))
	r.plan(ctx, reqs, plans, oldest, o)
	if o.MaxWait <= 0 || len(reqs) == 0 || enough(plans, reqs, o) {
		return plans, since
	}
	w := newWaiter()
	for i := range plans {
		plans[i].view.join(w)
	}
	defer func() {
		now := time.Now()
		for i := range plans {
			plans[i].view.leave(w, now)
		}
	}()
	defer r.wait()()
	timeout := time.NewTimer(o.MaxWait)
	defer timeout.Stop()
	for {
		// Planned again after joining, for what was committed in between.
		oldest.now = time.Now()
		r.plan(ctx, reqs, plans, oldest, o)
		if enough(plans, reqs, o) {
			return plans, since
		}
		select {
		case <-w:
			since = time.Now()
		case <-timeout.C:
			return plans, time.Now()
		case <-ctx.Done():
			return plans, time.Now()
		case <-r.running.Done():
			return plans, time.Now()
		}
	}
}

// enough says whether the answer may go out before the wait is over.
func enough(plans []plan, reqs []Request, o Options) bool {
	for i := range plans {
		if plans[i].err != nil {
			return true
		}
		if reqs[i].LeaderEpoch >= 0 && reqs[i].LeaderEpoch != plans[i].marks.LeaderEpoch {
			return true // the client has to hear of the leader epoch
		}
	}
	return readable(plans, reqs) >= o.MinBytes
}

// readable is an upper bound of the bytes that the plans give.
func readable(plans []plan, reqs []Request) (total int64) {
	for i := range plans {
		total += min(plans[i].bytes, int64(reqs[i].MaxBytes))
	}
	return total
}
