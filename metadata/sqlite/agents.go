package sqlite

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/metadata"
)

// Attend implements metadata.Agents: an embedded store has one agent, and who
// has the file is alive.
func (s *Store) Attend(ctx context.Context, _ string, _ uuid.UUID, signals metadata.Signals) error {
	signals.Present()
	<-ctx.Done()
	return nil
}

// Challenge implements metadata.Agents: there is nobody to be asked.
func (s *Store) Challenge(context.Context, string, uuid.UUID) error { return nil }

// Bury implements metadata.Agents: there is nobody to be buried.
func (s *Store) Bury(context.Context, string, uuid.UUID, time.Duration) (metadata.Burial, error) {
	return metadata.NotBuried, nil
}
