package ingest

import (
	"errors"
	"time"
)

// Config sets the limits and the budgets of a Pool.
type Config struct {
	// MaxBytes, MaxBatches and MaxPartitions seal the buffer as soon as one of
	// them is reached. The batch that reaches MaxBytes is still part of it.
	MaxBytes      int64
	MaxBatches    int
	MaxPartitions int

	// PutsPerSecond is the rate of uploads that the agent may have on average,
	// which is money, and PutBurst how many it may have at once after a quiet
	// time. While that lasts, buffers are flushed without waiting.
	PutsPerSecond float64
	PutBurst      float64
	// MaxLinger is the longest time that a batch waits for the budget of
	// uploads, or for the pace of commits. A buffer that is flushed because of
	// it, or because it is full, overdraws the budget.
	MaxLinger time.Duration

	// CommitSpacing is the time between two commits for each other agent that
	// commits to the metadata store, under steady load of many producers. It bounds
	// what all agents together ask of the store: about one commit in
	// CommitSpacing. Not so after a quiet time, or where nobody else is to be
	// waited for. It is also the time between two commits that are made for other
	// agents alone. 0 is no bound.
	CommitSpacing time.Duration

	// InlineMaxBytes is the largest flush that may be kept in the index instead
	// of an object. 0 switches inline flushes off.
	InlineMaxBytes int64
	// InlineBytesPerSecond is the rate of bytes that may go into the index on
	// average, and InlineBurst how many may at once after a quiet time.
	InlineBytesPerSecond float64
	InlineBurst          float64

	// MaxUploads is how many objects are encoded and uploaded at a time.
	MaxUploads int
	// UploadTimeout bounds the upload of one object, with its retries.
	UploadTimeout time.Duration
	// MaxBufferedBytes bounds the batches that are in the pool, from Add to
	// their answers. An object being uploaded holds its bytes once more.
	MaxBufferedBytes int64

	// CommitTimeout bounds one attempt of a commit.
	CommitTimeout time.Duration
	// CommitDeadline is how long after its acceptance a batch is failed if the
	// metadata store is unavailable. A commit whose outcome is unknown has no
	// deadline.
	CommitDeadline time.Duration
	// RemoteTimeout is how long the holder of a borrowed lease is asked for a
	// commit before the metadata store is asked what became of it.
	RemoteTimeout time.Duration
}

// DefaultConfig returns the configuration for a bucket that bills its PUTs.
func DefaultConfig() Config {
	return Config{
		MaxBytes:             8 << 20,
		MaxBatches:           8192,
		MaxPartitions:        1024,
		PutsPerSecond:        40,
		PutBurst:             80,
		MaxLinger:            250 * time.Millisecond,
		CommitSpacing:        16 * time.Millisecond,
		InlineMaxBytes:       16 << 10,
		InlineBytesPerSecond: 256 << 10,
		InlineBurst:          32 << 20,
		MaxUploads:           8,
		UploadTimeout:        20 * time.Second,
		MaxBufferedBytes:     512 << 20,
		CommitTimeout:        10 * time.Second,
		CommitDeadline:       20 * time.Second,
		RemoteTimeout:        5 * time.Second,
	}
}

// Validate says what is wrong with the configuration, if anything.
func (c *Config) Validate() error {
	switch {
	case c.MaxBytes <= 0 || c.MaxBatches <= 0 || c.MaxPartitions <= 0:
		return errors.New("ingest: the limits of a flush must be positive")
	case c.PutsPerSecond <= 0 || c.PutBurst < 1:
		return errors.New("ingest: the budget of uploads must allow at least one")
	case c.InlineMaxBytes < 0 || c.InlineMaxBytes > 0 && c.InlineBytesPerSecond <= 0:
		return errors.New("ingest: the budget of inline bytes must be positive")
	case c.InlineBurst < float64(c.InlineMaxBytes):
		return errors.New("ingest: the burst of inline bytes must allow the largest inline flush")
	case c.MaxUploads <= 0 || c.MaxBufferedBytes < c.MaxBytes:
		return errors.New("ingest: the pool must have room for a full buffer and its upload")
	case c.CommitSpacing < 0:
		return errors.New("ingest: the spacing of commits must not be negative")
	case c.MaxLinger <= 0 || c.UploadTimeout <= 0 || c.CommitTimeout <= 0 || c.CommitDeadline <= 0 || c.RemoteTimeout <= 0:
		return errors.New("ingest: every time must be positive")
	}
	return nil
}
