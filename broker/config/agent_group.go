package config

//lint:file-ignore ST1005 The errors are worded as Kafka words those of its configs.

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/metadata"
)

// AgentGroup is the config that says which agents serve a topic, and the one of
// an agent that says to which group it belongs. It is no value that is set on a
// topic among others: who sees a topic is of its group, and setting it moves the
// topic (metadata.ConfigChange). See metadata.DefaultAgentGroup.
const AgentGroup = "streamhouse.agent.group"

func agentGroup(v string) error {
	if !metadata.LegalAgentGroup(v) {
		return fmt.Errorf("String must be at most %d ASCII alphanumerics, '.', '_' and '-'", metadata.MaxAgentGroupLength)
	}
	return nil
}

// AgentGroup is the group to which this agent belongs.
func (b *Broker) AgentGroup() string { return b.Text(AgentGroup) }

// agentGroup describes the group of a topic, which is that of the agent that shows
// it. Where that is the default one the config is at its default. Elsewhere it is
// read-only, so that tools which copy the configs of topics leave it out.
func (t *Topic) agentGroup(d *Definition) Entry {
	group, given := t.own[AgentGroup]
	if !given {
		group = t.broker.AgentGroup()
	}
	e := Entry{Definition: d, Value: &group, Source: kmsg.ConfigSourceDefaultConfig}
	if group != d.Default {
		e.Source, e.ReadOnly = kmsg.ConfigSourceDynamicTopicConfig, true
		e.Synonyms = []Synonym{{d.Name, group, e.Source}}
	}
	return e
}

// TopicGroups are the agent groups in which new topics are made, by prefixes of the
// topics' names. Immutable; nil is none.
type TopicGroups map[string]string

// Of returns the longest prefix of a topic's name that has a group, and the group.
func (g TopicGroups) Of(topic string) (prefix, group string, ok bool) {
	for p, of := range g {
		if strings.HasPrefix(topic, p) && (!ok || len(p) > len(prefix)) {
			prefix, group, ok = p, of, true
		}
	}
	return prefix, group, ok
}

// ParseTopicGroups reads prefix=group, separated by commas. The group may be empty,
// which is the default one, and the prefix, which is that of all topics.
func ParseTopicGroups(s string) (TopicGroups, error) {
	groups := TopicGroups{}
	for _, rule := range splitList(s) {
		prefix, group, ok := strings.Cut(rule, "=")
		_, twice := groups[prefix]
		switch {
		case !ok:
			return nil, fmt.Errorf("%q is not prefix=group", rule)
		case !legalPrefix.MatchString(prefix):
			return nil, fmt.Errorf("no topic's name can begin with %q", prefix)
		case !metadata.LegalAgentGroup(group):
			return nil, fmt.Errorf("no agent group can be called %q", group)
		case twice:
			return nil, fmt.Errorf("the prefix %q is named twice", prefix)
		}
		groups[prefix] = group
	}
	return groups, nil
}

var legalPrefix = regexp.MustCompile(`^[a-zA-Z0-9._-]{0,249}$`)

// String is what ParseTopicGroups reads, in the order of prefixes.
func (g TopicGroups) String() string {
	var rules []string
	for _, prefix := range slices.Sorted(maps.Keys(g)) {
		rules = append(rules, prefix+"="+g[prefix])
	}
	return strings.Join(rules, ",")
}
