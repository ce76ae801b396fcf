package broker

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol"
)

// AlterConfigs, v0 to v2. KIP-133. What the request does not name goes back to
// its default; IncrementalAlterConfigs is what clients use today.
func (b *Broker) alterConfigs(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.AlterConfigsRequest)
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		resp := r.ResponseKind().(*kmsg.AlterConfigsResponse)
		b.refresh(ctx)
		for _, asked := range r.Resources {
			change := metadata.ConfigChange{Values: map[string]*string{}, Replace: true}
			var err error
			for _, c := range asked.Configs {
				if c.Value == nil {
					err = nullConfig(c.Name)
				}
				change.Values[c.Name] = c.Value
			}
			if asked.ResourceType == kmsg.ConfigResourceTypeBrokerLogger {
				err = &requestError{kerr.InvalidRequest, "AlterConfigs is deprecated and does not support the resource type BROKER_LOGGER"}
			}
			if err == nil {
				err = b.alterResource(ctx, asked.ResourceType, asked.ResourceName, change, r.ValidateOnly)
			}
			answer := kmsg.NewAlterConfigsResponseResource()
			answer.ResourceType, answer.ResourceName = asked.ResourceType, asked.ResourceName
			answer.ErrorCode, answer.ErrorMessage = errorCode(err), errorMessage(err)
			resp.Resources = append(resp.Resources, answer)
		}
		b.refresh(ctx)
		return resp
	})
}

func nullConfig(name string) error {
	return &requestError{kerr.InvalidRequest, fmt.Sprintf("Null value not supported for : %s", name)}
}
