package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/group"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/protocol"
)

// ListGroups, v0 to v5. KIP-518 (states, v4), KIP-848 (types, v5). An agent
// lists the groups that it coordinates; clients ask all agents.
func (b *Broker) listGroups(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.ListGroupsRequest)
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		resp := r.ResponseKind().(*kmsg.ListGroupsResponse)
		view, zone := b.view(ctx), b.zoneOf(req)
		groups, err := b.Groups.List(ctx, group.ListFilter{
			States: r.StatesFilter, Types: r.TypesFilter,
			Shards: func(k lease.Key) bool {
				a, _, ok := view.CoordinatorFor(zone, k)
				return ok && a.NodeID == b.NodeID
			},
		})
		resp.ErrorCode = errorCode(err)
		for _, g := range groups {
			answer := kmsg.NewListGroupsResponseGroup()
			answer.Group, answer.ProtocolType = g.Group, g.ProtocolType
			answer.GroupState, answer.GroupType = g.State.String(), g.Type
			resp.Groups = append(resp.Groups, answer)
		}
		return resp
	})
}
