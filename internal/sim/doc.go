// Package sim simulates clusters: whole agents with their clients in virtual time,
// with faults between them and everything that they stand on. One number, the
// seed, decides what a world is like and what happens in it.
//
// # A world
//
// A world lives in a bubble of testing/synctest, so that a minute takes some tenths of a
// second. It has
//
//   - three to five agents, made of the parts that run in production, from the
//     server of Kafka's protocol down to the lease manager, and put together by
//     broker/node as in production (node.go). What they lack is sockets. They are in
//     up to three zones, and call each other as in production, with TLS and HTTP/2;
//     in one world of six there are neither zones nor such calls;
//   - one metadata store, the one on SQLite, with presence added by the rules of
//     PostgreSQL's bury_agent (database.go). It keeps to the world's clock;
//   - one bucket, in memory;
//   - a network (network.go), on which clients and peers speak Kafka's protocol, and
//     agents that of package rpc;
//   - clients (clients.go): idempotent producers with five requests in flight, which
//     retry as Kafka's do, and crash; producers that are not idempotent and repeat
//     only what was refused for certain; consumers that read from one agent and then
//     another; an observer of the log's ends; members of no group that commit its
//     positions. Where there are zones, most say in which they are. They go where they
//     are sent, where Metadata says, and anywhere.
//
// # Faults
//
// All that an agent does to others passes its site (site.go), where it can be
// stopped, cut off and killed without its knowledge. Calls of the stores (store.go,
// objects.go) are slow, refused, lost, done without an answer, or done at some time
// after the caller was told that they failed: so a commit comes in long after its
// agent was replaced. Agents are killed, drained, frozen, cut off from the database,
// the bucket or the network, and replaced while they stand still; the stores restart,
// hang, slow down, and lose calls (faults.go). Calls between agents break off before
// they arrive or before they are answered, and are cut. One agent stands still at all
// times, mostly for longer than its lease. A frozen agent's own timers go on, but
// nothing that it does gets out until it thaws; so it does not notice that it stood
// still, which is harder on the others than a process that does.
//
// # The judgement
//
// When the load ends, so do the faults, and what is late arrives. Then every producer
// must have all of its records acknowledged, and every agent give the whole log. The
// history of all clients goes through package check; the store is audited; each
// commit is checked against the leader of that moment, and against the leader epoch in
// which its batches were taken in, if that was done by another agent; and each leader
// epoch must have had one writer besides these. Codes that Kafka's clients do not
// expect are wrong too, above all OFFSET_OUT_OF_RANGE and
// OUT_OF_ORDER_SEQUENCE_NUMBER, which no client ever deserves here.
//
// A Mutant is a mistake, in the stores or of agents with what they ask of these, which
// the simulation has to find.
//
// # Determinism
//
// All chance in a world comes from its seed, by dice of their own for everyone who
// throws any. That is not enough to have the same history again: the runtime throws
// dice of its own, in select, for timers that end together, and in math/rand, which
// agents use for jitter; and it preempts goroutines. So by plain "go test" a seed is
// a world with the same settings and much the same faults, and what happens in it
// differs from run to run.
//
// "make sim" builds the standard library with the changes in internal/sim/overlay, runs worlds
// in processes with one processor and without garbage collection, and begins each
// process with the same world as a warm-up. Then about nine of ten seeds give the
// same history to the byte, in any process and after whatever others. The rest
// differ by where in memory things lie, which decides the order of large maps by
// pointers, and by what was made once and is there for later worlds. So a failing
// seed is reported with its history's hash and the command that repeats it, which
// takes SIM_TIMES; and with a trace of what happened, in case it does not come again.
package sim
