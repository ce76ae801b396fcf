package report

import "github.com/twmb/franz-go/pkg/kmsg"

// Limit is something of Apache Kafka that does not work on StreamHouse.
type Limit struct {
	What string
	// Shows is what a client's user meets.
	Shows string
	// APIs are those that the feature needs and that no agent advertises, which a test checks. protocol/SKIPPED.md says
	// why.
	APIs []kmsg.Key
}

// Limits are the known limits, in the order in which the document has them.
var Limits = []Limit{
	{
		What: "Transactions, and exactly-once in Kafka Streams and Kafka Connect",
		Shows: "`initTransactions` of a transactional producer fails at once, and so do applications with " +
			"`processing.guarantee=exactly_once_v2`. Idempotent producers work.",
		APIs: []kmsg.Key{kmsg.AddPartitionsToTxn, kmsg.AddOffsetsToTxn, kmsg.EndTxn, kmsg.TxnOffsetCommit},
	},
	{
		What:  "TLS and SASL",
		Shows: "The connection of a client with `security.protocol` other than `PLAINTEXT` is closed.",
		APIs:  []kmsg.Key{kmsg.SASLHandshake, kmsg.SASLAuthenticate},
	},
	{
		What: "ACLs and quotas",
		Shows: "Every client may do everything, as much as it wants. Asked for ACLs, an agent answers as Apache Kafka " +
			"without an authorizer.",
	},
	{
		What:  "Retention and compaction",
		Shows: "`retention.*` and `cleanup.policy` are kept and shown, and have no effect yet: only DeleteRecords and DeleteTopics delete.",
	},
	{
		What:  "Share groups (KIP-932)",
		Shows: "A `KafkaShareConsumer` fails: the version of its request is not supported.",
		APIs:  []kmsg.Key{kmsg.ShareGroupHeartbeat, kmsg.ShareFetch, kmsg.ShareAcknowledge},
	},
	{
		What:  "Streams groups (KIP-1071)",
		Shows: "Kafka Streams with `group.protocol=streams` fails; its default, `classic`, works.",
		APIs:  []kmsg.Key{kmsg.StreamsGroupHeartbeat, kmsg.StreamsGroupDescribe},
	},
	{
		What: "What is of replicas, disks and KRaft: reassignments, moves between log directories, the metadata quorum, feature levels",
		Shows: "The replica that is shown is the agent that leads. Its reassignment is refused, and the rest is not " +
			"supported: leases place partitions.",
		APIs: []kmsg.Key{kmsg.AlterReplicaLogDirs, kmsg.DescribeQuorum, kmsg.UpdateFeatures},
	},
	{
		What:  "Delegation tokens",
		Shows: "The administrator is told that the version of the request is not supported.",
		APIs:  []kmsg.Key{kmsg.CreateDelegationToken, kmsg.DescribeDelegationToken},
	},
	{
		What:  "Client metrics on the broker (KIP-714)",
		Shows: "Nothing: clients go on without, as with Apache Kafka that has no plugin to receive them.",
		APIs:  []kmsg.Key{kmsg.GetTelemetrySubscriptions, kmsg.PushTelemetry},
	},
	{
		What:  "Clients older than Apache Kafka's 2.1",
		Shows: "Their versions of requests, and record formats before 2, are refused as Apache Kafka 4 refuses them (KIP-896).",
	},
}
