// Package migrations is the schema of the metadata stores, as numbered steps of
// SQL for each database, and what brings a database up to date with it.
//
// Steps are only ever added, and are additive: an agent of the release before
// works on the newer schema, so that a cluster is upgraded one agent at a time.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed postgres/*.sql sqlite/*.sql
var files embed.FS

// Dialect names a database.
type Dialect uint8

// The databases.
const (
	Postgres Dialect = iota
	SQLite
)

// How long Up waits for another agent that migrates the same database.
const (
	lockRetrySeconds = 1
	lockRetries      = 60
)

// Up applies the steps that the database lacks, each in a transaction. Agents
// that start together do so one after the other, in Postgres by an advisory
// lock that is held by a session: db must not go through a pooler that shares
// sessions. A SQLite database has one agent at a time, which is not ensured here.
func Up(ctx context.Context, db *sql.DB, d Dialect) error {
	var (
		dialect goose.Dialect
		folder  string
		options []goose.ProviderOption
	)
	switch d {
	case Postgres:
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(lockRetrySeconds, lockRetries))
		if err != nil {
			return fmt.Errorf("migrate: %w", err)
		}
		dialect, folder = goose.DialectPostgres, "postgres"
		options = append(options, goose.WithSessionLocker(locker))
	case SQLite:
		dialect, folder = goose.DialectSQLite3, "sqlite"
	}
	steps, err := fs.Sub(files, folder)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	provider, err := goose.NewProvider(dialect, db, steps, options...)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}
