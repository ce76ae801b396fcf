package model

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/internal/testdb"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/postgres"
	"github.com/streamhouse/streamhouse/metadata/sqlite"
	"github.com/streamhouse/streamhouse/segment"
)

// The rules are the contract: the real stores answer any sequence of calls as
// they do.

func TestSQLiteFollowsTheRules(t *testing.T) {
	s, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "metadata.db"))
	if err != nil {
		t.Fatal(err)
	}
	conform(t, s)
}

func TestPostgresFollowsTheRules(t *testing.T) {
	options := postgres.Options{AgentID: "model", Session: uuid.New(), AllowUnsafe: true}
	s, err := postgres.Open(t.Context(), testdb.Postgres(t), options)
	if err != nil {
		t.Fatal(err)
	}
	conform(t, s)
}

func conform(t *testing.T, s metadata.Store) {
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	rapid.Check(t, func(r *rapid.T) {
		p := newPair(t, r, s)
		r.Repeat(map[string]func(*rapid.T){
			"":        p.compare,
			"acquire": p.acquire,
			"renew":   p.renew,
			"release": p.release,
			"hand":    p.handOver,
			"bury":    p.bury,
			"commit":  p.commit,
			"retry":   p.retry,
		})
	})
}

// pair is a real store and its model, of one topic.
type pair struct {
	*testing.T
	real    metadata.Store
	topic   uuid.UUID
	rules   rules
	model   store
	commits []realCommit
}

// realCommit is a write that was committed.
type realCommit struct {
	agent  int8
	in     terms
	object metadata.CommitObject
}

func newPair(t *testing.T, r *rapid.T, s metadata.Store) *pair {
	p := &pair{T: t, real: s, topic: uuid.New(), rules: contract(), model: newStore()}
	topic := metadata.NewTopic{ID: p.topic, Name: p.topic.String(), Partitions: maxPartitions}
	if err := s.CreateTopic(t.Context(), topic); err != nil {
		r.Fatal(err)
	}
	return p
}

func (p *pair) key(partition int) lease.Key {
	return lease.Key{TopicID: p.topic, Partition: int32(partition)}
}

func name(agent int8) string { return fmt.Sprintf("agent-%d", agent) }

func drawAgent(r *rapid.T) int8 { return rapid.Int8Range(0, maxAgents-1).Draw(r, "agent") }

// drawTTL draws a lease that is over at once or one that stays, in ticks and in
// time.
func drawTTL(r *rapid.T) (int8, time.Duration) {
	if rapid.Bool().Draw(r, "over at once") {
		return 0, 0
	}
	return 1, time.Hour
}

// drawTerms draws for each partition its term, one that was, or none.
func (p *pair) drawTerms(r *rapid.T) terms {
	of := noTerms
	for i := range of {
		if now := p.model.rows[i].leaderEpoch; now != none {
			of[i] = max(none, now-rapid.SampledFrom([]int8{0, 0, 0, 1, maxAgents + now}).Draw(r, "terms ago"))
		}
	}
	return of
}

func (p *pair) full(of terms) []lease.Term {
	full := of.full()
	for i := range full {
		full[i].TopicID = p.topic
	}
	return full
}

func (p *pair) acquire(r *rapid.T) {
	agent, partition := drawAgent(r), rapid.IntRange(0, maxPartitions-1).Draw(r, "partition")
	ticks, ttl := drawTTL(r)
	got, err := p.real.Acquire(p.Context(), name(agent), ttl, []lease.Key{p.key(partition)})
	if err != nil {
		r.Fatal(err)
	}
	row := &p.model.rows[partition]
	switch term := p.rules.acquire(&p.model, agent, partition, ticks); {
	case term != none:
		want := lease.Term{Key: p.key(partition), Epoch: int64(row.epoch), LeaderEpoch: int32(term)}
		if got[0].Err != nil || got[0].Term != want {
			r.Fatalf("acquired %+v, want %+v", got[0], want)
		}
	default:
		var held *lease.HeldByOtherError
		if !errors.As(got[0].Err, &held) || held.Holder.AgentID != name(row.leader) || held.Holder.LeaderEpoch != int32(row.leaderEpoch) {
			r.Fatalf("acquired %+v, want a refusal for agent %d", got[0], row.leader)
		}
	}
}

func (p *pair) renew(r *rapid.T) {
	agent, of := drawAgent(r), p.drawTerms(r)
	ticks, ttl := drawTTL(r)
	got, err := p.real.Renew(p.Context(), name(agent), ttl, p.full(of))
	if err != nil {
		r.Fatal(err)
	}
	renewed := noTerms
	for _, t := range got {
		renewed[t.Partition] = int8(t.LeaderEpoch)
	}
	if want := p.rules.renewAll(&p.model, agent, of, ticks); renewed != want {
		r.Fatalf("renewed %v, want %v", renewed, want)
	}
	for _, t := range got {
		if want := int64(p.model.rows[t.Partition].epoch); t.Epoch != want {
			r.Fatalf("renewed in epoch %d, want %d", t.Epoch, want)
		}
	}
}

func (p *pair) release(r *rapid.T) {
	agent, of := drawAgent(r), p.drawTerms(r)
	p.rules.release(&p.model, agent, of)
	if err := p.real.Release(p.Context(), name(agent), p.full(of)); err != nil {
		r.Fatal(err)
	}
}

func (p *pair) handOver(r *rapid.T) {
	agent, of := drawAgent(r), p.drawTerms(r)
	to := rapid.Int8Range(0, maxAgents-1).Draw(r, "to")
	ticks, ttl := drawTTL(r)
	var moves []lease.Move
	for _, t := range p.full(of) {
		moves = append(moves, lease.Move{Term: t, To: name(to)})
	}
	if _, err := p.real.HandOver(p.Context(), name(agent), ttl, moves); err != nil {
		r.Fatal(err)
	}
	p.rules.handOver(&p.model, agent, to, of, ticks)
}

// bury frees what the agent leads, in the words of a release: that a burial does
// the same to the rows is shown in metadatatest.
func (p *pair) bury(r *rapid.T) {
	agent, of := drawAgent(r), noTerms
	for i, row := range p.model.rows {
		if row.leader == agent {
			of[i] = row.leaderEpoch
		}
	}
	p.rules.bury(&p.model, agent)
	if err := p.real.Release(p.Context(), name(agent), p.full(of)); err != nil {
		r.Fatal(err)
	}
}

func (p *pair) commit(r *rapid.T) {
	in := p.drawTerms(r)
	if len(p.commits) == maxWrites || in == noTerms {
		return
	}
	c := realCommit{drawAgent(r), in, metadata.CommitObject{ID: segment.NewID(), Size: 1000}}
	for i, t := range p.full(in) {
		c.object.Batches = append(c.object.Batches, metadata.CommitBatch{
			Key: t.Key, LeaderEpoch: t.LeaderEpoch, Position: int64(16 + 100*i), Length: 100, Records: 1,
			ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, MaxTimestamp: 1000,
		})
	}
	p.commits = append(p.commits, c)
	p.send(r, len(p.commits)-1)
}

func (p *pair) retry(r *rapid.T) {
	if len(p.commits) > 0 {
		p.send(r, rapid.IntRange(0, len(p.commits)-1).Draw(r, "write"))
	}
}

// send commits a write, for the first time or again.
func (p *pair) send(r *rapid.T, write int) {
	c := &p.commits[write]
	results, err := p.real.Commit(p.Context(), &metadata.Commit{
		AgentID: name(c.agent), Objects: []metadata.CommitObject{c.object},
	})
	if err != nil {
		r.Fatal(err)
	}
	got := noFates
	for i, b := range c.object.Batches {
		switch result := results[0][i]; result.Outcome {
		case metadata.Committed:
			got[b.Partition] = fate(result.BaseOffset)
		case metadata.Fenced:
			got[b.Partition] = fenced
		default:
			r.Fatalf("outcome %d", result.Outcome)
		}
	}
	want := p.rules.decide(&p.model, c.agent, int8(write), c.in)
	p.rules.write(&p.model, int8(write), c.in, want)
	if got != want {
		r.Fatalf("committed %v, want %v", got, want)
	}
}

// compare compares what can be read: the leader, its epoch and the log.
func (p *pair) compare(r *rapid.T) {
	for i := range p.model.rows {
		row := &p.model.rows[i]
		read, err := p.real.Read(p.Context(), []metadata.ReadRequest{{Key: p.key(i), MaxBytes: 1 << 20}})
		if err != nil {
			r.Fatal(err)
		}
		want := metadata.Watermarks{LastStable: int64(row.high), High: int64(row.high), LeaderEpoch: int32(row.leaderEpoch)}
		if row.leader != none {
			want.LeaderID = name(row.leader)
		}
		if read[0].Err != nil || read[0].Watermarks != want {
			r.Fatalf("partition %d is %+v, want %+v", i, read[0], want)
		}
		var log [maxWrites]entry
		for o := range log {
			log[o] = noEntry
		}
		for _, x := range read[0].Extents {
			log[x.BaseOffset] = entry{p.writeOf(x.Object), int8(x.LeaderEpoch)}
		}
		if log != row.log {
			r.Fatalf("log of partition %d is %v, want %v", i, log, row.log)
		}
	}
}

func (p *pair) writeOf(id segment.ID) int8 {
	for i := range p.commits {
		if p.commits[i].object.ID == id {
			return int8(i)
		}
	}
	return none
}
