package compattests

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
)

var rewriteConsumerProtocol = flag.Bool("rewrite-consumer-protocol", false, "write testdata/consumer_protocol.txt; to be used with COMPAT_TARGET=apachekafka")

// TestConsumerProtocolAnswers asks what clients of the consumer protocol ask, rightly and wrongly, and expects to the
// letter what Apache Kafka answers, which testdata/consumer_protocol.txt has.
func TestConsumerProtocolAnswers(t *testing.T) {
	const golden = "testdata/consumer_protocol.txt"
	forEachTarget(t, harness.FastStores, func(t *testing.T, target target) {
		c := newConsumerAsker(t, target)
		c.joins()
		c.mistakes()
		c.staticMembers()
		c.offsets()
		c.otherAPIs()
		c.classicMembers()
		if *rewriteConsumerProtocol {
			if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(golden, []byte(c.said.String()), 0o644); err != nil {
				t.Fatal(err)
			}
			return
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		got, wanted := strings.Split(c.said.String(), "\n"), strings.Split(string(want), "\n")
		for i := range max(len(got), len(wanted)) {
			var g, w string
			if i < len(got) {
				g = got[i]
			}
			if i < len(wanted) {
				w = wanted[i]
			}
			if g != w {
				t.Errorf("line %d:\n%s\nwant\n%s", i+1, g, w)
			}
		}
	})
}

// consumerAsker asks one broker and writes down what it says.
type consumerAsker struct {
	t      *testing.T
	ctx    context.Context
	client *kgo.Client
	group  string
	before int32 // the epoch before the first one, which is where epochs are counted from here
	names  map[[16]byte]string
	said   strings.Builder
}

func newConsumerAsker(t *testing.T, target target) *consumerAsker {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(target.bootstrap()...), kgo.ClientID("asker"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	c := &consumerAsker{t: t, ctx: deadline(t, time.Minute), client: client, names: make(map[[16]byte]string)}
	admin := kadm.NewClient(client)
	created, err := admin.CreateTopics(c.ctx, 4, 1, nil, "asked", "asked-too")
	if err != nil || created.Error() != nil {
		t.Fatal(err, created)
	}
	for _, topic := range created {
		c.names[topic.ID] = topic.Topic
	}
	return c
}

// begin begins with a group of its own, whose assignment Kafka makes without a delay.
func (c *consumerAsker) begin(group string) {
	c.t.Helper()
	c.group, c.before = group, -1
	fmt.Fprintf(&c.said, "\n%s\n", group)
	r := kmsg.NewPtrIncrementalAlterConfigsRequest()
	r.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{
		ResourceType: kmsg.ConfigResourceTypeGroupConfig, ResourceName: group,
		Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: "consumer.assignment.interval.ms", Value: kmsg.StringPtr("0")}},
	}}
	if resp := consumerAsk[*kmsg.IncrementalAlterConfigsResponse](c, r); resp.Resources[0].ErrorCode != 0 {
		c.t.Fatal(*resp.Resources[0].ErrorMessage)
	}
}

func consumerAsk[R kmsg.Response](c *consumerAsker, r kmsg.Request) R {
	c.t.Helper()
	resp, err := c.client.Request(c.ctx, r)
	for ; kerr.IsRetriable(err) && c.ctx.Err() == nil; resp, err = c.client.Request(c.ctx, r) {
		// a broker that has just been started has no coordinator yet
	}
	if err != nil {
		c.t.Fatalf("%T: %v", r, err)
	}
	return resp.(R)
}

func codeName(code int16) string {
	if code == 0 {
		return "OK"
	}
	return kerr.TypedErrorForCode(code).Message
}

// beat sends a heartbeat: a complete one if it joins, else one that leaves all out.
func (c *consumerAsker) beat(what, member string, epoch int32, change ...func(*kmsg.ConsumerGroupHeartbeatRequest)) *kmsg.ConsumerGroupHeartbeatResponse {
	c.t.Helper()
	r := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	r.Group, r.MemberID, r.MemberEpoch = c.group, member, c.epoch(epoch)
	if epoch == 0 {
		r.RebalanceTimeoutMillis, r.SubscribedTopicNames = 30_000, []string{"asked"}
		r.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	}
	for _, f := range change {
		f(r)
	}
	resp := consumerAsk[*kmsg.ConsumerGroupHeartbeatResponse](c, r)
	for kerr.IsRetriable(kerr.ErrorForCode(resp.ErrorCode)) && c.ctx.Err() == nil {
		resp = consumerAsk[*kmsg.ConsumerGroupHeartbeatResponse](c, r)
	}
	if c.before < 0 && resp.MemberEpoch > 0 {
		c.before = resp.MemberEpoch - 1
	}
	fmt.Fprintf(&c.said, "  %s: %s", what, codeName(resp.ErrorCode))
	if resp.ErrorMessage != nil {
		fmt.Fprintf(&c.said, " %q", inParentheses.ReplaceAllStringFunc(*resp.ErrorMessage, func(n string) string {
			epoch, _ := strconv.Atoi(n[1 : len(n)-1])
			return fmt.Sprintf("(%d)", c.counted(int32(epoch)))
		}))
	}
	if resp.MemberID != nil {
		fmt.Fprintf(&c.said, " %s", *resp.MemberID)
	}
	fmt.Fprintf(&c.said, " epoch %d, every %d ms", c.counted(resp.MemberEpoch), resp.HeartbeatIntervalMillis)
	if resp.Assignment != nil {
		c.said.WriteString(", assigned")
		for _, t := range resp.Assignment.Topics {
			c.assigned(t.TopicID, t.Partitions)
		}
	}
	c.said.WriteString("\n")
	return resp
}

var inParentheses = regexp.MustCompile(`\(\d+\)`)

// epoch is an epoch on the wire, and counted its inverse.
func (c *consumerAsker) epoch(n int32) int32 {
	if n > 0 {
		n += max(c.before, 0)
	}
	return n
}

func (c *consumerAsker) counted(n int32) int32 {
	if n > 0 {
		n -= max(c.before, 0)
	}
	return n
}

// assigned writes how many partitions of a topic there are: which ones, is the assignor's choice.
func (c *consumerAsker) assigned(topic [16]byte, partitions []int32) {
	fmt.Fprintf(&c.said, " %d of %s", len(partitions), c.names[topic])
}

// owns says what a member owns: what it was told last.
func (c *consumerAsker) owns(a *kmsg.ConsumerGroupHeartbeatResponseAssignment) func(*kmsg.ConsumerGroupHeartbeatRequest) {
	return func(r *kmsg.ConsumerGroupHeartbeatRequest) {
		r.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		if a == nil {
			c.t.Fatalf("a member has no assignment:%s", c.said.String())
		}
		for _, t := range a.Topics {
			r.Topics = append(r.Topics, kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: t.TopicID, Partitions: t.Partitions})
		}
	}
}

func static(instance string) func(*kmsg.ConsumerGroupHeartbeatRequest) {
	return func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.InstanceID = &instance }
}

func subscribes(topics ...string) func(*kmsg.ConsumerGroupHeartbeatRequest) {
	return func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.SubscribedTopicNames = append([]string{}, topics...) }
}

func (c *consumerAsker) joins() {
	c.begin("joins")
	c.beat("a heartbeat to nobody", "a", 1)
	c.beat("a leaves nobody", "a", -1)
	all := c.beat("a joins", "a", 0)
	c.beat("a again", "a", 0)
	c.beat("a is heard of", "a", 1)
	c.beat("a is ahead", "a", 2)
	c.beat("b joins", "b", 0)
	less := c.beat("a is told", "a", 1, c.owns(all.Assignment))
	c.beat("b waits", "b", 2)
	c.beat("a still owns all", "a", 1, c.owns(all.Assignment))
	c.beat("a gave some up", "a", 1, c.owns(less.Assignment))
	c.beat("a missed the answer", "a", 1, c.owns(less.Assignment))
	c.beat("a is behind", "a", 1)
	c.beat("a owns too much", "a", 1, c.owns(all.Assignment))
	got := c.beat("b gets the rest", "b", 2)
	c.describe()
	c.beat("b changes its subscription", "b", 2, subscribes("asked-too"), c.owns(got.Assignment))
	none := &kmsg.ConsumerGroupHeartbeatResponseAssignment{}
	c.beat("b owns nothing", "b", 2, c.owns(none))
	c.beat("b owns nothing still", "b", 3, c.owns(none))
	c.beat("a gets all", "a", 2)
	c.beat("c subscribes to nothing", "c", 0, subscribes())
	c.beat("c leaves", "c", -1)
	c.beat("c leaves again", "c", -1)
	c.describe()
	c.beat("a leaves", "a", -1)
	c.beat("b leaves", "b", -1)
	c.describe()
}

func (c *consumerAsker) mistakes() {
	c.begin("mistakes")
	edit := func(f func(r *kmsg.ConsumerGroupHeartbeatRequest)) func(*kmsg.ConsumerGroupHeartbeatRequest) {
		return f
	}
	c.beat("no member id", "", 0)
	c.beat("no rebalance timeout", "a", 0, edit(func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.RebalanceTimeoutMillis = -1 }))
	c.beat("nothing about what it owns", "a", 0, edit(func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.Topics = nil }))
	c.beat("owns something", "a", 0, edit(func(r *kmsg.ConsumerGroupHeartbeatRequest) {
		r.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{{Partitions: []int32{0}}}
	}))
	c.beat("no subscription", "a", 0, edit(func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.SubscribedTopicNames = nil }))
	c.beat("an empty instance id", "a", 0, static(" "))
	c.beat("an empty rack", "a", 0, edit(func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.RackID = kmsg.StringPtr("") }))
	c.beat("an unknown assignor", "a", 0, edit(func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.ServerAssignor = kmsg.StringPtr("sticky") }))
	c.beat("no expression", "a", 0, edit(func(r *kmsg.ConsumerGroupHeartbeatRequest) {
		r.SubscribedTopicNames, r.SubscribedTopicRegex = nil, kmsg.StringPtr("")
	}))
	c.beat("leaves for a while", "a", -2)
	c.beat("an epoch that is none", "a", -3)
	c.beat("an unknown topic", "b", 0, subscribes("no-such-topic"))
	c.beat("an unknown member", "x", 5)
	c.beat("an unknown instance", "x", 5, static("i"))
	c.beat("an unknown member leaves", "x", -1)
	c.beat("an unknown instance leaves", "x", -2, static("i"))
}

func (c *consumerAsker) staticMembers() {
	c.begin("static")
	c.beat("a joins", "a", 0, static("i"))
	c.beat("another one is i", "b", 0, static("i"))
	c.beat("another one is heard of", "b", 1, static("i"))
	c.beat("another one leaves", "b", -2, static("i"))
	c.beat("a leaves for a while", "a", -2, static("i"))
	c.describe()
	c.beat("a is heard of", "a", 1, static("i"))
	c.beat("b is i", "b", 0, static("i"))
	c.beat("a is heard of again", "a", 1, static("i"))
	c.describe()
	c.beat("b leaves", "b", -1, static("i"))
}

func (c *consumerAsker) offsets() {
	c.begin("offsets")
	commit := func(what, member string, epoch int32) {
		r := kmsg.NewPtrOffsetCommitRequest()
		r.Group, r.MemberID, r.Generation = c.group, member, c.epoch(epoch)
		var topic kmsg.OffsetCommitRequestTopic
		for id, name := range c.names {
			if name == "asked" {
				topic = kmsg.OffsetCommitRequestTopic{Topic: name, TopicID: id}
			}
		}
		topic.Partitions = []kmsg.OffsetCommitRequestTopicPartition{{Offset: 7, LeaderEpoch: -1}}
		r.Topics = append(r.Topics, topic)
		resp := consumerAsk[*kmsg.OffsetCommitResponse](c, r)
		fmt.Fprintf(&c.said, "  commit %s: %s\n", what, codeName(resp.Topics[0].Partitions[0].ErrorCode))
	}
	fetch := func(what string, member *string, epoch int32) {
		r := kmsg.NewPtrOffsetFetchRequest()
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group, g.MemberID, g.MemberEpoch = c.group, member, c.epoch(epoch)
		r.Groups = append(r.Groups, g)
		resp := consumerAsk[*kmsg.OffsetFetchResponse](c, r)
		fmt.Fprintf(&c.said, "  fetch %s: %s, %d topics\n", what, codeName(resp.Groups[0].ErrorCode), len(resp.Groups[0].Topics))
	}
	commit("to nobody", "a", 1)
	c.beat("a joins", "a", 0)
	commit("by a", "a", 1)
	commit("by a that is behind", "a", 0)
	commit("by a that is ahead", "a", 2)
	commit("by x", "x", 1)
	commit("by an administrator", "", -1)
	fetch("by anybody", nil, -1)
	fetch("by a", kmsg.StringPtr("a"), 1)
	fetch("by a that is behind", kmsg.StringPtr("a"), 0)
	fetch("by x", kmsg.StringPtr("x"), 1)
	c.delete("while a is there")
	c.beat("a leaves", "a", -1)
	commit("by an administrator", "", -1)
	fetch("by a", kmsg.StringPtr("a"), 1)
	c.delete("when a is gone")
	c.describe()
}

func (c *consumerAsker) delete(what string) {
	r := kmsg.NewPtrDeleteGroupsRequest()
	r.Groups = []string{c.group}
	resp := consumerAsk[*kmsg.DeleteGroupsResponse](c, r)
	fmt.Fprintf(&c.said, "  delete %s: %s\n", what, codeName(resp.Groups[0].ErrorCode))
}

// describe writes what ConsumerGroupDescribe says.
func (c *consumerAsker) describe() {
	r := kmsg.NewPtrConsumerGroupDescribeRequest()
	r.Groups = []string{c.group}
	g := consumerAsk[*kmsg.ConsumerGroupDescribeResponse](c, r).Groups[0]
	fmt.Fprintf(&c.said, "  described: %s", codeName(g.ErrorCode))
	if g.ErrorMessage != nil {
		fmt.Fprintf(&c.said, " %q", *g.ErrorMessage)
	}
	fmt.Fprintf(&c.said, " %s epoch %d target %d %s\n", g.State, c.counted(g.Epoch), c.counted(g.AssignmentEpoch), g.AssignorName)
	slices.SortFunc(g.Members, func(a, b kmsg.ConsumerGroupDescribeResponseGroupMember) int {
		return cmp.Compare(a.MemberID, b.MemberID)
	})
	for _, m := range g.Members {
		regex, instance := "none", "none"
		if m.SubscribedTopicRegex != nil {
			regex = fmt.Sprintf("%q", *m.SubscribedTopicRegex)
		}
		if m.InstanceID != nil {
			instance = *m.InstanceID
		}
		fmt.Fprintf(&c.said, "    %s instance %s client %s epoch %d type %d topics %q regex %s has", m.MemberID, instance, m.ClientID, c.counted(m.MemberEpoch),
			m.MemberType, m.SubscribedTopics, regex)
		for _, p := range m.Assignment.TopicPartitions {
			c.assigned(p.TopicID, p.Partitions)
		}
		c.said.WriteString(" of")
		for _, p := range m.TargetAssignment.TopicPartitions {
			c.assigned(p.TopicID, p.Partitions)
		}
		c.said.WriteString("\n")
	}
}

// otherAPIs are those of classic groups, asked about a group that is none, and the other way about.
func (c *consumerAsker) otherAPIs() {
	c.begin("others")
	describe := func() {
		r := kmsg.NewPtrDescribeGroupsRequest()
		r.Groups = []string{c.group}
		g := consumerAsk[*kmsg.DescribeGroupsResponse](c, r).Groups[0]
		fmt.Fprintf(&c.said, "  described as a classic group: %s", codeName(g.ErrorCode))
		if g.ErrorMessage != nil {
			fmt.Fprintf(&c.said, " %q", *g.ErrorMessage)
		}
		fmt.Fprintf(&c.said, " %s %q\n", g.State, g.ProtocolType)
	}
	list := func() {
		for _, g := range consumerAsk[*kmsg.ListGroupsResponse](c, kmsg.NewPtrListGroupsRequest()).Groups {
			if g.Group == c.group {
				fmt.Fprintf(&c.said, "  listed: %s %s %q\n", g.GroupState, g.GroupType, g.ProtocolType)
			}
		}
	}
	describe()
	c.describe()
	c.beat("a joins", "a", 0)
	describe()
	list()
	r := kmsg.NewPtrOffsetDeleteRequest()
	r.Group = c.group
	for _, topic := range []string{"asked", "asked-too"} {
		r.Topics = append(r.Topics, kmsg.OffsetDeleteRequestTopic{Topic: topic, Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{}}})
	}
	resp := consumerAsk[*kmsg.OffsetDeleteResponse](c, r)
	fmt.Fprintf(&c.said, "  offsets deleted: %s", codeName(resp.ErrorCode))
	for _, t := range resp.Topics {
		fmt.Fprintf(&c.said, " %s %s", t.Topic, codeName(t.Partitions[0].ErrorCode))
	}
	c.said.WriteString("\n")
	c.beat("a leaves", "a", -1)
	list()
	c.group = "classic-others"
	c.commitAsNobody()
	list()
	c.describe()
	c.beat("a is heard of", "a", 1)
	c.beat("a leaves", "a", -1)
	c.beat("a joins", "a", 0)
	list()
}

// commitAsNobody makes a classic group without members.
func (c *consumerAsker) commitAsNobody() {
	r := kmsg.NewPtrOffsetCommitRequest()
	r.Group, r.Generation = c.group, -1
	for id, name := range c.names {
		r.Topics = append(r.Topics, kmsg.OffsetCommitRequestTopic{Topic: name, TopicID: id, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 7}}})
	}
	consumerAsk[*kmsg.OffsetCommitResponse](c, r)
}

// classicMembers are members of the classic protocol in a group of the consumer protocol.
func (c *consumerAsker) classicMembers() {
	c.begin("migration")
	all := c.beat("a joins", "a", 0)
	join := func(what, member string, instance *string, protocolType, protocol string) *kmsg.JoinGroupResponse {
		r := kmsg.NewPtrJoinGroupRequest()
		r.Group, r.MemberID, r.InstanceID, r.ProtocolType = c.group, member, instance, protocolType
		r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = 20_000, 20_000
		s := kmsg.NewConsumerMemberMetadata()
		s.Topics = []string{"asked"}
		r.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: protocol, Metadata: s.AppendTo(nil)}}
		resp := consumerAsk[*kmsg.JoinGroupResponse](c, r)
		fmt.Fprintf(&c.said, "  join %s: %s generation %d, %s/%s, leads %t, %d members, skips %t\n", what, codeName(resp.ErrorCode), c.counted(resp.Generation),
			text(resp.ProtocolType), text(resp.Protocol), resp.LeaderID != "" && resp.LeaderID == resp.MemberID, len(resp.Members), resp.SkipAssignment)
		return resp
	}
	sync := func(what, member string, generation int32, protocol string) {
		r := kmsg.NewPtrSyncGroupRequest()
		r.Group, r.MemberID, r.Generation = c.group, member, c.epoch(generation)
		r.ProtocolType, r.Protocol = kmsg.StringPtr("consumer"), &protocol
		resp := consumerAsk[*kmsg.SyncGroupResponse](c, r)
		var a kmsg.ConsumerMemberAssignment
		fmt.Fprintf(&c.said, "  sync %s: %s %s/%s", what, codeName(resp.ErrorCode), text(resp.ProtocolType), text(resp.Protocol))
		if err := a.ReadFrom(resp.MemberAssignment); err == nil {
			for _, t := range a.Topics {
				fmt.Fprintf(&c.said, " %d of %s", len(t.Partitions), t.Topic)
			}
		}
		c.said.WriteString("\n")
	}
	heartbeat := func(what, member string, generation int32) {
		r := kmsg.NewPtrHeartbeatRequest()
		r.Group, r.MemberID, r.Generation = c.group, member, c.epoch(generation)
		fmt.Fprintf(&c.said, "  heartbeat %s: %s\n", what, codeName(consumerAsk[*kmsg.HeartbeatResponse](c, r).ErrorCode))
	}
	leave := func(what, member string) {
		r := kmsg.NewPtrLeaveGroupRequest()
		r.Group, r.Members = c.group, []kmsg.LeaveGroupRequestMember{{MemberID: member}}
		resp := consumerAsk[*kmsg.LeaveGroupResponse](c, r)
		fmt.Fprintf(&c.said, "  leave %s: %s", what, codeName(resp.ErrorCode))
		for _, m := range resp.Members {
			fmt.Fprintf(&c.said, " %s", codeName(m.ErrorCode))
		}
		c.said.WriteString("\n")
	}
	join("by another type", "m", nil, "connect", "range")
	m := join("without an id", "", nil, "consumer", "range").MemberID
	join("with the id", m, nil, "consumer", "range")
	join("with another protocol", "n", nil, "consumer", "roundrobin")
	heartbeat("by m", m, 2)
	heartbeat("by m that is behind", m, 1)
	heartbeat("by a", "a", 1)
	sync("by m with another protocol", m, 2, "roundrobin")
	sync("by m that is behind", m, 1, "range")
	sync("by m", m, 2, "range")
	sync("by a", "a", 1, "range")
	less := c.beat("a is told", "a", 1, c.owns(all.Assignment))
	c.beat("a gave some up", "a", 1, c.owns(less.Assignment))
	heartbeat("by m that may have more", m, 2)
	join("again", m, nil, "consumer", "range")
	sync("by m again", m, 2, "range")
	leave("by a", "a")
	leave("by x", "x")
	c.beat("a leaves", "a", -1)
	heartbeat("by m", m, 2)
	c.describe()
	join("to a classic group", m, nil, "consumer", "range")
	c.beat("b joins", "b", 0)
	heartbeat("by m", m, 3)
	leave("by m", m)
}

func text(s *string) string {
	if s == nil {
		return "none"
	}
	return *s
}
