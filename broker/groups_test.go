package broker

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/broker/group"
	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/broker/zone"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/sqlite"
	"github.com/streamhouse/streamhouse/protocol"
)

const testTimeout = 30 * time.Second

// groupRig is a broker with what its group handlers need, on a listener.
type groupRig struct {
	*Broker
	t     *testing.T
	addr  *net.TCPAddr
	topic *topology.Topic // with two partitions
}

func newGroupRig(t *testing.T) *groupRig {
	t.Helper()
	store, err := sqlite.Open(t.Context(), t.TempDir()+"/metadata.db")
	must(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	r := &groupRig{t: t, addr: listener.Addr().(*net.TCPAddr)}
	node, err := store.Register(t.Context(), metadata.Agent{ID: "agent", Session: uuid.New(), Host: r.addr.IP.String(), Port: int32(r.addr.Port)})
	must(t, err)
	must(t, store.CreateTopic(t.Context(), metadata.NewTopic{ID: uuid.New(), Name: "t", Partitions: 2}))
	static, err := config.NewBroker(nil)
	must(t, err)

	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	leases := lease.NewManager(store, "agent", lease.DefaultConfig(), lease.NewMetrics(prometheus.NewRegistry()), log)
	watcher := topology.NewWatcher(topology.Config{Interval: time.Second, AgentFresh: time.Minute, Broker: static}, store, log)
	cfg := group.DefaultConfig()
	cfg.InitialRebalanceDelay = 0
	groups := group.NewCoordinator(store, leases, GroupView(watcher), "agent", cfg, group.NewMetrics(prometheus.NewRegistry()), log)
	r.Broker = New(Parts{NodeID: node, AgentID: "agent", Store: store, Topology: watcher, Groups: groups, Zones: zone.NewFinder("", zone.Map{}), Peers: noPeers{}, Log: log})
	router, err := protocol.NewRouter(r.Routes())
	must(t, err)
	server := protocol.NewServer(protocol.ServerConfig{}, router, protocol.NewMetrics(prometheus.NewRegistry()), log)
	view, err := watcher.Refresh(t.Context(), 0)
	must(t, err)
	r.topic = view.TopicByName("t")

	ctx, stop := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	for _, run := range []func(context.Context) error{
		leases.Run, groups.Run, func(ctx context.Context) error { return server.Serve(ctx, listener) },
	} {
		parts.Go(func() {
			if err := run(ctx); err != nil {
				t.Errorf("a part ended: %v", err)
			}
		})
	}
	t.Cleanup(func() {
		stop()
		parts.Wait()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// groupClient sends requests in versions that its test chooses: the n-th above
// the lowest that is served, or the highest.
type groupClient struct {
	*groupRig
	conn net.Conn
	in   *bufio.Reader
	n    int16
}

func (r *groupRig) client(n int16) *groupClient {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.addr.String())
	must(r.t, err)
	must(r.t, conn.SetDeadline(time.Now().Add(testTimeout)))
	r.t.Cleanup(func() { conn.Close() })
	return &groupClient{groupRig: r, conn: conn, in: bufio.NewReader(conn), n: n}
}

// version is that of a request to be sent.
func (c *groupClient) version(req kmsg.Request) int16 {
	i := slices.IndexFunc(c.Routes(), func(r protocol.Route) bool { return r.Key == req.Key() })
	route := c.Routes()[i]
	return min(route.MinVersion+c.n, route.MaxVersion)
}

func (c *groupClient) send(req kmsg.Request) {
	c.t.Helper()
	req.SetVersion(c.version(req))
	_, err := c.conn.Write(kmsg.NewRequestFormatter(kmsg.FormatterClientID("wire")).AppendRequest(nil, req, 1))
	must(c.t, err)
}

// receive returns the answer to the oldest request that is not answered.
func receive[S kmsg.Response](c *groupClient, req kmsg.Request) S {
	c.t.Helper()
	var head [8]byte
	_, err := io.ReadFull(c.in, head[:])
	must(c.t, err)
	body := make([]byte, binary.BigEndian.Uint32(head[:4])-4)
	_, err = io.ReadFull(c.in, body)
	must(c.t, err)
	resp := req.ResponseKind()
	if resp.IsFlexible() {
		body = body[1:] // no tags in the header
	}
	must(c.t, resp.ReadFrom(body))
	return resp.(S)
}

func ask[S kmsg.Response](c *groupClient, req kmsg.Request) S {
	c.t.Helper()
	c.send(req)
	return receive[S](c, req)
}

func (c *groupClient) wantCode(what string, got int16, want *kerr.Error) {
	c.t.Helper()
	if err := kerr.ErrorForCode(got); want == nil && got != 0 || want != nil && !errors.Is(err, want) {
		c.t.Fatalf("%s: %v, want %v", what, err, want)
	}
}

func (c *groupClient) joinRequest(id, member string) *kmsg.JoinGroupRequest {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Group, req.MemberID, req.ProtocolType = id, member, "consumer"
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 10_000, 10_000
	req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: (&kmsg.ConsumerMemberMetadata{Topics: []string{"t"}}).AppendTo(nil)}}
	return req
}

// join makes the client the only member of a group, and its leader.
func (c *groupClient) join(id string) *kmsg.JoinGroupResponse {
	c.t.Helper()
	joined := ask[*kmsg.JoinGroupResponse](c, c.joinRequest(id, ""))
	if joined.Version >= 4 {
		c.wantCode("join", joined.ErrorCode, kerr.MemberIDRequired)
		joined = ask[*kmsg.JoinGroupResponse](c, c.joinRequest(id, joined.MemberID))
	}
	c.wantCode("join", joined.ErrorCode, nil)
	if joined.Generation != 1 || joined.LeaderID != joined.MemberID || len(joined.Members) != 1 || *joined.Protocol != "range" {
		c.t.Fatalf("joined with %+v", joined)
	}
	return joined
}

// commit stores an offset for the topic's first partition and for one that it
// does not have.
func (c *groupClient) commit(id, member string, generation int32) *kmsg.OffsetCommitResponse {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.MemberID, req.Generation = id, member, generation
	meta := "note"
	req.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t", TopicID: c.topic.ID, Partitions: []kmsg.OffsetCommitRequestTopicPartition{
		{Partition: 0, Offset: 42, LeaderEpoch: 7, Metadata: &meta}, {Partition: 2, Offset: 42},
	}}}
	return ask[*kmsg.OffsetCommitResponse](c, req)
}

// offsets fetches offsets of groups, in whatever form the version has, as
// lines. No partitions means all.
func (c *groupClient) offsets(partitions []int32, groups ...string) []string {
	c.t.Helper()
	req := kmsg.NewPtrOffsetFetchRequest()
	if c.version(req) < 8 {
		groups = groups[:1]
	}
	req.Group = groups[0]
	if partitions != nil {
		req.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: "t", Partitions: partitions}}
	}
	for _, id := range groups {
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = id
		if partitions != nil {
			g.Topics = []kmsg.OffsetFetchRequestGroupTopic{{Topic: "t", TopicID: c.topic.ID, Partitions: partitions}}
		}
		req.Groups = append(req.Groups, g)
	}
	resp := ask[*kmsg.OffsetFetchResponse](c, req)
	c.wantCode("offset fetch", resp.ErrorCode, nil)
	var got []string
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			got = append(got, fmt.Sprintf("%s %s-%d %d %q %d", groups[0], t.Topic, p.Partition, p.Offset, *p.Metadata, p.ErrorCode))
		}
	}
	for _, g := range resp.Groups {
		c.wantCode("offset fetch of "+g.Group, g.ErrorCode, nil)
		for _, t := range g.Topics {
			name := t.Topic
			if t.TopicID == c.topic.ID {
				name = "t"
			}
			for _, p := range t.Partitions {
				got = append(got, fmt.Sprintf("%s %s-%d %d %q %d", g.Group, name, p.Partition, p.Offset, *p.Metadata, p.ErrorCode))
			}
		}
	}
	return got
}

// A group's life, in every version of its APIs.
func TestGroupAPIsInAllVersions(t *testing.T) {
	r := newGroupRig(t)
	for n := int16(0); n <= 10; n++ {
		t.Run(fmt.Sprintf("version_%d", n), func(t *testing.T) {
			c := r.client(n)
			id := fmt.Sprintf("group-%d", n)
			c.findCoordinator(id)
			joined := c.join(id)

			sync := kmsg.NewPtrSyncGroupRequest()
			sync.Group, sync.MemberID, sync.Generation = id, joined.MemberID, 1
			sync.ProtocolType, sync.Protocol = kmsg.StringPtr("consumer"), kmsg.StringPtr("range")
			sync.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: joined.MemberID, MemberAssignment: []byte("all")}}
			synced := ask[*kmsg.SyncGroupResponse](c, sync)
			c.wantCode("sync", synced.ErrorCode, nil)
			if string(synced.MemberAssignment) != "all" {
				t.Errorf("assigned %q", synced.MemberAssignment)
			}

			beat := kmsg.NewPtrHeartbeatRequest()
			beat.Group, beat.MemberID, beat.Generation = id, joined.MemberID, 1
			c.wantCode("heartbeat", ask[*kmsg.HeartbeatResponse](c, beat).ErrorCode, nil)
			beat.Generation = 2
			c.wantCode("heartbeat", ask[*kmsg.HeartbeatResponse](c, beat).ErrorCode, kerr.IllegalGeneration)

			stored := c.commit(id, joined.MemberID, 1).Topics[0].Partitions
			c.wantCode("commit", stored[0].ErrorCode, nil)
			c.wantCode("commit to an unknown partition", stored[1].ErrorCode, kerr.UnknownTopicOrPartition)
			c.wantCode("commit of nobody", c.commit(id, "nobody", 1).Topics[0].Partitions[0].ErrorCode, kerr.UnknownMemberID)
			c.checkOffsets(id)
			c.describe(id, "Stable", 1)
			c.list(id, "Stable")
			c.delete(id, kerr.NonEmptyGroup)
			c.leave(id, joined.MemberID)
			c.describe(id, "Empty", 0)
			c.list(id, "Empty")
			c.deleteOffset(id)
			c.delete(id, nil)
			c.delete(id, kerr.GroupIDNotFound)
			c.describe(id, "Dead", 0)
			gone := kerr.IllegalGeneration
			if c.version(kmsg.NewPtrOffsetCommitRequest()) >= 9 {
				gone = kerr.GroupIDNotFound
			}
			c.wantCode("commit to a group that is gone", c.commit(id, joined.MemberID, 1).Topics[0].Partitions[0].ErrorCode, gone)
		})
	}
}

func (c *groupClient) findCoordinator(id string) {
	c.t.Helper()
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorKey, req.CoordinatorKeys = id, []string{id, "other"}
	resp := ask[*kmsg.FindCoordinatorResponse](c, req)
	found := append(resp.Coordinators, kmsg.FindCoordinatorResponseCoordinator{Key: id, NodeID: resp.NodeID, Host: resp.Host, Port: resp.Port, ErrorCode: resp.ErrorCode})
	if resp.Version >= 4 && len(resp.Coordinators) != 2 {
		c.t.Fatalf("%d coordinators of 2 groups", len(resp.Coordinators))
	}
	if f := found[0]; f.Key != id || f.ErrorCode != 0 || f.NodeID != c.NodeID || f.Host != c.addr.IP.String() || int(f.Port) != c.addr.Port {
		c.t.Fatalf("found %+v", f)
	}
	if req.CoordinatorType = 1; resp.Version == 0 {
		return // groups only
	}
	resp = ask[*kmsg.FindCoordinatorResponse](c, req)
	code := resp.ErrorCode
	if resp.Version >= 4 {
		code = resp.Coordinators[0].ErrorCode
	}
	c.wantCode("find a transaction's coordinator", code, kerr.InvalidRequest)
}

func (c *groupClient) checkOffsets(id string) {
	c.t.Helper()
	want := []string{id + ` t-0 42 "note" 0`, id + ` t-1 -1 "" 0`}
	several := slices.Clone(want)
	if c.n+1 >= 8 { // OffsetFetch begins with v1
		several = append(several, `other t-0 -1 "" 0`, `other t-1 -1 "" 0`)
	}
	if got := c.offsets([]int32{0, 1}, id, "other"); !slices.Equal(got, several) {
		c.t.Errorf("fetched %v, want %v", got, several)
	}
	if c.n+1 < 2 { // there is no way to ask for all
		return
	}
	if got := c.offsets(nil, id); !slices.Equal(got, want[:1]) {
		c.t.Errorf("fetched all: %v, want %v", got, want[:1])
	}
}

func (c *groupClient) describe(id, state string, members int) {
	c.t.Helper()
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups = []string{id}
	g := ask[*kmsg.DescribeGroupsResponse](c, req).Groups[0]
	if req.Version >= 6 && state == "Dead" {
		c.wantCode("describe", g.ErrorCode, kerr.GroupIDNotFound)
	} else {
		c.wantCode("describe", g.ErrorCode, nil)
	}
	if g.State != state || len(g.Members) != members {
		c.t.Fatalf("described as %+v", g)
	}
	if members == 1 && (g.Members[0].ClientID != "wire" || g.Members[0].ClientHost != "/127.0.0.1" || string(g.Members[0].MemberAssignment) != "all") {
		c.t.Errorf("member is %+v", g.Members[0])
	}
}

func (c *groupClient) list(id, state string) {
	c.t.Helper()
	req := kmsg.NewPtrListGroupsRequest()
	req.StatesFilter, req.TypesFilter = []string{strings.ToLower(state)}, []string{"classic"}
	resp := ask[*kmsg.ListGroupsResponse](c, req)
	c.wantCode("list", resp.ErrorCode, nil)
	i := slices.IndexFunc(resp.Groups, func(g kmsg.ListGroupsResponseGroup) bool { return g.Group == id })
	if i < 0 || resp.Groups[i].ProtocolType != "consumer" || req.Version >= 4 && resp.Groups[i].GroupState != state {
		c.t.Fatalf("listed %+v", resp.Groups)
	}
}

func (c *groupClient) leave(id, member string) {
	c.t.Helper()
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group, req.MemberID = id, member
	req.Members = []kmsg.LeaveGroupRequestMember{{MemberID: member}, {MemberID: "nobody"}}
	resp := ask[*kmsg.LeaveGroupResponse](c, req)
	c.wantCode("leave", resp.ErrorCode, nil)
	if resp.Version >= 3 {
		c.wantCode("leave", resp.Members[0].ErrorCode, nil)
		c.wantCode("leave of nobody", resp.Members[1].ErrorCode, kerr.UnknownMemberID)
	}
}

func (c *groupClient) delete(id string, want *kerr.Error) {
	c.t.Helper()
	req := kmsg.NewPtrDeleteGroupsRequest()
	req.Groups = []string{id}
	c.wantCode("delete", ask[*kmsg.DeleteGroupsResponse](c, req).Groups[0].ErrorCode, want)
}

func (c *groupClient) deleteOffset(id string) {
	c.t.Helper()
	req := kmsg.NewPtrOffsetDeleteRequest()
	req.Group = id
	req.Topics = []kmsg.OffsetDeleteRequestTopic{
		{Topic: "t", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}}},
		{Topic: "unknown", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}}},
	}
	resp := ask[*kmsg.OffsetDeleteResponse](c, req)
	c.wantCode("delete offsets", resp.ErrorCode, nil)
	c.wantCode("delete an offset", resp.Topics[0].Partitions[0].ErrorCode, nil)
	c.wantCode("delete an offset", resp.Topics[1].Partitions[0].ErrorCode, kerr.UnknownTopicOrPartition)
	if got := c.offsets([]int32{0}, id); !slices.Equal(got, []string{id + ` t-0 -1 "" 0`}) {
		c.t.Errorf("fetched %v", got)
	}
}

// Requests of one connection take effect in their order, though their answers
// are waited for: a heartbeat behind a join that waits is of the generation
// before it.
func TestGroupRequestsKeepTheirOrder(t *testing.T) {
	c := newGroupRig(t).client(100)
	id := "ordered"
	first := c.join(id)
	again, leave := c.joinRequest(id, first.MemberID), kmsg.NewPtrLeaveGroupRequest()
	leave.Group, leave.Members = id, []kmsg.LeaveGroupRequestMember{{MemberID: first.MemberID}}
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Group, commit.MemberID, commit.Generation = id, first.MemberID, 1
	commit.Topics = []kmsg.OffsetCommitRequestTopic{{TopicID: c.topic.ID, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 1}}}}
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Group, sync.MemberID, sync.Generation = id, first.MemberID, 1
	sync.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: first.MemberID}}

	c.send(sync)
	c.send(commit)
	c.send(again)
	c.send(leave)
	c.wantCode("sync", receive[*kmsg.SyncGroupResponse](c, sync).ErrorCode, nil)
	c.wantCode("commit", receive[*kmsg.OffsetCommitResponse](c, commit).Topics[0].Partitions[0].ErrorCode, nil)
	if joined := receive[*kmsg.JoinGroupResponse](c, again); joined.Generation != 2 {
		t.Errorf("joined with %+v", joined)
	}
	c.wantCode("leave", receive[*kmsg.LeaveGroupResponse](c, leave).Members[0].ErrorCode, nil)
}

// Topics that are not there any more have no offsets, and by id an error.
func TestOffsetsOfATopicThatIsNotThere(t *testing.T) {
	c := newGroupRig(t).client(100)
	fetch := kmsg.NewPtrOffsetFetchRequest()
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group, g.Topics = "g", []kmsg.OffsetFetchRequestGroupTopic{{TopicID: uuid.New(), Partitions: []int32{0}}}
	fetch.Groups = []kmsg.OffsetFetchRequestGroup{g}
	p := ask[*kmsg.OffsetFetchResponse](c, fetch).Groups[0].Topics[0].Partitions[0]
	c.wantCode("offset fetch", p.ErrorCode, kerr.UnknownTopicID)

	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Group, commit.Generation = "g", -1
	commit.Topics = []kmsg.OffsetCommitRequestTopic{{TopicID: uuid.New(), Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 1}}}}
	c.wantCode("commit", ask[*kmsg.OffsetCommitResponse](c, commit).Topics[0].Partitions[0].ErrorCode, kerr.UnknownTopicID)

	named := c.groupRig.client(6)
	fetch = kmsg.NewPtrOffsetFetchRequest()
	fetch.Group, fetch.Topics = "g", []kmsg.OffsetFetchRequestTopic{{Topic: "unknown", Partitions: []int32{0}}}
	old := ask[*kmsg.OffsetFetchResponse](named, fetch).Topics[0].Partitions[0]
	if old.ErrorCode != 0 || old.Offset != -1 {
		t.Errorf("fetched %+v", old)
	}
}

// Before v2 there is no place for an error but the partitions.
func TestOffsetFetchErrorInV1(t *testing.T) {
	resp := kmsg.NewPtrOffsetFetchResponse()
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Version, req.Topics = 1, []kmsg.OffsetFetchRequestTopic{{Topic: "t", Partitions: []int32{3}}}
	answerOneGroup(resp, req, &kmsg.OffsetFetchResponseGroup{ErrorCode: offsetFetchCode(kerr.CoordinatorNotAvailable)})
	if p := resp.Topics[0].Partitions[0]; p.Partition != 3 || p.Offset != -1 || p.ErrorCode != kerr.CoordinatorLoadInProgress.Code {
		t.Errorf("answered %+v", p)
	}
}

// noPeers is an agent's knowledge of others that are all well.
type noPeers struct{}

func (noPeers) Settle(context.Context) {}

func (noPeers) Suspected() ([]uuid.UUID, <-chan struct{}) { return nil, nil }
