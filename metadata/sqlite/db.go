package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/sqlstore"
)

// conn is a connection with the statements that were prepared on it. One
// goroutine at a time uses it. Statements are never dropped: their texts are
// those in the code.
type conn struct {
	*sql.Conn
	stmts map[string]*sql.Stmt
}

// stmt returns the statement of a text, and counts it as sent.
func (c *conn) stmt(ctx context.Context, text string) (*sql.Stmt, error) {
	metadata.CountQueries(ctx, 1)
	if s, ok := c.stmts[text]; ok {
		return s, nil
	}
	s, err := c.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	c.stmts[text] = s
	return s, nil
}

// exec runs a statement and returns how many rows it changed.
func (c *conn) exec(ctx context.Context, text string, args ...any) (int64, error) {
	s, err := c.stmt(ctx, text)
	if err != nil {
		return 0, err
	}
	res, err := s.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// get scans the only row of a query; false if there is none.
func (c *conn) get(ctx context.Context, text string, args []any, dest ...any) (bool, error) {
	s, err := c.stmt(ctx, text)
	if err != nil {
		return false, err
	}
	err = s.QueryRowContext(ctx, args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// Run implements sqlstore.Runner.
func (c *conn) Run(ctx context.Context, stmts ...sqlstore.Stmt) error {
	for i := range stmts {
		if err := c.run(ctx, &stmts[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c *conn) run(ctx context.Context, stmt *sqlstore.Stmt) error {
	if stmt.Each == nil {
		n, err := c.exec(ctx, stmt.SQL, stmt.Args...)
		if stmt.Affected != nil {
			*stmt.Affected = n
		}
		return err
	}
	s, err := c.stmt(ctx, stmt.SQL)
	if err != nil {
		return err
	}
	rows, err := s.QueryContext(ctx, stmt.Args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := stmt.Each(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// database is the connections of a store: one that writes, the others read.
// Each is in its channel while nobody uses it.
type database struct {
	db      *sql.DB
	writer  chan *conn
	readers chan *conn
}

var _ sqlstore.DB = (*database)(nil)

// connect opens the connections of a store.
func connect(ctx context.Context, db *sql.DB, readers int) (*database, error) {
	d := &database{db: db, writer: make(chan *conn, 1), readers: make(chan *conn, readers)}
	for i := range readers + 1 {
		c, err := db.Conn(ctx)
		if err != nil {
			return nil, fmt.Errorf("connect: %w", err)
		}
		if i == 0 {
			d.writer <- &conn{c, make(map[string]*sql.Stmt)}
			continue
		}
		if _, err := c.ExecContext(ctx, `PRAGMA query_only = true`); err != nil {
			return nil, fmt.Errorf("connect: %w", err)
		}
		d.readers <- &conn{c, make(map[string]*sql.Stmt)}
	}
	return d, nil
}

// close waits for the connections' users and closes the database.
func (d *database) close() error {
	var errs []error
	for range cap(d.readers) {
		errs = append(errs, (<-d.readers).close())
	}
	errs = append(errs, (<-d.writer).close(), d.db.Close())
	return errors.Join(errs...)
}

func (c *conn) close() error {
	var errs []error
	for _, s := range c.stmts {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, c.Conn.Close())...)
}

// errNotBegun marks an error that came before anything was asked for.
var errNotBegun = errors.New("no connection in time")

// take takes a connection out of its channel.
func take(ctx context.Context, from chan *conn) (*conn, error) {
	select {
	case c := <-from:
		return c, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", errNotBegun, ctx.Err())
	}
}

// Read implements sqlstore.DB.
func (d *database) Read(ctx context.Context, stmts ...sqlstore.Stmt) error {
	c, err := take(ctx, d.readers)
	if err != nil {
		return err
	}
	defer func() { d.readers <- c }()
	return c.Run(ctx, stmts...)
}

// Write implements sqlstore.DB.
func (d *database) Write(ctx context.Context, stmts ...sqlstore.Stmt) error {
	return d.write(ctx, func(ctx context.Context, c *conn) error { return c.Run(ctx, stmts...) })
}

// Tx implements sqlstore.DB.
func (d *database) Tx(ctx context.Context, fn func(sqlstore.Runner) error) error {
	return d.write(ctx, func(_ context.Context, c *conn) error { return fn(uncancelled{c}) })
}

// uncancelled runs the statements of a transaction whatever becomes of the
// caller's context, as write does.
type uncancelled struct{ c *conn }

func (u uncancelled) Run(ctx context.Context, stmts ...sqlstore.Stmt) error {
	return u.c.Run(context.WithoutCancel(ctx), stmts...)
}

// errCommit marks an error of the commit itself.
var errCommit = errors.New("commit")

// write runs fn in an IMMEDIATE transaction. Once it has begun it is not given
// up, since it takes as long as its fsync: so its outcome is known, unless the
// disk fails.
func (d *database) write(ctx context.Context, fn func(context.Context, *conn) error) error {
	c, err := take(ctx, d.writer)
	if err != nil {
		return err
	}
	defer func() { d.writer <- c }()
	ctx = context.WithoutCancel(ctx)
	if _, err := c.exec(ctx, `BEGIN IMMEDIATE`); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	if err := fn(ctx, c); err != nil {
		c.rollback(ctx)
		return err
	}
	if _, err := c.exec(ctx, `COMMIT`); err != nil {
		c.rollback(ctx)
		return fmt.Errorf("%w: %w", errCommit, err)
	}
	return nil
}

// rollback ends a transaction that failed. It fails itself if SQLite has rolled
// back already, as it does after an error of the disk.
func (c *conn) rollback(ctx context.Context) { _, _ = c.exec(ctx, `ROLLBACK`) }

// dialect is how SQLite spells it.
type dialect struct{}

var _ sqlstore.Dialect = dialect{}

// Now implements sqlstore.Dialect. The clock is this process's, as it is with
// SQLite's own functions of time; but those ask the system, and would not stand
// still where a test has time stand still.
func (dialect) Now() string { return `now_ms()` }

func init() {
	sqlite.MustRegisterScalarFunction("now_ms", 0, func(*sqlite.FunctionContext, []driver.Value) (driver.Value, error) {
		return time.Now().UnixMilli(), nil
	})
}

// ForUpdate implements sqlstore.Dialect: there is one writer.
func (dialect) ForUpdate() string { return "" }

// ForUpdateSkipLocked implements sqlstore.Dialect.
func (dialect) ForUpdateSkipLocked() string { return "" }

// Classify implements sqlstore.Dialect.
func (dialect) Classify(err error) sqlstore.Class {
	var reported *sqlite.Error
	if !errors.As(err, &reported) {
		if errors.Is(err, errNotBegun) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return sqlstore.Unavailable
		}
		return sqlstore.Fault
	}
	switch reported.Code() & 0xff {
	case sqlite3.SQLITE_IOERR:
		// A commit that failed on its way to the disk may be found there later.
		if errors.Is(err, errCommit) {
			return sqlstore.Unknown
		}
		return sqlstore.Unavailable
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM,
		sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_INTERRUPT:
		return sqlstore.Unavailable
	}
	return sqlstore.Fault
}
