package config

import (
	"math"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Definition is what is known of one config.
type Definition struct {
	Name    string
	Type    kmsg.ConfigType
	Default string
	// Null marks a config that has no value unless one is set.
	Null bool
	// Broker is the name of the broker config that is the topic config's
	// default, "" if there is none.
	Broker string
	// Coarse are further names of Broker, in order of precedence, for values in
	// coarser units. The default is that of the last one, and Broker has none.
	Coarse []string
	// Dynamic says, of a broker config, that it can be altered at run time.
	Dynamic bool
	// Setting says, of a broker config, that operators set it when they start an
	// agent, under its own name.
	Setting bool
	// Doc is for people, and is served by DescribeConfigs.
	Doc string

	check check
	names []string // of a broker config: all that give it a value, itself among them
}

const day = 24 * 60 * 60 * 1000 // ms

// unlimited is Kafka's default of what has no limit.
var unlimited = strconv.FormatInt(math.MaxInt64, 10)

// noDisk ends the documentation of configs that are kept and shown but mean
// nothing without disks and replicas.
const noDisk = " Kept and shown for compatibility; it has no effect in a broker without disks."

// topicDefinitions are Apache Kafka's topic configs and AgentGroup, by name.
var topicDefinitions = []Definition{
	{
		Name: "cleanup.policy", Type: kmsg.ConfigTypeList, Default: "delete", Broker: "log.cleanup.policy", check: listOf("compact", "delete"),
		Doc: "How old records go: delete by retention, compact by key, or both.",
	},
	{
		Name: "compression.gzip.level", Type: kmsg.ConfigTypeInt, Default: "-1", Broker: "compression.gzip.level", check: gzipLevel,
		Doc: "The level used where compression.type is gzip.",
	},
	{
		Name: "compression.lz4.level", Type: kmsg.ConfigTypeInt, Default: "9", Broker: "compression.lz4.level", check: integer(1, 17),
		Doc: "The level used where compression.type is lz4.",
	},
	{
		Name: "compression.type", Type: kmsg.ConfigTypeString, Default: "producer", Broker: "compression.type", check: oneOf("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"),
		Doc: "The codec in which batches are stored; producer keeps what the producer chose.",
	},
	{
		Name: "compression.zstd.level", Type: kmsg.ConfigTypeInt, Default: "3", Broker: "compression.zstd.level", check: integer(-131072, 22),
		Doc: "The level used where compression.type is zstd.",
	},
	{
		Name: "delete.retention.ms", Type: kmsg.ConfigTypeLong, Default: strconv.Itoa(day), Broker: "log.cleaner.delete.retention.ms", check: long(0),
		Doc: "How long tombstones of a compacted topic stay, in ms.",
	},
	{
		Name: "file.delete.delay.ms", Type: kmsg.ConfigTypeLong, Default: "60000", Broker: "log.segment.delete.delay.ms", check: long(0),
		Doc: "How long a deleted file stays, in ms." + noDisk,
	},
	{
		Name: "flush.messages", Type: kmsg.ConfigTypeLong, Default: unlimited, Broker: "log.flush.interval.messages", check: long(1),
		Doc: "Records between two fsyncs; here every record is durable before it is acknowledged." + noDisk,
	},
	{
		Name: "flush.ms", Type: kmsg.ConfigTypeLong, Default: unlimited, Broker: "log.flush.interval.ms", Coarse: []string{"log.flush.scheduler.interval.ms"}, check: long(0),
		Doc: "Time between two fsyncs, in ms; here every record is durable before it is acknowledged." + noDisk,
	},
	{
		Name: "follower.replication.throttled.replicas", Type: kmsg.ConfigTypeList, Default: "", check: throttledReplicas("follower.replication.throttled.replicas"),
		Doc: "Replicas whose replication is throttled on the follower." + noDisk,
	},
	{
		Name: "index.interval.bytes", Type: kmsg.ConfigTypeInt, Default: "4096", Broker: "log.index.interval.bytes", check: integer(0, math.MaxInt32),
		Doc: "Bytes between two index entries." + noDisk,
	},
	{
		Name: "leader.replication.throttled.replicas", Type: kmsg.ConfigTypeList, Default: "", check: throttledReplicas("leader.replication.throttled.replicas"),
		Doc: "Replicas whose replication is throttled on the leader." + noDisk,
	},
	{
		Name: "local.retention.bytes", Type: kmsg.ConfigTypeLong, Default: "-2", Broker: "log.local.retention.bytes", check: long(-2),
		Doc: "Bytes kept on disk of a tiered topic." + noDisk,
	},
	{
		Name: "local.retention.ms", Type: kmsg.ConfigTypeLong, Default: "-2", Broker: "log.local.retention.ms", check: long(-2),
		Doc: "Time kept on disk of a tiered topic, in ms." + noDisk,
	},
	{
		Name: "max.compaction.lag.ms", Type: kmsg.ConfigTypeLong, Default: unlimited, Broker: "log.cleaner.max.compaction.lag.ms", check: long(1),
		Doc: "The longest time a record of a compacted topic stays uncompacted, in ms.",
	},
	{
		Name: "max.message.bytes", Type: kmsg.ConfigTypeInt, Default: "1048588", Broker: "message.max.bytes", check: integer(0, math.MaxInt32),
		Doc: "The largest record batch that is accepted, in bytes, after compression.",
	},
	{
		Name: "message.timestamp.after.max.ms", Type: kmsg.ConfigTypeLong, Default: "3600000", Broker: "log.message.timestamp.after.max.ms", check: long(0),
		Doc: "How far a record's timestamp may lie ahead of the broker's clock, in ms (CreateTime).",
	},
	{
		Name: "message.timestamp.before.max.ms", Type: kmsg.ConfigTypeLong, Default: unlimited, Broker: "log.message.timestamp.before.max.ms", check: long(0),
		Doc: "How far a record's timestamp may lie behind the broker's clock, in ms (CreateTime).",
	},
	{
		Name: "message.timestamp.type", Type: kmsg.ConfigTypeString, Default: "CreateTime", Broker: "log.message.timestamp.type", check: oneOf("CreateTime", "LogAppendTime"),
		Doc: "Whether a record's timestamp is the producer's or the time of its commit.",
	},
	{
		Name: "min.cleanable.dirty.ratio", Type: kmsg.ConfigTypeDouble, Default: "0.5", Broker: "log.cleaner.min.cleanable.ratio", check: double(0, 1),
		Doc: "The share of uncompacted bytes from which on a topic is compacted.",
	},
	{
		Name: "min.compaction.lag.ms", Type: kmsg.ConfigTypeLong, Default: "0", Broker: "log.cleaner.min.compaction.lag.ms", check: long(0),
		Doc: "The shortest time a record of a compacted topic stays uncompacted, in ms.",
	},
	{
		Name: "min.insync.replicas", Type: kmsg.ConfigTypeInt, Default: "1", Broker: "min.insync.replicas", check: integer(1, math.MaxInt32),
		Doc: "Replicas that must have a record; here the object store and the database replicate." + noDisk,
	},
	{
		Name: "preallocate", Type: kmsg.ConfigTypeBoolean, Default: "false", Broker: "log.preallocate", check: boolean,
		Doc: "Whether files are allocated ahead." + noDisk,
	},
	{
		Name: "remote.log.copy.disable", Type: kmsg.ConfigTypeBoolean, Default: "false", check: boolean,
		Doc: "Whether a tiered topic's upload is switched off." + noDisk,
	},
	{
		Name: "remote.log.delete.on.disable", Type: kmsg.ConfigTypeBoolean, Default: "false", check: boolean,
		Doc: "Whether tiered data goes when tiering is switched off." + noDisk,
	},
	{
		Name: "remote.storage.enable", Type: kmsg.ConfigTypeBoolean, Default: "false", check: notTiered,
		Doc: "Whether a topic is tiered; here every topic lies in object storage." + noDisk,
	},
	{
		Name: "retention.bytes", Type: kmsg.ConfigTypeLong, Default: "-1", Broker: "log.retention.bytes", check: long(math.MinInt64),
		Doc: "Bytes of a partition that are kept; below 0 is without limit.",
	},
	{
		Name: "retention.ms", Type: kmsg.ConfigTypeLong, Default: strconv.Itoa(7 * day), Broker: "log.retention.ms", Coarse: []string{"log.retention.minutes", "log.retention.hours"}, check: long(-1),
		Doc: "How long records are kept, in ms; -1 is for ever.",
	},
	{
		Name: "segment.bytes", Type: kmsg.ConfigTypeInt, Default: "1073741824", Broker: "log.segment.bytes", check: integer(1024*1024, math.MaxInt32),
		Doc: "The size of a log's file." + noDisk,
	},
	{
		Name: "segment.index.bytes", Type: kmsg.ConfigTypeInt, Default: "10485760", Broker: "log.index.size.max.bytes", check: integer(4, math.MaxInt32),
		Doc: "The size of a log file's index." + noDisk,
	},
	{
		Name: "segment.jitter.ms", Type: kmsg.ConfigTypeLong, Default: "0", Broker: "log.roll.jitter.ms", Coarse: []string{"log.roll.jitter.hours"}, check: long(0),
		Doc: "Jitter of segment.ms." + noDisk,
	},
	{
		Name: "segment.ms", Type: kmsg.ConfigTypeLong, Default: strconv.Itoa(7 * day), Broker: "log.roll.ms", Coarse: []string{"log.roll.hours"}, check: long(1),
		Doc: "Time after which a log's file is rolled, in ms." + noDisk,
	},
	{
		Name: AgentGroup, Type: kmsg.ConfigTypeString, check: agentGroup,
		Doc: "The agent group whose agents serve the topic, and alone see it. Agents of the default group, which has no name, may move a topic to another.",
	},
	{
		Name: "unclean.leader.election.enable", Type: kmsg.ConfigTypeBoolean, Default: "false", Broker: "unclean.leader.election.enable", check: boolean,
		Doc: "Whether a replica that lags may lead; here no acknowledged record can lag." + noDisk,
	},
}
