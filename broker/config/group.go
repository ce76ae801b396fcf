package config

import (
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/protocol/batch"
)

// Group is the effective configuration of a consumer group (KIP-848), with what
// the coordinator acts on typed. Immutable.
type Group struct {
	own    map[string]string
	broker *Broker

	// SessionTimeout is after how long without a heartbeat a member is taken for
	// gone.
	SessionTimeout time.Duration
	// HeartbeatInterval is how often members are told to be heard of.
	HeartbeatInterval time.Duration
}

// Group returns the effective configuration of a group on which own was set.
// Values were checked when they were set. As in Kafka, one that is not within the
// bounds that the agent has now counts as the nearest that is.
func (b *Broker) Group(own map[string]string) *Group {
	g := &Group{own: own, broker: b}
	g.SessionTimeout, g.HeartbeatInterval = g.time(sessionTimeout), g.time(heartbeatInterval)
	return g
}

// groupTime is a time of a group's members: the config, and the broker configs that
// bound it.
type groupTime struct{ name, min, max string }

var (
	sessionTimeout    = groupTime{"consumer.session.timeout.ms", "group.consumer.min.session.timeout.ms", "group.consumer.max.session.timeout.ms"}
	heartbeatInterval = groupTime{"consumer.heartbeat.interval.ms", "group.consumer.min.heartbeat.interval.ms", "group.consumer.max.heartbeat.interval.ms"}
)

func (g *Group) time(t groupTime) time.Duration {
	n := parseInt(g.value(t.name))
	return batch.Millis(min(max(n, g.broker.Int(t.min)), g.broker.Int(t.max)))
}

func (g *Group) value(name string) string { return g.entry(groupByName[name]).value() }

func (g *Group) entry(d *Definition) Entry {
	return g.broker.entryOf(d, g.own, kmsg.ConfigSourceGroupConfig)
}

// Describe returns every config of the group, by name.
func (g *Group) Describe() []Entry {
	entries := make([]Entry, len(groupDefinitions))
	for i := range groupDefinitions {
		entries[i] = g.entry(&groupDefinitions[i])
	}
	return entries
}

// DescribeMetrics returns the configs of a subscription to clients' metrics, by
// name: none of one on which nothing was set.
func DescribeMetrics(own map[string]string) []Entry {
	if len(own) == 0 {
		return nil
	}
	entries := make([]Entry, len(metricsDefinitions))
	for i := range metricsDefinitions {
		entries[i] = new(Broker).entryOf(&metricsDefinitions[i], own, kmsg.ConfigSourceClientMetricsConfig)
		entries[i].Synonyms = nil
	}
	return entries
}
