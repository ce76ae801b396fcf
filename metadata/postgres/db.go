package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/sqlstore"
)

// callTimeout bounds a call whose caller has no deadline, also where the server
// is frozen and its statement_timeout with it.
const callTimeout = 15 * time.Second

// rollbackTimeout bounds the goodbye to a transaction whose caller may be gone.
const rollbackTimeout = time.Second

// Marks of the errors that the server did not report itself. What has neither
// these marks nor is the server's report is an error of the caller's own.
var (
	errNothingDone = errors.New("nothing was changed")              // nothing could have been committed yet
	errNoAnswer    = errors.New("no answer from the database came") // whatever was asked may be done
)

// database is the sqlstore.DB on one pool.
type database struct{ pool *pgxpool.Pool }

var _ sqlstore.DB = database{}

// use runs fn with a connection of the pool.
func (d database) use(ctx context.Context, fn func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w: %w", errNothingDone, err)
	}
	defer conn.Release()
	return fn(ctx, conn.Conn())
}

// Read implements sqlstore.DB.
func (d database) Read(ctx context.Context, stmts ...sqlstore.Stmt) error {
	return d.Write(ctx, stmts...)
}

// Write implements sqlstore.DB: a pipelined batch is one implicit transaction.
func (d database) Write(ctx context.Context, stmts ...sqlstore.Stmt) error {
	return d.use(ctx, func(ctx context.Context, conn *pgx.Conn) error { return run(ctx, conn, stmts) })
}

// Tx implements sqlstore.DB.
func (d database) Tx(ctx context.Context, fn func(sqlstore.Runner) error) error {
	return d.use(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		tx, err := conn.Begin(ctx)
		if err != nil {
			return fmt.Errorf("begin: %w: %w", errNothingDone, err)
		}
		if err := fn(open{conn}); err != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
			defer cancel()
			_ = tx.Rollback(ctx) // if it fails, the connection is closed, which rolls back too
			return err
		}
		return mark(tx.Commit(ctx))
	})
}

// open is a connection inside of a transaction: an error of its means that
// nothing will be committed.
type open struct{ conn *pgx.Conn }

// Run implements sqlstore.Runner.
func (o open) Run(ctx context.Context, stmts ...sqlstore.Stmt) error {
	err := run(ctx, o.conn, stmts)
	if err != nil && classify(err) == sqlstore.Unknown {
		return fmt.Errorf("%w: %w", errNothingDone, err)
	}
	return err
}

// run sends statements in one round trip and hands the answers to them.
func run(ctx context.Context, conn *pgx.Conn, stmts []sqlstore.Stmt) error {
	metadata.CountQueries(ctx, len(stmts))
	if len(stmts) == 1 {
		rows, err := conn.Query(ctx, stmts[0].SQL, stmts[0].Args...)
		if err != nil {
			return mark(err)
		}
		return deliver(rows, &stmts[0])
	}
	batch := &pgx.Batch{}
	for i := range stmts {
		batch.Queue(stmts[i].SQL, stmts[i].Args...)
	}
	answers := conn.SendBatch(ctx, batch)
	for i := range stmts {
		rows, err := answers.Query()
		if err != nil {
			err = mark(err)
		} else {
			err = deliver(rows, &stmts[i])
		}
		if err != nil {
			_ = answers.Close() // the batch is over; what comes now is a consequence
			return err
		}
	}
	return mark(answers.Close())
}

// mark marks an error of the driver that is not the server's report.
func mark(err error) error {
	var reported *pgconn.PgError
	switch {
	case err == nil, errors.As(err, &reported):
		return err
	case pgconn.SafeToRetry(err):
		return fmt.Errorf("%w: %w", errNothingDone, err)
	default:
		return fmt.Errorf("%w: %w", errNoAnswer, err)
	}
}

// deliver hands an answer to its statement.
func deliver(rows pgx.Rows, stmt *sqlstore.Stmt) error {
	defer rows.Close()
	for rows.Next() {
		if stmt.Each == nil {
			continue
		}
		if err := stmt.Each(rows); err != nil {
			return err
		}
	}
	if stmt.Affected != nil {
		*stmt.Affected = rows.CommandTag().RowsAffected()
	}
	return mark(rows.Err())
}
