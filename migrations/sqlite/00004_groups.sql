-- Groups: what their coordinators must not forget. As in Postgres.

-- +goose Up

CREATE TABLE groups (
    group_id   TEXT    PRIMARY KEY,
    shard      INTEGER NOT NULL,        -- -1: any, of groups that are older than this table
    record     TEXT    NOT NULL,        -- JSON: the group as package group writes it; empty: it has offsets and nothing else
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX groups_shard ON groups (shard);

INSERT INTO groups (group_id, shard, record, updated_at)
SELECT group_id, -1, '', max(committed_at) FROM group_offsets GROUP BY group_id;

-- +goose Down
DROP TABLE groups;
