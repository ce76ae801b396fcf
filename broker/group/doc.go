// Package group coordinates consumer groups: the classic group protocol and the
// committed offsets (KIP-62, KIP-345, KIP-394, KIP-814).
//
// A group belongs to one of the coordinator's shards, and a shard is a lease.
// The agent that holds it coordinates the shard's groups; it acquires a free
// one on the first request. Members live in memory only: when the lease is lost
// they are dropped, find the next coordinator, are unknown there, and join
// again. Committed offsets are in the metadata store, which takes them only
// under the shard's leadership: a coordinator that was replaced without knowing
// it can let nothing pass.
//
// # Machine and shard
//
// The machine is the protocol: step takes a request and the time, and returns
// effects, which are answers and what the store is to be asked. It does no I/O,
// has no clock and no randomness. The transcripts under testdata/ are its
// behaviour, made to be read.
//
//	          members join                  all joined, or time is up
//	Empty ─────────────────▶ PreparingRebalance ────────▶ CompletingRebalance
//	  ▲                        │   ▲    ▲                        │       │
//	  │ nobody is left         │   │    │ a member came,         │       │
//	  └────────────────────────┘   │    │ went or changed        │       │
//	                               │    └────────────────────────┘       │
//	                               │ a member came, went or changed      │
//	                             Stable ◀────────────────────────────────┘
//	                                         the leader's assignment
//
// A shard steps a machine under its lock, on the goroutine of whoever asks, so
// that requests take effect in the order of the calls; a heartbeat costs no
// switch of goroutines and the store nothing. One goroutine a shard does its
// I/O: it acquires the lease, and asks the store for all that waits at once,
// with one statement for all commits and one for all fetches. One goroutine
// fires the timers of all shards.
//
// # Order of commits and fetches
//
// Commits are validated against the membership when they arrive, and reach the
// store in that order. A fetch sees every commit that was begun before it, so a
// member that takes a partition over never misses one that the coordinator had
// accepted from the previous owner.
//
// # A commit whose outcome is unknown
//
// Such a commit may still land later, over a newer one. The shard therefore
// acquires a new term for itself, which fences the old statement, and sends the
// commit again under the new one. If no other agent was the leader in between,
// the members stay.
package group
