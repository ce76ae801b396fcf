package postgres_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment"
)

// tortureProducer is an idempotent producer of one partition. Beside its own
// batches it sends some that nothing but the object's id protects.
type tortureProducer struct {
	*torture
	id       int64
	key      lease.Key
	rng      *rand.Rand
	sequence int32 // of the next batch
}

// tried is a commit with its answer.
type tried struct {
	commit  *metadata.Commit
	results [][]metadata.CommitResult
}

// step makes one commit and learns what became of it.
func (p *tortureProducer) step(ctx context.Context) {
	if p.rng.IntN(8) == 0 && len(p.disturb) > 0 {
		p.disturb[p.rng.IntN(len(p.disturb))](ctx)
	}
	if p.leader(p.key).term.Epoch == 0 || p.rng.IntN(15) == 0 {
		p.takeOver(ctx, p.rng, p.key)
	}
	attempts := []tried{{commit: p.next()}}
	if p.rng.IntN(6) == 0 { // the client asks twice at once, over two connections
		attempts = append(attempts, tried{commit: again(attempts[0].commit)})
	}
	var running sync.WaitGroup
	for i := range attempts {
		rng := rand.New(rand.NewPCG(p.rng.Uint64(), 0))
		running.Go(func() { attempts[i].results = p.commit(ctx, rng, attempts[i].commit) })
	}
	if p.rng.IntN(4) == 0 {
		objects := attempts[0].commit.Objects
		p.collect(ctx, objects[p.rng.IntN(len(objects))].ID)
	}
	running.Wait()
	if p.failed() {
		return
	}
	p.learn(attempts)
	p.askAgain(ctx, attempts)
}

// next makes a commit of a few objects with the producer's next batches.
func (p *tortureProducer) next() *metadata.Commit {
	leader := p.leader(p.key)
	c := &metadata.Commit{AgentID: agentName(leader.agent)}
	sequence := p.sequence
	for range 1 + p.rng.IntN(3) {
		o := metadata.CommitObject{ID: segment.NewID()}
		for range 1 + p.rng.IntN(2) {
			b := batch(&o, leader.term, int32(1+p.rng.IntN(5)))
			b.ProducerID, b.BaseSequence = p.id, sequence
			sequence += b.Records
		}
		if other := p.leader(p.keys[p.rng.IntN(len(p.keys))]); other.term.Epoch != 0 {
			batch(&o, other.term, 1)
		}
		c.Objects = append(c.Objects, o)
	}
	return c
}

// batch appends a batch to the object, of no producer.
func batch(o *metadata.CommitObject, term lease.Term, records int32) *metadata.CommitBatch {
	o.Batches = append(o.Batches, metadata.CommitBatch{
		Key: term.Key, LeaderEpoch: term.LeaderEpoch, Position: o.Size, Length: records * tortureRecordBytes,
		Records: records, ProducerID: -1, MaxTimestamp: 1,
	})
	o.Size += int64(records * tortureRecordBytes)
	return &o.Batches[len(o.Batches)-1]
}

// again is the same batches of the producer in objects of other names.
func again(c *metadata.Commit) *metadata.Commit {
	twin := &metadata.Commit{AgentID: c.AgentID}
	for _, o := range c.Objects {
		own := slices.DeleteFunc(slices.Clone(o.Batches), func(b metadata.CommitBatch) bool { return b.ProducerID < 0 })
		twin.Objects = append(twin.Objects, metadata.CommitObject{ID: segment.NewID(), Size: o.Size, Batches: own})
	}
	return twin
}

// collect claims an object's name, as a collector that believes it an orphan.
func (p *tortureProducer) collect(ctx context.Context, id segment.ID) {
	for range tortureAttempts {
		claimed, err := p.claim(ctx, p.stores[p.rng.IntN(tortureAgents)], id)
		if err != nil {
			p.waitOutage()
			continue
		}
		if claimed {
			p.claims.Add(1)
			p.mu.Lock()
			p.claimed = append(p.claimed, id)
			p.mu.Unlock()
		}
		return
	}
	p.violate("a claim got no answer")
}

// learn notes the acknowledgements of attempts with the same batches of the
// producer, and moves it on by those that were accepted, none of which may follow
// on a refused one.
func (p *tortureProducer) learn(attempts []tried) {
	offsets := make(map[int32]int64) // of the producer's batches, by sequence
	for _, a := range attempts {
		for i, o := range a.commit.Objects {
			for j, b := range o.Batches {
				r := a.results[i][j]
				switch r.Outcome {
				case metadata.Committed:
					if _, twice := offsets[b.BaseSequence]; twice && b.ProducerID >= 0 {
						p.violate("producer %d: sequence %d was accepted twice", p.id, b.BaseSequence)
					}
					p.acknowledge(ack{a.commit.AgentID, b, o.ID, r.BaseOffset})
					if b.ProducerID >= 0 {
						offsets[b.BaseSequence] = r.BaseOffset
					}
				case metadata.Fenced:
					p.fenced.Add(1)
				}
			}
		}
	}
	for _, a := range attempts {
		p.checkDuplicates(a, offsets)
	}
	for _, o := range attempts[0].commit.Objects {
		for _, b := range o.Batches {
			if _, ok := offsets[b.BaseSequence]; b.ProducerID < 0 || !ok {
				continue
			}
			if b.BaseSequence != p.sequence {
				p.violate("producer %d: sequence %d was accepted where %d was due", p.id, b.BaseSequence, p.sequence)
			}
			p.sequence += b.Records
		}
	}
}

// acknowledge notes that a batch was accepted.
func (p *tortureProducer) acknowledge(a ack) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acks = append(p.acks, a)
}

// checkDuplicates checks that duplicates have the offsets of their originals.
func (p *tortureProducer) checkDuplicates(a tried, offsets map[int32]int64) {
	for i, o := range a.commit.Objects {
		for j, b := range o.Batches {
			r := a.results[i][j]
			if r.Outcome != metadata.Duplicate {
				continue
			}
			p.duplicates.Add(1)
			if original, ok := offsets[b.BaseSequence]; !ok || original != r.BaseOffset {
				p.violate("producer %d: the duplicate of sequence %d has offset %d, its original %d (known: %t)",
					p.id, b.BaseSequence, r.BaseOffset, original, ok)
			}
		}
	}
}

// askAgain asks for the same objects again, which must not change any answer, and
// at times sends the batches again in other objects, which must not add any.
func (p *tortureProducer) askAgain(ctx context.Context, attempts []tried) {
	if p.rng.IntN(4) == 0 {
		for _, a := range attempts {
			results := p.commit(ctx, p.rng, a.commit)
			if results != nil && !slices.EqualFunc(results, a.results, slices.Equal) {
				p.violate("the same objects were answered %v first and %v then", a.results, results)
			}
		}
	}
	if p.rng.IntN(4) == 0 {
		twin := again(attempts[0].commit)
		for i, results := range p.commit(ctx, p.rng, twin) {
			for j, r := range results {
				if b := twin.Objects[i].Batches[j]; r.Outcome == metadata.Committed && b.BaseSequence < p.sequence {
					p.violate("producer %d: sequence %d was accepted again", p.id, b.BaseSequence)
				} else if r.Outcome == metadata.Committed {
					p.acknowledge(ack{twin.AgentID, b, twin.Objects[i].ID, r.BaseOffset})
					p.sequence += b.Records
				}
			}
		}
	}
}
