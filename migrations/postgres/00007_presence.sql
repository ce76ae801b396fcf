-- How dead agents are told from slow ones. An agent that attends holds an
-- advisory lock for as long as its session lives (metadata.Agents).

-- +goose Up

ALTER TABLE agents
    ADD COLUMN attended_session BYTEA,                      -- the last that has held its lock and answers challenges
    ADD COLUMN challenged_at    BIGINT NOT NULL DEFAULT 0;  -- unanswered while above heartbeat_at

-- On which server an agent's session has held its lock. Unlogged: it is empty after
-- a crash, as is the server's table of locks. (When a process of the server crashes,
-- all sessions end and it recovers, but its start time stays.) It is empty after a
-- fail-over too. A server that was stopped is told by its start time.
CREATE UNLOGGED TABLE attendances (
    agent_id TEXT PRIMARY KEY,
    session  BYTEA       NOT NULL,
    server   TIMESTAMPTZ NOT NULL   -- its start
) WITH (fillfactor = 50);

-- A burial frees all leases of one agent. Commits and renewals leave the column alone.
CREATE INDEX partitions_leader ON partitions (leader_agent_id) WHERE leader_agent_id IS NOT NULL;

-- Ends a session for which nothing speaks any more, and frees the leases of its
-- agent. Returns metadata.Burial: 0 the agent may be alive, 1 its lock was free,
-- 2 it did not answer a challenge, 3 the session had ended before. A server that
-- starts has no locks, so that a free one says something only of a session that
-- has held it there since.
--
-- The connections of the session are ended: one of them may be inside of a
-- statement and hold locks that are wanted here.
-- +goose StatementBegin
CREATE FUNCTION bury_agent(agent text, its_session bytea, its_lock bigint, its_connections text,
                           patience_ms bigint) RETURNS integer
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    life        agents%ROWTYPE;
    now_ms      bigint;
    evidence    integer;
    new_version bigint;
BEGIN
    SELECT * INTO life FROM agents WHERE agent_id = agent FOR NO KEY UPDATE;
    IF life.session IS DISTINCT FROM its_session THEN
        RETURN 3;
    ELSIF life.attended_session IS DISTINCT FROM its_session THEN
        RETURN 0;
    END IF;
    now_ms := floor(extract(epoch FROM clock_timestamp()) * 1000);
    PERFORM FROM attendances
    WHERE agent_id = agent AND session = its_session AND server = pg_postmaster_start_time();
    IF FOUND AND pg_try_advisory_xact_lock(its_lock) THEN
        evidence := 1;
    ELSIF life.heartbeat_at < life.challenged_at AND life.challenged_at <= now_ms - patience_ms THEN
        evidence := 2;
    ELSE
        RETURN 0;
    END IF;

    BEGIN
        PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE starts_with(application_name, its_connections) AND datname = current_database();
    EXCEPTION WHEN insufficient_privilege THEN
        NULL; -- they are another role's: they end by themselves, and the fence holds anyway
    END;
    UPDATE agents SET session = NULL, attended_session = NULL WHERE agent_id = agent;
    PERFORM FROM partitions WHERE leader_agent_id = agent ORDER BY topic_id, partition FOR NO KEY UPDATE;
    IF FOUND THEN
        UPDATE cluster SET version = version + 1 RETURNING version INTO new_version;
        UPDATE partitions SET leader_agent_id = NULL, lease_expires_at = 0, changed_version = new_version
        WHERE leader_agent_id = agent;
    END IF;
    RETURN evidence;
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION bury_agent;
DROP INDEX partitions_leader;
DROP TABLE attendances;
ALTER TABLE agents DROP COLUMN attended_session, DROP COLUMN challenged_at;
