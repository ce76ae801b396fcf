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
	topicByName  = byName(topicDefinitions)
	brokerByName = byName(brokerTable())
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
	for _, d := range topicDefinitions {
		if d.Broker != "" {
			d.Name, d.Broker, d.Dynamic = d.Broker, "", true
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b Definition) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// CheckTopic says whether a topic may be given the value. The error is ErrInvalid.
func CheckTopic(name, value string) error {
	d := topicByName[name]
	if d == nil {
		return invalidError(fmt.Sprintf("Unknown topic config name: %s", name))
	}
	return d.checkValue(value)
}

// CheckBroker says whether the cluster-wide broker config may be altered to
// the value at run time. The error is ErrInvalid.
func CheckBroker(name, value string) error {
	d := brokerByName[name]
	if d == nil || !d.Dynamic {
		return invalidError(fmt.Sprintf("Cannot update these configs dynamically: Set(%s)", name))
	}
	return d.checkValue(value)
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

func (d *Definition) checkValue(value string) error {
	if err := d.check(value); err != nil {
		return invalidError(fmt.Sprintf("Invalid value %s for configuration %s: %v", value, d.Name, err))
	}
	return nil
}

// Broker is the effective broker configuration: what the agent was started
// with, under what was altered cluster-wide. Immutable.
type Broker struct {
	static  map[string]string
	dynamic map[string]string
}

// NewBroker returns the configuration of an agent that was started with the
// values. Errors are ErrInvalid.
func NewBroker(static map[string]string) (*Broker, error) {
	for name, v := range static {
		d := brokerByName[name]
		if d == nil {
			return nil, invalidError(fmt.Sprintf("Unknown broker config name: %s", name))
		}
		if err := d.checkValue(v); err != nil {
			return nil, err
		}
	}
	return &Broker{static: maps.Clone(static)}, nil
}

// With returns the configuration under other cluster-wide dynamic values.
func (b *Broker) With(dynamic map[string]string) *Broker {
	return &Broker{static: b.static, dynamic: dynamic}
}

// AutoCreateTopics is auto.create.topics.enable.
func (b *Broker) AutoCreateTopics() bool {
	return parseBool(b.value("auto.create.topics.enable"))
}

// NumPartitions is num.partitions.
func (b *Broker) NumPartitions() int32 { return int32(parseInt(b.value("num.partitions"))) }

// Dynamic returns the values that were altered cluster-wide. Not to be changed.
func (b *Broker) Dynamic() map[string]string { return b.dynamic }

func (b *Broker) value(name string) string { return b.chain(brokerByName[name])[0].Value }

// chain is where a broker config's value comes from, the effective one first.
func (b *Broker) chain(d *Definition) []Synonym {
	var c []Synonym
	if v, ok := b.dynamic[d.Name]; ok {
		c = append(c, Synonym{d.Name, v, kmsg.ConfigSourceDynamicDefaultBrokerConfig})
	}
	if v, ok := b.static[d.Name]; ok {
		c = append(c, Synonym{d.Name, v, kmsg.ConfigSourceStaticBrokerConfig})
	}
	if !d.Null {
		c = append(c, Synonym{d.Name, d.Default, kmsg.ConfigSourceDefaultConfig})
	}
	return c
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

func (t *Topic) value(name string) string { return t.chain(topicByName[name])[0].Value }

func (t *Topic) chain(d *Definition) []Synonym {
	var c []Synonym
	if v, ok := t.own[d.Name]; ok {
		c = append(c, Synonym{d.Name, v, kmsg.ConfigSourceDynamicTopicConfig})
	}
	if d.Broker != "" {
		return append(c, t.broker.chain(brokerByName[d.Broker])...)
	}
	return append(c, Synonym{d.Name, d.Default, kmsg.ConfigSourceDefaultConfig})
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

// Describe returns every config of the topic, by name.
func (t *Topic) Describe() []Entry {
	entries := make([]Entry, 0, len(topicDefinitions))
	for i := range topicDefinitions {
		d := &topicDefinitions[i]
		entries = append(entries, entry(d, t.chain(d), false))
	}
	return entries
}

// Describe returns every config of the broker, by name.
func (b *Broker) Describe() []Entry {
	entries := make([]Entry, 0, len(brokerByName))
	for _, name := range slices.Sorted(maps.Keys(brokerByName)) {
		d := brokerByName[name]
		entries = append(entries, entry(d, b.chain(d), !d.Dynamic))
	}
	return entries
}

func entry(d *Definition, chain []Synonym, readOnly bool) Entry {
	e := Entry{Definition: d, Source: kmsg.ConfigSourceDefaultConfig, ReadOnly: readOnly, Synonyms: chain}
	if len(chain) > 0 {
		e.Value, e.Source = &chain[0].Value, chain[0].Source
	}
	return e
}
