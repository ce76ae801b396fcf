package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/protocol"
)

// DescribeClientQuotas, v0 to v1. KIP-546. There are none.
func (b *Broker) describeClientQuotas(_ context.Context, req *protocol.Request) protocol.Reply {
	resp := req.Body.ResponseKind().(*kmsg.DescribeClientQuotasResponse)
	resp.Entries = []kmsg.DescribeClientQuotasResponseEntry{} // null is an error's
	return protocol.Now(resp)
}
