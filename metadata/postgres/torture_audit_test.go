package postgres_test

import (
	"context"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/segment"
)

// extentRow is a row of the index.
type extentRow struct {
	key               lease.Key
	base, end, length int64
	leaderEpoch       int32
	object            segment.ID
	position          int64
}

// audit compares the index with what producers and collectors were told. All
// outcomes are known by now, so both must be the same.
func (tt *torture) audit(ctx context.Context) {
	extents, err := tt.extents(ctx)
	if err != nil {
		tt.violate("read the index: %v", err)
		return
	}
	tt.auditTiling(ctx, extents)
	tt.auditAcks(extents)
	tt.auditLeaders(ctx)
	for _, e := range extents {
		if slices.Contains(tt.claimed, e.object) {
			tt.violate("%s: offsets %d to %d lie in object %s, which a collector was allowed to delete", e.key, e.base, e.end, e.object)
		}
	}
}

// extents reads the index in the order of the log.
func (tt *torture) extents(ctx context.Context) ([]extentRow, error) {
	rows, err := tt.admin.Query(ctx, `SELECT topic_id, partition, base_offset, end_offset, length, leader_epoch, object_id, position
		FROM extents ORDER BY topic_id, partition, base_offset`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (e extentRow, err error) {
		var topic, object []byte
		err = row.Scan(&topic, &e.key.Partition, &e.base, &e.end, &e.length, &e.leaderEpoch, &object, &e.position)
		e.key.TopicID, e.object = uuid.UUID(topic), segment.ID(object)
		return e, err
	})
}

// auditTiling checks that the extents tile each log up to its high watermark,
// under leader epochs that never fall.
func (tt *torture) auditTiling(ctx context.Context, extents []extentRow) {
	ends, epochs := make(map[lease.Key]int64), make(map[lease.Key]int32)
	for _, e := range extents {
		if e.base != ends[e.key] {
			tt.violate("%s: an extent begins at %d where the one before ends at %d", e.key, e.base, ends[e.key])
		}
		if e.leaderEpoch < epochs[e.key] {
			tt.violate("%s: leader epoch %d follows on %d at offset %d", e.key, e.leaderEpoch, epochs[e.key], e.base)
		}
		ends[e.key], epochs[e.key] = e.end, e.leaderEpoch
	}
	for _, key := range tt.keys {
		var high int64
		err := tt.admin.QueryRow(ctx, `SELECT high_watermark FROM partitions WHERE topic_id = $1 AND partition = $2`,
			key.TopicID[:], key.Partition).Scan(&high)
		if err != nil || high != ends[key] {
			tt.violate("%s: the high watermark is %d and the log ends at %d (%v)", key, high, ends[key], err)
		}
	}
}

// auditAcks checks that each acknowledged batch is where it was said to be, in
// its leader's epoch, and that nothing else is there.
func (tt *torture) auditAcks(extents []extentRow) {
	var acknowledged, stored int64
	for _, e := range extents {
		stored += e.end - e.base
	}
	for _, a := range tt.acks {
		acknowledged += int64(a.batch.Records)
		if at, ok := slices.BinarySearchFunc(extents, a, compareToAck); !ok || !extents[at].holds(a) {
			tt.violate("%s: the batch acknowledged at offset %d (object %s, leader epoch %d) is not there",
				a.batch.Key, a.base, a.object, a.batch.LeaderEpoch)
		}
	}
	if acknowledged != stored {
		tt.violate("%d records are stored and %d were acknowledged", stored, acknowledged)
	}
}

// auditLeaders checks that each acknowledged batch was committed by the one leader
// of its epoch, which began at or below it.
func (tt *torture) auditLeaders(ctx context.Context) {
	type leadership struct {
		key   lease.Key
		epoch int32
	}
	leaders, starts := make(map[leadership]string), make(map[leadership]int64)
	rows, err := tt.admin.Query(ctx, `SELECT topic_id, partition, leader_epoch, agent_id, start_offset FROM leader_epochs`)
	if err != nil {
		tt.violate("read the leaderships: %v", err)
		return
	}
	var (
		topic []byte
		l     leadership
		agent string
		start int64
	)
	_, err = pgx.ForEachRow(rows, []any{&topic, &l.key.Partition, &l.epoch, &agent, &start}, func() error {
		l.key.TopicID = uuid.UUID(topic)
		leaders[l], starts[l] = agent, start
		return nil
	})
	if err != nil {
		tt.violate("read the leaderships: %v", err)
	}
	for _, a := range tt.acks {
		l := leadership{a.batch.Key, a.batch.LeaderEpoch}
		if leaders[l] != a.agent || starts[l] > a.base {
			tt.violate("%s: agent %q has committed offset %d in leader epoch %d, which is that of %q from %d on",
				a.batch.Key, a.agent, a.base, a.batch.LeaderEpoch, leaders[l], starts[l])
		}
	}
}

// compareToAck is 0 for the extent that has the offset of the ack.
func compareToAck(e extentRow, a ack) int {
	switch c := e.key.Compare(a.batch.Key); {
	case c != 0:
		return c
	case e.end <= a.base:
		return -1
	case e.base > a.base:
		return 1
	}
	return 0
}

// holds says whether the batch of the ack is all in the extent, in its place.
func (e *extentRow) holds(a ack) bool {
	return e.object == a.object && e.leaderEpoch == a.batch.LeaderEpoch &&
		a.base+int64(a.batch.Records) <= e.end &&
		a.batch.Position-e.position == (a.base-e.base)*tortureRecordBytes
}
