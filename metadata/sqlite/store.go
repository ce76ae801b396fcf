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
	"sync"
	"syscall"

	"modernc.org/sqlite"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/sqlstore"
	"github.com/streamhouse/streamhouse/migrations"
)

// Scheme begins the URL of a store of this package.
const Scheme = "sqlite://"

// ErrInUse says that another process has the database open.
var ErrInUse = errors.New("the database is in use by another agent")

// readers is how many queries run at once.
const readers = 4

// minVersion is the first SQLite whose WAL cannot be corrupted by a reset that
// races with a checkpoint (its WAL-reset bug).
var minVersion = [3]int{3, 51, 3}

// Store is a metadata store in a file, for one agent group. It is safe for concurrent
// use.
type Store struct {
	*sqlstore.Store
	db    *database
	close func() error
}

var _ metadata.Store = (*Store)(nil)

// Open opens the database at a path, which may have the form sqlite://path, for the
// default agent group; it makes the file, its folder and the schema where they are
// missing. ErrInUse if another process has it.
func Open(ctx context.Context, path string) (_ *Store, err error) {
	path = strings.TrimPrefix(path, Scheme)
	defer func() {
		if err != nil {
			err = fmt.Errorf("open metadata store %s: %w", path, err)
		}
	}()
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	s, err := open(ctx, path)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s.close = sync.OnceValue(func() error { return errors.Join(s.db.close(), lock.Close()) })
	return s, nil
}

// ForAgentGroup returns the store of an agent group in the same file. Close of either
// closes both.
func (s *Store) ForAgentGroup(ctx context.Context, agentGroup string) (*Store, error) {
	shared, err := sqlstore.New(ctx, s.db, dialect{}, agentGroup)
	if err != nil {
		return nil, err
	}
	return &Store{Store: shared, db: s.db, close: s.close}, nil
}

// lockFile takes the lock that keeps other processes out. The system gives it
// up when the process ends, however it does.
func lockFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = fmt.Errorf("%w (it holds %s): give each agent a data folder of its own, or use PostgreSQL for several", ErrInUse, name)
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// open opens a database that this process has for itself.
func open(ctx context.Context, path string) (*Store, error) {
	// fdatasync is what SQLite uses wherever it is built by its own makefile.
	if _, err := sqlite.Fdatasync(true); err != nil && !errors.Is(err, sqlite.ErrFdatasyncUnavailable) {
		return nil, err
	}
	db, err := sql.Open("sqlite", dsn(path))
	if err != nil {
		return nil, err
	}
	s, err := prepare(ctx, db)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// dsn names the file and the settings of every connection.
func dsn(path string) string {
	settings := url.Values{"_pragma": {
		"busy_timeout(5000)", // ms; for people with the sqlite3 shell
		"journal_mode(WAL)",
		"synchronous(FULL)",            // a commit is durable when it returns
		"wal_autocheckpoint(4000)",     // pages: every 16 MiB
		"journal_size_limit(67108864)", // bytes that a log keeps after a burst
		"cache_size(-16384)",           // KiB, of each connection
	}}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: settings.Encode()}).String()
}

func prepare(ctx context.Context, db *sql.DB) (*Store, error) {
	if err := checkVersion(ctx, db); err != nil {
		return nil, err
	}
	if err := migrations.Up(ctx, db, migrations.SQLite); err != nil {
		return nil, err
	}
	d, err := connect(ctx, db, readers)
	if err != nil {
		return nil, err
	}
	shared, err := sqlstore.New(ctx, d, dialect{}, metadata.DefaultAgentGroup)
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return &Store{Store: shared, db: d}, nil
}

func checkVersion(ctx context.Context, db *sql.DB) error {
	var (
		text    string
		version [3]int
	)
	if err := db.QueryRowContext(ctx, `SELECT sqlite_version()`).Scan(&text); err != nil {
		return err
	}
	if _, err := fmt.Sscanf(text, "%d.%d.%d", &version[0], &version[1], &version[2]); err != nil {
		return fmt.Errorf("SQLite's version %q: %w", text, err)
	}
	for i, n := range version {
		if n != minVersion[i] {
			if n < minVersion[i] {
				return fmt.Errorf("SQLite %s is too old: its write-ahead log may corrupt; 3.51.3 or newer is needed", text)
			}
			break
		}
	}
	return nil
}

// Close implements metadata.Store. It waits for calls under way; a second one
// does nothing more.
func (s *Store) Close() error { return s.close() }
