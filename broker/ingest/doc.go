// Package ingest turns accepted record batches into committed ones.
//
// The Pool has one open buffer for all partitions of the agent. A flush seals
// the buffer: as one immutable object, or, if it is small, inline in the index.
// Uploads run in parallel and overtake each other; the committer takes flushes
// in the order in which their batches were accepted, one commit at a time, and
// puts into it all that is ready at the head of the line (group commit).
//
//	Add ─▶ open buffer ─seal─▶ queued ─▶ uploading ─▶ ready ─▶ committing ─▶ answered
//	                      └─────── inline ────────────▲
//
// When a buffer is sealed is the business of Config.decide: a PUT costs money,
// an inline commit costs index space, every commit costs something of the store
// that agents share (pace), and waiting costs latency.
//
// # What a producer is told
//
//	fault                          answer                                  class
//	upload failed for good         ErrUpload                               D
//	object claimed by a collector  ErrUpload                               D
//	store unavailable too long     ErrCommitUnavailable                    D
//	outcome of a commit unknown    none before it is known                 A
//	  and the pool's end comes     metadata.ErrUnknownOutcome              A
//	fenced                         lease.ErrNotLeader, the lease is lost   D
//	pool full or closed            ErrFull, ErrClosed from Add             D
//	failed before Add              the error given to Miss                 D
//	a failed predecessor           the predecessor's error                 Q
//
// D: the batch is in no log and never will be. A: it may be. Q: the batches of
// one idempotent producer in one partition are in sequence. Once one of them
// fails, those behind it would be refused by the store as out of order, which
// some clients take for the end of the producer, or be believed, if the store
// may have forgotten the producer, and then the retry of the failed one would be
// out of order for good. So they are failed with the same error instead: those
// that are in the pool, and those that the producer had sent, and that arrive,
// before it learned of the failure (gaps). Batches that fail before they come to
// the pool count too: whoever adds says so by Miss.
//
// An object that was uploaded and not committed is left alone: to delete it
// would race with a commit that arrives late. The collector claims its name
// first.
package ingest
