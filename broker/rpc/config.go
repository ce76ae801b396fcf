package rpc

import (
	"context"
	"net"
	"time"

	"github.com/streamhouse/streamhouse/metadata"
)

// Config says how an agent speaks with others. The zero value is usable.
type Config struct {
	// Secret is what all agents of the cluster share, at least MinSecretBytes; nil:
	// the one that the metadata store keeps.
	Secret []byte
	// Files, if they are set, take the place of a secret.
	Files Files
	// Dial connects to an agent's host:port until ctx ends; nil: over TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Traffic, if set, is told of bytes that connections have carried from and to
	// agents of a zone, TLS included. It must not block.
	Traffic func(zone string, in, out int64)
	// Unreached, if set, is told of an agent that can't be reached any more. It must not
	// block.
	Unreached func(agentID string)
}

// Cluster is the view of the cluster.
type Cluster interface {
	// Agent finds a listed agent.
	Agent(id string) (metadata.Agent, bool)
	// Refresh makes the view one from after the call. However many ask, the store is
	// asked a few times a second at most.
	Refresh(ctx context.Context) error
}

// What one agent may ask of another.
const (
	// MaxCommitBatches bounds the batches of one commit, of all its objects together.
	MaxCommitBatches = 1 << 16
	// MaxBlockBytes bounds the bytes of one block.
	MaxBlockBytes = 16 << 20
	// MaxFollowed bounds the keys that one stream follows at a time.
	MaxFollowed = 1 << 16

	maxCommitBytes = 4 << 20   // of an encoded commit, or of its results
	maxFrameBytes  = 256 << 10 // of one message of a stream

	maxConnections    = 1024
	maxCallsInAll     = 512 // of each kind that are answered at a time
	maxCallsOfPeer    = 64
	maxStreamsOfPeer  = 100 // of one connection, of HTTP/2
	maxHeaderBytes    = 8 << 10
	maxErrorTextBytes = 1 << 10
)

// Times. They are generous where being wrong costs an agent its peer, and short
// where waiting is vain.
const (
	// LifeInterval is the time between two messages of a stream at the longest: an
	// agent that has no news says so.
	LifeInterval = 200 * time.Millisecond

	dialTimeout      = 2 * time.Second // TCP and TLS, each
	commitTimeout    = 10 * time.Second
	blockTimeout     = 5 * time.Second
	followTimeout    = 2 * time.Second // until a stream begins, and from one message to the next
	writeTimeout     = 5 * time.Second // of one message of a stream
	pingTimeout      = time.Second
	probeInterval    = 500 * time.Millisecond
	quietUntilPing   = 500 * time.Millisecond  // of a connection
	pingAnswerWithin = 1500 * time.Millisecond // or the connection is given up
	idleTimeout      = 30 * time.Second
	goneAfter        = 10 * time.Second // of a peer that has left the view, until its connections are closed
	shutdownTimeout  = 500 * time.Millisecond
	flushTime        = 20 * time.Millisecond // in which net/http sends what it has taken
	complaintPause   = time.Minute           // between two lines of the log about strangers
)

func (c *Config) dial(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if c.Dial != nil {
		return c.Dial(ctx, address)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

func (c *Config) traffic(zone string, in, out int64) {
	if c.Traffic != nil {
		c.Traffic(zone, in, out)
	}
}
