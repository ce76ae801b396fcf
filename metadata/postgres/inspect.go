package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/sqlstore"
)

// Inspection looks at a database without being an agent. It is safe for
// concurrent use.
type Inspection struct {
	metadata.Inspector
	db database
}

// Inspect connects for reading only: the schema stays as it is, and any server
// will do, a standby as well. The URL is as for Open, the schema as in Options.
func Inspect(ctx context.Context, url, schema string) (*Inspection, error) {
	common, err := (&Options{Schema: schema}).parse(url)
	if err != nil {
		return nil, fmt.Errorf("inspect metadata store: %w", err)
	}
	common.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error { // whatever the server would keep
		return checkSchema(ctx, conn, schema)
	}
	pool, err := newPool(common, 1, map[string]string{
		"application_name": "streamhouse/inspect", "default_transaction_read_only": "on",
	})
	if err != nil {
		return nil, fmt.Errorf("inspect metadata store: %w", err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("inspect metadata store: %w", err)
	}
	db := database{pool}
	return &Inspection{sqlstore.NewInspector(db, dialect{}), db}, nil
}

// Close ends the connection. It waits for calls that run.
func (i *Inspection) Close() error {
	i.db.pool.Close()
	return nil
}
