-- The fenced commit: one call, one round trip, one transaction for any number
-- of objects, partitions and batches. The number of statements inside does not
-- grow with them; only duplicates and producers that are not known cost one each.
--
-- What makes it right, and must stay so:
--   * READ COMMITTED and VOLATILE: every statement sees what was committed before
--     that statement began. So rows are locked by one statement and read by later
--     ones; a statement that locks and reads at once would see the fresh row of
--     the partition beside stale rows of its producers.
--   * FOR NO KEY UPDATE: FOR SHARE would starve a take-over behind overlapping
--     commits, FOR KEY SHARE would not hold one off at all.
--   * The object's name goes in first. A retry waits there for its own first
--     attempt and then finds what that one answered; a collector that claims the
--     name waits as well, and one of the two loses.
--   * The primary key of extents is the backstop of the row lock.

-- +goose Up

-- The last n elements of an array.
-- +goose StatementBegin
CREATE FUNCTION newest(list anyarray, n integer) RETURNS anyarray LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT list[greatest(cardinality(list) - n + 1, 1):]
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION commit_objects(
    agent               text,
    object_ids          bytea[],     -- in the order in which they were accepted
    object_sizes        bigint[],    -- 0: all inline
    object_times        bigint[],    -- when the id was made, by the agent's clock
    topic_ids           bytea[],     -- the distinct partitions
    partition_ids       integer[],
    producer_partitions integer[],   -- the distinct producers: number of the partition
    producer_ids        bigint[],    --   and id
    batch_objects       integer[],   -- number of the object, ascending
    batch_partitions    integer[],   -- number of the partition
    batch_producers     integer[],   -- number of the producer; 0: not idempotent
    batch_leader_epochs integer[],
    batch_positions     bigint[],    -- in the object, or in payload
    batch_lengths       integer[],
    batch_records       integer[],
    batch_epochs        smallint[],  -- of the producer
    batch_sequences     integer[],
    batch_timestamps    bigint[],    -- the largest of the batch
    batch_log_append    boolean[],   -- the time of the commit is the timestamp
    payload             bytea,       -- the bytes of all inline batches
    max_age_ms          bigint,      -- metadata.CommitMaxAge
    producer_window     integer,     -- metadata.ProducerWindow
    producer_expiry_ms  bigint,      -- metadata.ProducerExpiry
    OUT outcomes        bigint[],    -- metadata.CommitOutcome, by batch
    OUT base_offsets    bigint[],
    OUT append_times    bigint[],
    OUT log_starts      bigint[]
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    committed              CONSTANT bigint := 0;
    duplicate              CONSTANT bigint := 1;
    fenced                 CONSTANT bigint := 2;
    unknown_partition      CONSTANT bigint := 3;
    out_of_order_sequence  CONSTANT bigint := 4;
    invalid_producer_epoch CONSTANT bigint := 5;
    object_claimed         CONSTANT bigint := 6;

    now_ms   bigint;
    named    bytea[];    -- the names that are new
    is_new   boolean[] := array_fill(true, ARRAY[cardinality(object_ids)]);
    earlier  record;

    -- By partition. led is the leader epoch, NULL unless the agent leads. An
    -- extent is open while the next batch may continue it.
    led           integer[];
    high          bigint[];
    starts        bigint[];
    open_extent   integer[] := array_fill(0, ARRAY[cardinality(topic_ids)]);
    open_object   integer[] := open_extent;
    open_end      bigint[]  := open_extent;
    open_append   boolean[] := array_fill(false, ARRAY[cardinality(topic_ids)]);

    -- By producer: its state, and its newest batch in this call, from which
    -- batch_before leads to older ones of the same epoch.
    epochs        smallint[];
    sequences     integer[];
    newest_batch  integer[] := array_fill(0, ARRAY[cardinality(producer_ids)]);

    -- By batch. extent is 0 unless it was accepted in this call.
    batch_before  integer[] := array_fill(0, ARRAY[cardinality(batch_objects)]);
    batch_extents integer[] := batch_before;
    extents_n     integer   := 0;

    p             integer;    -- number of the batch's partition
    pr            integer;    -- number of the batch's producer
    b             integer;    -- number of a batch before
    window_left   integer;
    end_sequence  integer;    -- of the batch, inclusive
BEGIN
    outcomes := array_fill(-1::bigint, ARRAY[cardinality(batch_objects)]);
    base_offsets := outcomes;
    append_times := outcomes;
    log_starts := outcomes;

    -- 1. The names, sorted, so that no two calls wait for each other.
    now_ms := floor(extract(epoch FROM clock_timestamp()) * 1000);
    WITH inserted AS (
        INSERT INTO objects (object_id, state, size, created_at)
        SELECT o.id, 'live', o.size, now_ms FROM unnest(object_ids, object_sizes) AS o(id, size) ORDER BY o.id
        ON CONFLICT DO NOTHING RETURNING object_id
    )
    SELECT coalesce(array_agg(object_id), '{}') INTO named FROM inserted;

    -- 2. Names that were there already: committed with these results, or claimed.
    -- A live object whose results were pruned is too old to be told about.
    IF cardinality(named) < cardinality(object_ids) THEN
        FOR earlier IN
            SELECT i.n, o.state, o.results, r.first_n, r.last_n, (r.last_n - r.first_n + 1)::integer AS batches
            FROM unnest(object_ids) WITH ORDINALITY AS i(id, n)
            JOIN (SELECT a.object, min(a.n) AS first_n, max(a.n) AS last_n
                  FROM unnest(batch_objects) WITH ORDINALITY AS a(object, n) GROUP BY a.object) r ON r.object = i.n
            LEFT JOIN objects o ON o.object_id = i.id
            WHERE i.id <> ALL(named)
        LOOP
            is_new[earlier.n] := false;
            IF earlier.state IS NULL THEN
                RAISE serialization_failure USING MESSAGE = 'the name of an object vanished during its commit';
            ELSIF earlier.results IS NOT NULL THEN
                outcomes[earlier.first_n:earlier.last_n] := earlier.results[1:earlier.batches];
                base_offsets[earlier.first_n:earlier.last_n] := earlier.results[earlier.batches + 1:2 * earlier.batches];
                append_times[earlier.first_n:earlier.last_n] := earlier.results[2 * earlier.batches + 1:3 * earlier.batches];
                log_starts[earlier.first_n:earlier.last_n] := earlier.results[3 * earlier.batches + 1:4 * earlier.batches];
            ELSE
                outcomes[earlier.first_n:earlier.last_n] := array_fill(object_claimed, ARRAY[earlier.batches]);
            END IF;
        END LOOP;
        IF cardinality(named) = 0 THEN
            RETURN;
        END IF;
    END IF;

    -- 3. The locks, sorted, and nothing else in the statement.
    PERFORM FROM unnest(topic_ids, partition_ids) AS i(topic_id, partition)
    JOIN partitions t ON t.topic_id = i.topic_id AND t.partition = i.partition
    ORDER BY t.topic_id, t.partition FOR NO KEY UPDATE OF t;

    -- 4. What the locks guard, as it is now.
    now_ms := floor(extract(epoch FROM clock_timestamp()) * 1000);
    SELECT array_agg(CASE WHEN t.leader_agent_id = agent THEN t.leader_epoch END ORDER BY i.n),
           array_agg(t.high_watermark ORDER BY i.n), array_agg(t.log_start_offset ORDER BY i.n)
    INTO led, high, starts
    FROM unnest(topic_ids, partition_ids) WITH ORDINALITY AS i(topic_id, partition, n)
    LEFT JOIN partitions t ON t.topic_id = i.topic_id AND t.partition = i.partition;

    SELECT array_agg(s.producer_epoch ORDER BY i.n),
           array_agg(s.last_sequences[cardinality(s.last_sequences)] ORDER BY i.n)
    INTO epochs, sequences
    FROM unnest(producer_partitions, producer_ids) WITH ORDINALITY AS i(p, id, n)
    LEFT JOIN producers s ON s.topic_id = topic_ids[i.p] AND s.partition = partition_ids[i.p] AND s.producer_id = i.id;

    -- 5. Each batch is accepted or refused alone, in the order of acceptance.
    FOR i IN 1..cardinality(batch_objects) LOOP
        CONTINUE WHEN NOT is_new[batch_objects[i]];
        IF object_times[batch_objects[i]] < now_ms - max_age_ms THEN
            -- It may have been committed, answered and pruned (metadata.CommitRetention).
            outcomes[i] := object_claimed;
            CONTINUE;
        END IF;
        p := batch_partitions[i];
        IF high[p] IS NULL THEN
            outcomes[i] := unknown_partition;
            CONTINUE;
        END IF;
        log_starts[i] := starts[p];
        IF led[p] IS DISTINCT FROM batch_leader_epochs[i] THEN
            outcomes[i] := fenced;
            CONTINUE;
        END IF;

        pr := batch_producers[i];
        IF pr > 0 THEN
            end_sequence := (batch_sequences[i]::bigint + batch_records[i] - 1) & 2147483647;
            IF epochs[pr] IS NULL THEN
                -- Not known here. It begins at 0, unless its state has expired or
                -- the topic is younger than it; else a batch before this one is lost.
                IF batch_sequences[i] <> 0 AND NOT EXISTS (
                    SELECT FROM producer_id_blocks k LEFT JOIN topics t ON t.topic_id = topic_ids[p]
                    WHERE k.first_id <= producer_ids[pr] AND k.end_id > producer_ids[pr]
                      AND (k.allocated_at < now_ms - producer_expiry_ms OR k.allocated_at < t.created_at)
                ) THEN
                    outcomes[i] := out_of_order_sequence;
                    CONTINUE;
                END IF;
            ELSIF batch_epochs[i] < epochs[pr] THEN
                outcomes[i] := invalid_producer_epoch;
                CONTINUE;
            ELSIF batch_epochs[i] > epochs[pr] THEN
                IF batch_sequences[i] <> 0 THEN
                    outcomes[i] := out_of_order_sequence;
                    CONTINUE;
                END IF;
                newest_batch[pr] := 0;
            ELSIF batch_sequences[i] <> (sequences[pr]::bigint + 1) & 2147483647 THEN
                -- Not the next one, so a gap, or one of the last five again: first
                -- those of this call, then those of the row.
                outcomes[i] := out_of_order_sequence;
                window_left := producer_window;
                b := newest_batch[pr];
                WHILE b > 0 AND window_left > 0 LOOP
                    IF batch_sequences[b] = batch_sequences[i] AND batch_records[b] = batch_records[i] THEN
                        outcomes[i] := duplicate;
                        base_offsets[i] := base_offsets[b];
                        append_times[i] := append_times[b];
                        EXIT;
                    END IF;
                    window_left := window_left - 1;
                    b := batch_before[b];
                END LOOP;
                CONTINUE WHEN outcomes[i] = duplicate;
                SELECT w.base_offset, w.append_time INTO earlier
                FROM producers s, unnest(s.base_sequences, s.last_sequences, s.base_offsets, s.append_times)
                    WITH ORDINALITY AS w(base_sequence, last_sequence, base_offset, append_time, n)
                WHERE s.topic_id = topic_ids[p] AND s.partition = partition_ids[p] AND s.producer_id = producer_ids[pr]
                  AND s.producer_epoch = batch_epochs[i] AND w.n > cardinality(s.base_sequences) - window_left
                  AND w.base_sequence = batch_sequences[i] AND w.last_sequence = end_sequence;
                IF FOUND THEN
                    outcomes[i] := duplicate;
                    base_offsets[i] := earlier.base_offset;
                    append_times[i] := earlier.append_time;
                END IF;
                CONTINUE;
            END IF;
            epochs[pr] := batch_epochs[i];
            sequences[pr] := end_sequence;
            batch_before[i] := newest_batch[pr];
            newest_batch[pr] := i;
        END IF;

        outcomes[i] := committed;
        base_offsets[i] := high[p];
        high[p] := high[p] + batch_records[i];
        IF batch_log_append[i] THEN
            append_times[i] := now_ms;
        END IF;

        IF open_object[p] <> batch_objects[i] OR open_append[p] <> batch_log_append[i]
            OR open_end[p] <> batch_positions[i] AND object_sizes[batch_objects[i]] > 0
        THEN
            extents_n := extents_n + 1;
            open_extent[p] := extents_n;
            open_object[p] := batch_objects[i];
            open_append[p] := batch_log_append[i];
        END IF;
        open_end[p] := batch_positions[i] + batch_lengths[i];
        batch_extents[i] := open_extent[p];
    END LOOP;

    -- 6. The rows.
    INSERT INTO extents (topic_id, partition, base_offset, end_offset, leader_epoch, max_timestamp, append_time,
                         object_id, position, length, inline)
    SELECT topic_ids[e.p], partition_ids[e.p], e.base_offset, e.end_offset, led[e.p],
           CASE WHEN e.append_time >= 0 THEN e.append_time ELSE e.max_timestamp END, e.append_time,
           CASE WHEN object_sizes[e.object] > 0 THEN object_ids[e.object] END,
           CASE WHEN object_sizes[e.object] > 0 THEN e.position ELSE 0 END, e.length, e.inline
    FROM (
        SELECT min(a.object) AS object, min(a.p) AS p,
               min(a.base_offset) AS base_offset, max(a.base_offset + a.records) AS end_offset,
               max(a.max_timestamp) AS max_timestamp, max(a.append_time) AS append_time,
               min(a.position) AS position, sum(a.length) AS length,
               string_agg(substring(payload FROM a.position::integer + 1 FOR a.length), '' ORDER BY a.base_offset)
                   FILTER (WHERE object_sizes[a.object] = 0) AS inline
        FROM unnest(batch_extents, batch_objects, batch_partitions, base_offsets, batch_records, batch_timestamps,
                    append_times, batch_positions, batch_lengths)
            AS a(extent, object, p, base_offset, records, max_timestamp, append_time, position, length)
        WHERE a.extent > 0 GROUP BY a.extent
    ) e;

    INSERT INTO producers AS s (topic_id, partition, producer_id, producer_epoch,
                                base_sequences, last_sequences, base_offsets, append_times, updated_at)
    SELECT topic_ids[producer_partitions[w.pr]], partition_ids[producer_partitions[w.pr]], producer_ids[w.pr], epochs[w.pr],
           newest(w.base_sequences, producer_window), newest(w.last_sequences, producer_window),
           newest(w.base_offsets, producer_window), newest(w.append_times, producer_window), now_ms
    FROM (
        SELECT a.pr, array_agg(a.sequence ORDER BY a.n) AS base_sequences,
               array_agg(((a.sequence::bigint + a.records - 1) & 2147483647)::integer ORDER BY a.n) AS last_sequences,
               array_agg(a.base_offset ORDER BY a.n) AS base_offsets,
               array_agg(a.append_time ORDER BY a.n) AS append_times
        FROM unnest(batch_extents, batch_producers, batch_epochs, batch_sequences, batch_records, base_offsets, append_times)
            WITH ORDINALITY AS a(extent, pr, epoch, sequence, records, base_offset, append_time, n)
        WHERE a.extent > 0 AND a.pr > 0 AND a.epoch = epochs[a.pr] GROUP BY a.pr
    ) w
    ON CONFLICT (topic_id, partition, producer_id) DO UPDATE
    SET producer_epoch = excluded.producer_epoch, updated_at = excluded.updated_at,
        base_sequences = newest(CASE WHEN s.producer_epoch = excluded.producer_epoch THEN s.base_sequences END
                                || excluded.base_sequences, producer_window),
        last_sequences = newest(CASE WHEN s.producer_epoch = excluded.producer_epoch THEN s.last_sequences END
                                || excluded.last_sequences, producer_window),
        base_offsets = newest(CASE WHEN s.producer_epoch = excluded.producer_epoch THEN s.base_offsets END
                              || excluded.base_offsets, producer_window),
        append_times = newest(CASE WHEN s.producer_epoch = excluded.producer_epoch THEN s.append_times END
                              || excluded.append_times, producer_window);

    UPDATE partitions t SET high_watermark = i.high
    FROM unnest(topic_ids, partition_ids, high) AS i(topic_id, partition, high)
    WHERE t.topic_id = i.topic_id AND t.partition = i.partition AND t.high_watermark <> i.high;

    -- 7. The answer, kept for a retry.
    UPDATE objects o SET results = r.results
    FROM (
        SELECT a.object, array_agg(a.outcome ORDER BY a.n) || array_agg(a.base_offset ORDER BY a.n)
                      || array_agg(a.append_time ORDER BY a.n) || array_agg(a.log_start ORDER BY a.n) AS results
        FROM unnest(batch_objects, outcomes, base_offsets, append_times, log_starts)
            WITH ORDINALITY AS a(object, outcome, base_offset, append_time, log_start, n)
        WHERE is_new[a.object] GROUP BY a.object
    ) r
    WHERE o.object_id = object_ids[r.object];
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION commit_objects;
DROP FUNCTION newest;
