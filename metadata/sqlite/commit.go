package sqlite

import (
	"context"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// Commit implements metadata.Committer, in one transaction and so one fsync. A
// partition and a producer are read once and written once, however many batches
// there are.
func (s *Store) Commit(ctx context.Context, c *metadata.Commit) ([][]metadata.CommitResult, error) {
	var results [][]metadata.CommitResult
	err := s.transact(ctx, "commit", func(ctx context.Context, conn *conn) error {
		t := transaction{
			conn:       conn,
			agentID:    c.AgentID,
			partitions: make(map[lease.Key]*partition),
			producers:  make(map[producerKey]*producer),
		}
		results = make([][]metadata.CommitResult, len(c.Objects))
		var err error
		if t.now, err = conn.now(ctx); err != nil {
			return err
		}
		for i := range c.Objects {
			if results[i], err = t.commit(ctx, &c.Objects[i]); err != nil {
				return err
			}
		}
		return t.store(ctx)
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// transaction is a commit under way: the rows that it has read, some of which
// it has changed and will write at its end.
type transaction struct {
	*conn
	agentID    string
	now        int64 // ms
	partitions map[lease.Key]*partition
	producers  map[producerKey]*producer
}

// partition is a row of partitions.
type partition struct {
	known          bool
	leader         string
	leaderEpoch    int32
	high, logStart int64
	changed        bool
}

type producerKey struct {
	lease.Key
	id int64
}

// producer is a row of producers.
type producer struct {
	metadata.ProducerState
	forgotten bool // the argument of ProducerState.Check
	changed   bool
}

// commit commits one object, or finds what became of it before.
func (t *transaction) commit(ctx context.Context, obj *metadata.CommitObject) ([]metadata.CommitResult, error) {
	var (
		state  string
		stored []byte
	)
	again, err := t.get(ctx, `SELECT state, results FROM objects WHERE object_id = $1`, []any{obj.ID[:]}, &state, &stored)
	if err != nil {
		return nil, err
	}
	if again && state == "live" && stored != nil {
		return decodeResults(stored, len(obj.Batches))
	}
	outdated := obj.CreatedAt() < t.now-metadata.CommitMaxAge.Milliseconds()
	results := make([]metadata.CommitResult, len(obj.Batches))
	for i := range obj.Batches {
		if again || outdated {
			results[i] = refused(metadata.ObjectClaimed, -1)
		} else if results[i], err = t.append(ctx, &obj.Batches[i]); err != nil {
			return nil, err
		}
	}
	if again {
		return results, nil
	}
	_, err = t.exec(ctx, `INSERT INTO objects (object_id, state, size, created_at, results) VALUES ($1, 'live', $2, $3, $4)`,
		obj.ID[:], obj.Size, t.now, encodeResults(results))
	if err != nil {
		return nil, err
	}
	for _, e := range metadata.ExtentsOf(obj, results) {
		if err := t.insertExtent(ctx, &e); err != nil {
			return nil, err
		}
	}
	return results, nil
}

func refused(outcome metadata.CommitOutcome, logStart int64) metadata.CommitResult {
	return metadata.CommitResult{Outcome: outcome, BaseOffset: -1, AppendTime: -1, LogStartOffset: logStart}
}

// append decides about one batch and, if it is accepted, gives it its offsets.
func (t *transaction) append(ctx context.Context, b *metadata.CommitBatch) (metadata.CommitResult, error) {
	p, err := t.partition(ctx, b.Key)
	switch {
	case err != nil:
		return metadata.CommitResult{}, err
	case !p.known:
		return refused(metadata.UnknownPartition, -1), nil
	case p.leader != t.agentID || p.leaderEpoch != b.LeaderEpoch:
		return refused(metadata.Fenced, p.logStart), nil
	}
	res := metadata.CommitResult{BaseOffset: p.high, AppendTime: -1, LogStartOffset: p.logStart}
	if b.LogAppendTime {
		res.AppendTime = t.now
	}
	if b.ProducerID >= 0 {
		pr, err := t.producer(ctx, producerKey{b.Key, b.ProducerID})
		if err != nil {
			return metadata.CommitResult{}, err
		}
		outcome, original := pr.Check(b.ProducerEpoch, b.BaseSequence, b.Records, pr.forgotten)
		switch outcome {
		case metadata.Committed:
			pr.changed = true
			pr.Append(b.ProducerEpoch, metadata.ProducerEntry{
				BaseSequence: b.BaseSequence,
				LastSequence: metadata.LastSequence(b.BaseSequence, b.Records),
				BaseOffset:   res.BaseOffset,
				AppendTime:   res.AppendTime,
			})
		case metadata.Duplicate:
			res.Outcome, res.BaseOffset, res.AppendTime = outcome, original.BaseOffset, original.AppendTime
			return res, nil
		default:
			return refused(outcome, p.logStart), nil
		}
	}
	p.changed = true
	p.high += int64(b.Records)
	return res, nil
}

func (t *transaction) partition(ctx context.Context, k lease.Key) (*partition, error) {
	if p, ok := t.partitions[k]; ok {
		return p, nil
	}
	p := new(partition)
	known, err := t.get(ctx, `SELECT coalesce(leader_agent_id, ''), leader_epoch, high_watermark, log_start_offset
		FROM partitions WHERE topic_id = $1 AND partition = $2`,
		[]any{k.TopicID[:], k.Partition}, &p.leader, &p.leaderEpoch, &p.high, &p.logStart)
	if err != nil {
		return nil, err
	}
	p.known = known
	t.partitions[k] = p
	return p, nil
}

func (t *transaction) producer(ctx context.Context, k producerKey) (*producer, error) {
	if p, ok := t.producers[k]; ok {
		return p, nil
	}
	var (
		p       producer
		entries []byte
	)
	known, err := t.get(ctx, `SELECT producer_epoch, entries FROM producers
		WHERE topic_id = $1 AND partition = $2 AND producer_id = $3`,
		[]any{k.TopicID[:], k.Partition, k.id}, &p.Epoch, &entries)
	if err != nil {
		return nil, err
	}
	if known {
		p.Entries, err = decodeEntries(entries)
	} else {
		p.forgotten, err = t.forgotten(ctx, k)
	}
	t.producers[k] = &p
	return &p, err
}

// forgotten says whether the partition may have known the producer before: its
// id is older than the expiry of such knowledge, or than the topic, which may
// have been made again under its name.
func (t *transaction) forgotten(ctx context.Context, k producerKey) (forgotten bool, err error) {
	_, err = t.get(ctx, `SELECT b.allocated_at < $3 OR b.allocated_at < t.created_at
		FROM producer_id_blocks b, topics t
		WHERE t.topic_id = $1 AND b.end_id > $2
			AND b.first_id = (SELECT max(x.first_id) FROM producer_id_blocks x WHERE x.first_id <= $2)`,
		[]any{k.TopicID[:], k.id, t.now - metadata.ProducerExpiry.Milliseconds()}, &forgotten)
	return forgotten, err
}

func (t *transaction) insertExtent(ctx context.Context, e *metadata.PartitionExtent) error {
	var object []byte
	if e.Inline == nil {
		object = e.Object[:]
	}
	_, err := t.exec(ctx, `INSERT INTO extents (topic_id, partition, base_offset, end_offset, leader_epoch,
			max_timestamp, append_time, object_id, position, length, inline)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
		e.TopicID[:], e.Partition, e.BaseOffset, e.EndOffset, e.LeaderEpoch,
		e.MaxTimestamp, e.AppendTime, object, e.Position, e.Length, e.Inline)
	return err
}

// store writes the rows that were changed.
func (t *transaction) store(ctx context.Context) error {
	for k, p := range t.partitions {
		if !p.changed {
			continue
		}
		_, err := t.exec(ctx, `UPDATE partitions SET high_watermark = $3 WHERE topic_id = $1 AND partition = $2`,
			k.TopicID[:], k.Partition, p.high)
		if err != nil {
			return err
		}
	}
	for k, p := range t.producers {
		if !p.changed {
			continue
		}
		_, err := t.exec(ctx, `INSERT INTO producers (topic_id, partition, producer_id, producer_epoch, entries, updated_at)
			VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (topic_id, partition, producer_id) DO UPDATE SET
				producer_epoch = excluded.producer_epoch, entries = excluded.entries, updated_at = excluded.updated_at`,
			k.TopicID[:], k.Partition, k.id, p.Epoch, encodeEntries(p.Entries), t.now)
		if err != nil {
			return err
		}
	}
	return nil
}
