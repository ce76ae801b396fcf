-- Agents speak with each other (package broker/rpc).

-- +goose Up

-- host:port at which other agents reach one; '': it speaks with nobody, as agents of
-- older releases.
ALTER TABLE agents ADD COLUMN peer_address TEXT NOT NULL DEFAULT '';

-- What agents of one cluster trust each other by.
ALTER TABLE cluster ADD COLUMN peer_secret BYTEA;

-- +goose Down
ALTER TABLE cluster DROP COLUMN peer_secret;
ALTER TABLE agents DROP COLUMN peer_address;
