package config

import (
	"math"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// brokerDefinitions are the broker configs that are not a topic config's
// default. The others derive from topicDefinitions.
var brokerDefinitions = []Definition{
	{
		Name: "auto.create.topics.enable", Type: kmsg.ConfigTypeBoolean, Default: "true", Dynamic: true, check: boolean,
		Doc: "Whether a topic is created when a client asks for its metadata or writes to it.",
	},
	{
		Name: "broker.id", Type: kmsg.ConfigTypeInt, Default: "-1", check: integer(-1, math.MaxInt32),
		Doc: "The node id of this agent, given at its first registration.",
	},
	{
		Name: "broker.rack", Type: kmsg.ConfigTypeString, Null: true, check: anything,
		Doc: "The availability zone of this agent.",
	},
	{
		Name: "advertised.listeners", Type: kmsg.ConfigTypeString, Null: true, check: anything,
		Doc: "The address that clients are told.",
	},
	{
		Name: "default.replication.factor", Type: kmsg.ConfigTypeInt, Default: "1", check: integer(1, 1),
		Doc: "Replicas of a partition: one, for object storage replicates by itself.",
	},
	{
		Name: "group.consumer.assignment.interval.ms", Type: kmsg.ConfigTypeInt, Default: "1000", check: integer(0, math.MaxInt32),
		Doc: "The shortest time between two assignments of a group of the consumer protocol (KIP-848), in ms." + assignedAtOnce,
	},
	{
		Name: "group.consumer.assignors", Type: kmsg.ConfigTypeList, Default: "uniform,range", Setting: true, check: atLeastOneOf("uniform", "range"),
		Doc: "The assignors that members of the consumer protocol may ask for. The first is that of groups whose members ask for none.",
	},
	{
		Name: "group.consumer.heartbeat.interval.ms", Type: kmsg.ConfigTypeInt, Default: "5000", Setting: true, check: integer(1, math.MaxInt32),
		Doc: "How often members of the consumer protocol are to say that they are there, in ms, where their group has no consumer.heartbeat.interval.ms.",
	},
	{
		Name: "group.consumer.max.heartbeat.interval.ms", Type: kmsg.ConfigTypeInt, Default: "15000", Setting: true, check: integer(1, math.MaxInt32),
		Doc: "The longest consumer.heartbeat.interval.ms of a group.",
	},
	{
		Name: "group.consumer.max.session.timeout.ms", Type: kmsg.ConfigTypeInt, Default: "60000", Setting: true, check: integer(1, math.MaxInt32),
		Doc: "The longest consumer.session.timeout.ms of a group.",
	},
	{
		Name: "group.consumer.max.size", Type: kmsg.ConfigTypeInt, Default: "10000", Setting: true, check: integer(1, math.MaxInt32),
		Doc: "The largest number of members of a group of the consumer protocol.",
	},
	{
		Name: "group.consumer.migration.policy", Type: kmsg.ConfigTypeString, Default: "bidirectional", Setting: true, check: oneOfAnyCase("bidirectional", "upgrade", "downgrade", "disabled"),
		Doc: "In which directions a group that has members may change its protocol: upgrade is from the classic to the consumer protocol. Empty groups always may.",
	},
	{
		Name: "group.consumer.min.heartbeat.interval.ms", Type: kmsg.ConfigTypeInt, Default: "5000", Setting: true, check: integer(1, math.MaxInt32),
		Doc: "The shortest consumer.heartbeat.interval.ms of a group.",
	},
	{
		Name: "group.consumer.min.session.timeout.ms", Type: kmsg.ConfigTypeInt, Default: "45000", Setting: true, check: integer(1, math.MaxInt32),
		Doc: "The shortest consumer.session.timeout.ms of a group.",
	},
	{
		Name: "group.consumer.session.timeout.ms", Type: kmsg.ConfigTypeInt, Default: "45000", Setting: true, check: integer(1, math.MaxInt32),
		Doc: "After how long without a sign of life a member of the consumer protocol is taken out, in ms, where its group has no consumer.session.timeout.ms.",
	},
	// Kafka's default, 3000, makes short programs slow and saves long ones little.
	{
		Name: "group.initial.rebalance.delay.ms", Type: kmsg.ConfigTypeInt, Default: "100", Setting: true, check: integer(0, math.MaxInt32),
		Doc: "How long an empty group of the classic protocol waits for more members at its first rebalance, in ms.",
	},
	{
		Name: "group.max.session.timeout.ms", Type: kmsg.ConfigTypeInt, Default: "1800000", Setting: true, check: integer(1, math.MaxInt32),
		Doc: "The longest session timeout that a member of the classic protocol may ask for, in ms.",
	},
	{
		Name: "group.max.size", Type: kmsg.ConfigTypeInt, Default: "10000", Setting: true, check: integer(1, math.MaxInt32),
		Doc: "The largest number of members of a group of the classic protocol.",
	},
	{
		Name: "group.min.session.timeout.ms", Type: kmsg.ConfigTypeInt, Default: "6000", Setting: true, check: integer(1, math.MaxInt32),
		Doc: "The shortest session timeout that a member of the classic protocol may ask for, in ms.",
	},
	{
		Name: "log.flush.scheduler.interval.ms", Type: kmsg.ConfigTypeLong, Default: unlimited, check: long(0),
		Doc: "The default of log.flush.interval.ms." + noDisk,
	},
	{
		Name: "log.retention.hours", Type: kmsg.ConfigTypeInt, Default: "168", check: integer(math.MinInt32, math.MaxInt32),
		Doc: "How long records are kept, in hours; log.retention.minutes and log.retention.ms come before it.",
	},
	{
		Name: "log.retention.minutes", Type: kmsg.ConfigTypeInt, Null: true, check: integer(math.MinInt32, math.MaxInt32),
		Doc: "How long records are kept, in minutes; log.retention.ms comes before it.",
	},
	{
		Name: "log.roll.hours", Type: kmsg.ConfigTypeInt, Default: "168", check: integer(1, math.MaxInt32),
		Doc: "Time after which a log's file is rolled, in hours; log.roll.ms comes before it." + noDisk,
	},
	{
		Name: "log.roll.jitter.hours", Type: kmsg.ConfigTypeInt, Default: "0", check: integer(0, math.MaxInt32),
		Doc: "Jitter of log.roll.hours; log.roll.jitter.ms comes before it." + noDisk,
	},
	{
		Name: "num.partitions", Type: kmsg.ConfigTypeInt, Default: "1", Dynamic: true, Setting: true, check: integer(1, MaxPartitions),
		Doc: "Partitions of a topic that is created without a number of them.",
	},
	{
		Name: "offset.metadata.max.bytes", Type: kmsg.ConfigTypeInt, Default: "4096", Setting: true, check: integer(0, math.MaxInt32),
		Doc: "The largest metadata of a committed offset, in bytes.",
	},
	{
		Name: "offsets.retention.check.interval.ms", Type: kmsg.ConfigTypeLong, Default: "600000", Setting: true, check: number(kindLong, 1, day),
		Doc: "How often committed offsets are looked for that are kept for long enough, in ms.",
	},
	{
		Name: "offsets.retention.minutes", Type: kmsg.ConfigTypeInt, Default: "10080", Setting: true, check: integer(1, math.MaxInt32),
		Doc: "How long committed offsets are kept after the last member of their group has left, or after their last commit where the group has no members or does not subscribe to the topic, in minutes.",
	},
	{
		Name: "socket.request.max.bytes", Type: kmsg.ConfigTypeInt, Default: "104857600", check: integer(1, math.MaxInt32),
		Doc: "The largest request that is accepted, in bytes.",
	},
	{
		Name: AgentGroup, Type: kmsg.ConfigTypeString, check: agentGroup,
		Doc: "The agent group to which this agent belongs: it serves the topics of that group, and sees no others.",
	},
}

// noEffect ends the documentation of configs that are kept and shown, and that
// nothing here reads.
const noEffect = " Kept and shown for compatibility; it has no effect."

// assignedAtOnce ends the documentation of how often groups are assigned anew.
const assignedAtOnce = " Kept and shown for compatibility; it has no effect: groups are assigned at once, whenever their members or topics change."

// units are the ms of one of what a config counts, where that is not ms.
var units = map[string]int64{
	"log.retention.hours":       hour,
	"log.retention.minutes":     minute,
	"log.roll.hours":            hour,
	"log.roll.jitter.hours":     hour,
	"offsets.retention.minutes": minute,
}

const (
	minute = 60 * 1000 // ms
	hour   = 60 * minute
)

// inMillis converts a value of the config to that of the config in ms.
func inMillis(name, value string) string {
	unit, ok := units[name]
	if n := parseInt(value); ok && n >= 0 { // below 0 is without limit, in any unit
		return strconv.FormatInt(n*unit, 10)
	}
	return value
}

// groupDefinitions are the configs of consumer groups (KIP-848).
var groupDefinitions = []Definition{
	{
		Name: "consumer.assignment.interval.ms", Type: kmsg.ConfigTypeInt, Default: "1000", Broker: "group.consumer.assignment.interval.ms", check: integer(0, math.MaxInt32),
		Doc: "The shortest time between two assignments of the group, in ms." + assignedAtOnce,
	},
	{
		Name: "consumer.heartbeat.interval.ms", Type: kmsg.ConfigTypeInt, Default: "5000", Broker: "group.consumer.heartbeat.interval.ms", check: integer(1, math.MaxInt32),
		Doc: "How often the members of the group say that they are there, in ms.",
	},
	{
		Name: "consumer.session.timeout.ms", Type: kmsg.ConfigTypeInt, Default: "45000", Broker: "group.consumer.session.timeout.ms", check: integer(1, math.MaxInt32),
		Doc: "After how long without a sign of life a member of the group is taken out, in ms.",
	},
}

// metricsDefinitions are the configs of subscriptions to clients' metrics
// (KIP-714), which are kept for a plugin that there is not.
var metricsDefinitions = []Definition{
	{
		Name: "interval.ms", Type: kmsg.ConfigTypeInt, Default: "300000", check: integer(math.MinInt32, math.MaxInt32),
		Doc: "How often clients send their metrics, in ms." + noEffect,
	},
	{
		Name: "match", Type: kmsg.ConfigTypeList, Default: "", check: anything,
		Doc: "Which clients are meant." + noEffect,
	},
	{
		Name: "metrics", Type: kmsg.ConfigTypeList, Default: "", check: anything,
		Doc: "The prefixes of the metrics that are meant." + noEffect,
	},
}

// MaxPartitions bounds the partitions of one topic, and those that one request
// creates.
const MaxPartitions = 10_000
