-- The schema of the embedded store: that of postgres/00001_schema.sql, table by
-- table and column by column, with what SQLite has other means for. Times are
-- milliseconds of the machine's clock; ids are BLOBs of 16 bytes.

-- +goose Up

-- One row. version counts changes of topics, leaderships and configs; whoever
-- changes one of them stamps its row with version + 1 in the same transaction.
CREATE TABLE cluster (
    one              INT     PRIMARY KEY DEFAULT 1 CHECK (one = 1), -- INTEGER would be the rowid, without default
    cluster_id       TEXT    NOT NULL,
    version          INTEGER NOT NULL DEFAULT 1,
    configs          TEXT    NOT NULL DEFAULT '{}', -- JSON object of strings: cluster-wide broker configs
    next_producer_id INTEGER NOT NULL DEFAULT 0,
    next_node_id     INTEGER NOT NULL DEFAULT 1
) STRICT;

CREATE TABLE agents (
    agent_id     TEXT    PRIMARY KEY,
    node_id      INTEGER NOT NULL UNIQUE,
    session      BLOB,                   -- NULL: deregistered
    host         TEXT    NOT NULL,
    port         INTEGER NOT NULL,
    zone         TEXT    NOT NULL,
    agent_group  TEXT    NOT NULL,
    started_at   INTEGER NOT NULL,
    heartbeat_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE topics (
    topic_id        BLOB    PRIMARY KEY,
    name            TEXT    NOT NULL,
    partitions      INTEGER NOT NULL,
    configs         TEXT    NOT NULL DEFAULT '{}', -- JSON object of strings
    created_at      INTEGER NOT NULL,
    deleted_at      INTEGER,                       -- the row stays, so that watchers learn of it
    changed_version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX topics_name ON topics (name) WHERE deleted_at IS NULL;
CREATE INDEX topics_changed ON topics (changed_version);

-- The lease and the log's end in one row: fence and sequencer.
CREATE TABLE partitions (
    topic_id         BLOB    NOT NULL,
    partition        INTEGER NOT NULL,
    leader_agent_id  TEXT,                          -- NULL: free
    epoch            INTEGER NOT NULL DEFAULT 0,    -- acquisitions and renewals
    leader_epoch     INTEGER NOT NULL DEFAULT -1,   -- leaderships; what clients see
    lease_expires_at INTEGER NOT NULL DEFAULT 0,
    high_watermark   INTEGER NOT NULL DEFAULT 0,
    log_start_offset INTEGER NOT NULL DEFAULT 0,
    changed_version  INTEGER NOT NULL,              -- of the leadership
    PRIMARY KEY (topic_id, partition)
) STRICT, WITHOUT ROWID;
CREATE INDEX partitions_changed ON partitions (changed_version);

-- Where each leadership began (KIP-101), and who had it.
CREATE TABLE leader_epochs (
    topic_id     BLOB    NOT NULL,
    partition    INTEGER NOT NULL,
    leader_epoch INTEGER NOT NULL,
    start_offset INTEGER NOT NULL,
    agent_id     TEXT    NOT NULL,
    since        INTEGER NOT NULL,
    PRIMARY KEY (topic_id, partition, leader_epoch)
) STRICT, WITHOUT ROWID;

-- Names of objects, each either committed ('live') or claimed by a collector
-- ('deleting'). results is what the commit answered, for a retry of it: the
-- numbers of all results one after the other, as varints.
CREATE TABLE objects (
    object_id  BLOB    PRIMARY KEY,
    state      TEXT    NOT NULL CHECK (state IN ('live', 'deleting')),
    size       INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    results    BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX objects_answered ON objects (object_id) WHERE results IS NOT NULL; -- what is left to prune

-- The batch index: runs of record batches, contiguous in offsets and bytes. It
-- keeps its rowid, because inline bytes would make the nodes of a tree by
-- primary key few and deep.
CREATE TABLE extents (
    topic_id      BLOB    NOT NULL,
    partition     INTEGER NOT NULL,
    base_offset   INTEGER NOT NULL,
    end_offset    INTEGER NOT NULL,                 -- exclusive
    leader_epoch  INTEGER NOT NULL,
    max_timestamp INTEGER NOT NULL,
    append_time   INTEGER NOT NULL,                 -- -1: the client's timestamps
    object_id     BLOB,                             -- NULL: inline
    position      INTEGER NOT NULL,
    length        INTEGER NOT NULL,
    inline        BLOB,
    PRIMARY KEY (topic_id, partition, base_offset)
) STRICT;

-- A producer's last five batches in a partition (idempotence), oldest first:
-- base sequence, last sequence, base offset, append time of each, as varints.
CREATE TABLE producers (
    topic_id       BLOB    NOT NULL,
    partition      INTEGER NOT NULL,
    producer_id    INTEGER NOT NULL,
    producer_epoch INTEGER NOT NULL,
    entries        BLOB    NOT NULL,
    updated_at     INTEGER NOT NULL,
    PRIMARY KEY (topic_id, partition, producer_id)
) STRICT, WITHOUT ROWID;

-- When blocks of producer ids were given out: tells an expired producer from a
-- lost predecessor when a batch of an unknown producer does not start at 0.
CREATE TABLE producer_id_blocks (
    first_id     INTEGER PRIMARY KEY,
    end_id       INTEGER NOT NULL,                  -- exclusive
    allocated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE group_offsets (
    group_id         TEXT    NOT NULL,
    topic_id         BLOB    NOT NULL,
    partition        INTEGER NOT NULL,
    committed_offset INTEGER NOT NULL,
    leader_epoch     INTEGER NOT NULL,
    metadata         BLOB    NOT NULL,              -- the client's string, which need not be text
    committed_at     INTEGER NOT NULL,
    PRIMARY KEY (group_id, topic_id, partition)
) STRICT, WITHOUT ROWID;
CREATE INDEX group_offsets_topic ON group_offsets (topic_id, partition);

-- Partitions that have rows to be removed, in small steps, since a log may have
-- millions: all rows of a partition that is there no more, and else the extents
-- that end at or below its log start.
CREATE TABLE purges (
    topic_id  BLOB    NOT NULL,
    partition INTEGER NOT NULL,
    PRIMARY KEY (topic_id, partition)
) STRICT, WITHOUT ROWID;

-- For people: the leases as leases.
CREATE VIEW partition_leases AS
SELECT t.name AS topic, p.partition, p.leader_agent_id, p.epoch, p.leader_epoch,
       datetime(p.lease_expires_at / 1000.0, 'unixepoch', 'subsec') AS lease_expires_at
FROM partitions p LEFT JOIN topics t USING (topic_id)
WHERE p.leader_agent_id IS NOT NULL;

-- +goose Down
DROP VIEW partition_leases;
DROP TABLE purges;
DROP TABLE group_offsets;
DROP TABLE producer_id_blocks;
DROP TABLE producers;
DROP TABLE extents;
DROP TABLE objects;
DROP TABLE leader_epochs;
DROP TABLE partitions;
DROP TABLE topics;
DROP TABLE agents;
DROP TABLE cluster;
