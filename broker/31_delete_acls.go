package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/protocol"
)

// DeleteAcls, v1 to v3. Refused as by Kafka without an authorizer, whose words
// are others here.
func (b *Broker) deleteACLs(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.DeleteACLsRequest)
	resp := r.ResponseKind().(*kmsg.DeleteACLsResponse)
	for range r.Filters {
		result := kmsg.NewDeleteACLsResponseResult()
		result.ErrorCode = kerr.SecurityDisabled.Code
		result.ErrorMessage = kmsg.StringPtr("No Authorizer is configured.")
		resp.Results = append(resp.Results, result)
	}
	return protocol.Now(resp)
}
