package broker

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/protocol"
)

// AlterUserScramCredentials, v0. KIP-554. Refused: nobody could use them.
func (b *Broker) alterUserSCRAMCredentials(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.AlterUserSCRAMCredentialsRequest)
	resp := r.ResponseKind().(*kmsg.AlterUserSCRAMCredentialsResponse)
	var users []string
	for _, d := range r.Deletions {
		users = append(users, d.Name)
	}
	for _, u := range r.Upsertions {
		users = append(users, u.Name)
	}
	slices.Sort(users)
	for _, user := range slices.Compact(users) { // one answer a user
		result := kmsg.NewAlterUserSCRAMCredentialsResponseResult()
		result.User, result.ErrorCode = user, kerr.InvalidRequest.Code
		result.ErrorMessage = kmsg.StringPtr("StreamHouse has no SASL/SCRAM yet.")
		resp.Results = append(resp.Results, result)
	}
	return protocol.Now(resp)
}
