package broker

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestConsumerHeartbeatsAreChecked(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		change  func(*kmsg.ConsumerGroupHeartbeatRequest)
		message string // "" for a request that is right
	}{
		{"a join", func(*kmsg.ConsumerGroupHeartbeatRequest) {}, ""},
		{"an old client without a member id", func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.Version, r.MemberID = 0, "" }, ""},
		{"no member id", func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.MemberID = "" }, "MemberId can't be empty."},
		{
			"an old client that has no member id any more",
			func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.Version, r.MemberID, r.MemberEpoch = 0, " ", -1 },
			"MemberId can't be empty.",
		},
		{"no group", func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.Group = "" }, "GroupId can't be empty."},
		{"an empty instance id", func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.InstanceID = new(string) }, "InstanceId can't be empty."},
		{"an empty rack", func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.RackID = new(string) }, "RackId can't be empty."},
		{
			"no rebalance timeout", func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.RebalanceTimeoutMillis = -1 },
			"RebalanceTimeoutMs must be provided in first request.",
		},
		{"nothing of what it owns", func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.Topics = nil }, "TopicPartitions must be empty when (re-)joining."},
		{
			"owns something", func(r *kmsg.ConsumerGroupHeartbeatRequest) {
				r.Topics = make([]kmsg.ConsumerGroupHeartbeatRequestTopic, 1)
			},
			"TopicPartitions must be empty when (re-)joining.",
		},
		{
			"no subscription", func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.SubscribedTopicNames = nil },
			"Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
		},
		{
			"an expression", func(r *kmsg.ConsumerGroupHeartbeatRequest) {
				r.SubscribedTopicNames, r.SubscribedTopicRegex = nil, kmsg.StringPtr("a")
			}, "",
		},
		{"leaves for a while", func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.MemberEpoch = -2 }, "InstanceId can't be null."},
		{"no epoch", func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.MemberEpoch = -3 }, "MemberEpoch is invalid."},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := kmsg.NewPtrConsumerGroupHeartbeatRequest()
			r.Version, r.Group, r.MemberID, r.RebalanceTimeoutMillis = 1, "g", "m", 1000
			r.SubscribedTopicNames, r.Topics = []string{"t"}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
			test.change(r)
			switch err := checkConsumerHeartbeat(r); {
			case test.message == "" && err == nil:
			case errorCode(err) != kerr.InvalidRequest.Code || *errorMessage(err) != test.message:
				t.Errorf("%v, want %q", err, test.message)
			}
		})
	}
}
