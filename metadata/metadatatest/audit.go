package metadatatest

import (
	"context"
	"errors"
	"fmt"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// Audit checks the invariants of every log in a store that nobody writes to:
// extents tile the log from its start to the high watermark, leader epochs
// never go back and are not above the partition's own, and each extent has
// bytes, in an object or inline. Extents wholly below the log start, which are
// there until they are pruned, must not be seen. It returns all violations, joined.
func Audit(ctx context.Context, store metadata.Store) error {
	topology, err := store.Topology(ctx, 0)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	var violations []error
	for _, topic := range topology.Topics {
		for p := range topic.Partitions {
			k := lease.Key{TopicID: topic.ID, Partition: p}
			if err := auditLog(ctx, store, k); err != nil {
				violations = append(violations, fmt.Errorf("audit: partition %s: %w", k, err))
			}
		}
	}
	return errors.Join(violations...)
}

// auditReadBytes is about how much of a log is read at once.
const auditReadBytes = 1 << 26

func auditLog(ctx context.Context, store metadata.Store, k lease.Key) error {
	marks, err := store.Watermarks(ctx, []lease.Key{k})
	if err != nil {
		return err
	}
	if marks[0] == nil {
		return errors.New("topic without this partition")
	}
	w := *marks[0]
	if w.LogStart < 0 || w.LogStart > w.LastStable || w.LastStable > w.High {
		return fmt.Errorf("watermarks out of order: %+v", w)
	}
	at, epoch := w.LogStart, int32(-1)
	for at < w.High {
		read, err := store.Read(ctx, []metadata.ReadRequest{{Key: k, Offset: at, MaxBytes: auditReadBytes}})
		if err != nil {
			return err
		}
		if len(read[0].Extents) == 0 {
			return fmt.Errorf("no extent at offset %d, below the high watermark %d", at, w.High)
		}
		for i, e := range read[0].Extents {
			first := at == w.LogStart && i == 0
			if err := auditExtent(&e, at, epoch, first, &w); err != nil {
				return err
			}
			at, epoch = e.EndOffset, e.LeaderEpoch
		}
	}
	if at != w.High {
		return fmt.Errorf("extents end at %d, beyond the high watermark %d", at, w.High)
	}
	return nil
}

// auditExtent checks the extent that follows at offset at and leader epoch
// epoch. Only the first of a log may begin earlier, as records were deleted.
func auditExtent(e *metadata.Extent, at int64, epoch int32, first bool, w *metadata.Watermarks) error {
	switch {
	case e.BaseOffset != at && (!first || e.BaseOffset > at), e.EndOffset <= at:
		return fmt.Errorf("extent [%d, %d) does not follow at %d", e.BaseOffset, e.EndOffset, at)
	case e.LeaderEpoch < epoch, e.LeaderEpoch > w.LeaderEpoch:
		return fmt.Errorf("extent at %d has leader epoch %d after %d, in leader epoch %d", at, e.LeaderEpoch, epoch, w.LeaderEpoch)
	case e.Length <= 0, e.Inline != nil && int64(len(e.Inline)) != e.Length:
		return fmt.Errorf("extent at %d has length %d and %d bytes inline", at, e.Length, len(e.Inline))
	}
	return nil
}
