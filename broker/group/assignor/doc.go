// Package assignor assigns the partitions of topics to the members of a consumer
// group on the server's side (KIP-848).
//
// An assignor is a pure function: the same members with the same current target
// and the same topics give the same assignment, on every agent. Each partition of
// a topic to which somebody subscribes is assigned to exactly one of the topic's
// subscribers.
//
//   - [Uniform] gives every member as much as any other, and moves as little as
//     that allows. It is the default.
//   - [Range] gives every member a range of each topic, the same range of topics
//     with as many partitions, so that members can join records of these.
//
// Neither looks at racks, as those of Apache Kafka 4 do not.
package assignor
