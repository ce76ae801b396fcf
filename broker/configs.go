package broker

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/metadata"
)

// What the handlers of configs share: the kinds of resources that have some.

// configEntries are the configs of a resource, as clients are shown them.
func (b *Broker) configEntries(view *topology.Snapshot, kind kmsg.ConfigResourceType, name string) ([]config.Entry, error) {
	switch kind {
	case kmsg.ConfigResourceTypeTopic:
		if err := checkTopicName(name); err != nil {
			return nil, err
		}
		t := view.TopicByName(name)
		if t == nil {
			return nil, metadata.ErrUnknownTopic
		}
		return t.Config.Describe(), nil
	case kmsg.ConfigResourceTypeBroker:
		if name == "" {
			return view.Broker.DescribeCluster(), nil
		}
		return view.Broker.Describe(), b.checkSelf(name, "expected %d or empty string, but received %s")
	case kmsg.ConfigResourceTypeBrokerLogger:
		if name == "" {
			return nil, &requestError{kerr.InvalidRequest, "Broker id must not be empty"}
		}
		return []config.Entry{rootLogger(b.Level)}, b.checkSelf(name, "expected %d but received %s")
	case kmsg.ConfigResourceTypeClientMetrics:
		if name == "" {
			return nil, &requestError{kerr.InvalidRequest, "Client metrics subscription name must not be empty"}
		}
		return config.DescribeMetrics(view.Resource(resource(kind, name))), nil
	case kmsg.ConfigResourceTypeGroupConfig:
		if name == "" {
			return nil, &requestError{kerr.InvalidRequest, "Group name must not be empty"}
		}
		return view.Group(name).Describe(), nil
	}
	return nil, unsupportedResource(kind)
}

// checkSelf accepts this agent, which alone knows its configs. wanted is the end
// of the message.
func (b *Broker) checkSelf(name, wanted string) error {
	id, err := strconv.ParseInt(name, 10, 32)
	if err != nil {
		return &requestError{kerr.InvalidRequest, fmt.Sprintf("Broker id must be an integer, but it is: %s", name)}
	}
	if int32(id) != b.NodeID {
		return &requestError{kerr.InvalidRequest, "Unexpected broker id, " + fmt.Sprintf(wanted, b.NodeID, name)}
	}
	return nil
}

func unsupportedResource(kind kmsg.ConfigResourceType) error {
	return &requestError{kerr.InvalidRequest, fmt.Sprintf("Unsupported resource type: %s", kind)}
}

func resource(kind kmsg.ConfigResourceType, name string) metadata.Resource {
	return metadata.Resource{Type: int8(kind), Name: name}
}

// alterable is a resource whose configs can be altered.
type alterable struct {
	own map[string]string // what is set on it
	// check is told what would be set on it, and which of these values are new.
	check func(own, altered map[string]string) error
	apply func(context.Context, metadata.ConfigChange) error
}

// alterable finds a resource by Kafka's rules. Any agent alters any resource, but
// for the loggers of another.
func (b *Broker) alterable(kind kmsg.ConfigResourceType, name string) (alterable, error) {
	view := b.Topology.Snapshot()
	stored := func(own map[string]string, check func(own, altered map[string]string) error) (alterable, error) {
		return alterable{own, check, func(ctx context.Context, c metadata.ConfigChange) error {
			return b.Store.AlterResourceConfigs(ctx, resource(kind, name), c)
		}}, checkResourceName(name)
	}
	switch kind {
	case kmsg.ConfigResourceTypeTopic:
		return b.alterableTopic(view, name)
	case kmsg.ConfigResourceTypeBroker:
		if name == "" {
			return alterable{view.Broker.Dynamic(), checkBroker, b.Store.AlterClusterConfigs}, nil
		}
		if err := checkRegistered(view, name); err != nil {
			return alterable{}, err
		}
		return stored(view.Resource(resource(kind, name)), checkBroker)
	case kmsg.ConfigResourceTypeBrokerLogger:
		return alterable{map[string]string{}, checkLoggers, b.applyLoggers}, b.checkSelf(name, "expected %d but received %s")
	case kmsg.ConfigResourceTypeClientMetrics:
		if name == "" {
			return alterable{}, &requestError{kerr.InvalidRequest, "Default client metrics resources are not allowed."}
		}
		return stored(view.Resource(resource(kind, name)), func(own, _ map[string]string) error {
			return invalidRequest(config.CheckMetrics(own))
		})
	case kmsg.ConfigResourceTypeGroupConfig:
		if name == "" {
			return alterable{}, &requestError{kerr.InvalidRequest, "Default group resources are not allowed."}
		}
		return stored(view.Resource(resource(kind, name)), func(own, _ map[string]string) error { return view.Broker.CheckGroup(own) })
	}
	return alterable{}, unsupportedResource(kind)
}

func (b *Broker) alterableTopic(view *topology.Snapshot, name string) (alterable, error) {
	if name == "" {
		return alterable{}, &requestError{kerr.InvalidRequest, "Default topic resources are not allowed."}
	}
	if err := checkTopicName(name); err != nil {
		return alterable{}, err
	}
	t := view.TopicByName(name)
	if t == nil {
		return alterable{}, &requestError{kerr.UnknownTopicOrPartition, fmt.Sprintf("The topic '%s' does not exist.", name)}
	}
	return alterable{own: t.Config.Own(), check: checkTopic(view), apply: b.alterTopic(view, t)}, nil
}

func checkRegistered(view *topology.Snapshot, name string) error {
	id, err := strconv.ParseInt(name, 10, 32)
	switch {
	case err != nil:
		return &requestError{kerr.InvalidRequest, "Unable to parse broker name as a base 10 number."}
	case id < 0:
		return &requestError{kerr.InvalidRequest, "Invalid negative broker ID."}
	case !view.Listed(int32(id)):
		return &requestError{kerr.BrokerIDNotRegistered, fmt.Sprintf("No broker with id %d found.", id)}
	}
	return nil
}

// checkResourceName refuses what a database can't keep as text.
func checkResourceName(name string) error {
	if strings.ToValidUTF8(name, "") != name || strings.ContainsRune(name, 0) {
		return &requestError{kerr.InvalidRequest, "The name of the resource is not text."}
	}
	return nil
}

// checkBroker checks what is new. Kafka calls that an invalid request, not an
// invalid config.
func checkBroker(_, altered map[string]string) error {
	return invalidRequest(config.CheckBroker(altered))
}

func invalidRequest(err error) error {
	if err == nil {
		return nil
	}
	return &requestError{kerr.InvalidRequest, err.Error()}
}

// alterResource validates a change and makes it. Changes are idempotent, so
// one whose outcome is unknown is made again.
func (b *Broker) alterResource(ctx context.Context, kind kmsg.ConfigResourceType, name string, c metadata.ConfigChange, validateOnly bool) error {
	r, err := b.alterable(kind, name)
	if err != nil {
		return err
	}
	own, altered := maps.Clone(r.own), map[string]string{}
	if own == nil || c.Replace {
		own = map[string]string{}
	}
	for key, v := range c.Values {
		if v == nil {
			delete(own, key)
		} else {
			own[key], altered[key] = *v, *v
		}
	}
	if err := r.check(own, altered); err != nil || validateOnly {
		return err
	}
	if err := untilKnown(ctx, func() error { return r.apply(ctx, c) }); err != nil {
		return err
	}
	b.Log.Info("configs altered", "resource_type", kind.String(), "resource", name, "configs", slices.Sorted(maps.Keys(c.Values)))
	return nil
}

// An agent has one logger.
const rootLoggerName = "root"

// logLevels are the levels of Kafka's loggers, and those of an agent's that they
// set.
var logLevels = map[string]slog.Level{
	"TRACE": slog.LevelDebug, "DEBUG": slog.LevelDebug, "INFO": slog.LevelInfo,
	"WARN": slog.LevelWarn, "ERROR": slog.LevelError, "FATAL": slog.LevelError,
}

func rootLogger(level *slog.LevelVar) config.Entry {
	value := level.Level().String()
	return config.Entry{
		Definition: &config.Definition{Name: rootLoggerName, Type: kmsg.ConfigTypeString, Doc: "The level of the agent's log, until it ends."},
		Value:      &value, Source: kmsg.ConfigSourceDynamicBrokerLoggerConfig,
	}
}

func checkLoggers(own, _ map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(own)) {
		if name != rootLoggerName {
			return &requestError{kerr.InvalidConfig, fmt.Sprintf("Logger %s does not exist!", name)}
		}
		if _, ok := logLevels[own[name]]; !ok {
			return &requestError{kerr.InvalidConfig, fmt.Sprintf(
				"Cannot set the log level of %s to %s as it is not a supported log level. Valid log levels are %s",
				name, own[name], strings.Join(slices.Sorted(maps.Keys(logLevels)), ", "),
			)}
		}
	}
	return nil
}

func (b *Broker) applyLoggers(_ context.Context, c metadata.ConfigChange) error {
	if v, ok := c.Values[rootLoggerName]; ok {
		if v == nil {
			return &requestError{kerr.InvalidRequest, "Removing the log level of the root logger is not allowed"}
		}
		b.Level.Set(logLevels[*v])
	}
	return nil
}
