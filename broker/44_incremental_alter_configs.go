package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol"
)

// IncrementalAlterConfigs, v0 to v1. KIP-339.
func (b *Broker) incrementalAlterConfigs(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.IncrementalAlterConfigsRequest)
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		resp := r.ResponseKind().(*kmsg.IncrementalAlterConfigsResponse)
		b.refresh(ctx)
		for i := range r.Resources {
			asked := &r.Resources[i]
			change, err := b.incrementalChange(asked)
			if err == nil {
				err = b.alterResource(ctx, asked.ResourceType, asked.ResourceName, change, r.ValidateOnly)
			}
			answer := kmsg.NewIncrementalAlterConfigsResponseResource()
			answer.ResourceType, answer.ResourceName = asked.ResourceType, asked.ResourceName
			answer.ErrorCode, answer.ErrorMessage = errorCode(err), errorMessage(err)
			resp.Resources = append(resp.Resources, answer)
		}
		b.refresh(ctx)
		return resp
	})
}

// incrementalChange turns the operations on a resource into plain values.
func (b *Broker) incrementalChange(r *kmsg.IncrementalAlterConfigsRequestResource) (metadata.ConfigChange, error) {
	change := metadata.ConfigChange{Values: map[string]*string{}}
	for _, c := range r.Configs {
		if _, twice := change.Values[c.Name]; twice {
			return change, &requestError{kerr.InvalidRequest, "Error due to duplicate config keys"}
		}
		if c.Value == nil && c.Op != kmsg.IncrementalAlterConfigOpDelete {
			return change, nullConfig(c.Name)
		}
		switch c.Op {
		case kmsg.IncrementalAlterConfigOpSet:
			change.Values[c.Name] = c.Value
		case kmsg.IncrementalAlterConfigOpDelete:
			change.Values[c.Name] = nil
		case kmsg.IncrementalAlterConfigOpAppend, kmsg.IncrementalAlterConfigOpSubtract:
			if !config.IsList(c.Name) {
				return change, &requestError{kerr.InvalidConfig, fmt.Sprintf("Can't %s to key %s because its type is not LIST.", strings.ToUpper(c.Op.String()), c.Name)}
			}
			v, err := b.editList(r, c)
			if err != nil {
				return change, err
			}
			change.Values[c.Name] = &v
		default:
			return change, &requestError{kerr.InvalidRequest, fmt.Sprintf("Unknown operation %d.", c.Op)}
		}
	}
	return change, nil
}

// editList appends to, or subtracts from, the effective value of a list.
func (b *Broker) editList(r *kmsg.IncrementalAlterConfigsRequestResource, c kmsg.IncrementalAlterConfigsRequestResourceConfig) (string, error) {
	entries, err := b.configEntries(b.Topology.Snapshot(), r.ResourceType, r.ResourceName)
	if err != nil {
		return "", err
	}
	var list []string
	for _, e := range entries {
		if e.Name == c.Name && e.Value != nil && *e.Value != "" {
			list = strings.Split(*e.Value, ",")
		}
	}
	for v := range strings.SplitSeq(*c.Value, ",") {
		if c.Op == kmsg.IncrementalAlterConfigOpSubtract {
			list = slices.DeleteFunc(list, func(e string) bool { return e == v })
		} else if !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return strings.Join(list, ","), nil
}
