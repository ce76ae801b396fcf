package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/group"
	"github.com/streamhouse/streamhouse/protocol"
)

// SyncGroup, v0 to v5. KIP-345 (static members, v3), KIP-559 (protocol type and
// name, v5). It is answered when the leader's assignment is there.
func (b *Broker) syncGroup(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.SyncGroupRequest)
	resp := r.ResponseKind().(*kmsg.SyncGroupResponse)
	sync := group.SyncRequest{
		Membership: group.Membership{
			Group: r.Group, MemberID: r.MemberID, InstanceID: orEmpty(r.InstanceID), Generation: r.Generation,
		},
		ProtocolType: orEmpty(r.ProtocolType), Protocol: orEmpty(r.Protocol),
	}
	for _, a := range r.GroupAssignment {
		sync.Assignments = append(sync.Assignments, group.Assignment{MemberID: a.MemberID, Data: a.MemberAssignment})
	}
	return whenDone(b, memberRef{r.Group, r.MemberID}, b.Groups.Sync(sync), func(s group.SyncResponse, err error) kmsg.Response {
		if err != nil {
			resp.ErrorCode = errorCode(err)
			return resp
		}
		resp.ProtocolType, resp.Protocol, resp.MemberAssignment = &s.ProtocolType, &s.Protocol, s.Assignment
		return resp
	})
}
