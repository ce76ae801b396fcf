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
// # Bucket
//
// An agent that has not uploaded anything for a while, though it tried, gives up
// all that it leads, and acquires nothing until a probe of the bucket succeeds, or
// some time has passed. Small flushes that stay in the metadata store do not hide
// it: only uploads count. While it is of no use it is off the register of agents, or
// the others would hand back what it gave up.
//
// It gives up only if another agent leads something: where the bucket is away for
// all, they give up one after the other, and the last one keeps what it has and hands
// nothing to those that come back, so that small flushes go on.
package balance
