package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/protocol/batch"
)

// ErrInvalid matches every error about a config's name or value; Kafka's
// INVALID_CONFIG. The message is for the client.
var ErrInvalid = errors.New("invalid config")

// invalidError carries Kafka's words without ErrInvalid's.
type invalidError string

func (e invalidError) Error() string        { return string(e) }
func (e invalidError) Is(target error) bool { return target == ErrInvalid }

var (
	topicByName   = byName(topicDefinitions)
	brokerByName  = byName(brokerTable())
	groupByName   = byName(groupDefinitions)
	metricsByName = byName(metricsDefinitions)
)

func byName(defs []Definition) map[string]*Definition {
	m := make(map[string]*Definition, len(defs))
	for i := range defs {
		m[defs[i].Name] = &defs[i]
	}
	return m
}

// brokerTable is every broker config: its own, and the defaults of topics.
func brokerTable() []Definition {
	all := slices.Clone(brokerDefinitions)
	names := map[string][]string{}
	for _, d := range topicDefinitions {
		if d.Broker == "" {
			continue
		}
		d.names = append([]string{d.Broker}, d.Coarse...)
		for _, name := range d.Coarse {
			names[name] = d.names
		}
		d.Name, d.Null, d.Dynamic = d.Broker, len(d.Coarse) > 0, true
		d.Broker, d.Coarse = "", nil
		all = append(all, d)
	}
	for i := range all {
		d := &all[i]
		if d.names == nil {
			d.names = names[d.Name]
		}
		if d.names == nil {
			d.names = []string{d.Name}
		}
	}
	slices.SortFunc(all, func(a, b Definition) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// IsList says whether the topic or broker config is a list, which incremental
// changes may append to and subtract from.
func IsList(name string) bool {
	d := topicByName[name]
	if d == nil {
		d = brokerByName[name]
	}
	return d != nil && d.Type == kmsg.ConfigTypeList
}

// Check says whether the config may have the value, apart from what others have.
// The error is ErrInvalid.
func (d *Definition) Check(value string) error {
	err := d.check(value)
	if _, whole := err.(invalidError); err != nil && !whole {
		return invalidError(fmt.Sprintf("Invalid value %s for configuration %s: %v", value, d.Name, err))
	}
	return err
}

// Broker is the effective broker configuration: what the agent was started
// with, under what was altered cluster-wide, under what was altered for this
// agent alone. Immutable; the zero value has all defaults.
type Broker struct {
	static  map[string]string
	dynamic map[string]string
	own     map[string]string
}

// NewBroker returns the configuration of an agent that was started with the
// values. Errors are ErrInvalid.
func NewBroker(static map[string]string) (*Broker, error) {
	b := &Broker{static: map[string]string{}}
	for name, v := range static {
		d := brokerByName[name]
		if d == nil {
			return nil, invalidError(fmt.Sprintf("Unknown broker config name: %s", name))
		}
		if err := d.Check(v); err != nil {
			return nil, err
		}
		if d.Null || v != d.Default { // else nobody need know that it was set
			b.static[name] = v
		}
	}
	if err := b.checkGroups(); err != nil {
		return nil, err
	}
	return b, nil
}

// Settings returns the broker configs that are settings of agents, by name.
func Settings() []*Definition {
	var all []*Definition
	for i := range brokerDefinitions {
		if d := &brokerDefinitions[i]; d.Setting {
			all = append(all, d)
		}
	}
	return all
}

// With returns the configuration under other dynamic values: of the cluster,
// and of this agent alone.
func (b *Broker) With(dynamic, own map[string]string) *Broker {
	return &Broker{static: b.static, dynamic: dynamic, own: own}
}

// AutoCreateTopics is auto.create.topics.enable.
func (b *Broker) AutoCreateTopics() bool {
	return parseBool(b.Text("auto.create.topics.enable"))
}

// NumPartitions is num.partitions.
func (b *Broker) NumPartitions() int32 { return int32(b.Int("num.partitions")) }

// Text returns the value of the broker config of that name, which must be one that
// has a value.
func (b *Broker) Text(name string) string { return b.values(brokerByName[name])[0].Value }

// Int is Text of a number.
func (b *Broker) Int(name string) int64 { return parseInt(b.Text(name)) }

// Duration is Text of a time, in whatever unit.
func (b *Broker) Duration(name string) time.Duration {
	return batch.Millis(parseInt(inMillis(name, b.Text(name))))
}

// List is Text of a list.
func (b *Broker) List(name string) []string { return splitList(b.Text(name)) }

// Dynamic returns the values that were altered cluster-wide. Not to be changed.
func (b *Broker) Dynamic() map[string]string { return b.dynamic }

// Own returns the values that were altered for this agent. Not to be changed.
func (b *Broker) Own() map[string]string { return b.own }

// values are all that give a broker config its value, the effective one first.
func (b *Broker) values(d *Definition) []Synonym {
	var all []Synonym
	for _, level := range []struct {
		values map[string]string
		source kmsg.ConfigSource
	}{
		{b.own, kmsg.ConfigSourceDynamicBrokerConfig},
		{b.dynamic, kmsg.ConfigSourceDynamicDefaultBrokerConfig},
		{b.static, kmsg.ConfigSourceStaticBrokerConfig},
	} {
		for _, name := range d.names {
			if v, ok := level.values[name]; ok {
				all = append(all, Synonym{name, v, level.source})
			}
		}
	}
	for _, name := range d.names {
		if def := brokerByName[name]; !def.Null {
			all = append(all, Synonym{name, def.Default, kmsg.ConfigSourceDefaultConfig})
		}
	}
	return all
}

// shown are the synonyms of a broker config that clients see: as in Kafka,
// those before the first of the config's own name are left out, which are all
// if it has no value.
func shown(d *Definition, values []Synonym) []Synonym {
	i := slices.IndexFunc(values, func(s Synonym) bool { return s.Name == d.Name })
	if i < 0 {
		return nil
	}
	return values[i:]
}

// Topic is a topic's effective configuration, with what the broker acts on
// typed. Immutable.
type Topic struct {
	own    map[string]string
	broker *Broker

	CleanupPolicy      string
	Compact            bool // CleanupPolicy contains compact
	Delete             bool // CleanupPolicy contains delete
	Compression        batch.CompressionType
	CompressionLevel   int // of Compression; 0 is the codec's default
	MaxMessageBytes    int32
	LogAppendTime      bool
	TimestampBeforeMax time.Duration
	TimestampAfterMax  time.Duration
}

// Topic returns the effective configuration of a topic on which own was set.
// Values were checked when they were set.
func (b *Broker) Topic(own map[string]string) *Topic {
	t := &Topic{own: own, broker: b}
	t.CleanupPolicy = t.value("cleanup.policy")
	policies := splitList(t.CleanupPolicy)
	t.Compact, t.Delete = slices.Contains(policies, "compact"), slices.Contains(policies, "delete")
	t.Compression = batch.CompressionType(t.value("compression.type"))
	switch t.Compression {
	case batch.CompressionGzip, batch.CompressionLz4, batch.CompressionZstd:
		t.CompressionLevel = int(parseInt(t.value("compression." + string(t.Compression) + ".level")))
	}
	t.MaxMessageBytes = int32(parseInt(t.value("max.message.bytes")))
	t.LogAppendTime = t.value("message.timestamp.type") == "LogAppendTime"
	t.TimestampBeforeMax = batch.Millis(parseInt(t.value("message.timestamp.before.max.ms")))
	t.TimestampAfterMax = batch.Millis(parseInt(t.value("message.timestamp.after.max.ms")))
	return t
}

// Own returns what was set on the topic itself. Not to be changed.
func (t *Topic) Own() map[string]string { return t.own }

func (t *Topic) value(name string) string { return t.entry(topicByName[name]).value() }

func (t *Topic) entry(d *Definition) Entry {
	if d.Name == AgentGroup {
		return t.agentGroup(d)
	}
	return t.broker.entryOf(d, t.own, kmsg.ConfigSourceDynamicTopicConfig)
}

// entryOf describes a config of something whose own values come before those of
// the broker config that is their default.
func (b *Broker) entryOf(d *Definition, own map[string]string, source kmsg.ConfigSource) Entry {
	e := Entry{Definition: d, Value: &d.Default, Source: kmsg.ConfigSourceDefaultConfig}
	if d.Broker != "" {
		def := brokerByName[d.Broker]
		values := b.values(def)
		e.Value, e.Synonyms = new(inMillis(values[0].Name, values[0].Value)), shown(def, values)
	}
	if v, ok := own[d.Name]; ok {
		e.Value, e.Synonyms = &v, append([]Synonym{{d.Name, v, source}}, e.Synonyms...)
	}
	if len(e.Synonyms) > 0 {
		e.Source = e.Synonyms[0].Source
	}
	return e
}

// Synonym is one place that gives a config a value (KIP-226).
type Synonym struct {
	Name   string
	Value  string
	Source kmsg.ConfigSource
}

// Entry is a config with its effective value and where that comes from.
type Entry struct {
	*Definition
	Value    *string // nil: none
	Source   kmsg.ConfigSource
	ReadOnly bool
	Synonyms []Synonym // the effective one first
}

func (e Entry) value() string { return *e.Value }

// Describe returns every config of the topic, by name.
func (t *Topic) Describe() []Entry {
	entries := make([]Entry, len(topicDefinitions))
	for i := range topicDefinitions {
		entries[i] = t.entry(&topicDefinitions[i])
	}
	return entries
}

// Describe returns every config of the broker, by name.
func (b *Broker) Describe() []Entry {
	entries := make([]Entry, 0, len(brokerByName))
	for _, name := range slices.Sorted(maps.Keys(brokerByName)) {
		d := brokerByName[name]
		e := Entry{Definition: d, Source: kmsg.ConfigSourceDefaultConfig, ReadOnly: !d.Dynamic, Synonyms: shown(d, b.values(d))}
		if len(e.Synonyms) > 0 {
			e.Value, e.Source = &e.Synonyms[0].Value, e.Synonyms[0].Source
		}
		entries = append(entries, e)
	}
	return entries
}

// DescribeCluster returns the configs that were altered cluster-wide, by name.
func (b *Broker) DescribeCluster() []Entry {
	var entries []Entry
	for _, name := range slices.Sorted(maps.Keys(b.dynamic)) {
		if d := brokerByName[name]; d != nil {
			v := b.dynamic[name]
			entries = append(entries, Entry{
				Definition: d, Value: &v, Source: kmsg.ConfigSourceDynamicDefaultBrokerConfig, ReadOnly: !d.Dynamic,
				Synonyms: []Synonym{{name, v, kmsg.ConfigSourceDynamicDefaultBrokerConfig}},
			})
		}
	}
	return entries
}
