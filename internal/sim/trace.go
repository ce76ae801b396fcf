package sim

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment"
)

// event is something that happened.
type event struct {
	at        time.Duration
	partition int32 // everybody's if negative
	text      func() string
}

// everybody is the partition of an event that concerns all.
const everybody = -1

func (w *world) record(partition int32, text func() string) {
	e := event{time.Since(w.start), partition, text}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

// note records an event that concerns all.
func (w *world) note(format string, args ...any) {
	w.record(everybody, func() string { return fmt.Sprintf(format, args...) })
}

// fail records something that must not be.
func (w *world) fail(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.note("WRONG: %s", text)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, fmt.Sprintf("%s: %s", time.Since(w.start), text))
}

// traceCommit records what a commit did.
func (w *world) traceCommit(s *site, c *metadata.Commit, results [][]metadata.CommitResult) {
	for i := range results {
		for j := range results[i] {
			o, b, r := &c.Objects[i], c.Objects[i].Batches[j], results[i][j]
			w.record(b.Partition, func() string {
				origin := ""
				if made := w.db.footer(context.Background(), o); made != nil && made.Origin.AgentID != s.id {
					origin = " for " + made.Origin.AgentID
				}
				return fmt.Sprintf("%s commits%s %d records of producer %d from sequence %d in leader epoch %d, object %s: outcome %d, offset %d",
					s, origin, b.Records, b.ProducerID, b.BaseSequence, b.LeaderEpoch, o.ID, r.Outcome, r.BaseOffset)
			})
		}
	}
}

// traceClaim records which parts were claimed to find out what became of them.
func (w *world) traceClaim(s *site, ids, claimed []segment.ID) {
	w.faults.claims.Add(int64(len(ids)))
	w.faults.foundCommitted.Add(int64(len(ids) - len(claimed)))
	w.record(everybody, func() string { return fmt.Sprintf("%s asks for the fate of %s: claimed are %s", s, ids, claimed) })
}

func (w *world) traceAcquire(s *site, results []lease.Result) {
	for _, r := range results {
		if r.Err == nil && !metadata.IsShard(r.Term.Key) {
			w.traceTerms(s, "acquires", []lease.Term{r.Term})
		}
	}
}

// traceAnswer records what a producer is told that is not good.
func (l *lane) traceAnswer(b *sentBatch, err error) {
	if err != nil {
		at := l.address
		l.world.record(l.partition, func() string {
			return fmt.Sprintf("%s, producer %d: sequence %d at %s got %v", l.client.id, l.id, b.sequence, at, err)
		})
	}
}

func (w *world) traceTerms(s *site, what string, terms []lease.Term) {
	for _, t := range terms {
		if !metadata.IsShard(t.Key) {
			w.record(t.Partition, func() string { return fmt.Sprintf("%s %s leader epoch %d", s, what, t.LeaderEpoch) })
		}
	}
}

// trace is what happened to some partitions, and to all.
func (w *world) trace(partitions map[int32]bool) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for _, e := range w.events {
		if e.partition == everybody || partitions[e.partition] {
			fmt.Fprintf(&b, "%14s  ", e.at)
			if e.partition != everybody {
				fmt.Fprintf(&b, "partition %d: ", e.partition)
			}
			b.WriteString(e.text())
			b.WriteByte('\n')
		}
	}
	return b.String()
}
