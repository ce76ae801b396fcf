-- Configs of what is neither a topic nor the whole cluster.

-- +goose Up

CREATE TABLE resource_configs (
    resource_type   INTEGER NOT NULL, -- Kafka's numbers (ConfigResource.Type): 4 a broker, 16 client metrics, 32 a group
    resource_name   TEXT    NOT NULL,
    configs         TEXT    NOT NULL, -- JSON object of strings; the row stays when it is empty, so that watchers learn of it
    changed_version INTEGER NOT NULL,
    PRIMARY KEY (resource_type, resource_name)
) STRICT, WITHOUT ROWID;
CREATE INDEX resource_configs_changed ON resource_configs (changed_version);

-- +goose Down
DROP TABLE resource_configs;
