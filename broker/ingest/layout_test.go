package ingest_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/broker/ingest"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/segment"
	"github.com/streamhouse/streamhouse/segment/objstore/faulty"
)

// Every object is a sound segment, and what the commit says of it is so: the
// batches of a producer in a partition lie together in the order in which they
// were accepted, one section a partition.
func TestObjectsAreLaidOutByPartitionAndProducer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *ingest.Config) { c.InlineMaxBytes, c.MaxBatches = 0, 100 })
		random := rand.New(rand.NewPCG(1, 2))
		next := make(map[[2]int32]int32)
		for range 300 {
			p, producer := random.Int32N(5), random.Int32N(4)-1
			id := [2]int32{p, producer}
			r.add(p, one(t, int64(producer), next[id], random.IntN(2000)))
			next[id]++
		}
		r.check()
		for _, c := range r.commits.Sent() {
			for i := range c.Objects {
				o := &c.Objects[i]
				body, err := r.objects.Get(context.Background(), segment.ObjectKey(o.ID), 0, o.Size)
				if err != nil {
					t.Fatal(err)
				}
				report, err := segment.Verify(bytes.NewReader(body), o.Size)
				if err != nil || report.Footer.ID != o.ID || report.Footer.Origin.AgentID != "a" {
					t.Errorf("object is no sound segment of its own: %v", err)
				}
				type stream struct {
					lease.Key
					producer int64
				}
				seen, keys := make(map[stream]int32), make(map[lease.Key]bool)
				var last stream
				for _, b := range o.Batches {
					s := stream{b.Key, b.ProducerID}
					sequence, again := seen[s]
					if again && s != last {
						t.Errorf("batches of producer %d in %s are not together", b.ProducerID, b.Key)
					}
					if again && b.ProducerID >= 0 && b.BaseSequence != sequence+1 {
						t.Errorf("sequence %d follows on %d", b.BaseSequence, sequence)
					}
					seen[s], keys[b.Key], last = b.BaseSequence, true, s
				}
				if len(report.Footer.Sections) != len(keys) {
					t.Errorf("%d sections for %d partitions", len(report.Footer.Sections), len(keys))
				}
			}
		}
	})
}

// Uploads take their time at random, commits keep the order.
func TestUploadsOvertakeCommitsDoNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *ingest.Config) { c.InlineMaxBytes, c.PutBurst, c.PutsPerSecond = 0, 1000, 1000 })
		random := rand.New(rand.NewPCG(3, 4))
		var rules []faulty.Rule
		for n := range 200 {
			rules = append(rules, faulty.Rule{Op: faulty.Put, Nth: n + 1, Delay: time.Duration(random.Int64N(int64(100 * time.Millisecond)))})
		}
		r.objects.Set(rules...)
		var sends []*send
		for i := range int32(200) {
			sends = append(sends, r.add(i%3, one(t, int64(i%3), i/3, 10), one(t, -1, i, 10))...)
			<-time.After(time.Duration(random.Int64N(int64(4 * time.Millisecond))))
		}
		await(t, sends)
		last := make(map[lease.Key]int64)
		for _, s := range sends {
			if s.batch.ProducerID < 0 {
				continue
			}
			if s.result.BaseOffset <= last[s.key] && last[s.key] > 0 {
				t.Errorf("%s: offset %d after %d", s.key, s.result.BaseOffset, last[s.key])
			}
			last[s.key] = s.result.BaseOffset
		}
		if r.puts() < 50 {
			t.Errorf("only %d uploads", r.puts())
		}
		r.check()
	})
}
