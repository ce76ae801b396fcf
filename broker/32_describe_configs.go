package broker

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/protocol"
)

// DescribeConfigs, v1 to v4. KIP-226 (synonyms), KIP-569 (types, documentation).
func (b *Broker) describeConfigs(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.DescribeConfigsRequest)
	return protocol.Later(func(ctx context.Context) kmsg.Response {
		resp := r.ResponseKind().(*kmsg.DescribeConfigsResponse)
		view := b.adminView(ctx)
		for _, asked := range r.Resources {
			answer := kmsg.NewDescribeConfigsResponseResource()
			answer.ResourceType, answer.ResourceName = asked.ResourceType, asked.ResourceName
			entries, err := b.configEntries(view, asked.ResourceType, asked.ResourceName)
			answer.ErrorCode, answer.ErrorMessage = errorCode(err), errorMessage(err)
			if err != nil {
				entries = nil
			}
			for _, e := range entries {
				if len(asked.ConfigNames) == 0 || slices.Contains(asked.ConfigNames, e.Name) {
					answer.Configs = append(answer.Configs, describeEntry(e, r))
				}
			}
			resp.Resources = append(resp.Resources, answer)
		}
		return resp
	})
}

func describeEntry(e config.Entry, r *kmsg.DescribeConfigsRequest) kmsg.DescribeConfigsResponseResourceConfig {
	c := kmsg.NewDescribeConfigsResponseResourceConfig()
	c.Name, c.Value, c.ReadOnly, c.Source, c.ConfigType = e.Name, e.Value, e.ReadOnly, e.Source, e.Type
	c.IsDefault = e.Source == kmsg.ConfigSourceDefaultConfig
	if r.IncludeDocumentation {
		c.Documentation = &e.Doc
	}
	if r.IncludeSynonyms {
		for _, s := range e.Synonyms {
			syn := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
			syn.Name, syn.Value, syn.Source = s.Name, &s.Value, s.Source
			c.ConfigSynonyms = append(c.ConfigSynonyms, syn)
		}
	}
	return c
}
