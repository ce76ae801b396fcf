package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/sqlstore"
)

// Inspection looks at a database, which an agent may have open. It is safe for
// concurrent use.
type Inspection struct {
	metadata.Inspector
	db *database
}

// Inspect opens the database at a path for reading only: it makes no file, and the
// schema stays as it is. The path is as for Open.
func Inspect(ctx context.Context, path string) (_ *Inspection, err error) {
	path = strings.TrimPrefix(path, Scheme)
	defer func() {
		if err != nil {
			err = fmt.Errorf("inspect metadata store %s: %w", path, err)
		}
	}()
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	settings := url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(5000)"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: settings.Encode()}).String())
	if err != nil {
		return nil, err
	}
	d, err := connect(ctx, db, 1)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &Inspection{sqlstore.NewInspector(d, dialect{}), d}, nil
}

// Close closes the database. It waits for calls under way.
func (i *Inspection) Close() error { return i.db.close() }
