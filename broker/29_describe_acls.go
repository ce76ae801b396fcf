package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/protocol"
)

// DescribeAcls, v1 to v3. Answered as by Kafka without an authorizer, which
// MirrorMaker 2 takes for a reason to leave ACLs alone.
func (b *Broker) describeACLs(_ context.Context, req *protocol.Request) protocol.Reply {
	resp := req.Body.ResponseKind().(*kmsg.DescribeACLsResponse)
	resp.ErrorCode = kerr.SecurityDisabled.Code
	resp.ErrorMessage = kmsg.StringPtr("No Authorizer is configured on the broker")
	return protocol.Now(resp)
}
