package lease

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Key names one thing that can be leased: a partition of a topic, or a shard
// of a coordinator, which is a partition of a reserved topic id.
type Key struct {
	TopicID   uuid.UUID
	Partition int32
}

// String renders the key for logs.
func (k Key) String() string { return fmt.Sprintf("%s-%d", k.TopicID, k.Partition) }

// Compare orders keys by topic id and partition. It is the lock order of every
// statement that locks more than one partition.
func (k Key) Compare(o Key) int {
	if c := bytes.Compare(k.TopicID[:], o.TopicID[:]); c != 0 {
		return c
	}
	return cmp.Compare(k.Partition, o.Partition)
}

// Term is one leadership of a key: what a commit, a renewal and a release name.
type Term struct {
	Key
	Epoch       int64 // acquisitions and renewals so far; moves at every renewal
	LeaderEpoch int32 // leaderships so far; fixed for the life of the term
}

// Holder says who has a lease that could not be acquired.
type Holder struct {
	AgentID     string
	LeaderEpoch int32
	ExpiresIn   time.Duration // by the store's clock when it answered; may be negative
}

// Result is the outcome of one key of Store.Acquire.
type Result struct {
	Term Term // the granted term, valid if Err is nil
	// Err is nil, a *HeldByOtherError, or ErrUnknownKey.
	Err error
}

// ErrLeaseHeldByOther matches every *HeldByOtherError.
var ErrLeaseHeldByOther = errors.New("lease is held by another agent")

// ErrUnknownKey says that the store has no such partition (any more).
var ErrUnknownKey = errors.New("no such partition")

// Causes with which a lease's context ends.
var (
	ErrExpired  = errors.New("lease expired before it could be renewed")
	ErrTaken    = errors.New("lease was taken by another agent")
	ErrFenced   = errors.New("a commit was fenced")
	ErrReleased = errors.New("lease was released")
	// ErrNotSequenced is of borrowed leases alone.
	ErrNotSequenced = errors.New("the holder of a borrowed lease did not commit")
)

// HeldByOtherError says that a lease was not granted, and who has it.
type HeldByOtherError struct {
	Key    Key
	Holder Holder
}

func (e *HeldByOtherError) Error() string {
	return fmt.Sprintf("lease of %s is held by agent %q in leader epoch %d", e.Key, e.Holder.AgentID, e.Holder.LeaderEpoch)
}

// Is makes errors.Is(err, ErrLeaseHeldByOther) hold.
func (e *HeldByOtherError) Is(target error) bool { return target == ErrLeaseHeldByOther }

// Store is the durable side of leases. All methods are safe for concurrent
// use, act atomically, take a number of round trips that does not depend on
// the number of keys, and lock rows in the order of Key.Compare.
type Store interface {
	// Acquire tries to take each key for the agent until ttl from now by the
	// store's clock. A key is granted if it is free, expired, or named by the
	// same agent id (an earlier life of this agent): one compare-and-set, Epoch
	// and LeaderEpoch each one higher; see HandOver for the exception. A key of another
	// agent group than the one that the agent has registered in is unknown, whatever the
	// agent believes. The results are in the order of keys.
	// An error means that the outcome is unknown: acquire again.
	Acquire(ctx context.Context, agentID string, ttl time.Duration, keys []Key) ([]Result, error)

	// Renew extends every term of which the agent is still the leader, expired
	// or not, to ttl from now and raises its Epoch. It returns the terms that
	// were renewed; one that is missing from the answer is lost.
	Renew(ctx context.Context, agentID string, ttl time.Duration, terms []Term) ([]Term, error)

	// Release frees the terms of which the agent is still the leader. Others
	// are left alone.
	Release(ctx context.Context, agentID string, terms []Term) error

	// HandOver makes the terms of which the agent is still the leader those of
	// the agents that the moves name, until ttl from now: one compare-and-set for
	// each, Epoch and LeaderEpoch each one higher. It returns the successors'
	// terms; a move that is missing from the answer was lost before, or its lease is
	// free since the successor has ended or is of another agent group. A successor's first Acquire goes on in that
	// LeaderEpoch. An error means that the outcome is unknown: acquire again.
	HandOver(ctx context.Context, agentID string, ttl time.Duration, moves []Move) ([]Term, error)
}
