// Package ingest turns accepted record batches into committed ones.
//
// The Pool has one open buffer for all partitions that come to the agent. A flush seals
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
// # Parts and lanes
//
// Batches of partitions that agents of other zones lead are in the same buffer and
// object, under borrowed leases. A flush has a part for each of their leaders, this
// agent included, under a name of its own (segment.Part), and each part goes down the
// lane to its leader. Lanes are alike, and don't wait for one another: parts in the
// order of acceptance, all that is ready at a time, one commit at a time. In the
// agent's own lane the store commits; in the others the leader is asked to, through
// Environment.Remote, and gets names, lengths and headers, but no record bytes. There
// Pool.Commit receives them, as guests of its own lane.
//
//	leader's answer                what follows
//	results                        as from the store
//	metadata.ErrUnavailable        nothing was and will be done: failed
//	none, or anything else         asked again, while that is quick; then at the store:
//	  the part's name is claimed   it can't be committed any more: failed
//	  it can't be claimed          it was committed: the store has the results
//
// So whatever becomes of the leader and of calls to it, nothing is guessed, and what
// arrives late changes nothing. That the claim gets all or none of what one commit
// has keeps the order: no batch stays out while one behind it gets in.
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
//	leader did not commit          lease.ErrNotLeader, the lease is lost   D
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
