package broker

import (
	"context"

	"github.com/streamhouse/streamhouse/protocol"
)

// ListPartitionReassignments, v0. KIP-455. None is ever under way: a lease that
// moves is with one agent or with another.
func (b *Broker) listPartitionReassignments(_ context.Context, req *protocol.Request) protocol.Reply {
	return protocol.Now(req.Body.ResponseKind())
}
