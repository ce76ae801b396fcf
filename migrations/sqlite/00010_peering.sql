-- Agents speak with each other (package broker/rpc). An embedded agent has no peers;
-- the columns keep one SQL text for both databases.

-- +goose Up
ALTER TABLE agents ADD COLUMN peer_address TEXT NOT NULL DEFAULT '';
ALTER TABLE cluster ADD COLUMN peer_secret BLOB;

-- +goose Down
ALTER TABLE cluster DROP COLUMN peer_secret;
ALTER TABLE agents DROP COLUMN peer_address;
