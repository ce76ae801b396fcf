package bench

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse/internal/testdb"
)

func TestDatabaseStatistics(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	postgres := testdb.StartPostgres(t, "shared_preload_libraries=pg_stat_statements")
	database := postgres.Database()
	statistics, err := OpenDatabaseStatistics(ctx, database, postgres.Database())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := statistics.Close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	}()
	client, err := pgx.Connect(ctx, database)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close(context.WithoutCancel(ctx))
	execute := func(statement string) {
		if _, err := client.Exec(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	read := func() DatabaseUse {
		use, err := statistics.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return use
	}
	execute("CREATE TABLE numbers (n integer)")
	before := read()
	for range 3 {
		execute("INSERT INTO numbers VALUES (1)")
	}
	// A function counts as one, whatever it does.
	execute("DO $$ BEGIN INSERT INTO numbers VALUES (2); INSERT INTO numbers VALUES (3); END $$")
	use := read().Since(before)
	if len(use.Statements) != 2 || use.Calls() != 4 || use.Statements["INSERT INTO numbers VALUES ($1)"].Calls != 3 {
		t.Errorf("four statements are counted as %+v", use.Statements)
	}
	if use.Seconds() <= 0 || use.WALBytes <= 0 {
		t.Errorf("they took %v s and %v bytes of the log", use.Seconds(), use.WALBytes)
	}
}
