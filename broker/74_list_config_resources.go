package broker

import (
	"context"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/protocol"
)

// ListConfigResources, v0 to v1. KIP-714 (v0, only clients' metrics), KIP-1142.
func (b *Broker) listConfigResources(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.ListConfigResourcesRequest)
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		resp := r.ResponseKind().(*kmsg.ListConfigResourcesResponse)
		kinds := r.ResourceTypes
		if r.Version == 0 {
			kinds = []int8{int8(kmsg.ConfigResourceTypeClientMetrics)}
		}
		if len(kinds) == 0 {
			kinds = []int8{
				int8(kmsg.ConfigResourceTypeTopic), int8(kmsg.ConfigResourceTypeBroker), int8(kmsg.ConfigResourceTypeBrokerLogger),
				int8(kmsg.ConfigResourceTypeClientMetrics), int8(kmsg.ConfigResourceTypeGroupConfig),
			}
		}
		view := b.adminView(ctx)
		for _, kind := range kinds {
			names, ok := configResources(view, kmsg.ConfigResourceType(kind))
			if !ok {
				resp.ErrorCode, resp.ConfigResources = kerr.UnsupportedVersion.Code, nil
				return resp
			}
			for _, name := range names {
				c := kmsg.NewListConfigResourcesResponseConfigResource()
				c.Name, c.Type = name, kind
				resp.ConfigResources = append(resp.ConfigResources, c)
			}
		}
		return resp
	})
}

// configResources are the names of the resources of a kind: of those that exist
// anyway all, of the others those on which something was set.
func configResources(view *topology.Snapshot, kind kmsg.ConfigResourceType) (names []string, ok bool) {
	switch kind {
	case kmsg.ConfigResourceTypeTopic:
		for _, t := range view.Topics() {
			names = append(names, t.Name)
		}
	case kmsg.ConfigResourceTypeBroker, kmsg.ConfigResourceTypeBrokerLogger:
		for _, a := range view.Agents() {
			names = append(names, strconv.Itoa(int(a.NodeID)))
		}
	case kmsg.ConfigResourceTypeClientMetrics, kmsg.ConfigResourceTypeGroupConfig:
		names = view.Resources(kind)
	default:
		return nil, false
	}
	return names, true
}
