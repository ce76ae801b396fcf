-- Leases. Each function locks the rows that it will change in a statement of its
-- own, sorted, and takes the time only then: an expiry that was computed before a
-- wait for a lock would be that much too early.

-- +goose Up

-- Takes each key that is free, expired, or named by the same agent. Rows of
-- living leaders are neither locked nor waited for. version is raised last
-- (metadata, lock order), and only if a key was granted.
-- +goose StatementBegin
CREATE FUNCTION acquire_leases(agent text, ttl_ms bigint, topic_ids bytea[], partition_ids integer[])
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
            SET leader_agent_id = agent, epoch = t.epoch + 1, leader_epoch = t.leader_epoch + 1,
                lease_expires_at = now_ms + ttl_ms, changed_version = new_version
            FROM unnest(free) AS f(n)
            WHERE t.topic_id = topic_ids[f.n] AND t.partition = partition_ids[f.n]
            RETURNING t.topic_id, t.partition, t.leader_epoch, t.high_watermark
        )
        INSERT INTO leader_epochs (topic_id, partition, leader_epoch, start_offset, agent_id, since)
        SELECT topic_id, partition, leader_epoch, high_watermark, agent, now_ms FROM taken;
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

-- Extends the terms that the agent still leads, in one UPDATE, and returns
-- their numbers and epochs. changed_version stays: nobody else needs to know.
-- +goose StatementBegin
CREATE FUNCTION renew_leases(agent text, ttl_ms bigint, topic_ids bytea[], partition_ids integer[], leader_epochs integer[])
RETURNS TABLE (number integer, epoch bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    expires_at bigint;
BEGIN
    PERFORM FROM unnest(topic_ids, partition_ids, leader_epochs) AS i(topic_id, partition, leader_epoch)
    JOIN partitions t ON t.topic_id = i.topic_id AND t.partition = i.partition
    WHERE t.leader_agent_id = agent AND t.leader_epoch = i.leader_epoch
    ORDER BY t.topic_id, t.partition FOR NO KEY UPDATE OF t;

    expires_at := floor(extract(epoch FROM clock_timestamp()) * 1000) + ttl_ms;
    RETURN QUERY
    UPDATE partitions t SET epoch = t.epoch + 1, lease_expires_at = expires_at
    FROM unnest(topic_ids, partition_ids, leader_epochs) WITH ORDINALITY AS i(topic_id, partition, leader_epoch, n)
    WHERE t.topic_id = i.topic_id AND t.partition = i.partition
      AND t.leader_agent_id = agent AND t.leader_epoch = i.leader_epoch
    RETURNING i.n::integer, t.epoch;
END
$$;
-- +goose StatementEnd

-- Frees the terms that the agent still leads.
-- +goose StatementBegin
CREATE FUNCTION release_leases(agent text, topic_ids bytea[], partition_ids integer[], leader_epochs integer[])
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    new_version bigint;
BEGIN
    PERFORM FROM unnest(topic_ids, partition_ids, leader_epochs) AS i(topic_id, partition, leader_epoch)
    JOIN partitions t ON t.topic_id = i.topic_id AND t.partition = i.partition
    WHERE t.leader_agent_id = agent AND t.leader_epoch = i.leader_epoch
    ORDER BY t.topic_id, t.partition FOR NO KEY UPDATE OF t;

    IF FOUND THEN
        UPDATE cluster SET version = version + 1 RETURNING version INTO new_version;
        UPDATE partitions t SET leader_agent_id = NULL, lease_expires_at = 0, changed_version = new_version
        FROM unnest(topic_ids, partition_ids, leader_epochs) AS i(topic_id, partition, leader_epoch)
        WHERE t.topic_id = i.topic_id AND t.partition = i.partition
          AND t.leader_agent_id = agent AND t.leader_epoch = i.leader_epoch;
    END IF;
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION release_leases;
DROP FUNCTION renew_leases;
DROP FUNCTION acquire_leases;
