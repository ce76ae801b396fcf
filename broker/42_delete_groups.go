package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/group"
	"github.com/streamhouse/streamhouse/protocol"
)

// DeleteGroups, v0 to v2. KIP-229. Groups with members are not deleted.
func (b *Broker) deleteGroups(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.DeleteGroupsRequest)
	pending := make([]group.Pending[struct{}], len(r.Groups))
	for i, id := range r.Groups {
		pending[i] = b.Groups.Delete(id)
	}
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		resp := r.ResponseKind().(*kmsg.DeleteGroupsResponse)
		for i, id := range r.Groups {
			_, err := pending[i].Wait(ctx)
			if ctx.Err() != nil {
				return nil
			}
			answer := kmsg.NewDeleteGroupsResponseGroup()
			answer.Group, answer.ErrorCode = id, errorCode(err)
			resp.Groups = append(resp.Groups, answer)
			if err == nil {
				b.Log.Info("group deleted", "group", id)
			}
		}
		return resp
	})
}
