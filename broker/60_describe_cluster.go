package broker

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/protocol"
)

// DescribeCluster, v0 to v2. KIP-700, KIP-430 (authorized operations), KIP-919
// (endpoint types), KIP-1073 (fenced brokers: agents that are still listed, and
// not heard of any more). Of the others, clients are told of those for their zone.
func (b *Broker) describeCluster(_ context.Context, req *protocol.Request) protocol.Reply {
	const brokers = 1 // endpoint type
	r := req.Body.(*kmsg.DescribeClusterRequest)
	resp := r.ResponseKind().(*kmsg.DescribeClusterResponse)
	resp.EndpointType = brokers
	resp.ClusterAuthorizedOperations = authorizedOperations(r.IncludeClusterAuthorizedOperations, operationsOnCluster)
	if r.Version >= 1 && r.EndpointType != brokers {
		resp.ErrorCode = kerr.UnsupportedEndpointType.Code
		resp.ErrorMessage = kmsg.StringPtr(fmt.Sprintf("There is no endpoint of type %d; every agent serves brokers' clients.", r.EndpointType))
		return protocol.Now(resp)
	}
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		view, zone := b.view(ctx), b.zoneOf(req)
		resp.ClusterID, resp.ControllerID = view.ClusterID, view.Controller(zone)
		told := view.AgentsFor(zone)
		for _, a := range view.Agents() {
			n := kmsg.NewDescribeClusterResponseBroker()
			n.IsFenced = !view.Heard(a)
			if n.IsFenced && !r.IncludeFencedBrokers || !n.IsFenced && !slices.Contains(told, a) {
				continue
			}
			n.NodeID, n.Host, n.Port, n.Rack = a.NodeID, a.Host, a.Port, rack(a.Zone)
			resp.Brokers = append(resp.Brokers, n)
		}
		return resp
	})
}
