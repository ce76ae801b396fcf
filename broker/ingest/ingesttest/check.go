package ingesttest

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol/batch"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
	"github.com/streamhouse/streamhouse/segment"
)

// NoProducer is the producer of batches without idempotence.
const NoProducer = batch.NoProducerID

// Batch builds a validated batch whose first record's value is name, and which
// has as many more records as records says. Batches are told apart by their
// names.
func Batch(tb testing.TB, name string, producer int64, epoch int16, sequence int32, records int) batch.Validated {
	tb.Helper()
	o := batchtest.Options{}
	for i := range records {
		r := batchtest.Record{Timestamp: 1_000_000 + int64(i), Value: []byte(name)}
		if i > 0 {
			r.Value = fmt.Append(nil, i)
		}
		o.Records = append(o.Records, r)
	}
	if producer != NoProducer {
		o.Producer = &batchtest.Producer{ID: producer, Epoch: epoch, BaseSequence: sequence}
	}
	v, err := batch.Validate(batchtest.Build(o), &batch.Rules{
		MaxMessageBytes: 16 << 20, Now: time.Now(),
		TimestampBeforeMax: batch.Unbounded, TimestampAfterMax: batch.Unbounded,
	})
	if err != nil {
		tb.Fatalf("build batch: %v", err)
	}
	return v
}

// Fate is what a producer was told.
type Fate uint8

// The fates.
const (
	Acked   Fate = iota // in the log at the offset
	Failed              // in no log
	Unknown             // in the log at most once
)

// Sent is one try of a producer to append a batch. A batch may be tried often.
type Sent struct {
	Key    lease.Key
	Batch  batch.Validated
	Fate   Fate
	Offset int64 // if Acked
}

// Reader is the part of metadata.Log that a check needs.
type Reader interface {
	Read(ctx context.Context, reqs []metadata.ReadRequest) ([]metadata.ReadResult, error)
}

// Getter is the part of an object store that a check needs.
type Getter interface {
	Get(ctx context.Context, key string, offset, length int64) ([]byte, error)
}

// stored is one batch of a log.
type stored struct {
	offset int64
	batch  batch.Batch
}

// Check reads the whole logs of all partitions and compares them with what was
// sent: offsets are dense, leader epochs never go back, and every batch is
// where its producer was told, once, whole, and in the order of its sequence.
func Check(tb testing.TB, index Reader, objects Getter, sent []Sent) {
	tb.Helper()
	byKey := make(map[lease.Key][]Sent)
	for _, s := range sent {
		byKey[s.Key] = append(byKey[s.Key], s)
	}
	for key, tries := range byKey {
		log, err := readLog(index, objects, key)
		if err != nil {
			tb.Errorf("%s: %v", key, err)
			continue
		}
		for _, err := range compare(log, tries) {
			tb.Errorf("%s: %v", key, err)
		}
	}
}

// readLog reads a partition from the beginning to its high watermark.
func readLog(index Reader, objects Getter, key lease.Key) (log []stored, err error) {
	var offset int64
	var epoch int32
	for {
		answers, err := index.Read(context.Background(), []metadata.ReadRequest{{Key: key, Offset: offset, MaxBytes: 1 << 20}})
		if err != nil {
			return nil, err
		}
		r := answers[0]
		if r.Err != nil || offset == r.Watermarks.High {
			return log, r.Err
		}
		if len(r.Extents) == 0 {
			return nil, fmt.Errorf("nothing at offset %d, high watermark is %d", offset, r.Watermarks.High)
		}
		for _, e := range r.Extents {
			if e.BaseOffset != offset {
				return nil, fmt.Errorf("extent begins at %d, want %d", e.BaseOffset, offset)
			}
			if e.LeaderEpoch < epoch {
				return nil, fmt.Errorf("leader epoch goes back from %d to %d at offset %d", epoch, e.LeaderEpoch, offset)
			}
			epoch = e.LeaderEpoch
			batches, err := readExtent(objects, e)
			if err != nil {
				return nil, err
			}
			log = append(log, batches...)
			offset = e.EndOffset
		}
	}
}

func readExtent(objects Getter, e metadata.Extent) (batches []stored, err error) {
	rest := e.Inline
	if rest == nil {
		if rest, err = objects.Get(context.Background(), segment.ObjectKey(e.Object), e.Position, e.Length); err != nil {
			return nil, err
		}
	}
	offset := e.BaseOffset
	for len(rest) > 0 {
		var b batch.Batch
		if b, rest, err = batch.Next(rest); err != nil {
			return nil, err
		}
		if err := b.CheckCRC(); err != nil {
			return nil, err
		}
		batches = append(batches, stored{offset, b})
		offset += int64(b.RecordCount())
	}
	if offset != e.EndOffset {
		return nil, fmt.Errorf("extent of [%d, %d) has records up to %d", e.BaseOffset, e.EndOffset, offset)
	}
	return batches, nil
}

// compare holds a log against what was sent to it.
func compare(log []stored, tries []Sent) (errs []error) {
	complain := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	places := make(map[string][]int64) // offsets, by the batch's bytes
	type producer struct {
		id    int64
		epoch int16
	}
	last := make(map[producer]int32)
	for _, s := range log {
		places[string(s.batch)] = append(places[string(s.batch)], s.offset)
		p := producer{s.batch.ProducerID(), s.batch.ProducerEpoch()}
		if p.id == NoProducer {
			continue
		}
		before, ok := last[p]
		if !ok {
			before = math.MaxInt32 // a producer begins at 0
		}
		if s.batch.BaseSequence() != batch.AddSequence(before, 1) {
			complain("offset %d: producer %d goes from sequence %d to %d", s.offset, p.id, before, s.batch.BaseSequence())
		}
		last[p] = s.batch.LastSequence()
	}
	fates := make(map[string][3]bool)
	for _, s := range tries {
		name, at := string(s.Batch.Batch), places[string(s.Batch.Batch)]
		f := fates[name]
		f[s.Fate] = true
		fates[name] = f
		if s.Fate == Acked && (len(at) != 1 || at[0] != s.Offset) {
			complain("%q was acknowledged at %d, is at %v", describe(s.Batch), s.Offset, at)
		}
		if len(at) > 1 && s.Batch.ProducerID != NoProducer {
			complain("%q is there more than once, at %v", describe(s.Batch), at)
		}
	}
	for _, s := range tries {
		name := string(s.Batch.Batch)
		if f := fates[name]; f[Failed] && !f[Acked] && !f[Unknown] && len(places[name]) > 0 {
			complain("%q was failed, is at %v", describe(s.Batch), places[name])
		}
		delete(places, name)
	}
	for name, at := range places {
		complain("%q at %v was never sent", name, at)
	}
	return errs
}

// describe names a batch by its first record.
func describe(v batch.Validated) string {
	records, err := batchtest.Records(v.Batch)
	if err != nil {
		return err.Error()
	}
	return string(records[0].Value)
}
