package sqlstore

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// Topology implements metadata.Topics.
//
// The version is read before what it stands for: a row that was stamped with it
// or less is visible to the second round trip, because its transaction held
// the cluster's row until it had committed. A row stamped with more may be seen
// as well, and is then seen again in the next call.
func (s *Store) Topology(ctx context.Context, since int64) (*metadata.Topology, error) {
	t := new(metadata.Topology)
	if err := s.read(ctx, "topology", s.clusterStmt(t)); err != nil {
		return nil, err
	}
	if t.Version == since {
		return t, nil
	}
	if since > t.Version {
		since = 0 // not a version of this database: begin again
	}
	if err := s.read(ctx, "topology", s.topicsStmt(t, since), s.movesStmt(t, since), s.leadersStmt(t, since), s.resourcesStmt(t, since)); err != nil {
		return nil, err
	}
	return t, nil
}

// clusterStmt fills in all but what has changed.
func (s *Store) clusterStmt(t *metadata.Topology) Stmt {
	configs, args := `c.configs`, []any{metadata.AgentListedFor.Milliseconds(), s.group}
	if s.group != metadata.DefaultAgentGroup {
		configs = `coalesce((SELECT r.configs FROM resource_configs r WHERE r.resource_type = $3 AND r.resource_name = $4), '{}')`
		args = append(args, clusterResource.Type, s.scoped(clusterResource.Name))
	}
	return Stmt{
		SQL: `SELECT c.cluster_id, c.version, ` + configs + `,
				(SELECT count(*) FROM agents WHERE session IS NOT NULL AND heartbeat_at > ` + s.d.Now() + ` - $1), coalesce(a.agent_id, ''), coalesce(a.node_id, 0), a.session,
				coalesce(a.host, ''), coalesce(a.port, 0), coalesce(a.zone, ''), coalesce(a.agent_group, ''), coalesce(a.peer_address, ''),
				coalesce(` + s.d.Now() + ` - a.heartbeat_at, 0)
			FROM cluster c LEFT JOIN agents a
				ON a.session IS NOT NULL AND a.heartbeat_at > ` + s.d.Now() + ` - $1 AND a.agent_group = $2
			ORDER BY a.node_id`,
		Args: args,
		Each: func(r Row) error {
			var (
				a       metadata.Agent
				configs string
				session []byte
				age     int64
			)
			err := r.Scan(&t.ClusterID, &t.Version, &configs, &t.Sharing, &a.ID, &a.NodeID, &session,
				&a.Host, &a.Port, &a.Zone, &a.Group, &a.PeerAddress, &age)
			if err != nil {
				return err
			}
			if t.Configs, err = decodeConfigs(configs); err != nil || session == nil {
				return err
			}
			if a.Session, err = uuid.FromBytes(session); err != nil {
				return err
			}
			a.HeartbeatAge = time.Duration(age) * time.Millisecond
			t.Agents = append(t.Agents, a)
			return nil
		},
	}
}

func (s *Store) topicsStmt(t *metadata.Topology, since int64) Stmt {
	return Stmt{
		SQL: `SELECT topic_id, name, partitions, configs, deleted_at IS NOT NULL FROM topics
			WHERE changed_version > $1 AND (deleted_at IS NULL OR $1 > 0) AND agent_group = $2 ORDER BY name`,
		Args: []any{since, s.group},
		Each: func(r Row) error {
			var (
				topic   metadata.Topic
				configs string
				deleted bool
			)
			if err := r.Scan((*ID)(&topic.ID), &topic.Name, &topic.Partitions, &configs, &deleted); err != nil {
				return err
			}
			if deleted {
				t.Deleted = append(t.Deleted, topic.ID)
				return nil
			}
			var err error
			topic.Configs, err = decodeConfigs(configs)
			t.Topics = append(t.Topics, topic)
			return err
		},
	}
}

// movesStmt finds the topics that have left the agent group.
func (s *Store) movesStmt(t *metadata.Topology, since int64) Stmt {
	return Stmt{
		SQL: `SELECT m.topic_id FROM topic_moves m JOIN topics t ON t.topic_id = m.topic_id
			WHERE m.agent_group = $2 AND m.changed_version > $1 AND $1 > 0 AND t.agent_group <> $2`,
		Args: []any{since, s.group},
		Each: func(r Row) error {
			var id uuid.UUID
			err := r.Scan((*ID)(&id))
			t.Deleted = append(t.Deleted, id)
			return err
		},
	}
}

func (s *Store) leadersStmt(t *metadata.Topology, since int64) Stmt {
	return Stmt{
		SQL: `SELECT topic_id, partition, coalesce(leader_agent_id, ''), leader_epoch FROM partitions
			WHERE changed_version > $1 AND leader_epoch >= 0 AND agent_group = $2 ORDER BY topic_id, partition`,
		Args: []any{since, s.group},
		Each: func(r Row) error {
			var (
				k lease.Key
				l metadata.Leader
			)
			if err := r.Scan((*ID)(&k.TopicID), &k.Partition, &l.AgentID, &l.LeaderEpoch); err != nil {
				return err
			}
			l.Key = k
			if metadata.IsShard(k) {
				t.Shards = append(t.Shards, l)
			} else {
				t.Leaders = append(t.Leaders, l)
			}
			return nil
		},
	}
}

func (s *Store) resourcesStmt(t *metadata.Topology, since int64) Stmt {
	return Stmt{
		SQL: `SELECT resource_type, resource_name, configs FROM resource_configs
			WHERE changed_version > $1 AND (configs <> '{}' OR $1 > 0) ORDER BY resource_type, resource_name`,
		Args: []any{since},
		Each: func(r Row) error {
			var (
				res          metadata.ResourceConfigs
				key, configs string
			)
			err := r.Scan(&res.Type, &key, &configs)
			if err != nil {
				return err
			}
			name, own := s.unscoped(key)
			if !own || res.Type == clusterResource.Type {
				return nil
			}
			res.Name = name
			res.Configs, err = decodeConfigs(configs)
			t.Resources = append(t.Resources, res)
			return err
		},
	}
}
