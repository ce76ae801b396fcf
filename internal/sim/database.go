package sim

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/sqlite"
	"github.com/streamhouse/streamhouse/segment"
	"github.com/streamhouse/streamhouse/segment/objstore"
)

// database is the metadata store that all agents of a world share: the one on
// SQLite, and what that lacks, as a store of one agent: presence, by the rules of
// bury_agent in PostgreSQL. Its clock is the world's.
//
// Calls are made one at a time, each under mu, so that mu is never held for any
// time of the world.
type database struct {
	metadata.Store
	mutant Mutant
	bucket objstore.Store

	mu      sync.Mutex
	server  int // how often the server has been started
	agents  map[string]*presence
	restart chan struct{} // closed when the server restarts
	writers map[leadership]*site
	errs    []error // what must not be
	asked   int     // how often Watermarks was
	// committed has the objects of which a commit was asked for, for NoIdempotence and
	// NewParts.
	committed map[segment.ID]bool
}

// presence is what the database knows of an agent.
type presence struct {
	session    uuid.UUID // registered
	attended   uuid.UUID // the last that held its lock
	server     int       // where it did
	locks      map[uuid.UUID]int
	heartbeat  time.Time
	challenged time.Time
	challenge  func() // of the session that attends
}

// leadership is a leader epoch of a partition. It has one writer, besides those that have its agent write.
type leadership struct {
	lease.Key
	epoch int32
}

// template is an empty database with its schema, which takes longer to make than
// to copy.
var template = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "sim")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "template.db")
	store, err := sqlite.Open(context.Background(), path)
	if err != nil {
		return nil, err
	}
	if err := store.Close(); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

// openDatabase opens a new database in a folder.
func openDatabase(dir string, mutant Mutant, bucket objstore.Store) (*database, error) {
	empty, err := template()
	if err != nil {
		return nil, fmt.Errorf("make the template of the database: %w", err)
	}
	path := filepath.Join(dir, "metadata.db")
	for _, suffix := range []string{"-wal", "-shm"} {
		_ = os.Remove(path + suffix)
	}
	if err := os.WriteFile(path, empty, 0o600); err != nil {
		return nil, err
	}
	store, err := sqlite.Open(context.Background(), path)
	if err != nil {
		return nil, err
	}
	return &database{
		Store: store, mutant: mutant, bucket: bucket, agents: make(map[string]*presence), restart: make(chan struct{}),
		writers: make(map[leadership]*site), committed: make(map[segment.ID]bool),
	}, nil
}

// agent returns what is known of an agent. The caller holds mu.
func (d *database) agent(id string) *presence {
	p := d.agents[id]
	if p == nil {
		p = &presence{locks: make(map[uuid.UUID]int)}
		d.agents[id] = p
	}
	return p
}

// restartServer ends all connections, and with them all locks.
func (d *database) restartServer() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.server++
	for _, p := range d.agents {
		clear(p.locks)
		p.challenge = nil
	}
	close(d.restart)
	d.restart = make(chan struct{})
}

// connection is closed when the connections that are open now end, as the server
// restarts.
func (d *database) connection() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.restart
}

// The methods below are called under mu.

// Register implements metadata.Agents.
func (d *database) Register(ctx context.Context, a metadata.Agent) (int32, error) {
	node, err := d.Store.Register(ctx, a)
	if err == nil {
		p := d.agent(a.ID)
		p.session, p.heartbeat = a.Session, time.Now()
	}
	return node, err
}

// Heartbeat implements metadata.Agents.
func (d *database) Heartbeat(ctx context.Context, id string, session uuid.UUID) error {
	err := d.Store.Heartbeat(ctx, id, session)
	if err == nil {
		p := d.agent(id)
		p.heartbeat = time.Now()
		if p.challenged.After(p.heartbeat) {
			p.heartbeat = p.challenged
		}
	}
	return err
}

// Deregister implements metadata.Agents.
func (d *database) Deregister(ctx context.Context, id string, session uuid.UUID) error {
	err := d.Store.Deregister(ctx, id, session)
	if p := d.agent(id); err == nil && p.session == session {
		p.session = uuid.Nil
	}
	return err
}

// lock takes a session's lock, and returns what frees it.
func (d *database) lock(id string, session uuid.UUID) (free func()) {
	p, server := d.agent(id), d.server
	p.locks[session]++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.server == server {
			p.locks[session]--
		}
	}
}

// attend notes that a session holds its lock and hears challenges.
func (d *database) attend(ctx context.Context, id string, session uuid.UUID, challenge func()) error {
	if err := d.Heartbeat(ctx, id, session); err != nil {
		return err
	}
	p := d.agent(id)
	p.attended, p.server, p.challenge = session, d.server, challenge
	return nil
}

// Challenge implements metadata.Agents.
func (d *database) Challenge(_ context.Context, id string, session uuid.UUID) error {
	p := d.agent(id)
	if p.session != session || p.attended != session || p.challenged.After(p.heartbeat) {
		return nil
	}
	p.challenged = p.heartbeat.Add(time.Millisecond)
	if now := time.Now(); now.After(p.challenged) {
		p.challenged = now
	}
	if p.challenge != nil {
		p.challenge()
	}
	return nil
}

// Bury implements metadata.Agents.
func (d *database) Bury(ctx context.Context, id string, session uuid.UUID, patience time.Duration) (metadata.Burial, error) {
	p := d.agent(id)
	var burial metadata.Burial
	switch {
	case p.session != session:
		return metadata.EndedBefore, nil
	case p.attended != session:
		return metadata.NotBuried, nil
	case p.server == d.server && p.locks[session] == 0:
		burial = metadata.BuriedGone
	case p.heartbeat.Before(p.challenged) && !p.challenged.After(time.Now().Add(-patience)):
		burial = metadata.BuriedMute
	default:
		return metadata.NotBuried, nil
	}
	if err := d.Store.Deregister(ctx, id, session); err != nil {
		return metadata.NotBuried, err
	}
	p.session, p.attended = uuid.Nil, uuid.Nil
	held, err := d.Leases(ctx, metadata.LeaseFilter{AgentID: id})
	if err != nil {
		return metadata.NotBuried, err
	}
	terms := make([]lease.Term, len(held))
	for i := range held {
		terms[i] = held[i].Term
	}
	return burial, d.Store.Release(ctx, id, terms)
}

// commit is Commit of metadata.Committer. It sees to it that who writes leads, and
// that a leader epoch has one writer: one life of one agent.
func (d *database) commit(ctx context.Context, by *site, c *metadata.Commit) ([][]metadata.CommitResult, error) {
	before := make(map[lease.Key]*metadata.Watermarks)
	for i := range c.Objects {
		for j := range c.Objects[i].Batches {
			k := c.Objects[i].Batches[j].Key
			if before[k] != nil {
				continue
			}
			marks, err := d.Store.Watermarks(ctx, []lease.Key{k})
			if err != nil {
				return nil, err
			}
			before[k] = marks[0]
		}
	}
	results, err := d.mutant.commit(ctx, d, by, c)
	if err != nil {
		return nil, err
	}
	for i := range c.Objects {
		o := &c.Objects[i]
		made := d.footer(ctx, o)
		for j := range o.Batches {
			b, r := &o.Batches[j], results[i][j]
			if r.Outcome != metadata.Committed || r.BaseOffset < before[b.Key].High {
				continue // it is not in the log, or was before
			}
			d.checkLeader(by, b, r, before[b.Key])
			if made == nil || made.Origin.AgentID == by.id {
				d.checkWriter(by, b)
			} else {
				d.checkOrigin(by, b, r, made)
			}
		}
	}
	return results, nil
}

// footer is that of an object; nil if there is none.
func (d *database) footer(ctx context.Context, o *metadata.CommitObject) *segment.Footer {
	if o.Size == 0 {
		return nil
	}
	body, err := d.bucket.Get(ctx, segment.ObjectKey(o.ID), 0, -1)
	if err != nil {
		return nil
	}
	f, err := segment.DecodeFooter(bytes.NewReader(body), o.Size)
	if err != nil {
		d.errs = append(d.errs, fmt.Errorf("object %s: %w", o.ID, err))
	}
	return f
}

// checkOrigin counts a batch that was committed by another agent than the one that took
// it in, and checks that both did so in the same leader epoch.
func (d *database) checkOrigin(by *site, b *metadata.CommitBatch, r metadata.CommitResult, made *segment.Footer) {
	by.world.borrowed(int64(b.Records))
	for i := range made.Sections {
		s := &made.Sections[i]
		if s.Position <= b.Position && b.Position < s.End() && s.LeaderEpoch != b.LeaderEpoch {
			d.errs = append(d.errs, fmt.Errorf("partition %d: %s wrote offset %d in leader epoch %d, taken in by %s in leader epoch %d",
				b.Partition, by, r.BaseOffset, b.LeaderEpoch, made.Origin.AgentID, s.LeaderEpoch))
		}
	}
}

// checkLeader checks the fence: a batch that is in the log since this commit was
// written by the leader.
func (d *database) checkLeader(by *site, b *metadata.CommitBatch, r metadata.CommitResult, w *metadata.Watermarks) {
	if w.LeaderID != by.id || w.LeaderEpoch != b.LeaderEpoch {
		d.errs = append(d.errs, fmt.Errorf("partition %d: %s wrote offset %d in leader epoch %d, and %q led in leader epoch %d",
			b.Partition, by, r.BaseOffset, b.LeaderEpoch, w.LeaderID, w.LeaderEpoch))
	}
}

// checkWriter checks that one life of an agent takes batches in in a leader epoch. What
// other agents took in in this epoch, any life of the leader may commit.
func (d *database) checkWriter(by *site, b *metadata.CommitBatch) {
	l := leadership{b.Key, b.LeaderEpoch}
	if other := d.writers[l]; other != nil && other != by {
		d.errs = append(d.errs, fmt.Errorf("partition %d was written in leader epoch %d by %s and %s", b.Partition, b.LeaderEpoch, other, by))
	}
	d.writers[l] = by
}

// Watermarks implements metadata.Log.
func (d *database) Watermarks(ctx context.Context, keys []lease.Key) ([]*metadata.Watermarks, error) {
	marks, err := d.Store.Watermarks(ctx, keys)
	if d.asked++; d.mutant == StaleReads && d.asked%16 == 0 {
		for _, m := range marks {
			if m != nil {
				m.High = max(m.LogStart, m.High-3)
				m.LastStable = m.High
			}
		}
	}
	return marks, err
}
