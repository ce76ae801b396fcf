package postgres

import (
	"context"
	"fmt"

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
// will do, a standby as well. The URL is as for Open.
func Inspect(ctx context.Context, url string) (*Inspection, error) {
	common, err := new(Options).parse(url)
	if err != nil {
		return nil, fmt.Errorf("inspect metadata store: %w", err)
	}
	common.AfterConnect = nil // which judges servers by what they would keep
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
