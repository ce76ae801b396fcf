// Package sqlstore is what the SQL stores have in common: every method of
// metadata.Store that is neither hot nor fenced by more than one row, written
// once, with one SQL text for both databases. A store embeds *Store, brings a
// DB and a Dialect, and adds the rest: Commit, Acquire, Renew, Release, Ping
// and Close.
//
// # One text for two databases
//
// Parameters are $1, $2, …; values are int16, int32, int64, string, []byte and
// nil pointers of them; ids travel as []byte of 16 bytes. Lists travel as an
// input table (Dialect.Input), which takes the last parameters of a statement,
// so that their number is the dialect's own business. What differs besides is
// a hook of Dialect.
//
// # Errors
//
// What a statement's failure means is decided in one place, by the class that
// the dialect gives it: a retriable one is run again here, the others come
// out as metadata.ErrUnavailable, metadata.ErrUnknownOutcome or as they are.
package sqlstore
