package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/sqlstore"
	"github.com/streamhouse/streamhouse/migrations"
)

// Options of a store.
type Options struct {
	// AgentID and Session are part of the application_name of every session.
	AgentID string
	Session uuid.UUID
	// AgentGroup is that of the agent. The store shows nothing of others.
	AgentGroup string
	// Schema is where the cluster's tables are, all of them; it is made if it is
	// missing. "" is the first of the search path. Clusters in different schemas of a
	// database have nothing in common.
	Schema string

	// CommitConns is how many commits run at once; 0 means 4. The commits of
	// one partition wait for one another anyway.
	CommitConns int32
	// OtherConns is how many of all other calls run at once; 0 means 6.
	// What keeps an agent and its leases alive has four connections of its own,
	// of which one must be direct: its session is the agent's sign of life.
	OtherConns int32

	// Log gets what becomes of the server between connections; nil drops it.
	Log *slog.Logger
	// HistoryChanged is called when a new connection finds the database on another
	// timeline, or another database, than the one before; nil calls nobody.
	HistoryChanged func()

	// AllowUnsafe accepts a server with fsync=off, which loses acknowledged
	// records when its machine fails: for tests. So does allow_unsafe=true in
	// the URL.
	AllowUnsafe bool
}

const (
	defaultCommitConns = 4
	defaultOtherConns  = 6
	leaseConns         = 3

	allowUnsafeParameter = "allow_unsafe"
)

// Store is the metadata in a PostgreSQL database, for one agent group. It is safe for
// concurrent use.
type Store struct {
	*sqlstore.Store
	commits, leases, others database
	register                *sqlstore.Store // the register of agents, by the connections of leases
	common                  *pgxpool.Config // of every connection
	agentGroup              string
}

var _ metadata.Store = (*Store)(nil)

// Open connects to the database, brings its schema up to date and returns the
// store. The URL is any that libpq knows. A server that would not keep what it acknowledges is refused.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	common, err := o.parse(url)
	if err != nil {
		return nil, fmt.Errorf("open metadata store: %w", err)
	}
	if err := o.createSchema(ctx, common); err != nil {
		return nil, fmt.Errorf("open metadata store: %w", err)
	}
	if err := migrate(ctx, common); err != nil {
		return nil, fmt.Errorf("open metadata store: %w", err)
	}
	s := &Store{common: common, agentGroup: o.AgentGroup}
	for _, p := range []struct {
		db       *database
		size     int32
		settings map[string]string
	}{
		{&s.commits, cmp.Or(o.CommitConns, defaultCommitConns), planSettings},
		{&s.leases, leaseConns, planSettings},
		{&s.others, cmp.Or(o.OtherConns, defaultOtherConns), nil},
	} {
		if p.db.pool, err = newPool(common, p.size, p.settings); err != nil {
			return nil, errors.Join(fmt.Errorf("open metadata store: %w", err), s.Close())
		}
	}
	if s.Store, err = sqlstore.New(ctx, s.others, dialect{}, o.AgentGroup); err != nil {
		return nil, errors.Join(fmt.Errorf("open metadata store: %w", err), s.Close())
	}
	s.register = s.Store.On(s.leases)
	return s, nil
}

// migrate brings the schema up to date, on a connection of its own: it may take
// longer than any statement of an agent.
func migrate(ctx context.Context, common *pgxpool.Config) error {
	cfg := common.ConnConfig.Copy()
	cfg.RuntimeParams["statement_timeout"] = "0"
	cfg.RuntimeParams["idle_in_transaction_session_timeout"] = "0"
	db := stdlib.OpenDB(*cfg, stdlib.OptionAfterConnect(common.AfterConnect))
	return errors.Join(migrations.Up(ctx, db, migrations.Postgres), db.Close())
}

// Close implements metadata.Store. It waits for calls that run.
func (s *Store) Close() error {
	for _, db := range []database{s.commits, s.leases, s.others} {
		if db.pool != nil {
			db.pool.Close()
		}
	}
	return nil
}

// call runs one statement as a transaction, again if it lost a conflict.
func call(ctx context.Context, db database, op string, stmt sqlstore.Stmt) error {
	return sqlstore.Retry(ctx, dialect{}, op, func() error { return db.Write(ctx, stmt) })
}
