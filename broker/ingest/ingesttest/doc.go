// Package ingesttest is what tests of the write path share: a metadata store in
// memory, commits that fail on purpose, and a checker that compares what
// producers were told with what is in the log.
package ingesttest
