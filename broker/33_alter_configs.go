package broker

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol"
)

// AlterConfigs, v0 to v2. KIP-133. What the request does not name goes back to
// its default; IncrementalAlterConfigs is what clients use today.
func (b *Broker) alterConfigs(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.AlterConfigsRequest)
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		resp := r.ResponseKind().(*kmsg.AlterConfigsResponse)
		b.refresh(ctx)
		for _, asked := range r.Resources {
			change := metadata.ConfigChange{Values: map[string]*string{}, Replace: true}
			var err error
			for _, c := range asked.Configs {
				if c.Value == nil {
					err = nullConfig(c.Name)
				}
				change.Values[c.Name] = c.Value
			}
			if err == nil {
				err = b.alterResource(ctx, asked.ResourceType, asked.ResourceName, change, r.ValidateOnly)
			}
			answer := kmsg.NewAlterConfigsResponseResource()
			answer.ResourceType, answer.ResourceName = asked.ResourceType, asked.ResourceName
			answer.ErrorCode, answer.ErrorMessage = errorCode(err), errorMessage(err)
			resp.Resources = append(resp.Resources, answer)
		}
		b.refresh(ctx)
		return resp
	})
}

func nullConfig(name string) error {
	return &requestError{kerr.InvalidConfig, fmt.Sprintf("Null value not supported for : %s", name)}
}

// alterResource validates a change and makes it. Changes are idempotent, so
// one whose outcome is unknown is made again.
func (b *Broker) alterResource(ctx context.Context, kind kmsg.ConfigResourceType, name string, c metadata.ConfigChange, validateOnly bool) error {
	check, apply := config.CheckBroker, func() error { return b.Store.AlterClusterConfigs(ctx, c) }
	switch kind {
	case kmsg.ConfigResourceTypeTopic:
		t := b.Topology.Snapshot().TopicByName(name)
		if t == nil {
			return metadata.ErrUnknownTopic
		}
		check, apply = config.CheckTopic, func() error { return b.Store.AlterTopicConfigs(ctx, t.ID, c) }
	case kmsg.ConfigResourceTypeBroker:
		if name != "" {
			return &requestError{kerr.InvalidRequest, "Agents have no dynamic configs of their own; alter the cluster's default (--entity-default) instead."}
		}
	default:
		return unsupportedResource(kind)
	}
	for _, key := range slices.Sorted(maps.Keys(c.Values)) {
		if v := c.Values[key]; v != nil {
			if err := check(key, *v); err != nil {
				return err
			}
		}
	}
	if validateOnly {
		return nil
	}
	if err := untilKnown(ctx, apply); err != nil {
		return err
	}
	b.Log.Info("configs altered", "resource_type", kind.String(), "resource", name, "configs", slices.Sorted(maps.Keys(c.Values)))
	return nil
}
