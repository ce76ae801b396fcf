package config

import (
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/protocol/batch"
)

// Group is the effective configuration of a consumer group (KIP-848). Immutable.
type Group struct {
	own    map[string]string
	broker *Broker
}

// Group returns the effective configuration of a group on which own was set.
// Values were checked when they were set.
func (b *Broker) Group(own map[string]string) *Group { return &Group{own, b} }

// SessionTimeout is consumer.session.timeout.ms.
func (g *Group) SessionTimeout() time.Duration {
	return batch.Millis(parseInt(g.value("consumer.session.timeout.ms")))
}

// HeartbeatInterval is consumer.heartbeat.interval.ms.
func (g *Group) HeartbeatInterval() time.Duration {
	return batch.Millis(parseInt(g.value("consumer.heartbeat.interval.ms")))
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
