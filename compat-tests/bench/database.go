package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// DatabaseUse is what has been asked of a PostgreSQL database, by the database's own statistics.
type DatabaseUse struct {
	Statements map[string]StatementUse // by their texts, as pg_stat_statements counts those of clients
	WALBytes   float64                 // of the whole server
	Updates    float64                 // rows
	HOTUpdates float64                 // of them, those that touched no index
	DeadRows   float64                 // as they are now
}

// StatementUse is that of one statement.
type StatementUse struct {
	Calls   float64
	Seconds float64 // in the database
}

// DatabaseStatistics reads the statistics of one database. The server must have loaded pg_stat_statements.
type DatabaseStatistics struct {
	inside  *pgx.Conn // sees the database's tables
	outside *pgx.Conn // in another database, so that what it asks is not counted
	name    string
}

// OpenDatabaseStatistics connects to the database and to another one of the same server.
func OpenDatabaseStatistics(ctx context.Context, database, another string) (*DatabaseStatistics, error) {
	inside, err := pgx.Connect(ctx, database)
	if err != nil {
		return nil, fmt.Errorf("open statistics: %w", err)
	}
	s := &DatabaseStatistics{inside: inside, name: inside.Config().Database}
	if s.outside, err = pgx.Connect(ctx, another); err == nil {
		_, err = s.outside.Exec(ctx, "CREATE EXTENSION pg_stat_statements")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open statistics: %w", err), s.Close(ctx))
	}
	return s, nil
}

// Close ends the connections.
func (s *DatabaseStatistics) Close(ctx context.Context) error {
	err := s.inside.Close(ctx)
	if s.outside != nil {
		err = errors.Join(err, s.outside.Close(ctx))
	}
	return err
}

// markStatistics is part of what these statistics ask themselves, which is not counted.
const markStatistics = "/* statistics */"

// Read returns the use so far. PostgreSQL shows what a busy connection did to tables a second later, and that of an idle
// one ten seconds later.
func (s *DatabaseStatistics) Read(ctx context.Context) (DatabaseUse, error) {
	u := DatabaseUse{Statements: map[string]StatementUse{}}
	err := s.inside.QueryRow(ctx, markStatistics+` SELECT sum(n_tup_upd), sum(n_tup_hot_upd), sum(n_dead_tup)
		FROM pg_stat_user_tables`).Scan(&u.Updates, &u.HOTUpdates, &u.DeadRows)
	if err != nil {
		return u, fmt.Errorf("read statistics of tables: %w", err)
	}
	if err := s.outside.QueryRow(ctx, "SELECT pg_current_wal_lsn() - '0/0'").Scan(&u.WALBytes); err != nil {
		return u, fmt.Errorf("read the position of the log: %w", err)
	}
	rows, err := s.outside.Query(ctx, `SELECT query, sum(calls)::float8, sum(total_exec_time)::float8 / 1000
		FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
		WHERE toplevel AND datname = $1 AND query NOT LIKE $2 || '%' GROUP BY query`, s.name, markStatistics)
	if err != nil {
		return u, fmt.Errorf("read statistics of statements: %w", err)
	}
	var (
		query string
		use   StatementUse
	)
	_, err = pgx.ForEachRow(rows, []any{&query, &use.Calls, &use.Seconds}, func() error {
		u.Statements[query] = use
		return nil
	})
	if err != nil {
		return u, fmt.Errorf("read statistics of statements: %w", err)
	}
	return u, nil
}

// Since is what was used since an earlier reading, but for the dead rows.
func (u DatabaseUse) Since(before DatabaseUse) DatabaseUse {
	u.WALBytes -= before.WALBytes
	u.Updates -= before.Updates
	u.HOTUpdates -= before.HOTUpdates
	statements := make(map[string]StatementUse, len(u.Statements))
	for query, use := range u.Statements {
		use.Calls -= before.Statements[query].Calls
		use.Seconds -= before.Statements[query].Seconds
		if use.Calls > 0 {
			statements[query] = use
		}
	}
	u.Statements = statements
	return u
}

// Calls is the number of statements that were executed.
func (u DatabaseUse) Calls() (calls float64) {
	for _, use := range u.Statements {
		calls += use.Calls
	}
	return calls
}

// Seconds is the time that their execution took.
func (u DatabaseUse) Seconds() (seconds float64) {
	for _, use := range u.Statements {
		seconds += use.Seconds
	}
	return seconds
}

// brief is the beginning of a statement, on one line.
func brief(query string) string {
	const most = 80
	line := strings.Join(strings.Fields(query), " ")
	if len(line) > most {
		line = line[:most] + "…"
	}
	return "`" + strings.ReplaceAll(line, "|", "/") + "`"
}
