package postgres

import (
	"context"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/metadata"
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
