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
// commits. For partitions that another agent leads, one poller asks for the
// watermarks of all that are waited for in one statement; without such waiters
// it does nothing.
//
// # Read
//
// Objects are read in aligned blocks through a weighted cache. Loads are shared
// between all who ask, and adjacent missing blocks are one ranged GET. Objects
// that this agent uploads enter the cache as they are committed. Whole batches
// are copied once into the response's buffer, checked against their CRC there,
// and stamped with offset and leader epoch.
package fetch
