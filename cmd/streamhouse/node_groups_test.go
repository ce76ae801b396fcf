package main

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// coordinatorOf asks who coordinates a group.
func coordinatorOf(w *wire, group string) (addr string, code int16) {
	w.t.Helper()
	r := kmsg.NewPtrFindCoordinatorRequest()
	r.CoordinatorKeys = []string{group}
	c := ask[*kmsg.FindCoordinatorResponse](w, 4, r).Coordinators[0]
	return net.JoinHostPort(c.Host, fmt.Sprint(c.Port)), c.ErrorCode
}

// commitOffset commits a position as a consumer without a group membership does.
func commitOffset(w *wire, group string, t topic, offset int64) int16 {
	w.t.Helper()
	r := kmsg.NewPtrOffsetCommitRequest()
	r.Group, r.Generation = group, -1
	r.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: t.name, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{
		Offset: offset, LeaderEpoch: -1, Metadata: kmsg.StringPtr("note"),
	}}}}
	return ask[*kmsg.OffsetCommitResponse](w, 8, r).Topics[0].Partitions[0].ErrorCode
}

// committedOffset fetches a position, -1 if there is none.
func committedOffset(w *wire, group string, t topic) (int64, int16) {
	w.t.Helper()
	r := kmsg.NewPtrOffsetFetchRequest()
	r.Group = group
	r.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: t.name, Partitions: []int32{0}}}
	resp := ask[*kmsg.OffsetFetchResponse](w, 7, r)
	if resp.ErrorCode != 0 {
		return -1, resp.ErrorCode
	}
	p := resp.Topics[0].Partitions[0]
	return p.Offset, p.ErrorCode
}

// agreedCoordinator returns which of two agents both of them name.
func agreedCoordinator(t *testing.T, w []*wire, agents []*isolated, group string) (n int) {
	t.Helper()
	eventually(t, "both name the same coordinator", func() bool {
		first, code1 := coordinatorOf(w[0], group)
		second, code2 := coordinatorOf(w[1], group)
		if first == agents[1].addr {
			n = 1
		}
		return code1 == 0 && code2 == 0 && first == second
	})
	return n
}

// All agents name the same coordinator, which alone takes commits; when it is
// killed, another one takes over and has what was committed.
func TestGroupCoordinatorMoves(t *testing.T) {
	t.Parallel()
	s := sharedStores(t)
	agents := []*isolated{
		startIsolated(t, s, named("first"), hasty),
		startIsolated(t, s, named("second"), hasty),
	}
	w := []*wire{dial(t, agents[0].addr), dial(t, agents[1].addr)}
	tp := makeShared(w[0], w[1], "groups", 1)
	const group = "group"
	here := agreedCoordinator(t, w, agents, group)
	there := 1 - here
	eventually(t, "the coordinator takes a commit", func() bool { return commitOffset(w[here], group, tp, 41) == 0 })
	wantCode(t, "commit elsewhere", commitOffset(w[there], group, tp, 40), kerr.NotCoordinator)
	if offset, code := committedOffset(w[here], group, tp); offset != 41 || code != 0 {
		t.Errorf("committed: %d, %v", offset, kerr.ErrorForCode(code))
	}
	wantCode(t, "commit", commitOffset(w[here], group, tp, 42), nil)
	agents[here].kill()

	eventually(t, "the other one coordinates", func() bool {
		addr, code := coordinatorOf(w[there], group)
		return code == 0 && addr == agents[there].addr
	})
	eventually(t, "it knows what was committed", func() bool {
		offset, code := committedOffset(w[there], group, tp)
		if code != 0 && !kerr.IsRetriable(kerr.ErrorForCode(code)) || code == 0 && offset != 42 {
			t.Fatalf("committed: %d, %v", offset, kerr.ErrorForCode(code))
		}
		return code == 0
	})
	eventually(t, "it takes commits", func() bool { return commitOffset(w[there], group, tp, 43) == 0 })
}

// groupMember is a static member of a group, on a connection of its own.
type groupMember struct {
	*wire
	group, instance, id string
	generation          int32
}

func (m *groupMember) join() {
	r := kmsg.NewPtrJoinGroupRequest()
	r.Group, r.InstanceID, r.MemberID, r.ProtocolType = m.group, &m.instance, m.id, "consumer"
	r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = 10_000, 10_000
	r.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range"}}
	r.SetVersion(7)
	m.send(r)
}

// joined takes the answer to join, and syncs; the leader assigns to each member its
// instance id.
func (m *groupMember) joined() {
	m.t.Helper()
	j := m.receive().(*kmsg.JoinGroupResponse)
	wantCode(m.t, "join", j.ErrorCode, nil)
	m.id, m.generation = j.MemberID, j.Generation
	r := m.syncRequest()
	for _, o := range j.Members {
		r.GroupAssignment = append(r.GroupAssignment, kmsg.SyncGroupRequestGroupAssignment{
			MemberID: o.MemberID, MemberAssignment: []byte(*o.InstanceID),
		})
	}
	m.send(r)
}

func (m *groupMember) syncRequest() *kmsg.SyncGroupRequest {
	r := kmsg.NewPtrSyncGroupRequest()
	r.Group, r.InstanceID, r.MemberID, r.Generation = m.group, &m.instance, m.id, m.generation
	r.SetVersion(4)
	return r
}

// synced takes the answer to a sync.
func (m *groupMember) synced() {
	m.t.Helper()
	s := m.receive().(*kmsg.SyncGroupResponse)
	wantCode(m.t, "sync", s.ErrorCode, nil)
	if string(s.MemberAssignment) != m.instance {
		m.t.Errorf("%s was assigned %q", m.instance, s.MemberAssignment)
	}
}

func (m *groupMember) heartbeat() int16 {
	m.t.Helper()
	r := kmsg.NewPtrHeartbeatRequest()
	r.Group, r.InstanceID, r.MemberID, r.Generation = m.group, &m.instance, m.id, m.generation
	return ask[*kmsg.HeartbeatResponse](m.wire, 4, r).ErrorCode
}

func (m *groupMember) commit(t topic, offset int64) int16 {
	m.t.Helper()
	r := kmsg.NewPtrOffsetCommitRequest()
	r.Group, r.InstanceID, r.MemberID, r.Generation = m.group, &m.instance, m.id, m.generation
	r.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: t.name, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{
		Offset: offset, LeaderEpoch: -1,
	}}}}
	return ask[*kmsg.OffsetCommitResponse](m.wire, 8, r).Topics[0].Partitions[0].ErrorCode
}

// Members go on with another coordinator in the same generation and with the same
// assignment, whether theirs was killed or stopped: no answer makes them join again.
func TestMembersSurviveTheirCoordinator(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*isolated){
		"killed":  (*isolated).kill,
		"stopped": func(a *isolated) { a.end() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := sharedStores(t)
			agents := []*isolated{
				startIsolated(t, s, named("first"), hasty),
				startIsolated(t, s, named("second"), hasty),
			}
			w := []*wire{dial(t, agents[0].addr), dial(t, agents[1].addr)}
			tp := makeShared(w[0], w[1], "members", 1)
			const group = "group"
			here := agreedCoordinator(t, w, agents, group)
			there := 1 - here
			eventually(t, "it coordinates", func() bool { return commitOffset(w[here], "other", tp, 1) != kerr.CoordinatorNotAvailable.Code })

			members := []*groupMember{{group: group, instance: "one"}, {group: group, instance: "two"}}
			for _, m := range members {
				m.wire = dial(t, agents[here].addr)
				m.join()
			}
			for _, m := range members {
				m.joined()
			}
			for _, m := range members {
				m.synced()
				wantCode(t, "heartbeat", m.heartbeat(), nil)
			}
			wantCode(t, "commit", members[0].commit(tp, 41), nil)

			end(agents[here])
			for _, m := range members {
				m.wire = dial(t, agents[there].addr)
				eventually(t, m.instance+" goes on", func() bool {
					err := kerr.ErrorForCode(m.heartbeat())
					if err != nil && !errors.Is(err, kerr.NotCoordinator) && !errors.Is(err, kerr.CoordinatorNotAvailable) {
						t.Fatalf("heartbeat: %v", err)
					}
					return err == nil
				})
				m.send(m.syncRequest())
				m.synced()
			}
			if offset, code := committedOffset(w[there], group, tp); offset != 41 || code != 0 {
				t.Errorf("committed: %d, %v", offset, kerr.ErrorForCode(code))
			}
			wantCode(t, "commit", members[1].commit(tp, 42), nil)
		})
	}
}
