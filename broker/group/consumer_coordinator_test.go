package group

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/broker/group/assignor"
)

// consumerJoin is the first heartbeat of a member.
func consumerJoin(group, member string) ConsumerHeartbeatRequest {
	return ConsumerHeartbeatRequest{
		Group: group, MemberID: member, ClientID: "c", ClientHost: "/host",
		RebalanceTimeout: time.Minute, Topics: []string{"t"}, Owned: assignor.Partitions{},
	}
}

// Members that are heard of cost the store nothing, whatever their number.
func TestConsumersAtRestCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a := startAgent(t, f, "a", nil)
		const members = 50
		beats := make([]ConsumerHeartbeatRequest, members)
		joins := make([]Pending[ConsumerHeartbeatResponse], members)
		for i := range beats {
			beats[i] = consumerJoin("g", fmt.Sprint("m", i))
			joins[i] = a.ConsumerHeartbeat(beats[i])
		}
		for i := range beats {
			beats[i].Epoch = wait(t, joins[i]).Epoch
			beats[i].RebalanceTimeout, beats[i].Topics = -1, nil
		}
		settle := func() {
			for i := range beats {
				beats[i].Epoch = wait(t, a.ConsumerHeartbeat(beats[i])).Epoch
			}
		}
		settle()
		if d := wait(t, a.ConsumerDescribe("g")); d.State != Stable || len(d.Members) != members {
			t.Fatalf("described as %s with %d members", d.State, len(d.Members))
		}
		f.statements()
		for range 20 {
			time.Sleep(5 * time.Second)
			settle()
		}
		if got := f.statements(); len(got) > 0 {
			t.Errorf("heartbeats took %v", got)
		}
	})
}

// What a member was told is known to the next coordinator.
func TestConsumersChangeTheirCoordinator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a, b := startAgent(t, f, "a", nil), startAgent(t, f, "b", nil)
		first := wait(t, a.ConsumerHeartbeat(consumerJoin("g", "m")))
		noError(t, a.manager.ReleaseAll(t.Context()))
		beat := ConsumerHeartbeatRequest{Group: "g", MemberID: "m", Epoch: first.Epoch, RebalanceTimeout: -1, ClientID: "c", ClientHost: "/host"}
		if again := wait(t, b.ConsumerHeartbeat(beat)); again.Epoch != first.Epoch || again.Assignment != nil {
			t.Errorf("b answers %+v after %+v", again, first)
		}
	})
}

func TestConsumerHeartbeatsThatAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := startAgent(t, newFakeStore(), "a", nil)
		for _, test := range []struct {
			change  func(*ConsumerHeartbeatRequest)
			want    error
			message string
		}{
			{func(r *ConsumerHeartbeatRequest) { r.Group = "" }, kerr.InvalidGroupID, ""},
			{func(r *ConsumerHeartbeatRequest) { r.Group = "\xff" }, kerr.InvalidGroupID, ""},
			{
				func(r *ConsumerHeartbeatRequest) { r.Assignor = "sticky" }, kerr.UnsupportedAssignor,
				"ServerAssignor sticky is not supported. Supported assignors: uniform, range.",
			},
			{func(r *ConsumerHeartbeatRequest) { r.Epoch = 1 }, kerr.GroupIDNotFound, "Consumer group g not found."},
		} {
			r := consumerJoin("g", "m")
			test.change(&r)
			_, err := a.ConsumerHeartbeat(r).Wait(t.Context())
			var why *Refusal
			if !errors.Is(err, test.want) || test.message != "" && (!errors.As(err, &why) || why.Message != test.message) {
				t.Errorf("%v, want %v %q", err, test.want, test.message)
			}
		}
		if got := wait(t, a.ConsumerHeartbeat(consumerJoin("g", ""))); got.MemberID == "" {
			t.Error("no member id was given")
		}
	})
}
