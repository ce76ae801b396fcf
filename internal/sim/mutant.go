package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment"
	"github.com/streamhouse/streamhouse/segment/objstore"
)

// Mutant is a mistake, which the world's stores make or make look like one of agents, to
// see that the simulation finds it.
type Mutant string

// The mutants.
const (
	Healthy Mutant = ""
	// NoFence: the database takes a commit of an agent that does not lead any more.
	NoFence Mutant = "no fence"
	// NoDeduplication: the database does not look at sequences.
	NoDeduplication Mutant = "no deduplication"
	// NoIdempotence: the database does a commit again that is repeated.
	NoIdempotence Mutant = "commits are not idempotent"
	// Guessing: an unknown outcome is taken for a failure.
	Guessing Mutant = "unknown outcomes are taken for failures"
	// LostPut: the bucket acknowledges an object now and then that it does not keep.
	LostPut Mutant = "acknowledged objects are lost"
	// OffsetZero: the answer to a duplicate has the offset 0.
	OffsetZero Mutant = "duplicates are answered with offset 0"
	// StaleReads: the database answers with an older end of the log now and then.
	StaleReads Mutant = "the end of the log goes back"
	// ClaimNothing: an agent that does not know whether another has committed for it
	// takes it for failed.
	ClaimNothing Mutant = "unknown outcomes at other agents are taken for failures"
	// OwnEpoch: an agent commits what others took in in its own leader epoch.
	OwnEpoch Mutant = "commits for others are in another leader epoch"
	// NewParts: a commit for another agent that is repeated names another part.
	NewParts Mutant = "commits for others are not idempotent"
)

// Mutants lists all mistakes.
var Mutants = []Mutant{NoFence, NoDeduplication, NoIdempotence, Guessing, LostPut, OffsetZero, StaleReads, ClaimNothing, OwnEpoch, NewParts}

// commit commits to the database.
func (m Mutant) commit(ctx context.Context, d *database, by *site, c *metadata.Commit) ([][]metadata.CommitResult, error) {
	switch m {
	case NoFence:
		return commitUnfenced(ctx, d.Store, c)
	case NoDeduplication:
		c = cloneCommit(c)
		for i := range c.Objects {
			for j := range c.Objects[i].Batches {
				c.Objects[i].Batches[j].ProducerID = -1
			}
		}
	case NoIdempotence:
		c = cloneCommit(c)
		for i := range c.Objects {
			o := &c.Objects[i]
			if again := d.committed[o.ID]; !again {
				d.committed[o.ID] = true
				continue
			}
			id := segment.NewID()
			if body, err := d.bucket.Get(ctx, segment.ObjectKey(o.ID), 0, -1); err == nil {
				if err := d.bucket.Put(ctx, segment.ObjectKey(id), body); err != nil {
					return nil, err
				}
			}
			o.ID = id
		}
	}
	results, err := d.Store.Commit(ctx, m.forOthers(ctx, d, by, c))
	if m == OffsetZero {
		for i := range results {
			for j := range results[i] {
				if results[i][j].Outcome == metadata.Duplicate {
					results[i][j].BaseOffset = 0
				}
			}
		}
	}
	return results, err
}

// forOthers is a commit with the mistakes that an agent makes with what others took in.
func (m Mutant) forOthers(ctx context.Context, d *database, by *site, c *metadata.Commit) *metadata.Commit {
	if m != OwnEpoch && m != NewParts {
		return c
	}
	c = cloneCommit(c)
	for i := range c.Objects {
		o := &c.Objects[i]
		if made := d.footer(ctx, o); made == nil || made.Origin.AgentID == c.AgentID {
			continue
		}
		if again := d.committed[o.ID]; m == NewParts && again {
			o.ID = segment.Part(o.ID, segment.MaxParts-1)
		}
		d.committed[o.ID] = true
		for j := range o.Batches {
			b := &o.Batches[j]
			if marks, err := d.Store.Watermarks(ctx, []lease.Key{b.Key}); m == OwnEpoch && err == nil && marks[0] != nil && marks[0].LeaderID == c.AgentID {
				b.LeaderEpoch = marks[0].LeaderEpoch
			}
		}
	}
	return c
}

// claim claims names.
func (m Mutant) claim(ctx context.Context, store metadata.Store, ids []segment.ID) ([]segment.ID, error) {
	if m == ClaimNothing {
		return ids, nil
	}
	return store.ClaimOrphans(ctx, ids)
}

func cloneCommit(c *metadata.Commit) *metadata.Commit {
	clone := &metadata.Commit{AgentID: c.AgentID, Objects: slices.Clone(c.Objects)}
	for i := range clone.Objects {
		clone.Objects[i].Batches = slices.Clone(clone.Objects[i].Batches)
	}
	return clone
}

// commitUnfenced commits in the name of whoever leads, where that is one agent.
func commitUnfenced(ctx context.Context, store metadata.Store, c *metadata.Commit) ([][]metadata.CommitResult, error) {
	c = cloneCommit(c)
	leader := ""
	for i := range c.Objects {
		for j := range c.Objects[i].Batches {
			b := &c.Objects[i].Batches[j]
			marks, err := store.Watermarks(ctx, []lease.Key{b.Key})
			if err != nil {
				return nil, err
			}
			if marks[0] == nil || marks[0].LeaderID == "" {
				continue
			}
			leader, b.LeaderEpoch = marks[0].LeaderID, marks[0].LeaderEpoch
		}
	}
	if leader != "" {
		c.AgentID = leader
	}
	return store.Commit(ctx, c)
}

// commitError is what an agent is told of a commit that failed.
func (m Mutant) commitError(err error) error {
	if m == Guessing && errors.Is(err, metadata.ErrUnknownOutcome) {
		return fmt.Errorf("%w: %v", metadata.ErrUnavailable, err)
	}
	return err
}

// put stores an object.
func (m Mutant) put(ctx context.Context, bucket objstore.Store, key string, body []byte) error {
	if m == LostPut && key[len(key)-5]%8 == 0 {
		return nil
	}
	return bucket.Put(ctx, key, body)
}
