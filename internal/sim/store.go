package sim

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment"
)

// store is the metadata store as one life of an agent reaches it: through a
// network that is slow, loses requests and answers, and delivers requests after
// their caller has given up.
type store struct {
	metadata.Store // of which an agent calls no more than what is below
	db             *database
	at             *site
}

// Why calls fail.
var (
	errDead      = errors.New("the agent is dead")
	errRefused   = errors.New("connection refused")
	errLost      = errors.New("connection reset")
	errRestarted = errors.New("the server restarts")
)

// effect says whether a call may change something.
type effect bool

const (
	reads  effect = false
	writes effect = true
)

// failed is the error of a call that was sent and not answered.
func (e effect) failed(name string, err error) error {
	sentinel := metadata.ErrUnavailable
	if e == writes {
		sentinel = metadata.ErrUnknownOutcome
	}
	return fmt.Errorf("%s: %w: %w", name, sentinel, err)
}

// call makes one call of the store. do runs under the database's lock.
func call[T any](s *store, ctx context.Context, name string, e effect, do func(context.Context) (T, error)) (T, error) {
	var none T
	faults := &s.at.world.faults
	faults.calls.Add(1)
	conn := s.db.connection()
	if !s.at.frozen.pass(s.at.life.Done()) {
		return none, fmt.Errorf("%s: %w: %w", name, metadata.ErrUnavailable, errDead)
	}
	run := func() (T, error) {
		s.db.mu.Lock()
		defer s.db.mu.Unlock()
		return do(context.WithoutCancel(ctx))
	}
	fate := faults.databaseFate(s.at.random)
	if fate == refused {
		s.at.sleep(ctx, s.at.random.latency(hop))
		return none, fmt.Errorf("%s: %w: %w", name, metadata.ErrUnavailable, errRefused)
	}
	if err := s.travel(ctx, conn); err != nil {
		if e == writes && s.at.random.oneIn(2) { // it is on its way
			s.at.world.later(s.at, func() { _, _ = run() })
		}
		return none, e.failed(name, err)
	}
	switch fate {
	case lost:
		return none, e.failed(name, errLost)
	case late:
		if e == writes {
			s.at.world.later(s.at, func() { _, _ = run() })
		}
		return none, e.failed(name, errLost)
	}
	v, err := run()
	if fate == answerLost {
		s.at.sleep(ctx, s.at.random.latency(hop))
		return none, e.failed(name, errLost)
	}
	if err := s.travel(ctx, conn); err != nil {
		return none, e.failed(name, err)
	}
	return v, err
}

// travel lets a message come through, unless the caller gives up or the server
// restarts before. A process that stands still sees neither until it goes on.
func (s *store) travel(ctx context.Context, conn <-chan struct{}) error {
	w := s.at.world
	arrived := s.at.sleep(ctx, s.at.random.latency(time.Duration(w.faults.databaseLatency.Load()))) &&
		s.at.noStore.pass(ctx.Done()) && w.noDatabase.pass(ctx.Done())
	s.at.frozen.pass(s.at.life.Done())
	switch {
	case s.at.isDead():
		return errDead
	case !arrived:
		return ctx.Err()
	}
	select {
	case <-conn:
		return errRestarted
	default:
		return nil
	}
}

// done is the result of a call that has none.
type done = struct{}

// act is call for what returns nothing but an error.
func act(s *store, ctx context.Context, name string, do func(context.Context) error) error {
	_, err := call(s, ctx, name, writes, func(ctx context.Context) (done, error) { return done{}, do(ctx) })
	return err
}

// Register implements metadata.Agents.
func (s *store) Register(ctx context.Context, a metadata.Agent) (int32, error) {
	return call(s, ctx, "register", writes, func(ctx context.Context) (int32, error) { return s.db.Register(ctx, a) })
}

// Heartbeat implements metadata.Agents.
func (s *store) Heartbeat(ctx context.Context, id string, session uuid.UUID) error {
	return act(s, ctx, "heartbeat", func(ctx context.Context) error { return s.db.Heartbeat(ctx, id, session) })
}

// Deregister implements metadata.Agents.
func (s *store) Deregister(ctx context.Context, id string, session uuid.UUID) error {
	return act(s, ctx, "deregister", func(ctx context.Context) error { return s.db.Deregister(ctx, id, session) })
}

// Attend implements metadata.Agents. The lock goes with the connection: soon
// after the process ends, or some seconds after the network went silent.
func (s *store) Attend(ctx context.Context, id string, session uuid.UUID, signals metadata.Signals) error {
	conn := s.db.connection()
	open, hangUp := context.WithCancel(context.Background())
	defer hangUp()
	forget := s.at.onSilence(hangUp)
	defer forget()
	var closed atomic.Bool // by the client
	defer closed.Store(true)
	err := act(s, ctx, "attend", func(ctx context.Context) error {
		free := s.db.lock(id, session)
		context.AfterFunc(open, func() {
			pause(s.at.random.between(time.Millisecond, 400*time.Millisecond))
			free()
		})
		return s.db.attend(ctx, id, session, func() {
			if !s.at.noStore.isShut() && !closed.Load() {
				signals.Challenged()
			}
		})
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, metadata.ErrUnknownOutcome) {
			err = fmt.Errorf("attend: %w: %w", metadata.ErrUnavailable, err)
		}
		return err
	}
	signals.Present()
	select {
	case <-ctx.Done():
		return nil
	case <-open.Done():
		err = errLost
	case <-conn:
		err = errRestarted
	case <-s.at.life.Done():
		err = errDead
	}
	s.at.frozen.pass(s.at.life.Done())
	return fmt.Errorf("attend: %w: %w", metadata.ErrUnavailable, err)
}

// Challenge implements metadata.Agents.
func (s *store) Challenge(ctx context.Context, id string, session uuid.UUID) error {
	return act(s, ctx, "challenge", func(ctx context.Context) error { return s.db.Challenge(ctx, id, session) })
}

// Report implements metadata.Agents.
func (s *store) Report(ctx context.Context, r metadata.Report) error {
	return act(s, ctx, "report", func(ctx context.Context) error { return s.db.Report(ctx, r) })
}

// Isolated implements metadata.Agents.
func (s *store) Isolated(ctx context.Context, id string, session uuid.UUID) (bool, error) {
	return call(s, ctx, "isolated", reads, func(ctx context.Context) (bool, error) { return s.db.Isolated(ctx, id, session) })
}

// Bury implements metadata.Agents.
func (s *store) Bury(ctx context.Context, id string, session uuid.UUID, patience time.Duration) (metadata.Burial, error) {
	return call(s, ctx, "bury", writes, func(ctx context.Context) (metadata.Burial, error) {
		b, err := s.db.Bury(ctx, id, session, patience)
		if b.Buried() {
			s.at.world.note("%s buries %s: %s", s.at.id, id, b)
			s.at.world.faults.burials.Add(1)
		}
		return b, err
	})
}

// Topology implements metadata.Topics.
func (s *store) Topology(ctx context.Context, since int64) (*metadata.Topology, error) {
	return call(s, ctx, "topology", reads, func(ctx context.Context) (*metadata.Topology, error) { return s.db.Topology(ctx, since) })
}

// Commit implements metadata.Committer.
func (s *store) Commit(ctx context.Context, c *metadata.Commit) ([][]metadata.CommitResult, error) {
	results, err := call(s, ctx, "commit", writes, func(ctx context.Context) ([][]metadata.CommitResult, error) {
		results, err := s.db.commit(ctx, s.at, c)
		s.at.world.traceCommit(s.at, c, results)
		return results, err
	})
	return results, s.db.mutant.commitError(err)
}

// ClaimOrphans implements metadata.Objects.
func (s *store) ClaimOrphans(ctx context.Context, ids []segment.ID) ([]segment.ID, error) {
	return call(s, ctx, "claim orphans", writes, func(ctx context.Context) ([]segment.ID, error) {
		claimed, err := s.db.mutant.claim(ctx, s.db.Store, ids)
		s.at.world.traceClaim(s.at, ids, claimed)
		return claimed, err
	})
}

// PeerSecret implements metadata.Peering.
func (s *store) PeerSecret(ctx context.Context) ([]byte, error) {
	return call(s, ctx, "peer secret", writes, s.db.PeerSecret)
}

// Read implements metadata.Log.
func (s *store) Read(ctx context.Context, reqs []metadata.ReadRequest) ([]metadata.ReadResult, error) {
	return call(s, ctx, "read", reads, func(ctx context.Context) ([]metadata.ReadResult, error) { return s.db.Read(ctx, reqs) })
}

// Watermarks implements metadata.Log.
func (s *store) Watermarks(ctx context.Context, keys []lease.Key) ([]*metadata.Watermarks, error) {
	return call(s, ctx, "watermarks", reads, func(ctx context.Context) ([]*metadata.Watermarks, error) { return s.db.Watermarks(ctx, keys) })
}

// FindTimestamp implements metadata.Log.
func (s *store) FindTimestamp(ctx context.Context, reqs []metadata.TimestampRequest) ([]metadata.TimestampResult, error) {
	return call(s, ctx, "find timestamp", reads, func(ctx context.Context) ([]metadata.TimestampResult, error) {
		return s.db.FindTimestamp(ctx, reqs)
	})
}

// EpochEnds implements metadata.Log.
func (s *store) EpochEnds(ctx context.Context, reqs []metadata.EpochRequest) ([]metadata.EpochEnd, error) {
	return call(s, ctx, "epoch ends", reads, func(ctx context.Context) ([]metadata.EpochEnd, error) { return s.db.EpochEnds(ctx, reqs) })
}

// AllocateProducerIDs implements metadata.Producers.
func (s *store) AllocateProducerIDs(ctx context.Context, count int64) (int64, error) {
	return call(s, ctx, "allocate producer ids", writes, func(ctx context.Context) (int64, error) {
		return s.db.AllocateProducerIDs(ctx, count)
	})
}

// Acquire implements lease.Store.
func (s *store) Acquire(ctx context.Context, id string, ttl time.Duration, keys []lease.Key) ([]lease.Result, error) {
	return call(s, ctx, "acquire", writes, func(ctx context.Context) ([]lease.Result, error) {
		results, err := s.db.Acquire(ctx, id, ttl, keys)
		s.at.world.traceAcquire(s.at, results)
		return results, err
	})
}

// Renew implements lease.Store.
func (s *store) Renew(ctx context.Context, id string, ttl time.Duration, terms []lease.Term) ([]lease.Term, error) {
	return call(s, ctx, "renew", writes, func(ctx context.Context) ([]lease.Term, error) { return s.db.Renew(ctx, id, ttl, terms) })
}

// Release implements lease.Store.
func (s *store) Release(ctx context.Context, id string, terms []lease.Term) error {
	return act(s, ctx, "release", func(ctx context.Context) error {
		s.at.world.traceTerms(s.at, "releases", terms)
		return s.db.Release(ctx, id, terms)
	})
}

// HandOver implements lease.Store.
func (s *store) HandOver(ctx context.Context, id string, ttl time.Duration, moves []lease.Move) ([]lease.Term, error) {
	return call(s, ctx, "hand over", writes, func(ctx context.Context) ([]lease.Term, error) {
		given, err := s.db.HandOver(ctx, id, ttl, moves)
		s.at.world.traceTerms(s.at, "hands over, in these terms from now on:", given)
		s.at.world.faults.handOvers.Add(int64(len(given)))
		return given, err
	})
}

// WriteGroups implements metadata.Groups.
func (s *store) WriteGroups(ctx context.Context, id string, shard lease.Term, w *metadata.GroupWrite) error {
	return act(s, ctx, "write groups", func(ctx context.Context) error { return s.db.WriteGroups(ctx, id, shard, w) })
}

// LoadGroups implements metadata.Groups.
func (s *store) LoadGroups(ctx context.Context, shard lease.Key) ([]metadata.StoredGroup, error) {
	return call(s, ctx, "load groups", reads, func(ctx context.Context) ([]metadata.StoredGroup, error) { return s.db.LoadGroups(ctx, shard) })
}

// FetchOffsets implements metadata.Groups.
func (s *store) FetchOffsets(ctx context.Context, groups []string) ([][]metadata.CommittedOffset, error) {
	return call(s, ctx, "fetch offsets", reads, func(ctx context.Context) ([][]metadata.CommittedOffset, error) {
		return s.db.FetchOffsets(ctx, groups)
	})
}

// OldOffsets implements metadata.Groups.
func (s *store) OldOffsets(ctx context.Context, groups []string, age time.Duration) ([]metadata.OldOffsets, error) {
	return call(s, ctx, "old offsets", reads, func(ctx context.Context) ([]metadata.OldOffsets, error) {
		return s.db.OldOffsets(ctx, groups, age)
	})
}

// Prune implements metadata.Pruner.
func (s *store) Prune(ctx context.Context) (int64, error) {
	return call(s, ctx, "prune", writes, s.db.Prune)
}
