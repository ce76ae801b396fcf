package postgres

import (
	"context"
	"fmt"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/sqlstore"
)

const commitSQL = `SELECT outcomes, base_offsets, append_times, log_starts FROM commit_objects(
	$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)`

// Commit implements metadata.Committer.
func (s *Store) Commit(ctx context.Context, c *metadata.Commit) ([][]metadata.CommitResult, error) {
	args := newCommitArgs(c)
	var outcomes, baseOffsets, appendTimes, logStarts []int64
	err := call(ctx, s.commits, "commit", sqlstore.Stmt{
		SQL:  commitSQL,
		Args: args.list(),
		Each: func(row sqlstore.Row) error { return row.Scan(&outcomes, &baseOffsets, &appendTimes, &logStarts) },
	})
	if err != nil {
		if classify(err) == sqlstore.Fault {
			// The server has refused the statement, so this is as definite.
			return nil, fmt.Errorf("%w: %w", metadata.ErrUnavailable, err)
		}
		return nil, err
	}
	results := make([][]metadata.CommitResult, len(c.Objects))
	flat := make([]metadata.CommitResult, len(outcomes))
	for i := range flat {
		flat[i] = metadata.CommitResult{
			Outcome:        metadata.CommitOutcome(outcomes[i]),
			BaseOffset:     baseOffsets[i],
			AppendTime:     appendTimes[i],
			LogStartOffset: logStarts[i],
		}
	}
	for i := range c.Objects {
		n := len(c.Objects[i].Batches)
		results[i], flat = flat[:n:n], flat[n:]
	}
	return results, nil
}

// commitArgs are the arguments of commit_objects: tables as one slice a column,
// which name rows of one another by their numbers, from 1.
type commitArgs struct {
	agentID     string
	objectIDs   [][]byte
	objectSizes []int64
	objectTimes []int64

	topicIDs     [][]byte
	partitionIDs []int32
	partitions   map[lease.Key]int32 // their numbers

	producerPartitions []int32
	producerIDs        []int64
	producers          map[producer]int32 // their numbers

	batchObjects, batchPartitions, batchProducers []int32
	batchLeaderEpochs                             []int32
	batchPositions                                []int64
	batchLengths, batchRecords                    []int32
	batchEpochs                                   []int16
	batchSequences                                []int32
	batchTimestamps                               []int64
	batchLogAppend                                []bool
	payload                                       []byte
}

// producer is a producer in one partition.
type producer struct {
	partition int32
	id        int64
}

func newCommitArgs(c *metadata.Commit) *commitArgs {
	var batches, inline int
	for i := range c.Objects {
		o := &c.Objects[i]
		batches += len(o.Batches)
		for j := range o.Batches {
			inline += len(o.Batches[j].Inline)
		}
	}
	a := &commitArgs{
		agentID:            c.AgentID,
		objectIDs:          make([][]byte, 0, len(c.Objects)), // never nil, which would be NULL
		objectSizes:        make([]int64, 0, len(c.Objects)),
		objectTimes:        make([]int64, 0, len(c.Objects)),
		topicIDs:           [][]byte{},
		partitionIDs:       []int32{},
		partitions:         make(map[lease.Key]int32),
		producerPartitions: []int32{},
		producerIDs:        []int64{},
		producers:          make(map[producer]int32),
		batchObjects:       make([]int32, 0, batches),
		batchPartitions:    make([]int32, 0, batches),
		batchProducers:     make([]int32, 0, batches),
		batchLeaderEpochs:  make([]int32, 0, batches),
		batchPositions:     make([]int64, 0, batches),
		batchLengths:       make([]int32, 0, batches),
		batchRecords:       make([]int32, 0, batches),
		batchEpochs:        make([]int16, 0, batches),
		batchSequences:     make([]int32, 0, batches),
		batchTimestamps:    make([]int64, 0, batches),
		batchLogAppend:     make([]bool, 0, batches),
		payload:            make([]byte, 0, inline),
	}
	for i := range c.Objects {
		o := &c.Objects[i]
		a.objectIDs = append(a.objectIDs, o.ID[:])
		a.objectSizes = append(a.objectSizes, o.Size)
		a.objectTimes = append(a.objectTimes, o.CreatedAt())
		for j := range o.Batches {
			a.add(&o.Batches[j], o.Size == 0)
		}
	}
	return a
}

// add appends a batch of the newest object.
func (a *commitArgs) add(b *metadata.CommitBatch, inline bool) {
	partition := a.partition(b)
	position := b.Position
	if inline {
		position = int64(len(a.payload))
		a.payload = append(a.payload, b.Inline...)
	}
	a.batchObjects = append(a.batchObjects, int32(len(a.objectIDs)))
	a.batchPartitions = append(a.batchPartitions, partition)
	a.batchProducers = append(a.batchProducers, a.producer(partition, b.ProducerID))
	a.batchLeaderEpochs = append(a.batchLeaderEpochs, b.LeaderEpoch)
	a.batchPositions = append(a.batchPositions, position)
	a.batchLengths = append(a.batchLengths, b.Length)
	a.batchRecords = append(a.batchRecords, b.Records)
	a.batchEpochs = append(a.batchEpochs, b.ProducerEpoch)
	a.batchSequences = append(a.batchSequences, b.BaseSequence)
	a.batchTimestamps = append(a.batchTimestamps, b.MaxTimestamp)
	a.batchLogAppend = append(a.batchLogAppend, b.LogAppendTime)
}

// partition returns the number of the batch's partition.
func (a *commitArgs) partition(b *metadata.CommitBatch) int32 {
	number, ok := a.partitions[b.Key]
	if !ok {
		a.topicIDs = append(a.topicIDs, b.TopicID[:])
		a.partitionIDs = append(a.partitionIDs, b.Partition)
		number = int32(len(a.partitionIDs))
		a.partitions[b.Key] = number
	}
	return number
}

// producer returns the number of a producer in a partition; 0 if it is not
// idempotent.
func (a *commitArgs) producer(partition int32, id int64) int32 {
	if id < 0 {
		return 0
	}
	number, ok := a.producers[producer{partition, id}]
	if !ok {
		a.producerPartitions = append(a.producerPartitions, partition)
		a.producerIDs = append(a.producerIDs, id)
		number = int32(len(a.producerIDs))
		a.producers[producer{partition, id}] = number
	}
	return number
}

// list returns the arguments in the function's order.
func (a *commitArgs) list() []any {
	return []any{
		a.agentID, a.objectIDs, a.objectSizes, a.objectTimes, a.topicIDs, a.partitionIDs, a.producerPartitions, a.producerIDs,
		a.batchObjects, a.batchPartitions, a.batchProducers, a.batchLeaderEpochs, a.batchPositions, a.batchLengths,
		a.batchRecords, a.batchEpochs, a.batchSequences, a.batchTimestamps, a.batchLogAppend, a.payload,
		metadata.CommitMaxAge.Milliseconds(), metadata.ProducerWindow, metadata.ProducerExpiry.Milliseconds(),
	}
}
