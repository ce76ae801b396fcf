package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/group"
	"github.com/streamhouse/streamhouse/protocol"
)

// LeaveGroup, v0 to v5. KIP-345 (several members, and by instance id, v3),
// KIP-800 (reason, v5).
func (b *Broker) leaveGroup(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.LeaveGroupRequest)
	resp := r.ResponseKind().(*kmsg.LeaveGroupResponse)
	leave := group.LeaveRequest{Group: r.Group}
	if r.Version < 3 {
		leave.Members = []group.LeavingMember{{MemberID: r.MemberID}}
	}
	for _, m := range r.Members {
		leave.Members = append(leave.Members, group.LeavingMember{
			MemberID: m.MemberID, InstanceID: orEmpty(m.InstanceID), Reason: orEmpty(m.Reason),
		})
	}
	return whenDone(b, memberRef{}, b.Groups.Leave(leave), func(errs []error, err error) kmsg.Response {
		switch {
		case err != nil:
			resp.ErrorCode = errorCode(err)
		case r.Version < 3:
			resp.ErrorCode = errorCode(errs[0])
		default:
			for i, m := range r.Members {
				resp.Members = append(resp.Members, kmsg.LeaveGroupResponseMember{
					MemberID: m.MemberID, InstanceID: m.InstanceID, ErrorCode: errorCode(errs[i]),
				})
			}
		}
		return resp
	})
}
