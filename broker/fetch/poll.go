package fetch

import (
	"context"
	"time"

	"github.com/streamhouse/streamhouse/lease"
)

// poll asks for the watermarks of the partitions whose views are not kept
// complete by this agent's own commits, in one statement.
func (r *Reader) poll(ctx context.Context, waited []lease.Key) {
	stale := waited[:0]
	for _, k := range waited {
		if v := r.views.get(k); !v.leads(r.ledEpoch(k)) {
			stale = append(stale, k)
		}
	}
	if len(stale) == 0 {
		return
	}
	asked := time.Now()
	marks, err := r.index.Watermarks(ctx, stale)
	if err != nil {
		if ctx.Err() == nil {
			r.log.Warn("cannot ask for new records of partitions led elsewhere", "partitions", len(stale), "error", err)
		}
		return
	}
	for i, k := range stale {
		if marks[i] != nil {
			r.views.get(k).read(*marks[i], nil, asked)
		}
	}
}

// leads says whether the view is complete without asking: see the package's
// comment.
func (v *view) leads(ledEpoch int32) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.known && v.marks.LeaderEpoch == ledEpoch
}
