package testdb

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Transactions returns how many transactions a database has ended, by its server's
// own statistics: sessions that fall silent report after ten seconds. It asks
// through another database, so that it is not counted itself.
func Transactions(t testing.TB, database string) (n int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	config, err := pgx.ParseConfig(database)
	if err != nil {
		t.Fatalf("testdb: %v", err)
	}
	name := config.Database
	config.Database = "postgres"
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatalf("testdb: %v", err)
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, `SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = $1`, name).Scan(&n)
	if err != nil {
		t.Fatalf("testdb: statistics of %s: %v", name, err)
	}
	return n
}
