package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/protocol"
)

// groupCoordinator is the one type of coordinator that is served.
const groupCoordinator = 0

// FindCoordinator, v0 to v6. KIP-699 (several keys, v4). A group's coordinator
// is the agent that leads the group's shard, wherever it is, or would if it were
// asked: one of the client's zone then. All agents agree on it but for the age of
// their views, so the view is a fresh one.
// Transactional ids and share groups (KIP-932) are refused.
func (b *Broker) findCoordinator(_ context.Context, req *protocol.Request) protocol.Reply {
	b.departure.note() // its client is not where it is to be yet
	r := req.Body.(*kmsg.FindCoordinatorRequest)
	resp := r.ResponseKind().(*kmsg.FindCoordinatorResponse)
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		b.Peers.Settle(ctx)
		view, zone := b.living(b.view(ctx)), b.zoneOf(req)
		if r.Version >= 4 {
			for _, key := range r.CoordinatorKeys {
				resp.Coordinators = append(resp.Coordinators, b.coordinator(view, zone, key, r.CoordinatorType))
			}
			return resp
		}
		c := b.coordinator(view, zone, r.CoordinatorKey, r.CoordinatorType)
		resp.NodeID, resp.Host, resp.Port = c.NodeID, c.Host, c.Port
		resp.ErrorCode, resp.ErrorMessage = c.ErrorCode, c.ErrorMessage
		return resp
	})
}

func (b *Broker) coordinator(view *topology.Snapshot, zone, key string, kind int8) kmsg.FindCoordinatorResponseCoordinator {
	c := kmsg.NewFindCoordinatorResponseCoordinator()
	c.Key, c.NodeID, c.Port = key, -1, -1
	var err error
	if kind != groupCoordinator {
		err = &requestError{kerr.InvalidRequest, "Transactions and share groups are not supported."}
	} else if a, _, ok := view.CoordinatorFor(zone, b.Groups.Shard(key)); ok {
		c.NodeID, c.Host, c.Port = a.NodeID, a.Host, a.Port
	} else {
		err = kerr.CoordinatorNotAvailable
	}
	c.ErrorCode, c.ErrorMessage = errorCode(err), errorMessage(err)
	return c
}
