// Package group coordinates consumer groups: the classic group protocol (KIP-62,
// KIP-345, KIP-394, KIP-814), the consumer protocol (KIP-848), and the committed
// offsets.
//
// A group belongs to one of the coordinator's shards, and a shard is a lease.
// The agent that holds it coordinates the shard's groups; it acquires a free
// one on the first request. Groups and committed offsets are in the metadata
// store, which takes changes only under the shard's leadership: a coordinator
// that was replaced without knowing it can let nothing pass. The next one loads
// the shard's groups, and their members go on in the same generation, with
// sessions that begin anew.
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
// I/O: it acquires the lease, loads the groups, and asks the store for all that
// waits at once, with one write for all changes and one query for all fetches.
// One goroutine fires the timers of all shards.
//
// # The consumer protocol
//
// A group of the consumer protocol is another kind of group in the same machine.
// There is no rebalance that all wait for: members say in one heartbeat all that
// there is to say, the coordinator assigns, and brings each member to its target
// on its own, a step a heartbeat. What keeps a partition from having two owners is
// in consumerGroup.reconcile.
//
//	       a new target, and                   it gave that up, and
//	       something to give up                something is not free
//	stable ──────────────────▶ unrevoked ─────────────────▶ unreleased
//	  ▲                            │                             │
//	  └────────────────────────────┴─────────────────────────────┘
//	                     it has all of its target
//
// The target is made anew when a member came or went, or subscribes to something
// else, and when a topic did. The machine sees topics, and the configs of groups,
// through a view that it takes in each step; a heartbeat that brings nothing new
// compares two versions.
//
// A group with members changes its kind in one step when the first member of the
// consumer protocol joins, and when the last one has gone. In between, members of
// the classic protocol speak it to the other kind of group.
//
// # What is stored, and when
//
// Nothing is said of a group that is not stored. A step that changes what must
// not be forgotten marks the group as changed: a generation begins, becomes
// stable or ends without members, a static member is replaced, the group begins
// or is deleted; and in a group of the consumer protocol, all but a sign of life.
// At the end of the step the group's record, which is JSON, is on its way to the
// store, and every reply about the group is held until it is there. A rebalance of
// a classic group costs two such writes, whatever the number of members, and a
// heartbeat that changes nothing none. What changes while a write is under way is
// in the next one.
//
// A record that can't be stored ends the shard: the machine is ahead of the
// store, and since nobody was told of it, what is stored can be gone on with.
//
// So that a record can always be written in the time that one request may take, what
// the members of a group say of themselves has a bound, which they share; Kafka's is
// that of a record of its log.
//
// All groups have a record, also those that have offsets and never had members.
// So the machine knows every group of its shard.
//
// # Order of commits and fetches
//
// Commits are validated against the membership when they arrive, and reach the
// store in that order. A fetch sees every commit that was begun before it, so a
// member that takes a partition over never misses one that the coordinator had
// accepted from the previous owner.
//
// # A write whose outcome is unknown
//
// Such a write may still land later, over a newer one. The shard therefore
// acquires a new term for itself, which fences the old statement, and sends the
// write again under the new one. If no other agent was the leader in between,
// the machine stays.
//
// # Retention
//
// Every few minutes the machine asks which positions of its groups are old, and
// forgets those that KIP-211 lets expire: of a group without members, of topics
// that nobody subscribes to, and of consumers that manage their partitions
// themselves. A group without members goes with its last position. Unlike in
// Kafka, a position that was committed after the last member had left is kept for
// the retention too.
package group
