package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/sqlstore"
)

// Register implements metadata.Agents.
func (s *Store) Register(ctx context.Context, a metadata.Agent) (nodeID int32, err error) {
	return s.register.Register(ctx, a)
}

// Heartbeat implements metadata.Agents.
func (s *Store) Heartbeat(ctx context.Context, agentID string, session uuid.UUID) error {
	return s.register.Heartbeat(ctx, agentID, session)
}

// Deregister implements metadata.Agents.
func (s *Store) Deregister(ctx context.Context, agentID string, session uuid.UUID) error {
	return s.register.Deregister(ctx, agentID, session)
}

// Attend implements metadata.Agents. The sign of life is an advisory lock that
// the connection's session holds: the server frees it when the session ends,
// which is some milliseconds after the process did, and seconds after the
// network went silent. It is held as a shared one, so that a connection need not
// wait until the server has noticed the end of the one before.
func (s *Store) Attend(ctx context.Context, agentID string, session uuid.UUID, signals metadata.Signals) error {
	conn, err := s.presence(ctx)
	if err != nil {
		return lostPresence(ctx, err)
	}
	defer closeConn(conn)
	for _, stmt := range []sqlstore.Stmt{
		// The connection is idle for all of its life. (A server before 14 has no such setting.)
		{SQL: `SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'`},
		{SQL: `LISTEN ` + pgx.Identifier{challenges(session)}.Sanitize()},
		{SQL: `SELECT pg_advisory_lock_shared($1)`, Args: []any{presenceLock(session)}},
	} {
		if err := run(ctx, conn, []sqlstore.Stmt{stmt}); err != nil {
			return lostPresence(ctx, err)
		}
	}
	var registered int64
	err = run(ctx, conn, []sqlstore.Stmt{{
		SQL: `WITH attended AS (
				UPDATE agents SET attended_session = $2, heartbeat_at = greatest(` + dialect{}.Now() + `, challenged_at)
				WHERE agent_id = $1 AND session = $2 AND agent_group = $3 RETURNING agent_id
			)
			INSERT INTO attendances (agent_id, session, server) SELECT agent_id, $2, pg_postmaster_start_time() FROM attended
			ON CONFLICT (agent_id) DO UPDATE SET session = excluded.session, server = excluded.server`,
		Args:     []any{agentID, session[:], s.agentGroup},
		Affected: &registered,
	}})
	switch {
	case err != nil:
		return lostPresence(ctx, err)
	case registered == 0:
		return s.register.Ended(ctx, agentID)
	}
	signals.Present()
	for {
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return lostPresence(ctx, err)
		}
		signals.Challenged()
	}
}

// presence opens the connection that is an agent's sign of life.
func (s *Store) presence(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, s.common.ConnConfig.Copy())
	if err != nil {
		return nil, err
	}
	if err := s.common.AfterConnect(ctx, conn); err != nil {
		closeConn(conn)
		return nil, err
	}
	return conn, nil
}

// closeConn says goodbye to the server, briefly: it notices anyway.
func closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), rollbackTimeout)
	defer cancel()
	_ = conn.Close(ctx)
}

// lostPresence is nil if the end was asked for.
func lostPresence(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("metadata: attend: %w: %w", metadata.ErrUnavailable, err)
}

// Challenge implements metadata.Agents.
func (s *Store) Challenge(ctx context.Context, agentID string, session uuid.UUID) error {
	return call(ctx, s.leases, "challenge agent", sqlstore.Stmt{
		SQL: `WITH challenged AS (
				UPDATE agents SET challenged_at = greatest(` + dialect{}.Now() + `, heartbeat_at + 1)
				WHERE agent_id = $1 AND session = $2 AND attended_session = $2 AND challenged_at <= heartbeat_at
					AND agent_group = $4
				RETURNING 1
			) SELECT pg_notify($3, '') FROM challenged`,
		Args: []any{agentID, session[:], challenges(session), s.agentGroup},
	})
}

// Bury implements metadata.Agents.
func (s *Store) Bury(ctx context.Context, agentID string, session uuid.UUID, patience time.Duration) (metadata.Burial, error) {
	var burial metadata.Burial
	err := call(ctx, s.leases, "bury agent", sqlstore.Stmt{
		SQL: fmt.Sprintf(`SELECT CASE WHEN EXISTS (SELECT FROM agents WHERE agent_id = $1 AND agent_group = $6)
			THEN bury_agent($1, $2, $3, $4, $5) ELSE %d END`, int8(metadata.EndedBefore)),
		Args: []any{
			agentID, session[:], presenceLock(session), applicationName(session, ""), patience.Milliseconds(), s.agentGroup,
		},
		Each: func(row sqlstore.Row) error { return row.Scan(&burial) },
	})
	if err != nil {
		return metadata.NotBuried, err
	}
	return burial, nil
}

// Report implements metadata.Agents.
func (s *Store) Report(ctx context.Context, r metadata.Report) error {
	return s.register.Report(ctx, r)
}

// Isolated implements metadata.Agents.
func (s *Store) Isolated(ctx context.Context, agentID string, session uuid.UUID) (bool, error) {
	return s.register.Isolated(ctx, agentID, session)
}

// presenceLock is the key of a session's advisory lock.
func presenceLock(session uuid.UUID) int64 { return int64(binary.BigEndian.Uint64(session[8:])) }

// challenges is the channel on which a session is asked whether it lives.
func challenges(session uuid.UUID) string { return "streamhouse/" + session.String() }
