-- The leadership was handed over and its leader has not acquired it yet: doing so
-- goes on in it, so that clients see one leader epoch, and not two.

-- +goose Up
ALTER TABLE partitions ADD COLUMN handed_over INTEGER NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE partitions DROP COLUMN handed_over;
