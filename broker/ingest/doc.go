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
// an inline commit costs index space, and waiting costs latency.
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
//	a failed predecessor           the predecessor's error                 Q
//
// D: the batch is in no log and never will be. A: it may be. Q: the batches of
// one idempotent producer in one partition are in sequence, so that once one of
// them fails, the store would refuse those behind it as out of order, which
// some clients take for the end of the producer. What is still in the pool is
// failed with the same error instead.
//
// An object that was uploaded and not committed is left alone: to delete it
// would race with a commit that arrives late. The collector claims its name
// first.
package ingest
