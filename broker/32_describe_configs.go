package broker

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol"
)

// DescribeConfigs, v1 to v4. KIP-226 (synonyms), KIP-569 (types, documentation).
func (b *Broker) describeConfigs(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.DescribeConfigsRequest)
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		resp := r.ResponseKind().(*kmsg.DescribeConfigsResponse)
		view := b.view(ctx)
		for _, asked := range r.Resources {
			answer := kmsg.NewDescribeConfigsResponseResource()
			answer.ResourceType, answer.ResourceName = asked.ResourceType, asked.ResourceName
			entries, err := b.configEntries(view, asked.ResourceType, asked.ResourceName)
			answer.ErrorCode, answer.ErrorMessage = errorCode(err), errorMessage(err)
			for _, e := range entries {
				if len(asked.ConfigNames) == 0 || slices.Contains(asked.ConfigNames, e.Name) {
					answer.Configs = append(answer.Configs, describeEntry(e, r))
				}
			}
			resp.Resources = append(resp.Resources, answer)
		}
		return resp
	})
}

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
		if err := b.checkBrokerResource(name); err != nil {
			return nil, err
		}
		entries := view.Broker.Describe()
		if name == "" { // what is cluster-wide is only what was altered
			entries = slices.DeleteFunc(entries, func(e config.Entry) bool {
				return e.Source != kmsg.ConfigSourceDynamicDefaultBrokerConfig
			})
		}
		return entries, nil
	}
	return nil, unsupportedResource(kind)
}

// checkBrokerResource accepts this agent and "", which is the whole cluster.
func (b *Broker) checkBrokerResource(name string) error {
	if name == "" {
		return nil
	}
	id, err := strconv.Atoi(name)
	if err != nil {
		return &requestError{kerr.InvalidRequest, fmt.Sprintf("Node id must be an integer, but it is: %s", name)}
	}
	if int32(id) != b.NodeID {
		return &requestError{kerr.InvalidRequest, fmt.Sprintf("Unexpected broker id, expected %d or empty string, but received %s", b.NodeID, name)}
	}
	return nil
}

func unsupportedResource(kind kmsg.ConfigResourceType) error {
	return &requestError{kerr.InvalidRequest, fmt.Sprintf("Unsupported resource type: %s", kind)}
}

func describeEntry(e config.Entry, r *kmsg.DescribeConfigsRequest) kmsg.DescribeConfigsResponseResourceConfig {
	c := kmsg.NewDescribeConfigsResponseResourceConfig()
	c.Name, c.Value, c.ReadOnly, c.Source, c.ConfigType = e.Name, e.Value, e.ReadOnly, e.Source, e.Type
	c.IsDefault = e.Source == kmsg.ConfigSourceDefaultConfig
	if r.IncludeDocumentation {
		c.Documentation = &e.Doc
	}
	if r.IncludeSynonyms {
		for _, s := range e.Synonyms {
			syn := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
			syn.Name, syn.Value, syn.Source = s.Name, &s.Value, s.Source
			c.ConfigSynonyms = append(c.ConfigSynonyms, syn)
		}
	}
	return c
}
