package broker

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol"
)

// UnregisterBroker, v0. KIP-185. Takes an agent that is gone off the list before
// its last heartbeat is too old for that. One that runs is refused: it would have
// to end.
func (b *Broker) unregisterBroker(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.UnregisterBrokerRequest)
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		err := b.unregister(ctx, r.BrokerID)
		resp := r.ResponseKind().(*kmsg.UnregisterBrokerResponse)
		resp.ErrorCode, resp.ErrorMessage = errorCode(err), errorMessage(err)
		return resp
	})
}

func (b *Broker) unregister(ctx context.Context, node int32) error {
	view := b.adminView(ctx)
	i := slices.IndexFunc(view.Agents(), func(a metadata.Agent) bool { return a.NodeID == node })
	if i < 0 {
		return &requestError{kerr.BrokerIDNotRegistered, fmt.Sprintf("Broker ID %d is not currently registered", node)}
	}
	a := view.Agents()[i]
	if view.Heard(a) {
		return &requestError{kerr.InvalidRequest, fmt.Sprintf("Broker ID %d is agent %s, which is running: stop it instead.", node, a.ID)}
	}
	if err := untilKnown(ctx, func() error { return b.Store.Deregister(ctx, a.ID, a.Session) }); err != nil {
		return err
	}
	b.Log.Info("agent deregistered", "other_agent", a.ID, "node", node)
	b.refresh(ctx)
	return nil
}
