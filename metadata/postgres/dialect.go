package postgres

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/streamhouse/streamhouse/metadata/sqlstore"
)

// dialect is how Postgres spells it.
type dialect struct{}

var _ sqlstore.Dialect = dialect{}

var arrayTypes = [...]string{
	sqlstore.Bytes: "bytea[]",
	sqlstore.Int32: "integer[]",
	sqlstore.Int64: "bigint[]",
	sqlstore.Text:  "text[]",
}

// Input implements sqlstore.Dialect: one array parameter a column.
func (dialect) Input(alias string, first int, cols ...sqlstore.Column) string {
	params, names := make([]string, len(cols)), make([]string, len(cols))
	for i, c := range cols {
		params[i] = fmt.Sprintf("$%d::%s", first+i, arrayTypes[c.Type])
		names[i] = c.Name
	}
	return fmt.Sprintf("unnest(%s) WITH ORDINALITY AS %s (%s, ord)",
		strings.Join(params, ", "), alias, strings.Join(names, ", "))
}

// InputArgs implements sqlstore.Dialect.
func (dialect) InputArgs(cols ...any) []any { return cols }

// Now implements sqlstore.Dialect.
func (dialect) Now() string { return "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint" }

// ForUpdate implements sqlstore.Dialect.
func (dialect) ForUpdate() string { return "FOR NO KEY UPDATE" }

// ForUpdateSkipLocked implements sqlstore.Dialect.
func (dialect) ForUpdateSkipLocked() string { return "FOR UPDATE SKIP LOCKED" }

// NewestSequence implements sqlstore.Dialect.
func (dialect) NewestSequence() (string, func(*int32) any) {
	return `p.last_sequences[cardinality(p.last_sequences)]`, func(sequence *int32) any { return sequence }
}

// Classify implements sqlstore.Dialect.
func (dialect) Classify(err error) sqlstore.Class { return classify(err) }

// classify judges an error of a database.
func classify(err error) sqlstore.Class {
	var reported *pgconn.PgError
	switch {
	case errors.Is(err, errNothingDone):
		return sqlstore.Unavailable
	case errors.Is(err, errNoAnswer):
		return sqlstore.Unknown
	case errors.As(err, &reported):
		return classifyReported(reported)
	default:
		return sqlstore.Fault
	}
}

// classifyReported judges an error that the server reported. One that ends the
// session (FATAL, PANIC) may come after the commit; any other is a rollback.
func classifyReported(err *pgconn.PgError) sqlstore.Class {
	if err.SeverityUnlocalized != "ERROR" {
		return sqlstore.Unknown
	}
	switch err.Code {
	case "40001", "40P01", "55P03": // serialization failure, deadlock, lock timeout
		return sqlstore.Conflict
	case "25006": // read-only transaction: the server has become a standby
		return sqlstore.Unavailable
	}
	switch err.Code[:min(2, len(err.Code))] {
	case "08": // connection
		return sqlstore.Unknown
	case "53", "57", "58": // resources, operator (cancelled, timeout), system
		return sqlstore.Unavailable
	}
	return sqlstore.Fault
}
