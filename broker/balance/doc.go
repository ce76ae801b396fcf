// Package balance has an agent hand over leases that others should have.
//
// # Spread
//
// Rendezvous hashing over the living agents says who should lead what. A holder
// keeps what it has while others come and go, until the set of agents was the same
// for a while; then it hands over what is another's, a few leases at a time, to
// agents that are alive. All agents hash alike, so that nothing is handed back; a
// lease that was won lately stays for a while, so that nothing flaps where views
// differ. No lease is ever taken from its holder for balance.
//
// # Writers
//
// A lease is best held in the zone that writes most: elsewhere, each flush of a writer
// is sequenced across zones. A holder hands a lease over to the agent of another zone
// that its clients write to, once two thirds and more of what counts was written there
// for half a minute, and what was written counts half as much every half minute. A
// lease stays for a minute wherever it came to, and for five where it has had writers
// in its own zone: so writers that take turns move it once in that time, and those
// that have moved for good are followed within two minutes. Spread does not move
// leases between zones, so the two do not fight.
//
// # Bucket
//
// An agent that has not uploaded anything for a while, though it tried, gives up
// all that it leads, fails at once the uploads that its partitions wait for, and
// acquires nothing until a probe of the bucket succeeds, or some time has passed.
// Small flushes that stay in the metadata store do not hide it: only uploads count.
// While it is of no use it is off the register of agents, or the others would hand
// back what it gave up.
//
// It gives up only if another agent leads something: where the bucket is away for
// all, they give up one after the other, and the last one keeps what it has and hands
// nothing to those that come back, so that small flushes go on.
//
// # Reach
//
// An agent that nobody reaches, though it lives, keeps its leases from those who
// are reached. When it learns that (Agent.Isolated), it gives up in the same way,
// for a while; then it is listed again, and learns whether that has changed.
package balance
