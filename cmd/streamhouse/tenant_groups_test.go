package main

import (
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func text32(n int32) string { return strconv.Itoa(int(n)) }

// askGroups asks for consumer groups by name, and for positions in the topic.
func (n *tenant) askGroups() []probe {
	groups := []string{n.group, n.consumers, n.idle, n.forged()}
	return []probe{
		{key: kmsg.FindCoordinator, reads: true, requests: func(int16) []kmsg.Request {
			r, transactions := kmsg.NewPtrFindCoordinatorRequest(), kmsg.NewPtrFindCoordinatorRequest()
			r.CoordinatorKey, r.CoordinatorKeys = n.group, groups
			transactions.CoordinatorType, transactions.CoordinatorKey, transactions.CoordinatorKeys = 1, n.group, groups
			return []kmsg.Request{r, transactions}
		}},
		{key: kmsg.DescribeGroups, reads: true, requests: func(int16) []kmsg.Request {
			r := kmsg.NewPtrDescribeGroupsRequest()
			r.Groups = groups
			return []kmsg.Request{r}
		}},
		{key: kmsg.ConsumerGroupDescribe, reads: true, requests: func(int16) []kmsg.Request {
			r := kmsg.NewPtrConsumerGroupDescribeRequest()
			r.Groups = groups
			return []kmsg.Request{r}
		}},
		{key: kmsg.OffsetFetch, reads: true, requests: func(v int16) []kmsg.Request { return n.askPositions(v, groups) }},
		{key: kmsg.OffsetCommit, requests: func(int16) []kmsg.Request {
			var all []kmsg.Request
			for _, g := range groups {
				all = append(all, n.commitRequest(g, "", -1))
			}
			return append(all, n.commitRequest(n.group, n.member, n.generation), n.commitRequest(n.consumers, n.consumer, n.epoch))
		}},
		{key: kmsg.OffsetDelete, requests: func(int16) []kmsg.Request {
			var all []kmsg.Request
			for _, g := range groups {
				r := kmsg.NewPtrOffsetDeleteRequest()
				r.Group = g
				r.Topics = []kmsg.OffsetDeleteRequestTopic{{Topic: n.topic.name, Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}}}}
				all = append(all, r)
			}
			return all
		}},
		{key: kmsg.DeleteGroups, requests: func(int16) []kmsg.Request {
			r := kmsg.NewPtrDeleteGroupsRequest()
			r.Groups = groups
			return []kmsg.Request{r}
		}},
	}
}

// askPositions asks for positions in the topic, and in all.
func (n *tenant) askPositions(v int16, groups []string) (all []kmsg.Request) {
	for i, name := range groups {
		named, any := kmsg.NewPtrOffsetFetchRequest(), kmsg.NewPtrOffsetFetchRequest()
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = name
		if name == n.consumers {
			g.MemberID, g.MemberEpoch = &n.consumer, n.epoch
		}
		any.Group, any.Groups = name, []kmsg.OffsetFetchRequestGroup{g}
		g.Topics = []kmsg.OffsetFetchRequestGroupTopic{{Topic: n.topic.name, TopicID: n.topic.id, Partitions: []int32{0}}}
		named.Group, named.Groups = name, []kmsg.OffsetFetchRequestGroup{g}
		named.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: n.topic.name, Partitions: []int32{0}}}
		all = append(all, named)
		if i == 0 || v >= 2 {
			all = append(all, any)
		}
	}
	return all
}

func (n *tenant) commitRequest(group, member string, generation int32) kmsg.Request {
	r := kmsg.NewPtrOffsetCommitRequest()
	r.Group, r.MemberID, r.Generation = group, member, generation
	r.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: n.topic.name, TopicID: n.topic.id, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{
		Offset: 0, LeaderEpoch: -1,
	}}}}
	return r
}

// askConsumers speaks for the members of the tenant's groups.
func (n *tenant) askConsumers() []probe {
	return []probe{
		{key: kmsg.JoinGroup, requests: func(v int16) []kmsg.Request {
			join := func(member string, instance *string) kmsg.Request {
				r := kmsg.NewPtrJoinGroupRequest()
				r.Group, r.MemberID, r.InstanceID, r.ProtocolType = n.group, member, instance, "consumer"
				r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = 10_000, 10_000
				r.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range"}}
				return r
			}
			all := []kmsg.Request{join(n.member, nil), join(n.member, &n.instance)}
			if v >= 4 { // before, the stranger would be a member
				all = append(all, join("", nil))
			}
			return all
		}},
		{key: kmsg.SyncGroup, requests: func(int16) []kmsg.Request {
			r := kmsg.NewPtrSyncGroupRequest()
			r.Group, r.MemberID, r.Generation, r.InstanceID = n.group, n.member, n.generation, &n.instance
			r.ProtocolType, r.Protocol = kmsg.StringPtr("consumer"), kmsg.StringPtr("range")
			return []kmsg.Request{r}
		}},
		{key: kmsg.Heartbeat, requests: func(int16) []kmsg.Request {
			r, zombie := kmsg.NewPtrHeartbeatRequest(), kmsg.NewPtrHeartbeatRequest()
			r.Group, r.MemberID, r.Generation = n.group, n.member, n.generation
			zombie.Group, zombie.MemberID, zombie.Generation, zombie.InstanceID = n.group, "zombie", n.generation, &n.instance
			return []kmsg.Request{r, zombie}
		}},
		{key: kmsg.LeaveGroup, requests: func(v int16) []kmsg.Request {
			r, instance := kmsg.NewPtrLeaveGroupRequest(), kmsg.NewPtrLeaveGroupRequest()
			r.Group, r.MemberID, r.Members = n.group, n.member, []kmsg.LeaveGroupRequestMember{{MemberID: n.member}}
			instance.Group, instance.MemberID, instance.Members = n.group, "nobody", []kmsg.LeaveGroupRequestMember{{InstanceID: &n.instance}}
			return []kmsg.Request{instance, r}
		}},
		{key: kmsg.ConsumerGroupHeartbeat, requests: func(v int16) []kmsg.Request {
			beat := func(member string, epoch int32) *kmsg.ConsumerGroupHeartbeatRequest {
				r := kmsg.NewPtrConsumerGroupHeartbeatRequest()
				r.Group, r.MemberID, r.MemberEpoch, r.RebalanceTimeoutMillis = n.consumers, member, epoch, 60_000
				r.SubscribedTopicNames, r.Topics = []string{n.topic.name}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
				return r
			}
			// The tenant's member, a new one, what that has of any topic, and its end.
			all := []kmsg.Request{beat(n.consumer, n.epoch), beat("stranger", 0)}
			if v >= 1 {
				r := beat("any", 0)
				r.SubscribedTopicNames, r.SubscribedTopicRegex = nil, kmsg.StringPtr(".*")
				all = append(all, r, beat("any", -1))
			}
			return append(all, beat("stranger", -1), beat(n.consumer, -1))
		}},
	}
}
