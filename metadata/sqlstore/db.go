package sqlstore

import "context"

// Row is one row of an answer.
type Row interface {
	// Scan copies the row's columns. NULL fits a pointer to a pointer, and a
	// *[]byte, which becomes nil.
	Scan(dest ...any) error
}

// Stmt is one SQL text with its arguments and what to do with its answer.
type Stmt struct {
	SQL  string
	Args []any
	// Each is called for every row, in order; nil drops the rows. A row is
	// valid during the call only. An error ends the statement and is returned.
	Each func(Row) error
	// Affected, if not nil, is set to the number of rows changed.
	Affected *int64
}

// Runner sends statements, each of which sees what the ones before did and,
// in Postgres, what others have committed by the time it starts (READ
// COMMITTED). Several statements are one round trip where there are any.
type Runner interface {
	Run(ctx context.Context, stmts ...Stmt) error
}

// DB is the adapter to one database. All methods are safe for concurrent use
// and count what they send by metadata.CountQueries. They return the driver's
// errors, wrapped or not, for Dialect.Classify to judge.
type DB interface {
	// Read runs queries, which change and lock nothing. Each has a snapshot of
	// its own; several are one round trip.
	Read(ctx context.Context, stmts ...Stmt) error
	// Write runs the statements in one transaction and one round trip. It is
	// not retried here.
	Write(ctx context.Context, stmts ...Stmt) error
	// Tx runs fn in one transaction, which is committed if fn returns nil and
	// rolled back otherwise. The error of fn is returned as it is, the
	// transaction is not retried here.
	Tx(ctx context.Context, fn func(Runner) error) error
}

// ColumnType is the type of a column of an input table.
type ColumnType uint8

// The column types, with the Go slices that bring them.
const (
	Bytes ColumnType = iota // [][]byte
	Int32                   // []int32
	Int64                   // []int64
	Text                    // []string
)

// Column is a column of an input table.
type Column struct {
	Name string
	Type ColumnType
}

// Class says what the failure of a statement or transaction means.
type Class uint8

// The classes.
const (
	// Fault: the statement or the row is wrong, and will be when it is tried
	// again. Nothing was changed.
	Fault Class = iota
	// Conflict: rolled back in favour of another transaction (serialization
	// failure, deadlock, lock timeout). It can be run again at once.
	Conflict
	// Unavailable: the database could not be asked or did not begin the work.
	// Nothing was changed.
	Unavailable
	// Unknown: the connection or the caller's patience ended after the work
	// was sent; it may or may not have been done.
	Unknown
)

// Dialect is what the databases spell differently.
type Dialect interface {
	// Input returns an item of a FROM clause: a table called alias with the
	// given columns and a column ord (1, 2, …), whose rows are the parameters
	// from $first on.
	Input(alias string, first int, cols ...Column) string
	// InputArgs returns the arguments of an input table from one slice a
	// column (see ColumnType), all of the same length.
	InputArgs(cols ...any) []any
	// Now returns an expression: the database's clock in ms, now and not at
	// the transaction's start.
	Now() string
	// ForUpdate returns the clause that ends a SELECT which locks the rows it
	// returns until the end of the transaction, but not against a reader.
	ForUpdate() string
	// ForUpdateSkipLocked is the same, but for rows that are locked already: they
	// are left out, so that nothing is waited for.
	ForUpdateSkipLocked() string
	// NewestSequence returns an expression over a row p of the table producers,
	// the last sequence of the newest batch, and what scans its value.
	NewestSequence() (expr string, into func(*int32) any)
	// Classify judges an error that DB returned. It is not called for nil.
	Classify(err error) Class
}
