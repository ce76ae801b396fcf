package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/metadata"
)

// Which agent group a topic belongs to. Nobody sees topics of another group than
// the agent's own: the store shows none. What is left for handlers is who may make
// a topic in another group, or move one there: it would tell whether the name is
// taken. So only agents of the default group may, which is the operators'.

// askedGroup is the agent group that the request names; nil if it names none.
func askedGroup(t *kmsg.CreateTopicsRequestTopic) (group *string) {
	for _, c := range t.Configs {
		if c.Name == config.AgentGroup && c.Value != nil {
			group = c.Value
		}
	}
	return group
}

// groupOfNew returns the agent group of a topic that is to be made: the one that
// is asked for, else that of its name's prefix; nil if that is this agent's own.
// Errors are a *requestError or config.ErrInvalid.
func (b *Broker) groupOfNew(view *topology.Snapshot, name string, asked *string) (*string, error) {
	if asked != nil {
		return otherGroup(view, *asked)
	}
	prefix, group, ok := b.TopicGroups.Of(name)
	if !ok {
		return nil, nil
	}
	other, err := otherGroup(view, group)
	if err != nil { // without the name of the other one
		return nil, &requestError{kerr.PolicyViolation, fmt.Sprintf("Topics whose names begin with '%s' are not of this agent group.", prefix)}
	}
	return other, nil
}

// otherGroup returns the group if topics may be made in it or moved there; nil if
// it is this agent's own.
func otherGroup(view *topology.Snapshot, group string) (*string, error) {
	if err := config.CheckTopic(config.AgentGroup, group); err != nil {
		return nil, err
	}
	switch own := view.Broker.AgentGroup(); own {
	case group:
		return nil, nil
	case metadata.DefaultAgentGroup:
		return &group, nil
	default:
		return nil, &requestError{kerr.PolicyViolation, fmt.Sprintf(
			"Agents of the agent group '%s' make topics in their own group and move none to another: ask one of the default group.", own)}
	}
}

// describeNew are the configs of a topic that was just made, which need not be one
// that this agent sees.
func describeNew(view *topology.Snapshot, t *metadata.NewTopic) []config.Entry {
	configs := t.Configs
	if t.AgentGroup != nil {
		configs = maps.Clone(configs)
		if configs == nil {
			configs = map[string]string{}
		}
		configs[config.AgentGroup] = *t.AgentGroup
	}
	return view.Broker.Topic(configs).Describe()
}

// checkTopic checks changes of a topic's configs.
func checkTopic(view *topology.Snapshot) func(own, altered map[string]string) error {
	return func(own, altered map[string]string) error {
		if err := view.Broker.CheckTopic(own); err != nil {
			return err
		}
		if group, ok := altered[config.AgentGroup]; ok {
			_, err := otherGroup(view, group)
			return err
		}
		return nil
	}
}

// alterTopic changes a topic's configs. To take the agent group off, or to leave it
// out, moves no topic: it stays with those who serve it.
func (b *Broker) alterTopic(view *topology.Snapshot, t *topology.Topic) func(context.Context, metadata.ConfigChange) error {
	tried := false
	return func(ctx context.Context, c metadata.ConfigChange) error {
		if group := c.Values[config.AgentGroup]; group != nil && *group != view.Broker.AgentGroup() {
			c.AgentGroup = group
		}
		c.Values = maps.Clone(c.Values)
		delete(c.Values, config.AgentGroup)
		err := b.Store.AlterTopicConfigs(ctx, t.ID, c)
		if tried && c.AgentGroup != nil && errors.Is(err, metadata.ErrUnknownTopic) {
			return nil // the first try, whose outcome was unknown, moved it out of sight
		}
		tried = true
		return err
	}
}
