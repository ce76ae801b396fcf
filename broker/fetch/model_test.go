package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/broker/fetch"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol/batch"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
	"github.com/streamhouse/streamhouse/segment/objstore"
	"github.com/streamhouse/streamhouse/segment/objstore/faulty"
)

// tiny makes caches that hold little, of blocks that hold less than a batch, and
// a reader that never trusts a view of a partition that it does not lead.
func tiny(readAhead int) fetch.Config {
	return fetch.Config{CacheBytes: 4 << 10, BlockBytes: 200, ReadAheadBlocks: readAhead, ConcurrentGets: 3, PollInterval: time.Nanosecond}
}

// machine makes random commits and fetches, and holds every answer against the
// model.
type machine struct {
	*world
	partitions int32
	flaky      bool
	high       map[int32]int64 // the largest that the reader has told
}

func drawChunk(t *rapid.T, partition int32) chunk {
	c := chunk{key: key(partition)}
	for range rapid.IntRange(1, 4).Draw(t, "batches") {
		var records []batchtest.Record
		for range rapid.IntRange(1, 5).Draw(t, "records") {
			records = append(records, batchtest.Record{
				Value:     make([]byte, rapid.IntRange(0, 300).Draw(t, "size")),
				Timestamp: rapid.Int64Range(0, 1000).Draw(t, "timestamp"),
			})
		}
		c.batches = append(c.batches, batchtest.Build(batchtest.Options{Records: records}))
	}
	return c
}

func (m *machine) drawPartition(t *rapid.T) int32 {
	return rapid.Int32Range(0, m.partitions-1).Draw(t, "partition")
}

// drawChunks draws batches for partitions that this agent leads, or for any.
func (m *machine) drawChunks(t *rapid.T, led bool) []chunk {
	var chunks []chunk
	for p := range m.partitions {
		_, leads := m.leases.Leads(key(p))
		if leads == led && rapid.Bool().Draw(t, "in the commit") {
			chunks = append(chunks, drawChunk(t, p))
		}
	}
	return chunks
}

func (m *machine) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"commit here":             func(t *rapid.T) { m.here(m.drawChunks(t, true)...) },
		"commit inline here":      func(t *rapid.T) { m.inlineHere(m.drawChunks(t, true)...) },
		"commit elsewhere":        func(t *rapid.T) { m.elsewhere(m.drawChunks(t, false)...) },
		"commit inline elsewhere": func(t *rapid.T) { m.inlineElsewhere(m.drawChunks(t, false)...) },
		"lead":                    func(t *rapid.T) { m.lead(key(m.drawPartition(t))) },
		"lose":                    func(t *rapid.T) { m.lose(key(m.drawPartition(t))) },
		"merge": func(t *rapid.T) {
			m.objects.Set()
			m.merge(key(m.drawPartition(t)))
		},
		"delete records": func(t *rapid.T) {
			k := key(m.drawPartition(t))
			high := m.index.part(k).marks.High
			offset := rapid.Int64Range(0, high).Draw(t, "offset")
			m.index.deleteRecords(k, offset)
			if rapid.Bool().Draw(t, "through this agent") {
				m.reader.LogStart(k, offset)
			}
		},
		"fetch":        m.fetchSome,
		"fetch more":   m.fetchSome,
		"list offsets": m.listSome,
		"faults": func(t *rapid.T) {
			if m.flaky {
				m.objects.Set(
					faulty.Rule{Op: faulty.Get, Probability: 0.3, Err: objstore.ErrUnavailable},
					faulty.Rule{Op: faulty.Get, Probability: 0.2, Phase: faulty.After, Mangle: faulty.FlipBit},
					faulty.Rule{Op: faulty.Get, Probability: 0.1, Phase: faulty.After, Mangle: faulty.Truncate},
				)
			}
		},
	}
}

func (m *machine) fetchSome(t *rapid.T) {
	var reqs []fetch.Request
	for p := range m.partitions {
		if !rapid.Bool().Draw(t, "fetched") {
			continue
		}
		high := m.index.part(key(p)).marks.High
		reqs = append(reqs, fetch.Request{
			Key: key(p), Offset: rapid.Int64Range(0, high+1).Draw(t, "offset"),
			MaxBytes: rapid.Int32Range(0, 2000).Draw(t, "max bytes"), LeaderEpoch: -1,
		})
	}
	o := fetch.Options{
		MaxBytes: rapid.Int64Range(0, 4000).Draw(t, "fetch max bytes"), ReadCommitted: rapid.Bool().Draw(t, "read committed"),
	}
	m.checkAll(t, reqs, m.reader.Fetch(context.Background(), reqs, o), o)
}

func (m *machine) checkAll(t *rapid.T, reqs []fetch.Request, results []fetch.Result, o fetch.Options) {
	var total int64
	failed, available := false, false
	for i, res := range results {
		q, marks := &reqs[i], m.index.part(reqs[i].Key).marks
		p := q.Key.Partition
		switch inside := q.Offset >= marks.LogStart && q.Offset <= marks.High; {
		case res.Err == nil:
			// Before the log's end a view that is behind will do.
			high := res.Watermarks.High
			if high > marks.High || high < m.high[p] || high < marks.High && q.Offset >= high {
				t.Fatalf("partition %d at %d: high watermark %d after %d, the index has %d", p, q.Offset, high, m.high[p], marks.High)
			}
			m.high[p] = high
		case errors.Is(res.Err, fetch.ErrOffsetOutOfRange) && !inside:
		case m.flaky && (errors.Is(res.Err, fetch.ErrStorage) || errors.Is(res.Err, fetch.ErrCorrupt)):
			failed = true
		default:
			t.Fatalf("partition %d at %d of [%d, %d]: %v", p, q.Offset, marks.LogStart, marks.High, res.Err)
		}
		m.index.check(t, q.Key, q.Offset, res.Records)
		if size := int64(len(res.Records)); total > 0 && size > int64(q.MaxBytes) {
			t.Fatalf("partition %d: %d bytes, asked for %d", p, size, q.MaxBytes)
		}
		total += int64(len(res.Records))
		available = available || res.Err == nil && q.Offset < marks.High
	}
	if total == 0 && available && !failed {
		t.Fatalf("nothing was returned though there are records")
	}
	if total > o.MaxBytes+firstBatch(results) {
		t.Fatalf("%d bytes, asked for %d", total, o.MaxBytes)
	}
}

// firstBatch is the size of the batch that is returned however small the limits.
func firstBatch(results []fetch.Result) int64 {
	for _, res := range results {
		if b, _, err := batch.Next(res.Records); err == nil {
			return int64(len(b))
		}
	}
	return 0
}

// listSome compares ListOffsets with a walk over all records of the model.
func (m *machine) listSome(t *rapid.T) {
	k := key(m.drawPartition(t))
	want := rapid.SampledFrom([]int64{fetch.MaxTimestamp, 0, 1, 500, 900, 999, 1000, 1001}).Draw(t, "timestamp")
	res := m.reader.ListOffsets(context.Background(), []fetch.ListRequest{
		{Key: k, Timestamp: want}, {Key: k, Timestamp: fetch.Latest}, {Key: k, Timestamp: fetch.Earliest},
	}, false)
	marks := m.index.part(k).marks
	if res[1].Offset != marks.High || res[2].Offset != marks.LogStart || res[1].Current != marks.LeaderEpoch {
		t.Fatalf("log of [%d, %d]: latest %+v, earliest %+v", marks.LogStart, marks.High, res[1], res[2])
	}
	if m.flaky && res[0].Err != nil {
		return
	}
	offset, timestamp := m.index.find(t, k, want)
	if got := res[0]; got.Err != nil || got.Offset != offset || got.Timestamp != timestamp {
		t.Fatalf("partition %d, timestamp %d: %+v, want offset %d with timestamp %d", k.Partition, want, got, offset, timestamp)
	}
}

// find is ListOffsets by looking at every record.
func (x *index) find(t fatal, k lease.Key, want int64) (offset, timestamp int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := x.locked(k)
	offset, timestamp = -1, -1
	for _, s := range p.batches {
		records, err := batchtest.Records(s.bytes)
		if err != nil {
			t.Fatalf("model: %v", err)
		}
		for i, r := range records {
			at := s.base + int64(i)
			switch {
			case at < p.marks.LogStart:
			case want == metadata.MaxTimestamp && r.Timestamp > timestamp, want >= 0 && offset < 0 && r.Timestamp >= want:
				offset, timestamp = at, r.Timestamp
			}
		}
	}
	return offset, timestamp
}

func TestFetchAgreesWithTheModel(t *testing.T) {
	for _, flaky := range []bool{false, true} {
		for _, readAhead := range []int{-1, 2} {
			t.Run(fmt.Sprintf("flaky=%v,readAhead=%d", flaky, readAhead), func(t *testing.T) {
				rapid.Check(t, func(rt *rapid.T) {
					w := makeWorld(tiny(readAhead))
					w.tb = t
					defer w.run()()
					m := &machine{world: w, partitions: 3, flaky: flaky, high: map[int32]int64{}}
					for p := range m.partitions {
						m.lose(key(p))
					}
					rt.Repeat(m.actions())
				})
			})
		}
	}
}
