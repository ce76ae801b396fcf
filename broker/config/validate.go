package config

//lint:file-ignore ST1005 The errors are Kafka's messages, word for word, which clients show.

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// CheckTopic says whether a topic may be given the value. The error is ErrInvalid.
func CheckTopic(name, value string) error {
	d := topicByName[name]
	if d == nil {
		return invalidError(fmt.Sprintf("Unknown topic config name: %s", name))
	}
	return d.Check(value)
}

// CheckTopic says whether a topic may have these values, all of them its own:
// each alone, and what holds between them. The error is ErrInvalid.
func (b *Broker) CheckTopic(own map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(own)) {
		if err := CheckTopic(name, own[name]); err != nil {
			return err
		}
	}
	t := b.Topic(own)
	shortest, longest := parseInt(t.value("min.compaction.lag.ms")), parseInt(t.value("max.compaction.lag.ms"))
	if shortest > longest {
		return invalidError(fmt.Sprintf("conflict topic config setting min.compaction.lag.ms (%d) > max.compaction.lag.ms (%d)", shortest, longest))
	}
	return nil
}

// CheckBroker says whether broker configs may be altered to the values at run
// time, of the cluster or of one agent. The error is ErrInvalid.
func CheckBroker(values map[string]string) error {
	var fixed []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if d := brokerByName[name]; d == nil || !d.Dynamic {
			fixed = append(fixed, name)
		}
	}
	if len(fixed) > 0 {
		return invalidError(fmt.Sprintf("Cannot update these configs dynamically: [%s]", strings.Join(fixed, ", ")))
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if err := brokerByName[name].Check(values[name]); err != nil {
			return err
		}
	}
	return nil
}

// CheckGroup says whether a consumer group may have these values. The error is
// ErrInvalid.
func (b *Broker) CheckGroup(own map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(own)) {
		d := groupByName[name]
		if d == nil {
			return invalidError(fmt.Sprintf("Unknown group config name: %s", name))
		}
		if err := d.Check(own[name]); err != nil {
			return err
		}
	}
	g := b.Group(own)
	return b.checkTimes("", func(name string) int64 { return parseInt(g.value(name)) })
}

// checkGroups checks what must hold between the broker configs of groups.
func (b *Broker) checkGroups() error {
	const low, high = "group.min.session.timeout.ms", "group.max.session.timeout.ms"
	if b.Int(low) > b.Int(high) {
		return invalidError(fmt.Sprintf("%s must be less than or equal to %s", low, high))
	}
	const prefix = "group." // of the broker config that is the default of a group's
	return b.checkTimes(prefix, func(name string) int64 { return b.Int(prefix + name) })
}

// checkTimes checks the times of a group's members, or, with the prefix of their
// names, the defaults of those.
func (b *Broker) checkTimes(prefix string, value func(name string) int64) error {
	for _, t := range []groupTime{heartbeatInterval, sessionTimeout} {
		switch n := value(t.name); {
		case n < b.Int(t.min):
			return invalidError(fmt.Sprintf("%s must be greater than or equal to %s", prefix+t.name, t.min))
		case n > b.Int(t.max):
			return invalidError(fmt.Sprintf("%s must be less than or equal to %s", prefix+t.name, t.max))
		}
	}
	if value(sessionTimeout.name) <= value(heartbeatInterval.name) {
		return invalidError(fmt.Sprintf("%s must be greater than %s", prefix+sessionTimeout.name, prefix+heartbeatInterval.name))
	}
	return nil
}

// CheckMetrics says whether a subscription to clients' metrics may have these
// values. The error is ErrInvalid.
func CheckMetrics(own map[string]string) error {
	const shortest, longest = 100, hour // ms
	for _, name := range slices.Sorted(maps.Keys(own)) {
		d := metricsByName[name]
		if d == nil {
			return invalidError(fmt.Sprintf("Unknown client metrics configuration: %s", name))
		}
		if err := d.Check(own[name]); err != nil {
			return err
		}
		if n := parseInt(own[name]); name == "interval.ms" && (n < shortest || n > longest) {
			return invalidError(fmt.Sprintf("Invalid value %d for interval.ms, interval must be between %d and %d (1 hour)", n, shortest, longest))
		}
	}
	return nil
}
