-- Agent groups: every topic belongs to one, and so does every agent. Groups share a
-- database and nothing in it: each has topics, consumer groups, configs and coordinator
-- shards of its own, and only its agents are granted its leases.
--
-- '' is the default group: that of all topics made by releases that know of no groups.

-- +goose Up

-- Until now an agent's group meant nothing. From now on agents that have one would be
-- refused the leases of all topics that there are.
-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM agents WHERE session IS NOT NULL AND agent_group <> ''
               AND heartbeat_at > extract(epoch FROM clock_timestamp()) * 1000 - 60000) THEN
        RAISE EXCEPTION 'agents of an older release run with agent_group set, and would lose their topics: take it out of their settings and restart them, upgrade all, and move topics to groups then';
    END IF;
END
$$;
-- +goose StatementEnd

ALTER TABLE topics ADD COLUMN agent_group TEXT NOT NULL DEFAULT '';
CREATE UNIQUE INDEX topics_group_name ON topics (agent_group, name) WHERE deleted_at IS NULL;
DROP INDEX topics_name;

-- As of the topic, so that whoever finds the row of a partition knows whose it is, and
-- the group of a coordinator's shard.
ALTER TABLE partitions ADD COLUMN agent_group TEXT NOT NULL DEFAULT '';

-- The groups that a topic has left, so that watchers there learn of it.
CREATE TABLE topic_moves (
    topic_id        BYTEA  NOT NULL,
    agent_group     TEXT   NOT NULL,
    changed_version BIGINT NOT NULL, -- when it left the last time
    PRIMARY KEY (topic_id, agent_group)
);
CREATE INDEX topic_moves_changed ON topic_moves (agent_group, changed_version);

CREATE OR REPLACE VIEW partition_leases AS
SELECT t.name AS topic, p.partition, p.leader_agent_id, p.epoch, p.leader_epoch,
       to_timestamp(p.lease_expires_at / 1000.0) AS lease_expires_at, p.agent_group
FROM partitions p LEFT JOIN topics t USING (topic_id)
WHERE p.leader_agent_id IS NOT NULL;

-- As before, but only of the agent's own group, whatever it believes: others are not
-- there. An agent that never registered is of the default group.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION acquire_leases(agent text, ttl_ms bigint, topic_ids bytea[], partition_ids integer[])
RETURNS TABLE (known boolean, granted boolean, holder text, epoch bigint, leader_epoch integer, expires_in_ms bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    its_group   text := coalesce((SELECT agent_group FROM agents WHERE agent_id = agent), '');
    free        integer[];
    now_ms      bigint;
    new_version bigint;
BEGIN
    SELECT array_agg(l.n) INTO free FROM (
        SELECT i.n::integer AS n FROM unnest(topic_ids, partition_ids) WITH ORDINALITY AS i(topic_id, partition, n)
        JOIN partitions t ON t.topic_id = i.topic_id AND t.partition = i.partition
        WHERE t.agent_group = its_group AND (t.leader_agent_id IS NULL OR t.leader_agent_id = agent
           OR t.lease_expires_at <= floor(extract(epoch FROM clock_timestamp()) * 1000))
        ORDER BY t.topic_id, t.partition FOR NO KEY UPDATE OF t
    ) l;

    now_ms := floor(extract(epoch FROM clock_timestamp()) * 1000);
    IF free IS NOT NULL THEN
        UPDATE cluster SET version = version + 1 RETURNING version INTO new_version;
        WITH taken AS (
            UPDATE partitions t
            SET leader_agent_id = agent, epoch = t.epoch + 1, handed_over = false,
                leader_epoch = t.leader_epoch + (NOT (t.handed_over AND t.leader_agent_id IS NOT DISTINCT FROM agent))::integer,
                lease_expires_at = now_ms + ttl_ms, changed_version = new_version
            FROM unnest(free) AS f(n)
            WHERE t.topic_id = topic_ids[f.n] AND t.partition = partition_ids[f.n]
            RETURNING t.topic_id, t.partition, t.leader_epoch, t.high_watermark
        )
        INSERT INTO leader_epochs (topic_id, partition, leader_epoch, start_offset, agent_id, since)
        SELECT topic_id, partition, leader_epoch, high_watermark, agent, now_ms FROM taken
        ON CONFLICT (topic_id, partition, leader_epoch) DO NOTHING; -- of one that was handed over
    END IF;

    RETURN QUERY
    SELECT t.topic_id IS NOT NULL, coalesce(i.n = ANY(free), false), coalesce(t.leader_agent_id, ''),
           coalesce(t.epoch, 0), coalesce(t.leader_epoch, -1), coalesce(t.lease_expires_at - now_ms, 0)
    FROM unnest(topic_ids, partition_ids) WITH ORDINALITY AS i(topic_id, partition, n)
    LEFT JOIN partitions t ON t.topic_id = i.topic_id AND t.partition = i.partition AND t.agent_group = its_group
    ORDER BY i.n;
END
$$;
-- +goose StatementEnd

-- As before, but a successor of another group is none.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION hand_over_leases(agent text, ttl_ms bigint, topic_ids bytea[], partition_ids integer[], leader_epochs integer[], successors text[])
RETURNS TABLE (number integer, epoch bigint, leader_epoch integer)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    living      text[];    -- the successors that have not ended
    living_of   text[];    -- and their groups
    now_ms      bigint;
    new_version bigint;
BEGIN
    PERFORM FROM agents WHERE agent_id = ANY(successors) ORDER BY agent_id FOR NO KEY UPDATE;
    SELECT coalesce(array_agg(s.id), '{}'), coalesce(array_agg(coalesce(a.agent_group, '')), '{}') INTO living, living_of
    FROM (SELECT DISTINCT unnest(successors) AS id) s LEFT JOIN agents a ON a.agent_id = s.id
    WHERE a.agent_id IS NULL OR a.session IS NOT NULL;
    PERFORM FROM unnest(topic_ids, partition_ids, leader_epochs) AS i(topic_id, partition, leader_epoch)
    JOIN partitions t ON t.topic_id = i.topic_id AND t.partition = i.partition
    WHERE t.leader_agent_id = agent AND t.leader_epoch = i.leader_epoch
    ORDER BY t.topic_id, t.partition FOR NO KEY UPDATE OF t;
    IF NOT FOUND THEN
        RETURN;
    END IF;

    now_ms := floor(extract(epoch FROM clock_timestamp()) * 1000);
    UPDATE cluster SET version = version + 1 RETURNING version INTO new_version;
    RETURN QUERY
    WITH moved AS (
        UPDATE partitions t
        SET leader_agent_id = CASE WHEN i.lives THEN i.successor END, handed_over = i.lives, epoch = t.epoch + 1,
            leader_epoch = t.leader_epoch + i.lives::integer, lease_expires_at = CASE WHEN i.lives THEN now_ms + ttl_ms ELSE 0 END,
            changed_version = new_version
        FROM (SELECT m.*, EXISTS (SELECT FROM unnest(living, living_of) AS s(id, agent_group)
                                  WHERE s.id = m.successor AND s.agent_group = p.agent_group) AS lives
              FROM unnest(topic_ids, partition_ids, leader_epochs, successors) WITH ORDINALITY AS m(topic_id, partition, leader_epoch, successor, n)
              JOIN partitions p ON p.topic_id = m.topic_id AND p.partition = m.partition) i
        WHERE t.topic_id = i.topic_id AND t.partition = i.partition
          AND t.leader_agent_id = agent AND t.leader_epoch = i.leader_epoch
        RETURNING i.n::integer AS n, t.topic_id, t.partition, t.epoch, t.leader_epoch, t.high_watermark, t.leader_agent_id
    ), given AS (
        SELECT * FROM moved WHERE leader_agent_id IS NOT NULL
    ), recorded AS (
        INSERT INTO leader_epochs (topic_id, partition, leader_epoch, start_offset, agent_id, since)
        SELECT topic_id, partition, leader_epoch, high_watermark, leader_agent_id, now_ms FROM given
    )
    SELECT n, epoch, leader_epoch FROM given;
END
$$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION acquire_leases(agent text, ttl_ms bigint, topic_ids bytea[], partition_ids integer[])
RETURNS TABLE (known boolean, granted boolean, holder text, epoch bigint, leader_epoch integer, expires_in_ms bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    free        integer[];
    now_ms      bigint;
    new_version bigint;
BEGIN
    SELECT array_agg(l.n) INTO free FROM (
        SELECT i.n::integer AS n FROM unnest(topic_ids, partition_ids) WITH ORDINALITY AS i(topic_id, partition, n)
        JOIN partitions t ON t.topic_id = i.topic_id AND t.partition = i.partition
        WHERE t.leader_agent_id IS NULL OR t.leader_agent_id = agent
           OR t.lease_expires_at <= floor(extract(epoch FROM clock_timestamp()) * 1000)
        ORDER BY t.topic_id, t.partition FOR NO KEY UPDATE OF t
    ) l;

    now_ms := floor(extract(epoch FROM clock_timestamp()) * 1000);
    IF free IS NOT NULL THEN
        UPDATE cluster SET version = version + 1 RETURNING version INTO new_version;
        WITH taken AS (
            UPDATE partitions t
            SET leader_agent_id = agent, epoch = t.epoch + 1, handed_over = false,
                leader_epoch = t.leader_epoch + (NOT (t.handed_over AND t.leader_agent_id IS NOT DISTINCT FROM agent))::integer,
                lease_expires_at = now_ms + ttl_ms, changed_version = new_version
            FROM unnest(free) AS f(n)
            WHERE t.topic_id = topic_ids[f.n] AND t.partition = partition_ids[f.n]
            RETURNING t.topic_id, t.partition, t.leader_epoch, t.high_watermark
        )
        INSERT INTO leader_epochs (topic_id, partition, leader_epoch, start_offset, agent_id, since)
        SELECT topic_id, partition, leader_epoch, high_watermark, agent, now_ms FROM taken
        ON CONFLICT (topic_id, partition, leader_epoch) DO NOTHING; -- of one that was handed over
    END IF;

    RETURN QUERY
    SELECT t.topic_id IS NOT NULL, coalesce(i.n = ANY(free), false), coalesce(t.leader_agent_id, ''),
           coalesce(t.epoch, 0), coalesce(t.leader_epoch, -1), coalesce(t.lease_expires_at - now_ms, 0)
    FROM unnest(topic_ids, partition_ids) WITH ORDINALITY AS i(topic_id, partition, n)
    LEFT JOIN partitions t ON t.topic_id = i.topic_id AND t.partition = i.partition
    ORDER BY i.n;
END
$$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION hand_over_leases(agent text, ttl_ms bigint, topic_ids bytea[], partition_ids integer[], leader_epochs integer[], successors text[])
RETURNS TABLE (number integer, epoch bigint, leader_epoch integer)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    ended       text[];
    now_ms      bigint;
    new_version bigint;
BEGIN
    PERFORM FROM agents WHERE agent_id = ANY(successors) ORDER BY agent_id FOR NO KEY UPDATE;
    SELECT coalesce(array_agg(agent_id), '{}') INTO ended FROM agents WHERE agent_id = ANY(successors) AND session IS NULL;
    PERFORM FROM unnest(topic_ids, partition_ids, leader_epochs) AS i(topic_id, partition, leader_epoch)
    JOIN partitions t ON t.topic_id = i.topic_id AND t.partition = i.partition
    WHERE t.leader_agent_id = agent AND t.leader_epoch = i.leader_epoch
    ORDER BY t.topic_id, t.partition FOR NO KEY UPDATE OF t;
    IF NOT FOUND THEN
        RETURN;
    END IF;

    now_ms := floor(extract(epoch FROM clock_timestamp()) * 1000);
    UPDATE cluster SET version = version + 1 RETURNING version INTO new_version;
    RETURN QUERY
    WITH moved AS (
        UPDATE partitions t
        SET leader_agent_id = CASE WHEN i.lives THEN i.successor END, handed_over = i.lives, epoch = t.epoch + 1,
            leader_epoch = t.leader_epoch + i.lives::integer, lease_expires_at = CASE WHEN i.lives THEN now_ms + ttl_ms ELSE 0 END,
            changed_version = new_version
        FROM (SELECT m.*, m.successor <> ALL(ended) AS lives
              FROM unnest(topic_ids, partition_ids, leader_epochs, successors) WITH ORDINALITY AS m(topic_id, partition, leader_epoch, successor, n)) i
        WHERE t.topic_id = i.topic_id AND t.partition = i.partition
          AND t.leader_agent_id = agent AND t.leader_epoch = i.leader_epoch
        RETURNING i.n::integer AS n, t.topic_id, t.partition, t.epoch, t.leader_epoch, t.high_watermark, t.leader_agent_id
    ), given AS (
        SELECT * FROM moved WHERE leader_agent_id IS NOT NULL
    ), recorded AS (
        INSERT INTO leader_epochs (topic_id, partition, leader_epoch, start_offset, agent_id, since)
        SELECT topic_id, partition, leader_epoch, high_watermark, leader_agent_id, now_ms FROM given
    )
    SELECT n, epoch, leader_epoch FROM given;
END
$$;
-- +goose StatementEnd
DROP VIEW partition_leases;
CREATE VIEW partition_leases AS
SELECT t.name AS topic, p.partition, p.leader_agent_id, p.epoch, p.leader_epoch,
       to_timestamp(p.lease_expires_at / 1000.0) AS lease_expires_at
FROM partitions p LEFT JOIN topics t USING (topic_id)
WHERE p.leader_agent_id IS NOT NULL;
DROP TABLE topic_moves;
ALTER TABLE partitions DROP COLUMN agent_group;
CREATE UNIQUE INDEX topics_name ON topics (name) WHERE deleted_at IS NULL;
DROP INDEX topics_group_name;
ALTER TABLE topics DROP COLUMN agent_group;
