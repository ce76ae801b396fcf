// Package fetch is the read path: from an offset to the client's bytes.
//
// # Plan
//
// A fetch is planned over extents, rows of the batch index, before any byte is
// read. Each partition has a view: its watermarks and the newest extents, fed
// by this agent's own commits and by reads of the index. If the view covers the
// offset, nothing is asked; all partitions of a request that are not covered
// are asked for in one statement. A view never goes back. It is believed that
// an offset lies beyond the end, or before the start, only after the index was
// asked afresh: an agent that is behind says "nothing yet".
//
// The view of a partition is complete without asking while this agent leads it
// and the view was read, or grew, in that same leader epoch. Any other view is
// complete as of when it was read.
//
// # Wait
//
// A long poll registers with the views of its partitions and is woken by their
// commits. For partitions that another agent leads, one poller asks for what is
// new in all that are waited for, in one statement, and gives the views their
// extents, so that those who are woken ask nothing; without such waiters it does
// nothing.
//
// # Read
//
// Objects are read in aligned blocks, and objects that this agent uploads are
// kept whole; both are pieces of one cache, bounded by its bytes, from which the
// piece leaves that was not used for the longest time. Loads are shared between
// all who ask, adjacent missing blocks are one ranged GET and one piece, never
// copied apart, and all blocks of a fetch are asked for at once.
//
// Age and not popularity decides what is kept, because logs are read in streams:
// a block is wanted by the readers of the partitions that share it, within a
// short time, and then hardly again. A cache that admits by frequency (TinyLFU)
// turned away what was read ahead before anybody had used it: with 8 partitions
// of an agent read in parallel it read 1.6 to 1.9 bytes for each byte served, one
// by age in its place 1.01 to 1.12 (compat-tests/bench).
//
// Whole batches are copied once into the response's buffer. There each is
// checked against its CRC, whatever it was read from, and stamped with offset
// and leader epoch. What does not look right is read once more from the store.
//
// # Locks
//
// views.mu before view.mu; blocks.mu, cache.mu and the locks of Sessions are
// taken alone, but that a session's lock comes before that of all sessions.
// Leases.Leads is called under views.mu and view.mu and must not call back.
package fetch
