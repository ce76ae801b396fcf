// Package model searches all that agents, their leases and their commits can come
// to, within bounds, for a state in which a promise is broken: a model checker, in
// Go, so that the rules by which agents learn are the very code of package lease.
//
// # What a state is
//
// The store (rules.go): for each partition its leader, the leader epoch, how long
// the lease lasts, whether it was handed over, and the log; and what it answered to
// each object name. The rules are the contracts of lease.Store and
// metadata.Committer in a page. Tests run random sequences of calls through them
// and through SQLite and PostgreSQL, and compare every answer and the logs.
//
// The agents (agent.go): what each believes to hold and until when, which is
// changed by lease.Stepper and so by the production machine alone, and its requests
// under way. Around the machine the model does as lease.Manager does: one
// acquisition of a partition and one renewal at a time, and a lease is taken out
// before it is released or handed over.
//
// The writes: objects that an agent accepted under leases it believed to hold, and
// the attempts to commit them. The time between the acceptance and the first
// attempt is the upload; one that fails is a write that is never sent.
//
// # What can happen
//
// Every request takes the way below, and everything on it happens at any time or
// never: so messages are late, overtake each other, and are lost on either way.
//
//	         asks           applied            answered
//	agent ────────▶ asked ───────────▶ answered ───────▶ agent
//	                  │ given up          │ given up
//	                  ▼                   ▼
//	              nobody waits         it is gone
//	                  │
//	                  └──▶ applied late, or lost
//
// One partition, as the store sees it; e is the leader epoch:
//
//	                       acquired by a: e+1
//	 ┌───────────────────────────────────────────────────────┐
//	 │                                                       ▼
//	free ◀─── released by a, or a is buried ──────────── led by a ◀─┐
//	 ▲                                                    │  ▲  │   │ renewed: e
//	 │                                                    │  │  └───┘
//	 │             handed over to b: e+1                  │  └─ past its end, or by
//	 │        ┌───────────────────────────────────────────┘     a again: acquired, e+1
//	 │        ▼
//	 └── b's, not acquired ─── acquired by b: e ──▶ led by b
//
// Agents ask, renew, release, hand over, accept and commit whenever they may; they
// are killed and start again under the same id, and are buried at any instant,
// alive or dead. A frozen agent is one that does nothing for a while, with its
// requests and its beliefs as they are. A commit without an answer is sent again
// under the same name, while earlier attempts are still under way.
//
// # What holds
//
// Whatever the clocks do (Free: each stands still or runs ahead as it likes):
//
//   - An offset has one writer, a log has no gaps, and what is in it stays.
//   - A record is accepted from the leader in its own term only; so leader epochs
//     don't fall along a log, and a term's records are one agent's.
//   - Leader epochs of a partition don't fall, and each is granted once.
//   - An acknowledged write is in the log at the offset that its client was told,
//     for ever; a refused one is nowhere; none is there twice.
//   - A retry has the answer of the first attempt that was applied.
//
// Only where no two clocks differ by more than Margin about a time of Duration
// (Bounded): who believes to hold a lease (Lease.Held) is its leader for the store,
// and the lease has not ended there; so no two believe it at once. Burials are the
// exception, which is why they need the fence. The search also shows that the
// margin is tight: with clocks one tick worse, two believe it.
//
// Not modelled: producers' sequences, the order of commits, how long the store
// remembers names, and Manager.Doubt, which makes deadlines earlier, as clocks that
// run ahead do. Nothing is claimed about progress.
//
// # How it is searched
//
// Breadth first, so that a trace is a shortest one. States that differ in the names
// of agents, the order of requests or the numbers of writes are one; so are those
// that differ in the epoch that counts renewals, which no rule reads; and what can't
// matter any more is forgotten (state.forget). States are known by fingerprints of
// 64 bits: with n of them the chance that one was missed is below n*n / 2^65, less
// than 1 in 100,000 for 12 million.
//
// Bounds say how many agents, partitions, leader epochs, writes and requests at a
// time there are; within them the number of renewals, retries, deaths, burials and
// lost messages has no limit. `make model` searches these to their end:
//
//	clocks   agents  leader epochs  writes  commits at a time      states  depth
//	free        2          2           1            2           1,014,288     30
//	free        2          3           1            1          11,317,088     36
//	free        3          2           1            1          10,014,542     36
//	bounded     2          3           -            -           4,886,810     43
//	bounded     2          2           -            -           1,627,987     40
//
// with one partition and one request of an agent to lease.Store at a time, beside
// its commits; writes are those in the log or not settled, a refused one makes
// room. Bounded clocks have a margin and a drift of one tick, and leases of two
// ticks, in the last line of three. More than that, also three agents and two
// partitions, the tests search for all that can happen within some ten actions.
//
// The tests also make the mistakes that others made (no fence, a fence on half of
// the term, a fence ahead of the transaction, a lost term renewed, names forgotten,
// an epoch used again, a deadline counted from the answer), and the search finds
// each of them.
package model
