package postgres

import (
	"context"
	"time"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata/sqlstore"
)

// Acquire implements lease.Store.
func (s *Store) Acquire(ctx context.Context, agentID string, ttl time.Duration, keys []lease.Key) ([]lease.Result, error) {
	topicIDs, partitionIDs := sqlstore.SplitKeys(keys, func(k lease.Key) lease.Key { return k })
	results := make([]lease.Result, 0, len(keys))
	err := call(ctx, s.leases, "acquire leases", sqlstore.Stmt{
		SQL:  `SELECT known, granted, holder, epoch, leader_epoch, expires_in_ms FROM acquire_leases($1, $2, $3, $4)`,
		Args: []any{agentID, ttl.Milliseconds(), topicIDs, partitionIDs},
		Each: func(row sqlstore.Row) error {
			var (
				known, granted bool
				holder         lease.Holder
				term           = lease.Term{Key: keys[len(results)]}
				expiresInMs    int64
			)
			if err := row.Scan(&known, &granted, &holder.AgentID, &term.Epoch, &term.LeaderEpoch, &expiresInMs); err != nil {
				return err
			}
			switch {
			case granted:
				results = append(results, lease.Result{Term: term})
			case known:
				holder.LeaderEpoch = term.LeaderEpoch
				holder.ExpiresIn = time.Duration(expiresInMs) * time.Millisecond
				results = append(results, lease.Result{Err: &lease.HeldByOtherError{Key: term.Key, Holder: holder}})
			default:
				results = append(results, lease.Result{Err: lease.ErrUnknownKey})
			}
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// Renew implements lease.Store.
func (s *Store) Renew(ctx context.Context, agentID string, ttl time.Duration, terms []lease.Term) ([]lease.Term, error) {
	topicIDs, partitionIDs, leaderEpochs := sqlstore.SplitTerms(terms)
	var renewed []lease.Term
	err := call(ctx, s.leases, "renew leases", sqlstore.Stmt{
		SQL:  `SELECT number, epoch FROM renew_leases($1, $2, $3, $4, $5)`,
		Args: []any{agentID, ttl.Milliseconds(), topicIDs, partitionIDs, leaderEpochs},
		Each: func(row sqlstore.Row) error {
			var number int32
			var epoch int64
			if err := row.Scan(&number, &epoch); err != nil {
				return err
			}
			term := terms[number-1]
			term.Epoch = epoch
			renewed = append(renewed, term)
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	return renewed, nil
}

// Release implements lease.Store.
func (s *Store) Release(ctx context.Context, agentID string, terms []lease.Term) error {
	topicIDs, partitionIDs, leaderEpochs := sqlstore.SplitTerms(terms)
	return call(ctx, s.leases, "release leases", sqlstore.Stmt{
		SQL:  `SELECT release_leases($1, $2, $3, $4)`,
		Args: []any{agentID, topicIDs, partitionIDs, leaderEpochs},
	})
}

// HandOver implements lease.Store.
func (s *Store) HandOver(ctx context.Context, agentID string, ttl time.Duration, moves []lease.Move) ([]lease.Term, error) {
	terms, successors := sqlstore.SplitMoves(moves)
	topicIDs, partitionIDs, leaderEpochs := sqlstore.SplitTerms(terms)
	var given []lease.Term
	err := call(ctx, s.leases, "hand over leases", sqlstore.Stmt{
		SQL:  `SELECT number, epoch, leader_epoch FROM hand_over_leases($1, $2, $3, $4, $5, $6)`,
		Args: []any{agentID, ttl.Milliseconds(), topicIDs, partitionIDs, leaderEpochs, successors},
		Each: func(row sqlstore.Row) error {
			var number int32
			var term lease.Term
			if err := row.Scan(&number, &term.Epoch, &term.LeaderEpoch); err != nil {
				return err
			}
			term.Key = terms[number-1].Key
			given = append(given, term)
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	return given, nil
}
