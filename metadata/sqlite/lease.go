package sqlite

import (
	"context"
	"time"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata/sqlstore"
)

// transact runs fn as one transaction that is a call of the store.
func (s *Store) transact(ctx context.Context, op string, fn func(context.Context, *conn) error) error {
	return sqlstore.Retry(ctx, dialect{}, op, func() error { return s.db.write(ctx, fn) })
}

// now reads the store's clock, in ms.
func (c *conn) now(ctx context.Context) (now int64, err error) {
	_, err = c.get(ctx, `SELECT `+dialect{}.Now(), nil, &now)
	return now, err
}

// Acquire implements lease.Store.
func (s *Store) Acquire(ctx context.Context, agentID string, ttl time.Duration, keys []lease.Key) ([]lease.Result, error) {
	results := make([]lease.Result, len(keys))
	err := s.transact(ctx, "acquire leases", func(ctx context.Context, c *conn) error {
		now, err := c.now(ctx)
		if err != nil {
			return err
		}
		granted := false
		for i, k := range keys {
			if results[i], err = c.acquire(ctx, agentID, now, ttl, k); err != nil {
				return err
			}
			granted = granted || results[i].Err == nil
		}
		if !granted {
			return nil
		}
		_, err = c.exec(ctx, bumpVersion)
		return err
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// nextVersion stamps a row; bumpVersion follows in the same transaction.
const (
	nextVersion = `(SELECT version + 1 FROM cluster)`
	bumpVersion = `UPDATE cluster SET version = version + 1`
)

// acquire grants or refuses one key.
func (c *conn) acquire(ctx context.Context, agentID string, now int64, ttl time.Duration, k lease.Key) (lease.Result, error) {
	term := lease.Term{Key: k}
	granted, err := c.get(ctx, `UPDATE partitions
		SET leader_agent_id = $1, epoch = epoch + 1, leader_epoch = leader_epoch + 1,
			lease_expires_at = $3, changed_version = `+nextVersion+`
		WHERE topic_id = $4 AND partition = $5
			AND (leader_agent_id IS NULL OR leader_agent_id = $1 OR lease_expires_at <= $2)
		RETURNING epoch, leader_epoch`,
		[]any{agentID, now, now + ttl.Milliseconds(), k.TopicID[:], k.Partition}, &term.Epoch, &term.LeaderEpoch)
	if err != nil {
		return lease.Result{}, err
	}
	if granted {
		_, err := c.exec(ctx, `INSERT INTO leader_epochs (topic_id, partition, leader_epoch, start_offset, agent_id, since)
			SELECT topic_id, partition, leader_epoch, high_watermark, leader_agent_id, $3
			FROM partitions WHERE topic_id = $1 AND partition = $2`, k.TopicID[:], k.Partition, now)
		return lease.Result{Term: term}, err
	}
	var (
		holder  lease.Holder
		expires int64
	)
	known, err := c.get(ctx, `SELECT leader_agent_id, leader_epoch, lease_expires_at FROM partitions
		WHERE topic_id = $1 AND partition = $2`,
		[]any{k.TopicID[:], k.Partition}, &holder.AgentID, &holder.LeaderEpoch, &expires)
	if err != nil {
		return lease.Result{}, err
	}
	if !known {
		return lease.Result{Err: lease.ErrUnknownKey}, nil
	}
	holder.ExpiresIn = time.Duration(expires-now) * time.Millisecond
	return lease.Result{Err: &lease.HeldByOtherError{Key: k, Holder: holder}}, nil
}

// ofTerm selects the row of a term whose leadership goes on.
const ofTerm = ` WHERE topic_id = $1 AND partition = $2 AND leader_agent_id = $3 AND leader_epoch = $4`

func termArgs(agentID string, t *lease.Term) []any {
	return []any{t.TopicID[:], t.Partition, agentID, t.LeaderEpoch}
}

// Renew implements lease.Store.
func (s *Store) Renew(ctx context.Context, agentID string, ttl time.Duration, terms []lease.Term) ([]lease.Term, error) {
	var renewed []lease.Term
	err := s.transact(ctx, "renew leases", func(ctx context.Context, c *conn) error {
		renewed = make([]lease.Term, 0, len(terms))
		now, err := c.now(ctx)
		if err != nil {
			return err
		}
		for i := range terms {
			t := terms[i]
			led, err := c.get(ctx, `UPDATE partitions SET epoch = epoch + 1, lease_expires_at = $5`+ofTerm+` RETURNING epoch`,
				append(termArgs(agentID, &t), now+ttl.Milliseconds()), &t.Epoch)
			if err != nil {
				return err
			}
			if led {
				renewed = append(renewed, t)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return renewed, nil
}

// Release implements lease.Store.
func (s *Store) Release(ctx context.Context, agentID string, terms []lease.Term) error {
	return s.transact(ctx, "release leases", func(ctx context.Context, c *conn) error {
		released := int64(0)
		for i := range terms {
			n, err := c.exec(ctx, `UPDATE partitions SET leader_agent_id = NULL, lease_expires_at = 0,
				changed_version = `+nextVersion+ofTerm, termArgs(agentID, &terms[i])...)
			if err != nil {
				return err
			}
			released += n
		}
		if released == 0 {
			return nil
		}
		_, err := c.exec(ctx, bumpVersion)
		return err
	})
}
