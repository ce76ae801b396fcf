package sqlstore

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/metadata"
)

// CreateTopic implements metadata.Topics. A topic that is refused moves the
// version all the same, which nobody can tell from an empty change.
func (s *Store) CreateTopic(ctx context.Context, t metadata.NewTopic) error {
	group := s.group
	if t.AgentGroup != nil {
		group = *t.AgentGroup
	}
	if !metadata.LegalAgentGroup(group) {
		return illegalAgentGroup(group)
	}
	configs, err := encodeConfigs(t.Configs)
	if err != nil {
		return err
	}
	created := false
	err = s.write(ctx, "create topic",
		Stmt{SQL: bumpVersion},
		Stmt{
			SQL: `INSERT INTO topics (topic_id, name, partitions, configs, agent_group, created_at, changed_version)
				SELECT $1, $2, $3, $4, $5, ` + s.d.Now() + `, version FROM cluster
				WHERE true ON CONFLICT DO NOTHING`,
			Args: []any{t.ID[:], t.Name, t.Partitions, configs, group},
		},
		s.insertPartitions(t.ID, 0, t.Partitions),
		Stmt{
			SQL:  `SELECT 1 FROM topics WHERE topic_id = $1 AND agent_group = $2`,
			Args: []any{t.ID[:], group},
			Each: func(Row) error { created = true; return nil },
		})
	if err != nil {
		return err
	}
	if !created {
		return fmt.Errorf("%w: %q", metadata.ErrTopicExists, t.Name)
	}
	return nil
}

// insertPartitions makes the partitions from first to total of a live topic that has
// so many, but for those that are there.
func (s *Store) insertPartitions(topic uuid.UUID, first, total int32) Stmt {
	numbers := make([]int32, 0, max(0, total-first))
	for n := first; n < total; n++ {
		numbers = append(numbers, n)
	}
	return Stmt{
		SQL: `INSERT INTO partitions (topic_id, partition, changed_version, agent_group)
			SELECT t.topic_id, i.partition, t.changed_version, t.agent_group
			FROM topics t CROSS JOIN ` + s.d.Input("i", 2, Column{"partition", Int32}) + `
			WHERE t.topic_id = $1 AND t.deleted_at IS NULL AND i.partition < t.partitions ON CONFLICT DO NOTHING`,
		Args: s.args([]any{topic[:]}, numbers),
	}
}

// lockTopic locks a live topic and returns the columns that its changes need.
func (s *Store) lockTopic(ctx context.Context, tx Runner, id uuid.UUID) (partitions int32, configs string, err error) {
	found := false
	err = tx.Run(ctx, Stmt{
		SQL:  `SELECT partitions, configs FROM topics WHERE topic_id = $1 AND agent_group = $2 AND deleted_at IS NULL ` + s.d.ForUpdate(),
		Args: []any{id[:], s.group},
		Each: func(r Row) error { found = true; return r.Scan(&partitions, &configs) },
	})
	if err == nil && !found {
		err = refuse(fmt.Errorf("%w: %s", metadata.ErrUnknownTopic, id))
	}
	return partitions, configs, err
}

// DeleteTopic implements metadata.Topics. Under the locks on its partitions no
// commit is in flight, and one that waits for them finds no partition. What hangs
// on the partitions is found through them only, and left to Prune.
func (s *Store) DeleteTopic(ctx context.Context, id uuid.UUID) error {
	return s.tx(ctx, "delete topic", func(tx Runner) error {
		if _, _, err := s.lockTopic(ctx, tx, id); err != nil {
			return err
		}
		of := []any{id[:]}
		return tx.Run(ctx,
			Stmt{
				SQL: `INSERT INTO purges (topic_id, partition)
					SELECT topic_id, partition FROM partitions WHERE topic_id = $1 ORDER BY partition ` + lockPurge,
				Args: of,
			},
			Stmt{SQL: `SELECT 1 FROM partitions WHERE topic_id = $1 ORDER BY partition ` + s.d.ForUpdate(), Args: of},
			Stmt{SQL: `DELETE FROM partitions WHERE topic_id = $1`, Args: of},
			Stmt{SQL: bumpVersion},
			Stmt{
				SQL: `UPDATE topics SET deleted_at = ` + s.d.Now() + `, changed_version = ` + versionNow + `
					WHERE topic_id = $1`,
				Args: of,
			})
	})
}

// AddPartitions implements metadata.Topics.
func (s *Store) AddPartitions(ctx context.Context, id uuid.UUID, total int32) error {
	return s.tx(ctx, "add partitions", func(tx Runner) error {
		today, _, err := s.lockTopic(ctx, tx, id)
		if err != nil {
			return err
		}
		if total <= today {
			return refuse(fmt.Errorf("%w: %d, and %d are there", metadata.ErrInvalidPartitions, total, today))
		}
		return tx.Run(ctx,
			Stmt{SQL: bumpVersion},
			Stmt{
				SQL:  `UPDATE topics SET partitions = $2, changed_version = ` + versionNow + ` WHERE topic_id = $1`,
				Args: []any{id[:], total},
			},
			s.insertPartitions(id, today, total))
	})
}

// AlterTopicConfigs implements metadata.Configs.
func (s *Store) AlterTopicConfigs(ctx context.Context, topicID uuid.UUID, c metadata.ConfigChange) error {
	return s.tx(ctx, "alter topic configs", func(tx Runner) error {
		_, stored, err := s.lockTopic(ctx, tx, topicID)
		if err != nil {
			return err
		}
		configs, err := changeConfigs(stored, c)
		if err != nil {
			return refuse(err)
		}
		if c.AgentGroup != nil && *c.AgentGroup != s.group {
			return s.moveTopic(ctx, tx, topicID, *c.AgentGroup, configs)
		}
		if configs == stored {
			return nil
		}
		return tx.Run(ctx,
			Stmt{SQL: bumpVersion},
			Stmt{
				SQL:  `UPDATE topics SET configs = $2, changed_version = ` + versionNow + ` WHERE topic_id = $1`,
				Args: []any{topicID[:], configs},
			})
	})
}

// moveTopic moves a topic that is locked to another agent group. Under the locks on
// its partitions no commit is in flight, and one that waits for them finds that its
// agent does not lead any more. With the version, the name there is free until the end
// of the transaction: whoever takes one has moved the version before.
func (s *Store) moveTopic(ctx context.Context, tx Runner, id uuid.UUID, to, configs string) error {
	if !metadata.LegalAgentGroup(to) {
		return refuse(illegalAgentGroup(to))
	}
	var taken string
	err := tx.Run(ctx,
		Stmt{SQL: `SELECT 1 FROM partitions WHERE topic_id = $1 ORDER BY partition ` + s.d.ForUpdate(), Args: []any{id[:]}},
		Stmt{SQL: bumpVersion},
		Stmt{
			SQL: `SELECT t.name FROM topics t JOIN topics own ON own.name = t.name
				WHERE own.topic_id = $1 AND t.agent_group = $2 AND t.deleted_at IS NULL`,
			Args: []any{id[:], to},
			Each: func(r Row) error { return r.Scan(&taken) },
		})
	switch {
	case err != nil:
		return err
	case taken != "":
		return refuse(fmt.Errorf("%w: %q, in the agent group %q", metadata.ErrTopicExists, taken, to))
	}
	return tx.Run(ctx,
		Stmt{
			SQL:  `UPDATE topics SET configs = $2, agent_group = $3, changed_version = ` + versionNow + ` WHERE topic_id = $1`,
			Args: []any{id[:], configs, to},
		},
		Stmt{
			SQL: `UPDATE partitions SET agent_group = $2, leader_agent_id = NULL, handed_over = false, lease_expires_at = 0,
				changed_version = ` + versionNow + ` WHERE topic_id = $1`,
			Args: []any{id[:], to},
		},
		Stmt{
			SQL: `INSERT INTO topic_moves (topic_id, agent_group, changed_version) SELECT $1, $2, version FROM cluster
				WHERE true ON CONFLICT (topic_id, agent_group) DO UPDATE SET changed_version = excluded.changed_version`,
			Args: []any{id[:], s.group},
		})
}

// clusterResource is where cluster-wide configs of other agent groups than the default
// one are kept, whose are in the row of the cluster. No resource of Kafka's has the type.
var clusterResource = metadata.Resource{Type: -1}

// AlterClusterConfigs implements metadata.Configs.
func (s *Store) AlterClusterConfigs(ctx context.Context, c metadata.ConfigChange) error {
	if s.group != metadata.DefaultAgentGroup {
		return s.AlterResourceConfigs(ctx, clusterResource, c)
	}
	return s.tx(ctx, "alter cluster configs", func(tx Runner) error {
		var configs string
		err := tx.Run(ctx, Stmt{
			SQL:  bumpVersion + ` RETURNING configs`,
			Each: func(r Row) error { return r.Scan(&configs) },
		})
		if err != nil {
			return err
		}
		if configs, err = changeConfigs(configs, c); err != nil {
			return refuse(err)
		}
		return tx.Run(ctx, Stmt{SQL: `UPDATE cluster SET configs = $1`, Args: []any{configs}})
	})
}

// AlterResourceConfigs implements metadata.Configs. The row stays when nothing is
// left in it, so that watchers learn of it.
func (s *Store) AlterResourceConfigs(ctx context.Context, res metadata.Resource, c metadata.ConfigChange) error {
	of := []any{res.Type, s.scoped(res.Name)}
	return s.tx(ctx, "alter resource configs", func(tx Runner) error {
		var configs string
		err := tx.Run(ctx,
			Stmt{
				SQL: `INSERT INTO resource_configs (resource_type, resource_name, configs, changed_version)
					VALUES ($1, $2, '{}', 0) ON CONFLICT DO NOTHING`,
				Args: of,
			},
			Stmt{
				SQL:  `SELECT configs FROM resource_configs WHERE resource_type = $1 AND resource_name = $2 ` + s.d.ForUpdate(),
				Args: of,
				Each: func(r Row) error { return r.Scan(&configs) },
			})
		if err != nil {
			return err
		}
		if configs, err = changeConfigs(configs, c); err != nil {
			return refuse(err)
		}
		return tx.Run(ctx,
			Stmt{SQL: bumpVersion},
			Stmt{
				SQL: `UPDATE resource_configs SET configs = $3, changed_version = ` + versionNow + `
					WHERE resource_type = $1 AND resource_name = $2`,
				Args: append(of[:2:2], configs),
			})
	})
}

// changeConfigs applies a change to stored configs.
func changeConfigs(stored string, c metadata.ConfigChange) (string, error) {
	configs, err := decodeConfigs(stored)
	if err != nil {
		return "", err
	}
	if configs == nil || c.Replace {
		configs = make(map[string]string, len(c.Values))
	}
	for name, value := range c.Values {
		if value != nil {
			configs[name] = *value
		} else {
			delete(configs, name)
		}
	}
	return encodeConfigs(configs)
}

func encodeConfigs(configs map[string]string) (string, error) {
	if len(configs) == 0 {
		return "{}", nil
	}
	b, err := json.Marshal(configs)
	if err != nil {
		return "", fmt.Errorf("encode configs: %w", err)
	}
	return string(b), nil
}

// decodeConfigs returns nil if nothing is set.
func decodeConfigs(stored string) (map[string]string, error) {
	if stored == "{}" {
		return nil, nil
	}
	var configs map[string]string
	if err := json.Unmarshal([]byte(stored), &configs); err != nil {
		return nil, fmt.Errorf("decode configs: %w", err)
	}
	return configs, nil
}
