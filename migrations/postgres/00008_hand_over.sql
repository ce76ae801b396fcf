-- A leader passes its leaderships on: what is committed under them is refused from
-- then on, and the successor finds itself named when it acquires.

-- +goose Up

-- The leadership was handed over and its leader has not acquired it yet: doing so
-- goes on in it, so that clients see one leader epoch, and not two.
ALTER TABLE partitions ADD COLUMN handed_over boolean NOT NULL DEFAULT false;

-- As before, but for handed_over.
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

-- Names the successors of the terms that the agent still leads, as acquire_leases
-- would, and returns the numbers and counters of what was handed over. Terms whose
-- successor has ended are freed: nobody would take them from it before their end.
-- The successors' rows are locked, so that one that ends meanwhile, or is buried,
-- finds what it was given.
-- +goose StatementBegin
CREATE FUNCTION hand_over_leases(agent text, ttl_ms bigint, topic_ids bytea[], partition_ids integer[], leader_epochs integer[], successors text[])
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

-- +goose Down
DROP FUNCTION hand_over_leases;
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
ALTER TABLE partitions DROP COLUMN handed_over;
