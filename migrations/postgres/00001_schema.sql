-- The schema of a cluster. Times are BIGINT milliseconds of the database's
-- clock; ids are BYTEA of 16 bytes, made by the agents. There are no foreign
-- keys: the row lock on a partition guards all that hangs on it, and a foreign
-- key's check would take a second lock for every row of a commit.

-- +goose Up

-- One row. version counts changes of topics, leaderships and configs; whoever
-- changes one of them stamps its row with version + 1 under this row's lock, so
-- that "changed_version > what I saw" misses nothing.
CREATE TABLE cluster (
    one              BOOLEAN PRIMARY KEY DEFAULT true CHECK (one),
    cluster_id       TEXT   NOT NULL,
    version          BIGINT NOT NULL DEFAULT 1,
    configs          TEXT   NOT NULL DEFAULT '{}', -- JSON object of strings: cluster-wide broker configs
    next_producer_id BIGINT NOT NULL DEFAULT 0,
    next_node_id     INTEGER NOT NULL DEFAULT 1
);

CREATE TABLE agents (
    agent_id     TEXT PRIMARY KEY,
    node_id      INTEGER NOT NULL UNIQUE,
    session      BYTEA,                 -- NULL: deregistered
    host         TEXT NOT NULL,
    port         INTEGER NOT NULL,
    zone         TEXT NOT NULL,
    agent_group  TEXT NOT NULL,
    started_at   BIGINT NOT NULL,
    heartbeat_at BIGINT NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE topics (
    topic_id        BYTEA PRIMARY KEY,
    name            TEXT NOT NULL,
    partitions      INTEGER NOT NULL,
    configs         TEXT NOT NULL DEFAULT '{}',   -- JSON object of strings
    created_at      BIGINT NOT NULL,
    deleted_at      BIGINT,                       -- the row stays, so that watchers learn of it
    changed_version BIGINT NOT NULL
);
CREATE UNIQUE INDEX topics_name ON topics (name) WHERE deleted_at IS NULL;
CREATE INDEX topics_changed ON topics (changed_version);

-- The lease and the log's end in one row: one lock is fence and sequencer.
-- Commits and renewals change no indexed column, so their updates are HOT.
CREATE TABLE partitions (
    topic_id         BYTEA   NOT NULL,
    partition        INTEGER NOT NULL,
    leader_agent_id  TEXT,                          -- NULL: free
    epoch            BIGINT  NOT NULL DEFAULT 0,    -- acquisitions and renewals
    leader_epoch     INTEGER NOT NULL DEFAULT -1,   -- leaderships; what clients see
    lease_expires_at BIGINT  NOT NULL DEFAULT 0,
    high_watermark   BIGINT  NOT NULL DEFAULT 0,
    log_start_offset BIGINT  NOT NULL DEFAULT 0,
    changed_version  BIGINT  NOT NULL,              -- of the leadership
    PRIMARY KEY (topic_id, partition)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0,
        autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX partitions_changed ON partitions (changed_version);

-- Where each leadership began (KIP-101), and who had it.
CREATE TABLE leader_epochs (
    topic_id     BYTEA   NOT NULL,
    partition    INTEGER NOT NULL,
    leader_epoch INTEGER NOT NULL,
    start_offset BIGINT  NOT NULL,
    agent_id     TEXT    NOT NULL,
    since        BIGINT  NOT NULL,
    PRIMARY KEY (topic_id, partition, leader_epoch)
);

-- Names of objects, each either committed ('live') or claimed by a collector
-- ('deleting'). results is what the commit answered, for a retry of it.
CREATE TABLE objects (
    object_id  BYTEA PRIMARY KEY,
    state      TEXT   NOT NULL CHECK (state IN ('live', 'deleting')),
    size       BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    results    BIGINT[]
);
CREATE INDEX objects_answered ON objects (object_id) WHERE results IS NOT NULL; -- what is left to prune

-- The batch index: runs of record batches, contiguous in offsets and bytes.
CREATE TABLE extents (
    topic_id      BYTEA   NOT NULL,
    partition     INTEGER NOT NULL,
    base_offset   BIGINT  NOT NULL,
    end_offset    BIGINT  NOT NULL,                 -- exclusive
    leader_epoch  INTEGER NOT NULL,
    max_timestamp BIGINT  NOT NULL,
    append_time   BIGINT  NOT NULL,                 -- -1: the client's timestamps
    object_id     BYTEA,                            -- NULL: inline
    position      BIGINT  NOT NULL,
    length        BIGINT  NOT NULL,
    inline        BYTEA,
    PRIMARY KEY (topic_id, partition, base_offset)
);

-- A producer's last five batches in a partition (idempotence), newest last, as
-- parallel arrays. Guarded by the partition's row lock.
CREATE TABLE producers (
    topic_id       BYTEA    NOT NULL,
    partition      INTEGER  NOT NULL,
    producer_id    BIGINT   NOT NULL,
    producer_epoch SMALLINT NOT NULL,
    base_sequences INTEGER[] NOT NULL,
    last_sequences INTEGER[] NOT NULL,
    base_offsets   BIGINT[]  NOT NULL,
    append_times   BIGINT[]  NOT NULL,
    updated_at     BIGINT   NOT NULL,
    PRIMARY KEY (topic_id, partition, producer_id)
) WITH (fillfactor = 50);

-- When blocks of producer ids were given out: tells an expired producer from a
-- lost predecessor when a batch of an unknown producer does not start at 0.
CREATE TABLE producer_id_blocks (
    first_id     BIGINT PRIMARY KEY,
    end_id       BIGINT NOT NULL,                   -- exclusive
    allocated_at BIGINT NOT NULL
);

CREATE TABLE group_offsets (
    group_id         TEXT    NOT NULL,
    topic_id         BYTEA   NOT NULL,
    partition        INTEGER NOT NULL,
    committed_offset BIGINT  NOT NULL,
    leader_epoch     INTEGER NOT NULL,
    metadata         BYTEA   NOT NULL,              -- the client's string, which need not be text
    committed_at     BIGINT  NOT NULL,
    PRIMARY KEY (group_id, topic_id, partition)
) WITH (fillfactor = 50);
CREATE INDEX group_offsets_topic ON group_offsets (topic_id, partition);

-- Partitions that have rows to be removed, in small steps, since a log may have
-- millions: all rows of a partition that is there no more, and else the extents
-- that end at or below its log start.
CREATE TABLE purges (
    topic_id  BYTEA   NOT NULL,
    partition INTEGER NOT NULL,
    PRIMARY KEY (topic_id, partition)
);

-- For people: the leases as leases.
CREATE VIEW partition_leases AS
SELECT t.name AS topic, p.partition, p.leader_agent_id, p.epoch, p.leader_epoch,
       to_timestamp(p.lease_expires_at / 1000.0) AS lease_expires_at
FROM partitions p LEFT JOIN topics t USING (topic_id)
WHERE p.leader_agent_id IS NOT NULL;

-- +goose Down
DROP VIEW partition_leases;
DROP TABLE purges, group_offsets, producer_id_blocks, producers, extents, objects, leader_epochs,
    partitions, topics, agents, cluster;
