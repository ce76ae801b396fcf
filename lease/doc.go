// Package lease decides which agent may sequence a partition.
//
// A lease is a row of the metadata store that names its holder, two counters
// and an end. Time decides only who may try to take it; the fence decides who
// wins: every commit names the leadership under which it was accepted, and the
// metadata store refuses it if the row has moved on. A holder that is slow,
// frozen or cut off can therefore never write, whatever any clock says.
//
// # Two counters
//
// Epoch counts acquisitions and renewals. LeaderEpoch counts leaderships and
// is the one that Kafka clients see: it must not move at a renewal, or every
// client would validate its position again every few seconds (KIP-320).
//
// # States of a lease, as its holder sees it
//
//	          Acquire granted                   Renew
//	absent ───────────────────▶ held ◀───────────────────────┐
//	  ▲                          │ └────────────────────────┘
//	  │                          │ deadline passed, renewal refused, commit
//	  │                          │ fenced, released, or handed over
//	  └──────────────────────────┘ (the lease's context ends with the cause)
//
// The holder counts its own deadline on the monotonic clock, from before it
// sent the request that was granted; the store counts expiry on its own clock.
// No agent's clock reaches the store.
//
// # Borrowed leases
//
// An agent may accept appends to a partition whose lease is held in another zone: it
// uploads them, and has the holder commit them, in the holder's leader epoch. For
// that it borrows the lease (Manager.Borrow). The store knows nothing of it, and
// nothing rests on it: whether the holder leads is found by its commit, as ever.
package lease
