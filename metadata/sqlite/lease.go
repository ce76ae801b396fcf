package sqlite

import (
	"context"
	"slices"
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

// nextVersion stamps a row; bumpVersion follows in the same transaction.
const (
	nextVersion = `(SELECT version + 1 FROM cluster)`
	bumpVersion = `UPDATE cluster SET version = version + 1`
)

// inputKeys and inputTerms are the tables that a call is about: however many rows
// they have, each step is one statement.
func inputKeys(first int) string { return dialect{}.Input("i", first, sqlstore.KeyColumns...) }

func inputTerms(first int) string { return dialect{}.Input("i", first, sqlstore.TermColumns...) }

// The statements. An UPDATE returns columns of its own table only, so that its
// rows are found by their keys.
var (
	acquireFree = `UPDATE partitions AS p
		SET leader_agent_id = $1, epoch = p.epoch + 1, handed_over = 0,
			leader_epoch = p.leader_epoch + NOT (p.handed_over AND p.leader_agent_id IS $1),
			lease_expires_at = $3, changed_version = ` + nextVersion + `
		FROM ` + inputKeys(4) + `
		WHERE p.topic_id = i.topic_id AND p.partition = i.partition
			AND (p.leader_agent_id IS NULL OR p.leader_agent_id = $1 OR p.lease_expires_at <= $2)
			AND p.agent_group = ` + groupOf("$1") + `
		RETURNING ` + termColumns
	recordEpochs = `INSERT INTO leader_epochs (topic_id, partition, leader_epoch, start_offset, agent_id, since)
		SELECT p.topic_id, p.partition, p.leader_epoch, p.high_watermark, p.leader_agent_id, $1
		FROM ` + inputKeys(2) + ` JOIN partitions p ON p.topic_id = i.topic_id AND p.partition = i.partition
		WHERE true ON CONFLICT (topic_id, partition, leader_epoch) DO NOTHING` // of one that was handed over
	findHolders = `SELECT i.ord, p.leader_agent_id, p.leader_epoch, p.lease_expires_at
		FROM ` + inputKeys(2) + ` JOIN partitions p ON p.topic_id = i.topic_id AND p.partition = i.partition
			AND p.agent_group = ` + groupOf("$1")
	renewTerms = `UPDATE partitions AS p SET epoch = p.epoch + 1, lease_expires_at = ` + dialect{}.Now() + ` + $2
		FROM ` + inputTerms(3) + ofTerms + ` RETURNING ` + termColumns
	releaseTerms = `UPDATE partitions AS p SET leader_agent_id = NULL, lease_expires_at = 0, changed_version = ` + nextVersion + `
		FROM ` + inputTerms(2) + ofTerms
	handOverTerms = `UPDATE partitions AS p
		SET leader_agent_id = i.successor, handed_over = 1, epoch = p.epoch + 1, leader_epoch = p.leader_epoch + 1,
			lease_expires_at = $2, changed_version = ` + nextVersion + `
		FROM ` + dialect{}.Input("i", 3, append(slices.Clone(sqlstore.TermColumns), sqlstore.Column{Name: "successor", Type: sqlstore.Text})...) +
		ofTerms + ` AND NOT EXISTS (SELECT 1 FROM agents a WHERE a.agent_id = i.successor AND a.session IS NULL)
			AND p.agent_group = ` + groupOf("i.successor") + `
		RETURNING ` + termColumns
)

// groupOf is the agent group of an agent, whatever it believes. One that never
// registered is of the default group.
func groupOf(agent string) string {
	return `coalesce((SELECT g.agent_group FROM agents g WHERE g.agent_id = ` + agent + `), '')`
}

// ofTerms selects the rows of the terms whose leadership goes on.
const ofTerms = ` WHERE p.topic_id = i.topic_id AND p.partition = i.partition AND p.leader_agent_id = $1 AND p.leader_epoch = i.leader_epoch`

// termColumns are what scanTerm scans.
const termColumns = `topic_id, partition, epoch, leader_epoch`

func scanTerm(r sqlstore.Row) (t lease.Term, err error) {
	err = r.Scan((*sqlstore.ID)(&t.TopicID), &t.Partition, &t.Epoch, &t.LeaderEpoch)
	return t, err
}

// Acquire implements lease.Store.
func (s *Store) Acquire(ctx context.Context, agentID string, ttl time.Duration, keys []lease.Key) ([]lease.Result, error) {
	var results []lease.Result
	err := s.transact(ctx, "acquire leases", func(ctx context.Context, c *conn) error {
		now, err := c.now(ctx)
		if err != nil {
			return err
		}
		granted, err := c.acquire(ctx, agentID, now, ttl, keys)
		if err != nil {
			return err
		}
		results = make([]lease.Result, len(keys))
		var refused []int // numbers of keys
		for i, k := range keys {
			if term, ok := granted[k]; ok {
				results[i] = lease.Result{Term: term}
			} else {
				refused = append(refused, i)
			}
		}
		return c.explain(ctx, agentID, now, keys, refused, results)
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// acquire grants the keys that are free.
func (c *conn) acquire(ctx context.Context, agentID string, now int64, ttl time.Duration, keys []lease.Key) (map[lease.Key]lease.Term, error) {
	granted := make(map[lease.Key]lease.Term, len(keys))
	var taken []lease.Key
	err := c.run(ctx, &sqlstore.Stmt{
		SQL:  acquireFree,
		Args: append([]any{agentID, now, now + ttl.Milliseconds()}, keyArgs(keys)...),
		Each: func(r sqlstore.Row) error {
			t, err := scanTerm(r)
			granted[t.Key] = t
			taken = append(taken, t.Key)
			return err
		},
	})
	if err != nil || len(taken) == 0 {
		return nil, err
	}
	return granted, c.Run(ctx,
		sqlstore.Stmt{SQL: recordEpochs, Args: append([]any{now}, keyArgs(taken)...)},
		sqlstore.Stmt{SQL: bumpVersion})
}

// explain gives the keys that were refused their results: who holds them.
func (c *conn) explain(ctx context.Context, agentID string, now int64, keys []lease.Key, refused []int, results []lease.Result) error {
	if len(refused) == 0 {
		return nil
	}
	asked := make([]lease.Key, len(refused))
	for i, n := range refused {
		asked[i] = keys[n]
		results[n] = lease.Result{Err: lease.ErrUnknownKey}
	}
	return c.run(ctx, &sqlstore.Stmt{
		SQL:  findHolders,
		Args: append([]any{agentID}, keyArgs(asked)...),
		Each: func(r sqlstore.Row) error {
			var (
				ord     int
				holder  lease.Holder
				expires int64
			)
			if err := r.Scan(&ord, &holder.AgentID, &holder.LeaderEpoch, &expires); err != nil {
				return err
			}
			holder.ExpiresIn = time.Duration(expires-now) * time.Millisecond
			results[refused[ord-1]] = lease.Result{Err: &lease.HeldByOtherError{Key: asked[ord-1], Holder: holder}}
			return nil
		},
	})
}

// Renew implements lease.Store.
func (s *Store) Renew(ctx context.Context, agentID string, ttl time.Duration, terms []lease.Term) ([]lease.Term, error) {
	var renewed []lease.Term
	err := s.transact(ctx, "renew leases", func(ctx context.Context, c *conn) error {
		renewed = make([]lease.Term, 0, len(terms))
		return c.run(ctx, &sqlstore.Stmt{
			SQL:  renewTerms,
			Args: append([]any{agentID, ttl.Milliseconds()}, termArgs(terms)...),
			Each: func(r sqlstore.Row) error {
				t, err := scanTerm(r)
				renewed = append(renewed, t)
				return err
			},
		})
	})
	if err != nil {
		return nil, err
	}
	return renewed, nil
}

// Release implements lease.Store.
func (s *Store) Release(ctx context.Context, agentID string, terms []lease.Term) error {
	return s.transact(ctx, "release leases", func(ctx context.Context, c *conn) error {
		released, err := c.exec(ctx, releaseTerms, append([]any{agentID}, termArgs(terms)...)...)
		if err != nil || released == 0 {
			return err
		}
		_, err = c.exec(ctx, bumpVersion)
		return err
	})
}

// HandOver implements lease.Store.
func (s *Store) HandOver(ctx context.Context, agentID string, ttl time.Duration, moves []lease.Move) ([]lease.Term, error) {
	terms, successors := sqlstore.SplitMoves(moves)
	topics, partitions, leaderEpochs := sqlstore.SplitTerms(terms)
	var given []lease.Term
	err := s.transact(ctx, "hand over leases", func(ctx context.Context, c *conn) error {
		given = make([]lease.Term, 0, len(moves))
		now, err := c.now(ctx)
		if err != nil {
			return err
		}
		err = c.run(ctx, &sqlstore.Stmt{
			SQL:  handOverTerms,
			Args: append([]any{agentID, now + ttl.Milliseconds()}, dialect{}.InputArgs(topics, partitions, leaderEpochs, successors)...),
			Each: func(r sqlstore.Row) error {
				t, err := scanTerm(r)
				given = append(given, t)
				return err
			},
		})
		if err != nil {
			return err
		}
		keys := make([]lease.Key, len(given))
		for i := range given {
			keys[i] = given[i].Key
		}
		return c.Run(ctx,
			sqlstore.Stmt{SQL: recordEpochs, Args: append([]any{now}, keyArgs(keys)...)},
			// What is left are terms of successors that have ended, or are of another group.
			sqlstore.Stmt{SQL: releaseTerms, Args: append([]any{agentID}, termArgs(terms)...)},
			sqlstore.Stmt{SQL: bumpVersion})
	})
	if err != nil {
		return nil, err
	}
	return given, nil
}

// keyArgs and termArgs are the arguments of inputKeys and inputTerms.
func keyArgs(keys []lease.Key) []any {
	topics, partitions := sqlstore.SplitKeys(keys, func(k lease.Key) lease.Key { return k })
	return dialect{}.InputArgs(topics, partitions)
}

func termArgs(terms []lease.Term) []any {
	return dialect{}.InputArgs(sqlstore.SplitTerms(terms))
}
