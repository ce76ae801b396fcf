package sqlstore

import (
	"context"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/metadata"
)

// Report implements metadata.Agents.
func (s *Store) Report(ctx context.Context, r metadata.Report) error {
	if !r.Unreachable {
		return s.write(ctx, "take back a report", Stmt{
			SQL: `DELETE FROM reports WHERE agent_id = $1 AND reporter_id = $2
				AND EXISTS (SELECT 1 FROM agents a WHERE a.agent_id = $1 AND a.agent_group = $3)`,
			Args: []any{r.AgentID, r.ReporterID, s.group},
		})
	}
	return s.write(ctx, "report an agent", Stmt{
		SQL: `INSERT INTO reports (agent_id, reporter_id, reported_at)
			SELECT a.agent_id, r.agent_id, ` + s.d.Now() + ` FROM agents a, agents r
			WHERE a.agent_id = $1 AND a.session = $2 AND r.agent_id = $3 AND r.session = $4
				AND a.agent_group = $5 AND r.agent_group = $5
			ON CONFLICT (agent_id, reporter_id) DO UPDATE SET reported_at = excluded.reported_at`,
		Args: []any{r.AgentID, r.Session[:], r.ReporterID, r.Reporter[:], s.group},
	})
}

// Isolated implements metadata.Agents. The agents that are listed are those among
// which watchers are found: with less than WatchersOfEach others, all watch.
func (s *Store) Isolated(ctx context.Context, agentID string, session uuid.UUID) (isolated bool, err error) {
	err = s.read(ctx, "look whether an agent is isolated", Stmt{
		SQL: `WITH listed AS (
				SELECT agent_id, session, started_at FROM agents
				WHERE session IS NOT NULL AND heartbeat_at > ` + s.d.Now() + ` - $3 AND agent_group = $6
			), valid AS (
				SELECT w.agent_id, w.reporter_id FROM reports w
				JOIN listed a ON a.agent_id = w.agent_id AND w.reported_at >= a.started_at
				JOIN listed r ON r.agent_id = w.reporter_id AND w.reported_at >= r.started_at
				WHERE w.reported_at > ` + s.d.Now() + ` - $4
			), unreached AS (
				SELECT agent_id FROM valid GROUP BY agent_id
				HAVING count(*) >= 2 AND (count(*) >= $5 OR count(*) >= (SELECT count(*) - 1 FROM listed))
			)
			SELECT 1 FROM listed
			WHERE agent_id = $1 AND session = $2 AND agent_id IN (SELECT agent_id FROM unreached) AND EXISTS (
				SELECT 1 FROM valid v
				WHERE v.agent_id = $1 AND v.reporter_id NOT IN (SELECT agent_id FROM unreached))`,
		Args: []any{
			agentID, session[:], metadata.AgentListedFor.Milliseconds(), metadata.ReportValidFor.Milliseconds(),
			int64(metadata.WatchersOfEach), s.group,
		},
		Each: func(Row) error { isolated = true; return nil },
	})
	return isolated, err
}
