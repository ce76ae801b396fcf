// Package metadata is the truth: everything that must survive an agent, but
// for the records' bytes. It holds the nouns, one small interface a noun, and
// the fenced commit. The stores are in postgres and sqlite; both pass the
// suite in metadatatest.
//
// # The commit
//
// Committer.Commit is the fence, the sequencer and the truth in one. Under row
// locks on the partitions, taken in sorted order, it checks the leadership of
// each batch, checks the producers' sequences, assigns offsets from the high
// watermark in the row, inserts the index rows (extents), moves producer state
// and watermark, and records its results under the object's id. Sending an
// object again returns the results of the first time, so an unknown outcome is
// resolved by asking again and never by guessing.
//
// # Clocks
//
// The store's clock is the only one. No method takes a time of an agent, but for
// the one in the ids of objects, which only bounds how long a commit may be asked
// for (CommitRetention).
//
// # Lock order
//
// The commit's own new object rows, then agents, then group rows, then a topic or
// a resource with configs, then purges, then partitions (by lease.Key.Compare), then
// the topology version, then other objects.
package metadata
