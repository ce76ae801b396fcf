package partition_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/broker/ingest/ingesttest"
	"github.com/streamhouse/streamhouse/broker/partition"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/sqlite"
	"github.com/streamhouse/streamhouse/segment/objstore"
	"github.com/streamhouse/streamhouse/segment/objstore/dir"
	"github.com/streamhouse/streamhouse/segment/objstore/objstoretest"
)

// BenchmarkAppend is an append of one batch from the call to its answer.
func BenchmarkAppend(b *testing.B) {
	b.Run("memory", func(b *testing.B) {
		benchmarkAppend(b, ingesttest.NewStore(), objstoretest.NewMemory())
	})
	b.Run("sqlite and directory", func(b *testing.B) {
		folder := b.TempDir()
		store, err := sqlite.Open(b.Context(), filepath.Join(folder, "metadata.db"))
		if err != nil {
			b.Fatal(err)
		}
		objects, err := dir.Open(filepath.Join(folder, "objects"))
		if err != nil {
			b.Fatal(err)
		}
		if err := store.CreateTopic(b.Context(), metadata.NewTopic{ID: topic, Name: "events", Partitions: 64}); err != nil {
			b.Fatal(err)
		}
		benchmarkAppend(b, store, objects)
		if err := errors.Join(objects.Close(), store.Close()); err != nil {
			b.Error(err)
		}
	})
}

func benchmarkAppend(b *testing.B, store backend, objects objstore.Store) {
	for _, bc := range []struct {
		name                      string
		size, producers, inFlight int
	}{
		{"1 producer, 1 in flight, 1 KiB", 1 << 10, 1, 1},
		{"32 producers, 5 in flight, 1 KiB", 1 << 10, 32, 5},
		{"32 producers, 5 in flight, 64 KiB", 64 << 10, 32, 5},
	} {
		b.Run(bc.name, func(b *testing.B) {
			cfg := defaults()
			cfg.ingest.PutsPerSecond, cfg.ingest.PutBurst = 1000, 1000
			cfg.ingest.InlineBytesPerSecond, cfg.ingest.InlineBurst = 1<<30, 1<<30 // not the budget is measured
			cfg.ingest.MaxLinger = 5 * time.Millisecond
			n := startNode(store, store, objects, cfg)
			defer n.stop()
			record := ingesttest.Batch(b, string(make([]byte, bc.size)), ingesttest.NoProducer, 0, 0, 1)
			b.SetBytes(int64(len(record.Batch)))
			b.ReportAllocs()
			b.ResetTimer()
			done := make(chan struct{})
			for p := range bc.producers {
				go func() {
					defer func() { done <- struct{}{} }()
					var window []*partition.Pending
					for range (b.N + bc.producers - 1) / bc.producers {
						if len(window) == bc.inFlight {
							window[0].Wait(context.Background())
							window = window[1:]
						}
						window = append(window, n.table.Append([]partition.Append{{Key: key(int32(p)), Batch: record}}))
					}
					for _, w := range window {
						for _, r := range w.Wait(context.Background()) {
							if r.Err != nil {
								b.Error(r.Err)
							}
						}
					}
				}()
			}
			for range bc.producers {
				<-done
			}
		})
	}
}
