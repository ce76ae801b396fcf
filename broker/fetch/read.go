package fetch

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/streamhouse/streamhouse/metadata"
)

// read turns plans into bytes. Partitions are read in parallel; each has its
// part of the limit before, from what the plans say.
func (r *Reader) read(ctx context.Context, reqs []Request, plans []plan, o Options) []Result {
	results := make([]Result, len(plans))
	var work []*assembly
	left := o.MaxBytes
	for i := range plans {
		p, q := &plans[i], &reqs[i]
		results[i].Watermarks, results[i].Err = p.marks, p.err
		if len(p.extents) == 0 {
			continue
		}
		a := &assembly{
			r: r, view: p.view, request: q, result: &results[i], extents: p.extents, until: o.until(&p.marks),
			allowed: max(min(int64(q.MaxBytes), left), 0), atLeastOne: len(work) == 0,
		}
		left -= min(a.allowed, p.bytes)
		work = append(work, a)
	}
	if len(work) == 1 {
		r.assemble(ctx, work[0], o)
		return results
	}
	var group errgroup.Group
	group.SetLimit(r.cfg.ConcurrentGets)
	for _, a := range work {
		if a.allowed > 0 || a.atLeastOne {
			group.Go(func() error {
				r.assemble(ctx, a, o)
				return nil
			})
		}
	}
	_ = group.Wait() // errors are the partitions' own
	r.insist(ctx, work, o)
	return results
}

// insist sees to it that one whole batch is returned though the first partition
// could not be read and the batches of the others are above the limits.
func (r *Reader) insist(ctx context.Context, work []*assembly, o Options) {
	for _, a := range work {
		if len(a.result.Records) > 0 {
			return
		}
	}
	for _, a := range work {
		if a.result.Err != nil || a.atLeastOne {
			continue
		}
		a.atLeastOne = true
		if r.assemble(ctx, a, o); len(a.result.Records) > 0 {
			return
		}
	}
}

// assemble reads one partition. A plan whose object is gone is made again once:
// the log may have moved on.
func (r *Reader) assemble(ctx context.Context, a *assembly, o Options) {
	err := a.take(ctx)
	if errors.Is(err, errObjectMissing) {
		a.view.stale()
		if len(a.out) == 0 {
			err = r.again(ctx, a, o)
		}
	}
	res := a.result
	res.Records = a.out
	if err == nil || len(a.out) > 0 {
		return // what was read is whole; the next fetch meets the error
	}
	switch {
	case errors.Is(err, errObjectMissing):
		r.metrics.dataLoss.Inc()
		r.log.Error("an object that the index names is missing: records are lost or the bucket was changed from outside",
			"topic_id", a.request.Key.TopicID, "partition", a.request.Key.Partition, "offset", a.request.Offset, "error", err)
		err = fmt.Errorf("%w: %w", ErrStorage, err)
	case errors.Is(err, ErrCorrupt):
		r.metrics.corrupt.Inc()
		fallthrough
	case errors.Is(err, ErrStorage):
		r.log.Warn("cannot read records", "topic_id", a.request.Key.TopicID, "partition", a.request.Key.Partition,
			"offset", a.request.Offset, "error", err)
	}
	res.Err = err
}

// again plans and reads one partition once more.
func (r *Reader) again(ctx context.Context, a *assembly, o Options) error {
	plans := []plan{{view: a.view}}
	r.ask(ctx, []metadata.ReadRequest{{Key: a.request.Key, Offset: a.request.Offset, MaxBytes: a.allowed}}, []int{0}, plans)
	p := &plans[0]
	p.measure(a.request.Offset, o)
	a.result.Watermarks = p.marks
	if p.err != nil || len(p.extents) == 0 {
		return p.err
	}
	a.extents, a.until, a.held = p.extents, o.until(&p.marks), held{}
	return a.take(ctx)
}

// readAhead has the blocks behind a sequential reader loaded: the first extent
// from a position on, and those that follow.
func (r *Reader) readAhead(extents []metadata.Extent, from int64) {
	left := int64(r.cfg.ReadAheadBlocks) * r.cfg.BlockBytes
	for i := range extents {
		if left <= 0 || !r.blocks.idle() {
			return
		}
		e := &extents[i]
		if to := min(e.Length, from+left); !inline(e) && from < to {
			r.blocks.load(spanOf(e, from, to), nil)
			left -= to - from
		}
		from = 0
	}
}
