package broker

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/group"
	"github.com/streamhouse/streamhouse/protocol"
)

// DescribeGroups, v0 to v6. KIP-430 (authorized operations, v3), KIP-345
// (instance ids, v4), KIP-1043 (an error for groups that are not there, v6;
// before, they are Dead).
func (b *Broker) describeGroups(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.DescribeGroupsRequest)
	pending := make([]group.Pending[group.Description], len(r.Groups))
	for i, id := range r.Groups {
		pending[i] = b.Groups.Describe(id)
	}
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		resp := r.ResponseKind().(*kmsg.DescribeGroupsResponse)
		for i, id := range r.Groups {
			d, err := pending[i].Wait(ctx)
			if ctx.Err() != nil {
				return nil
			}
			answer := describedGroup(id, &d)
			if errors.Is(err, kerr.GroupIDNotFound) {
				if r.Version < 6 {
					err = nil
				}
			} else if err != nil {
				answer.State = ""
			}
			answer.ErrorCode, answer.ErrorMessage = errorCode(err), errorMessage(err)
			answer.AuthorizedOperations = authorizedOperations(r.IncludeAuthorizedOperations && err == nil, operationsOnGroup)
			resp.Groups = append(resp.Groups, answer)
		}
		return resp
	})
}

func describedGroup(id string, d *group.Description) kmsg.DescribeGroupsResponseGroup {
	g := kmsg.NewDescribeGroupsResponseGroup()
	g.Group, g.State, g.ProtocolType, g.Protocol = id, d.State.String(), d.ProtocolType, d.Protocol
	for _, m := range d.Members {
		g.Members = append(g.Members, kmsg.DescribeGroupsResponseGroupMember{
			MemberID: m.MemberID, InstanceID: orNull(m.InstanceID),
			ClientID: m.ClientID, ClientHost: m.ClientHost,
			ProtocolMetadata: m.Metadata, MemberAssignment: m.Assignment,
		})
	}
	return g
}
