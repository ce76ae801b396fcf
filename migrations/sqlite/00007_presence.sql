-- As in the schema of a cluster; nobody challenges the only agent.

-- +goose Up
ALTER TABLE agents ADD COLUMN challenged_at INTEGER NOT NULL DEFAULT 0; -- unanswered while above heartbeat_at

-- +goose Down
ALTER TABLE agents DROP COLUMN challenged_at;
