package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Reasons to refuse a connection of a cluster that has a schema.
var (
	errNoSchema    = errors.New("it does not exist, or the role may not use it")
	errOtherSchema = errors.New("the server searches others, as behind some poolers: connect to it directly")
)

// schemaLock is the advisory lock of who makes a schema: of two at once, one fails.
const schemaLock = 0x73747265616d6873 // "streamhs"

// createSchema makes the schema of the cluster if it is missing.
func (o *Options) createSchema(ctx context.Context, common *pgxpool.Config) error {
	if o.Schema == "" {
		return nil
	}
	conn, err := pgx.ConnectConfig(ctx, common.ConnConfig.Copy())
	if err != nil {
		return err
	}
	defer closeConn(conn)
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(schemaLock)); err != nil {
			return err
		}
		var there bool
		err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)`, o.Schema).Scan(&there)
		if err != nil || there { // who may not make schemas may use one
			return err
		}
		_, err = tx.Exec(ctx, `CREATE SCHEMA `+pgx.Identifier{o.Schema}.Sanitize())
		return err
	})
}

// checkSchema refuses a connection on which names are not those of the schema alone.
func checkSchema(ctx context.Context, conn *pgx.Conn, schema string) error {
	if schema == "" {
		return nil
	}
	var searched []string
	if err := conn.QueryRow(ctx, `SELECT current_schemas(false)::text[]`).Scan(&searched); err != nil {
		return err
	}
	switch {
	case len(searched) == 0:
		return fmt.Errorf("schema %q: %w", schema, errNoSchema)
	case len(searched) > 1 || searched[0] != schema:
		return fmt.Errorf("schema %q: %w", schema, errOtherSchema)
	}
	return nil
}
