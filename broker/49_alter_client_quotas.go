package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/protocol"
)

// AlterClientQuotas, v0 to v1. KIP-546. Refused: nothing would enforce a quota.
func (b *Broker) alterClientQuotas(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.AlterClientQuotasRequest)
	resp := r.ResponseKind().(*kmsg.AlterClientQuotasResponse)
	for _, e := range r.Entries {
		answer := kmsg.NewAlterClientQuotasResponseEntry()
		answer.ErrorCode = kerr.InvalidRequest.Code
		answer.ErrorMessage = kmsg.StringPtr("StreamHouse has no client quotas.")
		for _, of := range e.Entity {
			entity := kmsg.NewAlterClientQuotasResponseEntryEntity()
			entity.Type, entity.Name = of.Type, of.Name
			answer.Entity = append(answer.Entity, entity)
		}
		resp.Entries = append(resp.Entries, answer)
	}
	return protocol.Now(resp)
}
