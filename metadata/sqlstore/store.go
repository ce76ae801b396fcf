package sqlstore

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// Store is the shared part of a SQL store, for one agent group. It holds no state but
// its database.
type Store struct {
	db    DB
	d     Dialect
	group string
}

// New returns the shared part of a store on a database whose schema is up to
// date. It makes the rows that every cluster and every agent group has, if they are
// not there yet; agents that start together may all do so.
func New(ctx context.Context, db DB, d Dialect, agentGroup string) (*Store, error) {
	if !metadata.LegalAgentGroup(agentGroup) {
		return nil, illegalAgentGroup(agentGroup)
	}
	s := &Store{db, d, agentGroup}
	shards := make([]int32, metadata.GroupShards)
	for n := range shards {
		shards[n] = int32(n)
	}
	shardTopic := metadata.GroupShardKey(agentGroup, 0).TopicID
	err := s.write(ctx, "initialize",
		Stmt{SQL: `INSERT INTO cluster (cluster_id) VALUES ($1) ON CONFLICT DO NOTHING`, Args: []any{newClusterID()}},
		Stmt{
			SQL: `INSERT INTO partitions (topic_id, partition, changed_version, agent_group)
				SELECT $1, i.partition, 1, $2 FROM ` + d.Input("i", 3, Column{"partition", Int32}) + `
				WHERE true ON CONFLICT DO NOTHING`,
			Args: s.args([]any{shardTopic[:], agentGroup}, shards),
		})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// On returns the store on other connections to the same database.
func (s *Store) On(db DB) *Store { return &Store{db, s.d, s.group} }

func illegalAgentGroup(name string) error {
	return fmt.Errorf("%w: %q is no name of one: up to %d of a-z, A-Z, 0-9, '.', '_', '-'",
		metadata.ErrAgentGroup, name, metadata.MaxAgentGroupLength)
}

// newClusterID returns a random id in the shape that Kafka gives its own: 22
// characters of URL-safe base64, none of which would look like a flag.
func newClusterID() string {
	for {
		id := uuid.New()
		if s := base64.RawURLEncoding.EncodeToString(id[:]); s[0] != '-' {
			return s
		}
	}
}

// Ping asks the database for a sign of life.
func (s *Store) Ping(ctx context.Context) error {
	return s.read(ctx, "ping", Stmt{SQL: `SELECT 1`})
}

// args appends an input table to the arguments of a statement.
func (s *Store) args(args []any, cols ...any) []any {
	return append(args, s.d.InputArgs(cols...)...)
}

// The columns of input tables of keys and of terms.
var (
	KeyColumns  = []Column{{"topic_id", Bytes}, {"partition", Int32}}
	TermColumns = []Column{{"topic_id", Bytes}, {"partition", Int32}, {"leader_epoch", Int32}}
)

// SplitKeys returns the slices of KeyColumns.
func SplitKeys[T any](in []T, key func(T) lease.Key) (topics [][]byte, partitions []int32) {
	topics, partitions = make([][]byte, len(in)), make([]int32, len(in))
	for i := range in {
		k := key(in[i])
		topics[i], partitions[i] = k.TopicID[:], k.Partition
	}
	return topics, partitions
}

// SplitTerms returns the slices of TermColumns.
func SplitTerms(terms []lease.Term) (topics [][]byte, partitions, leaderEpochs []int32) {
	topics, partitions = SplitKeys(terms, func(t lease.Term) lease.Key { return t.Key })
	leaderEpochs = make([]int32, len(terms))
	for i := range terms {
		leaderEpochs[i] = terms[i].LeaderEpoch
	}
	return topics, partitions, leaderEpochs
}

// SplitMoves returns the terms of moves and their successors.
func SplitMoves(moves []lease.Move) (terms []lease.Term, successors []string) {
	terms, successors = make([]lease.Term, len(moves)), make([]string, len(moves))
	for i := range moves {
		terms[i], successors[i] = moves[i].Term, moves[i].To
	}
	return terms, successors
}

// read runs queries. Whatever goes wrong on the way, nothing was changed.
func (s *Store) read(ctx context.Context, op string, stmts ...Stmt) error {
	err := s.db.Read(ctx, stmts...)
	if err == nil {
		return nil
	}
	if s.d.Classify(err) == Fault {
		return fmt.Errorf("metadata: %s: %w", op, err)
	}
	return fmt.Errorf("metadata: %s: %w: %w", op, metadata.ErrUnavailable, err)
}

// write runs statements as one transaction, again if it lost a conflict: their
// callbacks must bear that.
func (s *Store) write(ctx context.Context, op string, stmts ...Stmt) error {
	return Retry(ctx, s.d, op, func() error { return s.db.Write(ctx, stmts...) })
}

// tx runs fn as one transaction, again if it lost a conflict.
func (s *Store) tx(ctx context.Context, op string, fn func(Runner) error) error {
	return Retry(ctx, s.d, op, func() error { return s.db.Tx(ctx, fn) })
}

// Bounds of Retry: conflicts are over when the other transaction is, which is
// a matter of milliseconds.
const (
	retryAttempts = 10
	retryDelayMin = time.Millisecond
	retryDelayMax = 250 * time.Millisecond
)

// Retry runs a transaction until it does not lose a conflict, and wraps its
// error by what it means for a writer: metadata.ErrUnavailable,
// metadata.ErrUnknownOutcome, or the error of the statement.
func Retry(ctx context.Context, d Dialect, op string, transaction func() error) error {
	delay := retryDelayMin
	for attempt := 1; ; attempt++ {
		err := transaction()
		if err == nil {
			return nil
		}
		var refused *refusal
		if errors.As(err, &refused) {
			return fmt.Errorf("metadata: %s: %w", op, refused.reason)
		}
		class := d.Classify(err)
		if class == Conflict && attempt < retryAttempts && pause(ctx, delay) {
			delay = min(2*delay, retryDelayMax)
			continue
		}
		switch class {
		case Conflict, Unavailable:
			return fmt.Errorf("metadata: %s: %w: %w", op, metadata.ErrUnavailable, err)
		case Unknown:
			return fmt.Errorf("metadata: %s: %w: %w", op, metadata.ErrUnknownOutcome, err)
		default:
			return fmt.Errorf("metadata: %s: %w", op, err)
		}
	}
}

// refusal is the error of a transaction's work, and not of the database.
type refusal struct{ reason error }

func (r *refusal) Error() string { return r.reason.Error() }

// refuse ends a transaction for a reason that the caller is told; nil is none.
func refuse(reason error) error {
	if reason == nil {
		return nil
	}
	return &refusal{reason}
}

// pause waits for a random time up to about d; false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// bumpVersion moves the version of the topology. It locks the cluster's row, so
// that it comes after all other locks, and before the rows that it stamps with
// versionNow.
const (
	bumpVersion = `UPDATE cluster SET version = version + 1`
	versionNow  = `(SELECT version FROM cluster)`
)
