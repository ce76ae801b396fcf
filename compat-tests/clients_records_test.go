package compattests

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/compat-tests/clients"
	"github.com/streamhouse/streamhouse/compat-tests/report"
	"github.com/streamhouse/streamhouse/compat-tests/scenario"
	"github.com/streamhouse/streamhouse/compat-tests/wire"
)

// records creates the topic, writes the records of all codecs and reads them in every way.
func (r *clientRun) records(t *testing.T) {
	t.Helper()
	if err := r.CreateTopic(deadline(t, clientTimeout), r.topic, scenario.TopicConfigs()); err != nil {
		t.Fatalf("create topic: %v", err)
	}
	for codec, name := range scenario.Codecs {
		if !slices.Contains(r.Profile().Codecs, name) {
			report.Unsupported(r.target.name, r.by(), featureRecords+name, "the client does not have the codec")
			continue
		}
		r.feature(t, featureRecords+name, func(ctx context.Context) error { return r.write(ctx, codec) })
	}
	r.feature(t, featureCreation, r.creation)
	r.feature(t, featureOffsets, r.offsets)
	r.feature(t, featureSeekTime, r.seekTime)
	r.feature(t, featureResume, r.resume)
	var batches []kmsg.RecordBatch
	t.Run("every broker", func(t *testing.T) {
		var err error
		if batches, err = r.served(deadline(t, clientTimeout)); err != nil {
			t.Error(err)
		}
	})
	r.feature(t, featureIdempotent, func(context.Context) error { return idempotent(batches) })
}

// write writes the records of one codec and reads all back that was written so far.
func (r *clientRun) write(ctx context.Context, codec int) error {
	records := scenario.Generate(r.seed, codec, r.Profile())
	begin := time.Now().UnixMilli()
	acked, err := r.Produce(ctx, r.topic, scenario.Codecs[codec], records)
	if err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	end := time.Now().UnixMilli()
	if appended := r.log.Append(records); acked != nil && !slices.Equal(acked, appended) {
		return fmt.Errorf("acknowledged at the offsets %v, want %v", acked, appended)
	}
	read, err := r.Read(ctx, r.topic, scenario.Earliest)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	return errors.Join(r.log.AdoptTimestamps(read, begin, end), r.log.Compare(read))
}

// offsets asks ListOffsets for the ends and for timestamps.
func (r *clientRun) offsets(ctx context.Context) error {
	for _, timestamp := range append(r.log.Timestamps(), scenario.Earliest, scenario.Latest) {
		got, err := r.Offsets(ctx, r.topic, timestamp)
		if err != nil {
			return fmt.Errorf("offsets at %d: %w", timestamp, err)
		}
		if want := r.log.Offsets(timestamp); got != want {
			return fmt.Errorf("offsets at %d: %v, want %v", timestamp, got, want)
		}
	}
	return nil
}

// seekTime reads from timestamps on.
func (r *clientRun) seekTime(ctx context.Context) error {
	for _, timestamp := range r.log.Timestamps() {
		read, err := r.Read(ctx, r.topic, timestamp)
		if err == nil {
			since := r.log.Since(timestamp)
			err = since.Compare(read)
		}
		if err != nil {
			return fmt.Errorf("seek to %d: %w", timestamp, err)
		}
	}
	return nil
}

// resume reads the topic as a group in two sittings: the second goes on where the first committed.
func (r *clientRun) resume(ctx context.Context) error {
	group := "group-" + r.Name()
	total := r.log.Len()
	first, err := r.ReadGroup(ctx, r.topic, group, total/2)
	if err != nil {
		return err
	}
	second, err := r.ReadGroup(ctx, r.topic, group, total-total/2)
	if err != nil {
		return fmt.Errorf("resumed: %w", err)
	}
	if err := r.log.Compare(append(first, second...)); err != nil {
		return fmt.Errorf("both sittings: %w", err)
	}
	return nil
}

// served fetches every partition from every broker of the target: each must serve the same whole log, in valid batches
// in the codecs that their producer chose. It returns the batches of one broker.
func (r *clientRun) served(ctx context.Context) ([]kmsg.RecordBatch, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(r.target.bootstrap()...))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	brokers, err := wire.Brokers(ctx, client)
	if err != nil {
		return nil, err
	}
	if len(brokers) != len(r.target.nodes) {
		return nil, fmt.Errorf("Metadata lists brokers %v, want %d", brokers, len(r.target.nodes))
	}
	var batches []kmsg.RecordBatch
	for _, broker := range brokers {
		if batches, err = r.servedBy(ctx, client, broker); err != nil {
			return nil, fmt.Errorf("broker %d: %w", broker, err)
		}
	}
	return batches, nil
}

func (r *clientRun) servedBy(ctx context.Context, client *kgo.Client, broker int32) ([]kmsg.RecordBatch, error) {
	var batches []kmsg.RecordBatch
	var records []scenario.Record
	for p, end := range r.log.Ends() {
		served, err := wire.Fetch(ctx, client, broker, r.topic, int32(p), end)
		if err != nil {
			return nil, err
		}
		batches = append(batches, served.Batches...)
		for _, record := range served.Records {
			records = append(records, clients.FromFranz(record))
		}
	}
	for codec, name := range scenario.Codecs {
		in := func(b kmsg.RecordBatch) bool { return wire.Codec(b) == codec }
		if want := slices.Contains(r.Profile().Codecs, name); slices.ContainsFunc(batches, in) != want {
			return nil, fmt.Errorf("batches in %s: %t, want %t", name, !want, want)
		}
	}
	return batches, r.log.Compare(records)
}

// idempotent tells from the batches whether their producers numbered them, which lets a broker drop repetitions.
func idempotent(batches []kmsg.RecordBatch) error {
	numbered := 0
	for _, b := range batches {
		if b.ProducerID >= 0 {
			numbered++
		}
	}
	switch numbered {
	case 0:
		return fmt.Errorf("its batches have no producer id: %w", clients.ErrUnsupported)
	case len(batches):
		return nil
	default:
		return fmt.Errorf("%d of %d batches have a producer id", numbered, len(batches))
	}
}

// others reads what the other clients wrote, in the codecs that this one has.
func (r *clientRun) others(t *testing.T, runs []*clientRun) {
	t.Helper()
	if r.Client == nil {
		return // it did not start, and has said so
	}
	r.feature(t, featureOtherClients, func(ctx context.Context) error {
		var errs []error
		for _, writer := range runs {
			if writer == r || writer.log.Len() == 0 {
				continue // its own it has read; a writer that failed has said so
			}
			read, err := r.Read(ctx, writer.topic, scenario.Earliest)
			if err == nil {
				err = writer.log.Compare(read)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("what %s wrote: %w", writer.Name(), err))
			}
		}
		return errors.Join(errs...)
	})
}
