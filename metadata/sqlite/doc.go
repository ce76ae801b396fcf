// Package sqlite is the metadata store of an agent that runs alone: one file
// in its data folder, and no server to install.
//
// One connection writes and a few read (WAL); every transaction that changes
// something is IMMEDIATE and is one fsync. The single writer is what the row
// locks are in Postgres: a commit is a fence, a sequencer and the truth because
// nothing else writes between its first read and its end.
//
// A lock file beside the database keeps a second process out, which would not
// break the data, but would take the leases of the first.
package sqlite
