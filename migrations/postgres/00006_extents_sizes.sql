-- The size of a log is the sum of its extents' lengths. With them in the index the
-- table need not be read: 2 million extents take 0.8 s instead of 9 s.

-- +goose Up
ALTER TABLE extents DROP CONSTRAINT extents_pkey,
    ADD CONSTRAINT extents_pkey PRIMARY KEY (topic_id, partition, base_offset) INCLUDE (end_offset, length);

-- +goose Down
ALTER TABLE extents DROP CONSTRAINT extents_pkey,
    ADD CONSTRAINT extents_pkey PRIMARY KEY (topic_id, partition, base_offset);
