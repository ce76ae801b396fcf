package fetch

import (
	"errors"
	"time"
)

// Config tunes a Reader. The zero value of a field means its default.
type Config struct {
	// CacheBytes bounds what is cached of objects, be they written here or read
	// from the store. A quarter of it more is the bound for inline batches.
	// Default 256 MiB.
	CacheBytes int64
	// BlockBytes is the size of a block, the unit of caching and of the ranges
	// that are read from the object store. Default 512 KiB.
	BlockBytes int64
	// ReadAheadBlocks is how many blocks behind a sequential reader's position
	// are loaded before they are asked for. Default 4; negative: none.
	ReadAheadBlocks int
	// ConcurrentGets bounds the ranged GETs that are under way. Default 32.
	ConcurrentGets int
	// PollInterval is how often the index is asked for what is new in partitions
	// that other agents lead while somebody waits for it. Default 200 ms.
	PollInterval time.Duration
	// LoadTimeout bounds one shared load from the object store. Default 30 s.
	LoadTimeout time.Duration
	// Peers, if not nil, are the other agents, whose feeds are followed.
	Peers Peers
	// FeedFresh is how long a feed is believed to be complete after it was last
	// heard. Default 500 ms.
	FeedFresh time.Duration
	// Zone, if not nil, is the cache that the agents of this agent's zone share.
	Zone Zone
}

func (c Config) withDefaults() Config {
	def := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.CacheBytes, 256<<20)
	def(&c.BlockBytes, 512<<10)
	if c.ReadAheadBlocks == 0 {
		c.ReadAheadBlocks = 4
	}
	if c.ConcurrentGets == 0 {
		c.ConcurrentGets = 32
	}
	if c.PollInterval == 0 {
		c.PollInterval = 200 * time.Millisecond
	}
	if c.LoadTimeout == 0 {
		c.LoadTimeout = 30 * time.Second
	}
	if c.FeedFresh == 0 {
		c.FeedFresh = 500 * time.Millisecond
	}
	return c
}

// Errors of one partition of a fetch. The others in the request are served.
var (
	// ErrOffsetOutOfRange says that the offset is not in the log, as the index
	// has it now.
	ErrOffsetOutOfRange = errors.New("offset is out of the log's range")
	// ErrStorage says that the bytes could not be read now.
	ErrStorage = errors.New("records could not be read from the object store")
	// ErrCorrupt says that the stored bytes are not those that were written.
	ErrCorrupt = errors.New("stored records are corrupt")
)
