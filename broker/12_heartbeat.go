package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/group"
	"github.com/streamhouse/streamhouse/protocol"
)

// Heartbeat, v0 to v4. KIP-345 (static members, v3). It costs the metadata
// store nothing.
func (b *Broker) heartbeat(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.HeartbeatRequest)
	resp := r.ResponseKind().(*kmsg.HeartbeatResponse)
	pending := b.Groups.Heartbeat(group.HeartbeatRequest{Membership: group.Membership{
		Group: r.Group, MemberID: r.MemberID, InstanceID: orEmpty(r.InstanceID), Generation: r.Generation,
	}})
	return whenDone(b, memberRef{r.Group, r.MemberID}, pending, func(_ struct{}, err error) kmsg.Response {
		resp.ErrorCode = errorCode(err)
		return resp
	})
}
