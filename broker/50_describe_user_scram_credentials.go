package broker

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/protocol"
)

// DescribeUserScramCredentials, v0. KIP-554. Answered as by Kafka where nobody
// has credentials.
func (b *Broker) describeUserSCRAMCredentials(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.DescribeUserSCRAMCredentialsRequest)
	resp := r.ResponseKind().(*kmsg.DescribeUserSCRAMCredentialsResponse)
	for _, user := range r.Users {
		result := kmsg.NewDescribeUserSCRAMCredentialsResponseResult()
		result.User, result.ErrorCode = user.Name, kerr.ResourceNotFound.Code
		result.ErrorMessage = kmsg.StringPtr(fmt.Sprintf("Attempt to describe a user credential that does not exist: %s", user.Name))
		resp.Results = append(resp.Results, result)
	}
	return protocol.Now(resp)
}
