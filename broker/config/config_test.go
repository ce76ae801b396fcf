package config_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/protocol/batch"
)

// kafkas are the topic configs of Apache Kafka 4 (LogConfig and
// ServerTopicConfigSynonyms): name, type, default, broker config.
const kafkas = `
	cleanup.policy                          LIST    delete              log.cleanup.policy
	compression.gzip.level                  INT     -1                  compression.gzip.level
	compression.lz4.level                   INT     9                   compression.lz4.level
	compression.type                        STRING  producer            compression.type
	compression.zstd.level                  INT     3                   compression.zstd.level
	delete.retention.ms                     LONG    86400000            log.cleaner.delete.retention.ms
	file.delete.delay.ms                    LONG    60000               log.segment.delete.delay.ms
	flush.messages                          LONG    9223372036854775807 log.flush.interval.messages
	flush.ms                                LONG    9223372036854775807 log.flush.interval.ms
	follower.replication.throttled.replicas LIST    -                   -
	index.interval.bytes                    INT     4096                log.index.interval.bytes
	leader.replication.throttled.replicas   LIST    -                   -
	local.retention.bytes                   LONG    -2                  log.local.retention.bytes
	local.retention.ms                      LONG    -2                  log.local.retention.ms
	max.compaction.lag.ms                   LONG    9223372036854775807 log.cleaner.max.compaction.lag.ms
	max.message.bytes                       INT     1048588             message.max.bytes
	message.timestamp.after.max.ms          LONG    3600000             log.message.timestamp.after.max.ms
	message.timestamp.before.max.ms         LONG    9223372036854775807 log.message.timestamp.before.max.ms
	message.timestamp.type                  STRING  CreateTime          log.message.timestamp.type
	min.cleanable.dirty.ratio               DOUBLE  0.5                 log.cleaner.min.cleanable.ratio
	min.compaction.lag.ms                   LONG    0                   log.cleaner.min.compaction.lag.ms
	min.insync.replicas                     INT     1                   min.insync.replicas
	preallocate                             BOOLEAN false               log.preallocate
	remote.log.copy.disable                 BOOLEAN false               -
	remote.log.delete.on.disable            BOOLEAN false               -
	remote.storage.enable                   BOOLEAN false               -
	retention.bytes                         LONG    -1                  log.retention.bytes
	retention.ms                            LONG    604800000           log.retention.ms
	segment.bytes                           INT     1073741824          log.segment.bytes
	segment.index.bytes                     INT     10485760            log.index.size.max.bytes
	segment.jitter.ms                       LONG    0                   log.roll.jitter.ms
	segment.ms                              LONG    604800000           log.roll.ms
	unclean.leader.election.enable          BOOLEAN false               unclean.leader.election.enable
`

func newBroker(t *testing.T, static map[string]string) *config.Broker {
	t.Helper()
	b, err := config.NewBroker(static)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTopicConfigsAreKafkas(t *testing.T) {
	t.Parallel()
	var want, got []string
	for line := range strings.Lines(strings.TrimSpace(kafkas)) {
		want = append(want, strings.Join(strings.Fields(line), " "))
	}
	orDash := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	for _, e := range newBroker(t, nil).Topic(nil).Describe() {
		if e.Name == config.AgentGroup {
			continue // not Kafka's
		}
		got = append(got, fmt.Sprintf("%s %s %s %s", e.Name, e.Type, orDash(*e.Value), orDash(e.Broker)))
		if e.Doc == "" || e.ReadOnly || e.Source != kmsg.ConfigSourceDefaultConfig {
			t.Errorf("%s: documentation %q, read-only %v, source %v", e.Name, e.Doc, e.ReadOnly, e.Source)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-Kafka +here):\n%s", diff)
	}
}

// values are what each topic config takes and what it refuses, separated by
// blanks; "_" is the empty value.
var values = map[string]struct{ good, bad string }{
	"cleanup.policy":                          {"delete compact compact,delete delete,compact _", "Delete none delete,delete compact,,delete ,"},
	"compression.gzip.level":                  {"-1 1 9", "0 10 -2 x _"},
	"compression.lz4.level":                   {"1 9 17", "0 18 -1 _"},
	"compression.type":                        {"uncompressed zstd lz4 snappy gzip producer", "none GZIP _"},
	"compression.zstd.level":                  {"-131072 0 3 22", "-131073 23"},
	"delete.retention.ms":                     {"0 9223372036854775807", "-1 9223372036854775808"},
	"file.delete.delay.ms":                    {"0 1", "-1"},
	"flush.messages":                          {"1", "0"},
	"flush.ms":                                {"0", "-1"},
	"follower.replication.throttled.replicas": {"* _ 0:1 0:1,2:3", "*,0:1 a 1 1:2:3"},
	"index.interval.bytes":                    {"0 2147483647", "-1 2147483648"},
	"leader.replication.throttled.replicas":   {"* _ 0:1 0:1,2:3", "*,0:1 a 1 1:2:3"},
	"local.retention.bytes":                   {"-2 -1 0", "-3"},
	"local.retention.ms":                      {"-2 -1 0", "-3"},
	"max.compaction.lag.ms":                   {"1", "0"},
	"max.message.bytes":                       {"0 2147483647", "-1 2147483648 1.5 1k"},
	"message.timestamp.after.max.ms":          {"0", "-1"},
	"message.timestamp.before.max.ms":         {"0", "-1"},
	"message.timestamp.type":                  {"CreateTime LogAppendTime", "createtime _"},
	"min.cleanable.dirty.ratio":               {"0 0.5 1 1e-3", "-0.1 1.1 NaN Infinity x"},
	"min.compaction.lag.ms":                   {"0", "-1"},
	"min.insync.replicas":                     {"1 3", "0"},
	"preallocate":                             {"true false TRUE", "yes 1 _"},
	"remote.log.copy.disable":                 {"true false", "yes"},
	"remote.log.delete.on.disable":            {"true false", "yes"},
	"remote.storage.enable":                   {"false", "true yes"},
	"retention.bytes":                         {"-9223372036854775808 -1 0 1", "x -9223372036854775809"},
	"retention.ms":                            {"-1 0 1 +5", "-2 1h"},
	"segment.bytes":                           {"1048576", "1048575 2147483648"},
	"segment.index.bytes":                     {"4", "3"},
	"segment.jitter.ms":                       {"0", "-1"},
	"segment.ms":                              {"1", "0"},
	"streamhouse.agent.group":                 {"_ blue A-1_b.c", "b/lue blü " + strings.Repeat("x", 65)},
	"unclean.leader.election.enable":          {"true false", "yes"},
}

func checkBroker(name, value string) error { return config.CheckBroker(map[string]string{name: value}) }

func TestTopicValues(t *testing.T) {
	t.Parallel()
	for _, e := range newBroker(t, nil).Topic(nil).Describe() {
		test, ok := values[e.Name]
		if !ok {
			t.Errorf("%s is not tested", e.Name)
		}
		// What holds for the topic holds for the broker's default of it.
		checks := map[string]func(string, string) error{e.Name: config.CheckTopic}
		if e.Broker != "" {
			checks[e.Broker] = checkBroker
		}
		for name, check := range checks {
			for v := range strings.FieldsSeq(test.good + " " + *e.Value) {
				v = strings.ReplaceAll(v, "_", "")
				if err := check(name, v); err != nil {
					t.Errorf("%s=%q: %v", name, v, err)
				}
			}
			for v := range strings.FieldsSeq(test.bad) {
				v = strings.ReplaceAll(v, "_", "")
				if err := check(name, v); !errors.Is(err, config.ErrInvalid) {
					t.Errorf("%s=%q: %v", name, v, err)
				}
			}
		}
	}
}

func TestMessagesAreKafkas(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, value, want string }{
		{"nope", "1", "Unknown topic config name: nope"},
		{"retention.ms", "x", "Invalid value x for configuration retention.ms: Not a number of type LONG"},
		{"max.message.bytes", "2147483648", "Invalid value 2147483648 for configuration max.message.bytes: Not a number of type INT"},
		{"retention.ms", "-2", "Invalid value -2 for configuration retention.ms: Value must be at least -1"},
		{"min.cleanable.dirty.ratio", "2", "Invalid value 2 for configuration min.cleanable.dirty.ratio: Value must be no more than 1"},
		{"preallocate", "1", "Invalid value 1 for configuration preallocate: Expected value to be either true or false"},
		{"message.timestamp.type", "x", "Invalid value x for configuration message.timestamp.type: String must be one of: CreateTime, LogAppendTime"},
		{"compression.gzip.level", "0", "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1"},
		{"leader.replication.throttled.replicas", "0:1,x", "Invalid value [0:1, x] for configuration leader.replication.throttled.replicas: leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],..."},
		{"remote.storage.enable", "true", "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."},
	} {
		if err := config.CheckTopic(test.name, test.value); err == nil || err.Error() != test.want {
			t.Errorf("%s=%s: %v, want %s", test.name, test.value, err, test.want)
		}
	}
}

func TestBrokerConfigs(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, value string
		ok          bool
	}{
		{"log.retention.ms", "5", true},
		{"message.max.bytes", "-1", false},
		{"retention.ms", "5", false}, // a topic's
		{"num.partitions", "3", true},
		{"num.partitions", "0", false},
		{"num.partitions", fmt.Sprint(config.MaxPartitions + 1), false},
		{"auto.create.topics.enable", "maybe", false},
		{"broker.id", "1", false}, // given at registration
		{"nope", "1", false},
	} {
		if err := checkBroker(test.name, test.value); (err == nil) != test.ok || err != nil && !errors.Is(err, config.ErrInvalid) {
			t.Errorf("%s=%s: %v", test.name, test.value, err)
		}
	}
	for _, static := range []map[string]string{
		{"nope": "1"},
		{"num.partitions": "x"},
		{"default.replication.factor": "3"},
		{"group.max.size": "0"},
		{"group.consumer.assignors": ""},
		{"group.consumer.assignors": "range,range"},
		{"group.consumer.migration.policy": "none"},
		{"offsets.retention.check.interval.ms": "9223372036854775807"}, // no instant is so far away
		{"group.min.session.timeout.ms": "6000", "group.max.session.timeout.ms": "5999"},
		{"group.consumer.session.timeout.ms": "44999"},
		{"group.consumer.heartbeat.interval.ms": "15001"},
		{"group.consumer.min.session.timeout.ms": "1", "group.consumer.session.timeout.ms": "5000"},
	} {
		if _, err := config.NewBroker(static); !errors.Is(err, config.ErrInvalid) {
			t.Errorf("started with %v: %v", static, err)
		}
	}
}

func TestBrokerDefaultsAreValid(t *testing.T) {
	t.Parallel()
	static := map[string]string{}
	var names []string
	for _, e := range newBroker(t, nil).Describe() {
		names = append(names, e.Name)
		if e.Value != nil {
			static[e.Name] = *e.Value
		} else if !e.Null {
			t.Errorf("%s has no value", e.Name)
		}
		if e.ReadOnly == e.Dynamic || e.Doc == "" {
			t.Errorf("%s: read-only %v, dynamic %v, documentation %q", e.Name, e.ReadOnly, e.Dynamic, e.Doc)
		}
	}
	if !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("not sorted, or named twice: %v", names)
	}
	newBroker(t, static)
}

// What a running agent can't take on is refused.
func TestSettings(t *testing.T) {
	t.Parallel()
	settings := config.Settings()
	if len(settings) == 0 || !slices.IsSortedFunc(settings, func(a, b *config.Definition) int { return strings.Compare(a.Name, b.Name) }) {
		t.Errorf("%d settings, or not sorted", len(settings))
	}
	for _, d := range settings {
		if err := checkBroker(d.Name, d.Default); (err == nil) != d.Dynamic || d.Dynamic != (d.Name == "num.partitions") {
			t.Errorf("altered to %s=%s: %v", d.Name, d.Default, err)
		}
	}
}

func TestIsList(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"cleanup.policy": true, "log.cleanup.policy": true, "leader.replication.throttled.replicas": true,
		"retention.ms": false, "num.partitions": false, "nope": false,
	} {
		if config.IsList(name) != want {
			t.Errorf("%s", name)
		}
	}
}

// find returns the description of one config.
func find(t *testing.T, entries []config.Entry, name string) config.Entry {
	t.Helper()
	i := slices.IndexFunc(entries, func(e config.Entry) bool { return e.Name == name })
	if i < 0 {
		t.Fatalf("%s is not described", name)
	}
	return entries[i]
}

func TestSynonymsAreInKafkasOrder(t *testing.T) {
	t.Parallel()
	started := newBroker(t, map[string]string{"log.retention.ms": "3", "broker.rack": "a", "log.roll.hours": "2", "num.partitions": "1"})
	altered := started.With(map[string]string{"log.retention.ms": "2", "num.partitions": "7", "unheard.of": "1"}, map[string]string{"num.partitions": "8"})
	topic := altered.Topic(map[string]string{"retention.ms": "1", "remote.storage.enable": "false"})
	none := []config.Synonym(nil)

	const (
		ofTopic   = kmsg.ConfigSourceDynamicTopicConfig
		ofAgent   = kmsg.ConfigSourceDynamicBrokerConfig
		ofCluster = kmsg.ConfigSourceDynamicDefaultBrokerConfig
		ofFile    = kmsg.ConfigSourceStaticBrokerConfig
		byDefault = kmsg.ConfigSourceDefaultConfig
	)
	for _, test := range []struct {
		entries []config.Entry
		name    string
		value   string // "" is none
		want    []config.Synonym
	}{
		{topic.Describe(), "retention.ms", "1", []config.Synonym{
			{Name: "retention.ms", Value: "1", Source: ofTopic},
			{Name: "log.retention.ms", Value: "2", Source: ofCluster},
			{Name: "log.retention.ms", Value: "3", Source: ofFile},
			{Name: "log.retention.hours", Value: "168", Source: byDefault},
		}},
		{topic.Describe(), "remote.storage.enable", "false", []config.Synonym{{Name: "remote.storage.enable", Value: "false", Source: ofTopic}}},
		{topic.Describe(), "remote.log.copy.disable", "false", none},
		{started.Topic(nil).Describe(), "retention.ms", "3", []config.Synonym{
			{Name: "log.retention.ms", Value: "3", Source: ofFile}, {Name: "log.retention.hours", Value: "168", Source: byDefault},
		}},
		// Kafka shows no synonym before the first of the config's own name.
		{started.Topic(nil).Describe(), "segment.ms", "7200000", none},
		{started.Topic(nil).Describe(), "segment.jitter.ms", "0", none},
		{newBroker(t, nil).Topic(nil).Describe(), "retention.ms", "604800000", none},
		{started.Describe(), "log.roll.ms", "", none},
		{started.Describe(), "log.roll.hours", "2", []config.Synonym{
			{Name: "log.roll.hours", Value: "2", Source: ofFile}, {Name: "log.roll.hours", Value: "168", Source: byDefault},
		}},
		{altered.Describe(), "num.partitions", "8", []config.Synonym{
			{Name: "num.partitions", Value: "8", Source: ofAgent},
			{Name: "num.partitions", Value: "7", Source: ofCluster},
			{Name: "num.partitions", Value: "1", Source: byDefault}, // to start with the default is to start with nothing
		}},
		{altered.DescribeCluster(), "num.partitions", "7", []config.Synonym{{Name: "num.partitions", Value: "7", Source: ofCluster}}},
		{altered.Describe(), "broker.rack", "a", []config.Synonym{{Name: "broker.rack", Value: "a", Source: ofFile}}},
		{altered.Describe(), "advertised.listeners", "", none},
	} {
		e := find(t, test.entries, test.name)
		if diff := cmp.Diff(test.want, e.Synonyms); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
		source := byDefault
		if len(test.want) > 0 {
			source = test.want[0].Source
		}
		if (e.Value != nil) != (test.value != "") || e.Value != nil && *e.Value != test.value || e.Source != source {
			t.Errorf("%s: %v from %v, want %q from %v", test.name, e.Value, e.Source, test.value, source)
		}
	}
	if started.NumPartitions() != 1 || altered.NumPartitions() != 8 {
		t.Error("alterations change the broker that they are made on")
	}
}

// What holds between the configs of a topic or of a group, in Kafka's words.
func TestConfigsTogether(t *testing.T) {
	t.Parallel()
	b := newBroker(t, nil)
	metrics := func(own map[string]string) error { return config.CheckMetrics(own) }
	for _, test := range []struct {
		check func(map[string]string) error
		own   map[string]string
		want  string
	}{
		{b.CheckTopic, map[string]string{"min.compaction.lag.ms": "5", "max.compaction.lag.ms": "5"}, ""},
		{b.CheckTopic, map[string]string{"min.compaction.lag.ms": "6", "max.compaction.lag.ms": "5"}, "conflict topic config setting min.compaction.lag.ms (6) > max.compaction.lag.ms (5)"},
		{
			b.With(map[string]string{"log.cleaner.min.compaction.lag.ms": "6"}, nil).CheckTopic,
			map[string]string{"max.compaction.lag.ms": "5"},
			"conflict topic config setting min.compaction.lag.ms (6) > max.compaction.lag.ms (5)",
		},
		{b.CheckTopic, map[string]string{"nope": "1"}, "Unknown topic config name: nope"},
		{b.CheckGroup, map[string]string{"consumer.session.timeout.ms": "60000", "consumer.heartbeat.interval.ms": "15000"}, ""},
		{b.CheckGroup, map[string]string{"consumer.session.timeout.ms": "44999"}, "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms"},
		{b.CheckGroup, map[string]string{"consumer.session.timeout.ms": "60001"}, "consumer.session.timeout.ms must be less than or equal to group.consumer.max.session.timeout.ms"},
		{b.CheckGroup, map[string]string{"consumer.heartbeat.interval.ms": "4999"}, "consumer.heartbeat.interval.ms must be greater than or equal to group.consumer.min.heartbeat.interval.ms"},
		{b.CheckGroup, map[string]string{"consumer.heartbeat.interval.ms": "x"}, "Invalid value x for configuration consumer.heartbeat.interval.ms: Not a number of type INT"},
		{b.CheckGroup, map[string]string{"retention.ms": "1"}, "Unknown group config name: retention.ms"},
		{
			newBroker(t, map[string]string{"group.consumer.min.session.timeout.ms": "1"}).CheckGroup,
			map[string]string{"consumer.session.timeout.ms": "5000"},
			"consumer.session.timeout.ms must be greater than consumer.heartbeat.interval.ms",
		},
		{metrics, map[string]string{"interval.ms": "100", "metrics": "*", "match": "client_id=a"}, ""},
		{metrics, map[string]string{"interval.ms": "99"}, "Invalid value 99 for interval.ms, interval must be between 100 and 3600000 (1 hour)"},
		{metrics, map[string]string{"nope": "1"}, "Unknown client metrics configuration: nope"},
		{config.CheckBroker, map[string]string{"log.dirs": "1", "broker.id": "1", "log.retention.ms": "x"}, "Cannot update these configs dynamically: [broker.id, log.dirs]"},
		{config.CheckBroker, map[string]string{"log.retention.hours": "1"}, "Cannot update these configs dynamically: [log.retention.hours]"},
	} {
		err := test.check(test.own)
		if (err == nil) != (test.want == "") || err != nil && (err.Error() != test.want || !errors.Is(err, config.ErrInvalid)) {
			t.Errorf("%v: %v, want %q", test.own, err, test.want)
		}
	}
}

func TestGroupsAndMetrics(t *testing.T) {
	t.Parallel()
	b := newBroker(t, nil)
	own := map[string]string{"consumer.session.timeout.ms": "50000"}
	g := b.Group(own)
	if g.SessionTimeout != 50*time.Second || g.HeartbeatInterval != 5*time.Second {
		t.Errorf("session timeout %v, heartbeat interval %v", g.SessionTimeout, g.HeartbeatInterval)
	}
	// What was set when other bounds held.
	stricter := newBroker(t, map[string]string{"group.consumer.max.session.timeout.ms": "45000"})
	if got := stricter.Group(own).SessionTimeout; got != 45*time.Second {
		t.Errorf("session timeout %v, want the longest that is allowed", got)
	}
	e := find(t, g.Describe(), "consumer.session.timeout.ms")
	want := []config.Synonym{
		{Name: "consumer.session.timeout.ms", Value: "50000", Source: kmsg.ConfigSourceGroupConfig},
		{Name: "group.consumer.session.timeout.ms", Value: "45000", Source: kmsg.ConfigSourceDefaultConfig},
	}
	if diff := cmp.Diff(want, e.Synonyms); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(config.DescribeMetrics(nil)) != 0 {
		t.Error("a subscription on which nothing was set has configs")
	}
	e = find(t, config.DescribeMetrics(map[string]string{"metrics": "a"}), "metrics")
	if *e.Value != "a" || e.Source != kmsg.ConfigSourceClientMetricsConfig {
		t.Errorf("metrics=%s from %v", *e.Value, e.Source)
	}
}

func TestTypedValues(t *testing.T) {
	t.Parallel()
	b := newBroker(t, map[string]string{"auto.create.topics.enable": " False "})
	if b.AutoCreateTopics() || !newBroker(t, nil).AutoCreateTopics() {
		t.Error("auto.create.topics.enable")
	}
	type typed struct {
		Policy        string
		Compact       bool
		Compression   batch.CompressionType
		Level         int
		MaxBytes      int32
		LogAppendTime bool
		Before, After time.Duration
	}
	of := func(own map[string]string) typed {
		c := b.Topic(own)
		return typed{
			c.CleanupPolicy, c.Compact, c.Compression, c.CompressionLevel, c.MaxMessageBytes,
			c.LogAppendTime, c.TimestampBeforeMax, c.TimestampAfterMax,
		}
	}
	if diff := cmp.Diff(typed{"delete", false, "producer", 0, 1048588, false, batch.Unbounded, time.Hour}, of(nil)); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
	own := map[string]string{
		"cleanup.policy": "delete, compact", "compression.type": "zstd", "compression.zstd.level": "-5", "compression.gzip.level": "7",
		"max.message.bytes": " 1000 ", "message.timestamp.type": "LogAppendTime", "message.timestamp.before.max.ms": "1",
		"message.timestamp.after.max.ms": fmt.Sprint(int64(math.MaxInt64)),
	}
	if diff := cmp.Diff(typed{"delete, compact", true, "zstd", -5, 1000, true, time.Millisecond, batch.Unbounded}, of(own)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for codec, level := range map[string]int{"gzip": -1, "lz4": 9, "zstd": 3, "snappy": 0, "uncompressed": 0} {
		if got := of(map[string]string{"compression.type": codec}).Level; got != level {
			t.Errorf("level of %s: %d, want %d", codec, got, level)
		}
	}
	if diff := cmp.Diff(own, b.Topic(own).Own()); diff != "" {
		t.Errorf("own values (-want +got):\n%s", diff)
	}
}

func FuzzCheckTopic(f *testing.F) {
	for name, v := range values {
		f.Add(name, v.good)
		f.Add(name, v.bad)
	}
	b, err := config.NewBroker(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		switch err := config.CheckTopic(name, value); {
		case err == nil:
			b.Topic(map[string]string{name: value}).Describe()
		case !errors.Is(err, config.ErrInvalid):
			t.Errorf("%q=%q: %v", name, value, err)
		}
	})
}
