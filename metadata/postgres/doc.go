// Package postgres keeps the metadata of a cluster in PostgreSQL. It is the only
// package that knows the driver.
//
// # What is here and what is shared
//
// Most statements are shared with SQLite and live in sqlstore; this package is
// the adapter under them. Its own are the commit and the leases, each one call of
// a function in the database (migrations/postgres): a commit that took a lock in
// one round trip and wrote in the next would hold the lock for as long as a
// frozen agent pleases.
//
// # Connections
//
// Commits, the upkeep of agents and leases, and all else have pools of their own,
// so that neither a pile-up of commits nor slow queries can cost an agent its
// leases, or its name for being alive. Settings of the sessions are in session.go,
// with the reason beside each. A new connection that finds the database on another
// timeline than the last one says so, loudly: what it has acknowledged may be gone
// (history.go).
//
// # Clusters in one database
//
// A cluster that has a schema (Options.Schema) finds all that it uses there: its
// tables, those of the migrations, and, since they resolve names when they are called,
// what its functions use. What lies outside of schemas is by session: advisory locks,
// channels and the names of connections are made of an agent's random id. Only the
// locks of who makes a schema and of who migrates are everybody's, so that clusters of
// a database do so one after the other.
//
// # Errors
//
// An error that the server reports for a statement means that its transaction was
// rolled back. An error of the connection, of the caller's patience, or of a
// server that shuts down means nothing at all: the work may have been done. The
// first becomes metadata.ErrUnavailable, the second metadata.ErrUnknownOutcome
// (see dialect.Classify). A commit whose outcome is unknown is asked again under
// the same object ids.
package postgres
