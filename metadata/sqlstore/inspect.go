package sqlstore

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/metadata"
)

// NewInspector returns the inspector of a database that may not be written to:
// unlike New it makes no rows.
// It shows all agent groups.
func NewInspector(db DB, d Dialect) metadata.Inspector { return inspector{&Store{db: db, d: d}} }

// inspector is the inspector of all agent groups.
type inspector struct{ store *Store }

func (i inspector) Sessions(ctx context.Context) ([]metadata.AgentSession, error) {
	return i.store.sessions(ctx, true)
}

func (i inspector) Leases(ctx context.Context, f metadata.LeaseFilter) ([]metadata.HeldLease, error) {
	return i.store.heldLeases(ctx, f, true)
}

// Sessions implements metadata.Inspector.
func (s *Store) Sessions(ctx context.Context) ([]metadata.AgentSession, error) {
	return s.sessions(ctx, false)
}

// Leases implements metadata.Inspector.
func (s *Store) Leases(ctx context.Context, f metadata.LeaseFilter) ([]metadata.HeldLease, error) {
	return s.heldLeases(ctx, f, false)
}

// sessions lists the agents, of the store's agent group or of all.
func (s *Store) sessions(ctx context.Context, all bool) ([]metadata.AgentSession, error) {
	sessions := []metadata.AgentSession{}
	now := s.d.Now()
	err := s.read(ctx, "list agents", Stmt{
		SQL: `SELECT agent_id, node_id, session, host, port, zone, agent_group, peer_address, ` + now + ` - heartbeat_at, ` + now + ` - started_at
			FROM agents WHERE session IS NOT NULL AND ($2 OR agent_group = $3) ORDER BY node_id LIMIT $1`,
		Args: []any{metadata.InspectRows, all, s.group},
		Each: func(r Row) error {
			var (
				a           metadata.AgentSession
				session     []byte
				age, uptime int64
			)
			err := r.Scan(&a.ID, &a.NodeID, &session, &a.Host, &a.Port, &a.Zone, &a.Group, &a.PeerAddress, &age, &uptime)
			if err != nil {
				return err
			}
			if a.Session, err = uuid.FromBytes(session); err != nil {
				return err
			}
			a.HeartbeatAge, a.Uptime = milliseconds(age), milliseconds(uptime)
			sessions = append(sessions, a)
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	return sessions, nil
}

// heldLeases lists the leases, of the store's agent group or of all.
func (s *Store) heldLeases(ctx context.Context, f metadata.LeaseFilter, all bool) ([]metadata.HeldLease, error) {
	leases := []metadata.HeldLease{}
	now := s.d.Now()
	err := s.read(ctx, "list leases", Stmt{
		SQL: `SELECT p.topic_id, p.partition, coalesce(t.name, ''), p.agent_group, p.leader_agent_id, p.epoch, p.leader_epoch,
				coalesce(` + now + ` - e.since, 0), p.lease_expires_at - ` + now + `
			FROM partitions p
			LEFT JOIN topics t ON t.topic_id = p.topic_id
			LEFT JOIN leader_epochs e
				ON e.topic_id = p.topic_id AND e.partition = p.partition AND e.leader_epoch = p.leader_epoch
			WHERE p.leader_agent_id IS NOT NULL AND ($1 = '' OR t.name = $1) AND ($2 = '' OR p.leader_agent_id = $2)
				AND ($4 OR p.agent_group = $5)
			ORDER BY p.topic_id, p.partition LIMIT $3`,
		Args: []any{f.Topic, f.AgentID, metadata.InspectRows, all, s.group},
		Each: func(r Row) error {
			var (
				l              metadata.HeldLease
				age, expiresIn int64
			)
			err := r.Scan((*ID)(&l.TopicID), &l.Partition, &l.Topic, &l.Group, &l.AgentID, &l.Epoch, &l.LeaderEpoch, &age, &expiresIn)
			l.Age, l.ExpiresIn = milliseconds(age), milliseconds(expiresIn)
			leases = append(leases, l)
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	// Not by the database: each has a collation of its own.
	slices.SortFunc(leases, func(a, b metadata.HeldLease) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Group, b.Group), a.Key.Compare(b.Key))
	})
	return leases, nil
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
