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
// and the view was read, or grew, in that same leader epoch; and while the agent
// that leads it tells how it grows. Any other view is complete as of when it was
// read.
//
// # Wait
//
// A long poll registers with the views of its partitions and is woken by their
// commits. Partitions that another agent leads are followed while they are waited
// for, and for a moment after: that agent's Feed tells how they grow, and the views
// take it by the rules for what is read. For those of which nobody tells, one poller
// asks for what is new in all that are waited for, in one statement, and gives the
// views their extents, so that those who are woken ask nothing; without such waiters
// it does nothing.
//
// A feed tells no record bytes. What it tells are facts, of whatever age: extents
// that are committed stay committed. So news that come late, or from an agent that
// leads no more, can do no harm to what a view knows, and need no acknowledgement;
// what they may not do is to make a view count as complete that is not. It counts
// as fed while all of this holds: the follower's connection is not over and was heard
// within FeedFresh; the feed leads in the leader epoch of the view, as it last said;
// and since it said so first, the view has caught up with what it said. A feed that
// finds that its agent does not lead says so, and is then not listened to. So a view
// may be behind by FeedFresh and the time in which a loss of leadership is noticed,
// and is never ahead of, or apart from, the index.
//
// # Read
//
// Objects are read in aligned blocks, and objects that this agent uploads are
// kept whole; both are pieces of one cache, bounded by its bytes, from which the
// piece leaves that was not used for the longest time. Loads are shared between
// all who ask, adjacent missing blocks are one ranged GET and one piece, never
// copied apart, and all blocks of a fetch are asked for at once.
//
// The agents of a zone share their caches: a block that is missing is asked of the
// one that owns its chunk of the object, which reads it from the store if need be. It
// asks nobody else, and waits for nothing that it has asked of another, so there are
// no circles. If it fails, the block is read from the store.
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
// follower.mu or views.mu before view.mu before Feed.mu; blocks.mu, cache.mu,
// owners.mu and the locks of Sessions are taken alone, but that owners.mu is taken
// under cache.mu, and a session's lock before that of all sessions. Leases.Leads is
// called under views.mu and view.mu, and Zone.Owner under cache.mu; they must not
// call back.
package fetch
