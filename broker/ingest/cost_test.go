package ingest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/broker/ingest"
	"github.com/streamhouse/streamhouse/broker/ingest/ingesttest"
	"github.com/streamhouse/streamhouse/segment/objstore/faulty"
)

const (
	putTime    = 30 * time.Millisecond
	commitTime = 3 * time.Millisecond
)

// slow gives the rig's stores the times that real ones have.
func slow(r *rig) *rig {
	r.objects.Set(faulty.Rule{Op: faulty.Put, Delay: putTime})
	r.commits.Set(ingesttest.Fault{Delay: commitTime})
	return r
}

func TestLoneProducerIsAnsweredByItsOwnCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := slow(newRig(t, nil))
		for i := range int32(100) {
			begun := time.Now()
			await(t, r.add(0, one(t, 1, i, 100)))
			if took := time.Since(begun); took != commitTime {
				t.Fatalf("batch %d took %v, a commit takes %v", i, took, commitTime)
			}
		}
		if r.puts() != 0 || r.commitCount() != 100 {
			t.Errorf("%d puts and %d commits, want 0 and 100", r.puts(), r.commitCount())
		}
		r.check()
	})
}

func TestCommitsGroupWhatComesMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := slow(newRig(t, nil))
		var sends []*send
		for i := range int32(50) { // 50 producers, one batch each, 100 µs apart
			sends = append(sends, r.add(i%10, one(t, int64(i), 0, 50))...)
			<-time.After(100 * time.Microsecond)
		}
		await(t, sends)
		// One for the first, one for each 3 ms of what came meanwhile.
		if r.puts() != 0 || r.commitCount() != 3 {
			t.Errorf("%d puts and %d commits, want 0 and 3", r.puts(), r.commitCount())
		}
		r.check()
	})
}

func TestBudgetBoundsTheUploads(t *testing.T) {
	for name, tc := range map[string]struct {
		size  int
		every time.Duration
	}{
		"small batches": {1 << 10, 1 * time.Millisecond},
		"large batches": {20 << 10, 5 * time.Millisecond},
		"few batches":   {20 << 10, 40 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := slow(newRig(t, nil))
				c := ingest.DefaultConfig()
				const span = 8 * time.Second
				var sends []*send
				begun := time.Now()
				for i := int32(0); time.Since(begun) < span; i++ {
					s := r.add(0, one(t, 1, i, tc.size))
					sends = append(sends, s...)
					accepted := time.Now()
					go func() {
						<-s[0].done
						if took := time.Since(accepted); took > c.MaxLinger+putTime+2*commitTime {
							t.Errorf("answered after %v", took)
						}
					}()
					<-time.After(tc.every)
				}
				await(t, sends)
				limit := c.PutBurst + c.PutsPerSecond*time.Since(begun).Seconds() + 1
				if float64(r.puts()) > limit {
					t.Errorf("%d puts in %v, the budget has %.0f", r.puts(), span, limit)
				}
				t.Logf("%d batches, %d puts, %d commits", len(sends), r.puts(), r.commitCount())
				r.check()
			})
		})
	}
}

func TestFullBufferIsUploadedAtOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		change     func(*ingest.Config)
		partitions int32
		batches    int
		puts       int
	}{
		"bytes":      {func(c *ingest.Config) { c.MaxBytes = 40 << 10 }, 1, 10, 5},
		"batches":    {func(c *ingest.Config) { c.MaxBatches = 4 }, 1, 12, 3},
		"partitions": {func(c *ingest.Config) { c.MaxPartitions = 3 }, 9, 1, 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := slow(newRig(t, func(c *ingest.Config) {
					c.InlineMaxBytes = 0
					c.PutsPerSecond, c.PutBurst = 0.001, 1
					tc.change(c)
				}))
				await(t, r.add(0, one(t, 99, 0, 1))) // the only put of the budget
				<-time.After(time.Second)
				before := r.puts()
				begun := time.Now()
				var sends []*send
				for p := range tc.partitions {
					for i := range tc.batches {
						sends = append(sends, r.add(p, one(t, int64(p), int32(i), 20<<10))...)
					}
				}
				await(t, sends)
				if took := time.Since(begun); took > putTime+2*commitTime {
					t.Errorf("took %v, was not uploaded at once and in parallel", took)
				}
				if n := r.puts() - before; n != tc.puts {
					t.Errorf("%d puts, want %d", n, tc.puts)
				}
				r.check()
			})
		})
	}
}

func TestIdlePoolDoesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := slow(newRig(t, nil))
		await(t, r.add(0, one(t, 1, 0, 10)))
		<-time.After(time.Hour)
		if r.puts() != 0 || r.commitCount() != 1 {
			t.Errorf("%d puts and %d commits", r.puts(), r.commitCount())
		}
		r.check()
	})
}
