-- Which agents can't be reached by which others (metadata.Agents.Report). A report
-- that is older than the session of either of the two says nothing any more.

-- +goose Up
CREATE TABLE reports (
    agent_id    TEXT    NOT NULL, -- who can't be reached
    reporter_id TEXT    NOT NULL, -- by whom
    reported_at INTEGER NOT NULL,
    PRIMARY KEY (agent_id, reporter_id)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE reports;
