package sqlstore

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/metadata"
)

// Register implements metadata.Agents.
func (s *Store) Register(ctx context.Context, a metadata.Agent) (nodeID int32, err error) {
	now := s.d.Now()
	if a.Group != s.group {
		return 0, fmt.Errorf("metadata: register agent: %w: it is of %q, and the store of %q", metadata.ErrAgentGroup, a.Group, s.group)
	}
	known := Stmt{
		SQL: `UPDATE agents SET session = $2, host = $3, port = $4, zone = $5, agent_group = $6, peer_address = $7,
				started_at = ` + now + `, heartbeat_at = ` + now + `
			WHERE agent_id = $1 RETURNING node_id`,
		Args: []any{a.ID, a.Session[:], a.Host, a.Port, a.Zone, a.Group, a.PeerAddress},
		Each: func(r Row) error { return r.Scan(&nodeID) },
	}
	err = s.tx(ctx, "register agent", func(tx Runner) error {
		nodeID = 0
		if err := s.leaveGroup(ctx, tx, a.ID); err != nil {
			return err
		}
		if err := tx.Run(ctx, known); err != nil || nodeID != 0 {
			return err
		}
		// A new agent. Two processes that bring the same new id meet at the
		// cluster's row; the second finds the agent of the first.
		return tx.Run(ctx,
			Stmt{SQL: `UPDATE cluster SET next_node_id = next_node_id + 1`},
			Stmt{
				SQL: `INSERT INTO agents (agent_id, node_id, host, port, zone, agent_group, started_at, heartbeat_at)
					SELECT $1, next_node_id - 1, '', 0, '', '', 0, 0 FROM cluster
					WHERE true ON CONFLICT (agent_id) DO NOTHING`,
				Args: []any{a.ID},
			},
			known)
	})
	return nodeID, err
}

// Heartbeat implements metadata.Agents.
func (s *Store) Heartbeat(ctx context.Context, agentID string, session uuid.UUID) error {
	var alive int64
	err := s.write(ctx, "heartbeat", Stmt{
		// Not before a challenge of the same millisecond, which it answers.
		SQL: `UPDATE agents SET heartbeat_at = CASE WHEN challenged_at > ` + s.d.Now() + ` THEN challenged_at ELSE ` + s.d.Now() + ` END
			WHERE agent_id = $1 AND session = $2 AND agent_group = $3`,
		Args:     []any{agentID, session[:], s.group},
		Affected: &alive,
	})
	if err == nil && alive == 0 {
		return s.Ended(ctx, agentID)
	}
	return err
}

// Ended returns why a session of the agent is not the agent's any more.
func (s *Store) Ended(ctx context.Context, agentID string) error {
	reason := metadata.ErrBuried
	err := s.read(ctx, "look for the agent's session", Stmt{
		SQL:  `SELECT agent_id FROM agents WHERE agent_id = $1 AND session IS NOT NULL AND agent_group = $2`,
		Args: []any{agentID, s.group},
		Each: func(Row) error { reason = metadata.ErrSuperseded; return nil },
	})
	if err != nil {
		return err
	}
	return reason
}

// Deregister implements metadata.Agents.
func (s *Store) Deregister(ctx context.Context, agentID string, session uuid.UUID) error {
	return s.tx(ctx, "deregister agent", func(tx Runner) error {
		var ended int64
		err := tx.Run(ctx, Stmt{
			SQL:      `UPDATE agents SET session = NULL WHERE agent_id = $1 AND session = $2 AND agent_group = $3`,
			Args:     []any{agentID, session[:], s.group},
			Affected: &ended,
		})
		if err != nil || ended == 0 {
			return err
		}
		return s.freeLeases(ctx, tx, `leader_agent_id = $1 AND handed_over`, agentID)
	})
}

// leaveGroup takes an agent that was in another group out of it, unless it is listed
// there: it may live.
func (s *Store) leaveGroup(ctx context.Context, tx Runner, agentID string) error {
	var found, listed bool
	err := tx.Run(ctx, Stmt{
		SQL: `SELECT session IS NOT NULL AND heartbeat_at > ` + s.d.Now() + ` - $3 FROM agents
			WHERE agent_id = $1 AND agent_group <> $2 ` + s.d.ForUpdate(),
		Args: []any{agentID, s.group, metadata.AgentListedFor.Milliseconds()},
		Each: func(r Row) error { found = true; return r.Scan(&listed) },
	})
	switch {
	case err != nil || !found:
		return err
	case listed:
		return refuse(fmt.Errorf("%w: an agent of another one has the id %q: wait until it has ended, or take another id",
			metadata.ErrAgentGroup, agentID))
	}
	return s.freeLeases(ctx, tx, `leader_agent_id = $1`, agentID)
}

// freeLeases frees the leases that a condition on partitions selects.
func (s *Store) freeLeases(ctx context.Context, tx Runner, condition string, args ...any) error {
	found := false
	err := tx.Run(ctx, Stmt{
		SQL:  `SELECT 1 FROM partitions WHERE ` + condition + ` ORDER BY topic_id, partition ` + s.d.ForUpdate(),
		Args: args,
		Each: func(Row) error { found = true; return nil },
	})
	if err != nil || !found {
		return err
	}
	return tx.Run(ctx,
		Stmt{SQL: bumpVersion},
		Stmt{
			SQL: `UPDATE partitions SET leader_agent_id = NULL, handed_over = false, lease_expires_at = 0, changed_version = ` + versionNow + `
				WHERE ` + condition,
			Args: args,
		})
}
