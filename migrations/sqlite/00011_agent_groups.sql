-- Agent groups, as in the schema of a cluster.

-- +goose Up
ALTER TABLE topics ADD COLUMN agent_group TEXT NOT NULL DEFAULT '';
CREATE UNIQUE INDEX topics_group_name ON topics (agent_group, name) WHERE deleted_at IS NULL;
DROP INDEX topics_name;

-- As of the topic, and the group of a coordinator's shard.
ALTER TABLE partitions ADD COLUMN agent_group TEXT NOT NULL DEFAULT '';

-- The groups that a topic has left, so that watchers there learn of it.
CREATE TABLE topic_moves (
    topic_id        BLOB    NOT NULL,
    agent_group     TEXT    NOT NULL,
    changed_version INTEGER NOT NULL, -- when it left the last time
    PRIMARY KEY (topic_id, agent_group)
) STRICT, WITHOUT ROWID;
CREATE INDEX topic_moves_changed ON topic_moves (agent_group, changed_version);

DROP VIEW partition_leases;
CREATE VIEW partition_leases AS
SELECT t.name AS topic, p.partition, p.leader_agent_id, p.epoch, p.leader_epoch,
       datetime(p.lease_expires_at / 1000.0, 'unixepoch', 'subsec') AS lease_expires_at, p.agent_group
FROM partitions p LEFT JOIN topics t USING (topic_id)
WHERE p.leader_agent_id IS NOT NULL;

-- +goose Down
DROP VIEW partition_leases;
CREATE VIEW partition_leases AS
SELECT t.name AS topic, p.partition, p.leader_agent_id, p.epoch, p.leader_epoch,
       datetime(p.lease_expires_at / 1000.0, 'unixepoch', 'subsec') AS lease_expires_at
FROM partitions p LEFT JOIN topics t USING (topic_id)
WHERE p.leader_agent_id IS NOT NULL;
DROP TABLE topic_moves;
ALTER TABLE partitions DROP COLUMN agent_group;
CREATE UNIQUE INDEX topics_name ON topics (name) WHERE deleted_at IS NULL;
DROP INDEX topics_group_name;
ALTER TABLE topics DROP COLUMN agent_group;
