package main

import (
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
	var at string
	eventually(t, "both name the same coordinator", func() bool {
		first, code1 := coordinatorOf(w[0], group)
		second, code2 := coordinatorOf(w[1], group)
		at = first
		return code1 == 0 && code2 == 0 && first == second
	})
	here := 0
	if at == agents[1].addr {
		here = 1
	}
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
