package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/protocol"
)

// CreateAcls, v1 to v3. Refused as by Kafka without an authorizer.
func (b *Broker) createACLs(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.CreateACLsRequest)
	resp := r.ResponseKind().(*kmsg.CreateACLsResponse)
	for range r.Creations {
		result := kmsg.NewCreateACLsResponseResult()
		result.ErrorCode = kerr.SecurityDisabled.Code
		result.ErrorMessage = kmsg.StringPtr("No Authorizer is configured on the broker")
		resp.Results = append(resp.Results, result)
	}
	return protocol.Now(resp)
}
