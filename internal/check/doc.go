// Package check judges a history: what many clients did with a topic, and what they were told, with the instants at which
// each operation began and ended. A Recorder writes the history down, Check finds what is wrong with it. The package
// knows no network and no broker, so that it can be shown to catch what it is there to catch.
//
// # What is known
//
// Every record is unique (ID), and its value follows from its ID (Value), so that a read tells which record it has and
// that no byte of it changed. Of every send the history has the outcome: acknowledged with an offset, failed for certain,
// or unknown. Where there are final reads (Log), they are the truth that everything else is compared with. Without
// them the truth is what the polls say together, and a record counts as lost only if somebody read on across it.
//
// Operations are concurrent unless one completed before the other began. Every rule allows each order of concurrent
// operations, and both fates of an unknown one: what is reported is wrong in all of them.
//
// # Anomalies
//
// They are those of Jepsen's workload for Kafka (jepsen.tests.kafka), with the name there in brackets, and those that the
// numbered invariants of StreamHouse's design demand besides, with their number.
//
// What became of a record:
//
//   - Lost (lost-write, unseen; 1, 5): it was acknowledged, and is in no final log. Without final logs: some session
//     read offsets before and after that of the acknowledgement, and nobody read the record.
//   - Vanished (5): a consumer read it at an offset at which no final log has anything.
//   - WrongOffset (4; in Jepsen a duplicate): it was acknowledged at one offset and is at another. An offset of 0 for a
//     repeated batch is the usual case.
//   - Duplicate (duplicate; 5): it is at two offsets, though its producer is idempotent.
//   - RepeatedDuplicate (5): the same of a producer that is not. Legal if the client may have sent it twice.
//   - FailedRead (G1a, aborted read; 5): it was read, and had failed for certain.
//   - Phantom (5): it was read and never sent, or not to this partition, or not before that read completed.
//
// What is in a partition:
//
//   - InconsistentOffset (inconsistent-offsets; 3): two records were read at one offset.
//   - Divergence (3): the final logs of two agents differ, in a record or in their ends.
//   - Gap (2): a final log has nothing at an offset below its end.
//   - BeyondEnd (2, 8): a final log has a record outside of [0, end), or an agent gave an end that the final logs do not
//     reach.
//   - Reordered (nonmonotonic-send; 6): records of an idempotent producer do not lie in the order in which it sent them.
//   - NonmonotonicSend (nonmonotonic-send; 6): a record lies in front of one that was acknowledged or read before it was
//     sent, whoever sent them.
//
// What a consumer saw. A session lasts from an assignment or a seek to the next:
//
//   - NonmonotonicPoll (nonmonotonic-poll and int-nonmonotonic-poll; 17): a record came that lies before the consumer's
//     position, within one poll or from one to the next, or within a final read.
//   - PollSkip (poll-skip and int-poll-skip; 17): a session went on behind a record that it has not had.
//   - StaleRead (19): a poll got nothing, though a record was there for longer than Options.Staleness.
//
// What an agent said of the end. It is proven to be behind every record that was acknowledged or read, and to be no
// less than any agent said, from when that operation completed:
//
//   - StaleEnd (19): ListOffsets answered less than was proven when it was asked. Ends are linearizable.
//   - StaleWatermark (19): a Fetch had a high watermark that is less than was proven Options.Staleness before.
//   - EndWentBack (8): the high watermark of an agent is less than the same agent had said before. A restarted agent may
//     begin behind; where it has another number in the history, it is another agent.
//
// What a group was told of its committed position, which behaves as one register (29):
//
//   - CommitWentBack: it was overwritten by a commit that began after it, and that was acknowledged, or told to somebody,
//     before the question.
//   - PhantomCommit: nobody committed it, or only with a commit that failed, or later.
//
// Jepsen's rules about transactions (G0, G1c, precommitted reads) are not here: a history has none.
package check
