package group

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/streamhouse/streamhouse/broker/group/assignor"
)

// beatAll has members be heard of, all at once, with what they own, until the group
// is stable.
func (c *benchCluster) beatAll(beats []*ConsumerHeartbeatRequest) {
	c.b.Helper()
	pending := make([]Pending[ConsumerHeartbeatResponse], len(beats))
	for {
		for i, r := range beats {
			pending[i] = c.ConsumerHeartbeat(*r)
		}
		for i, r := range beats {
			answer := must(c.b, pending[i])
			if r.Epoch = answer.Epoch; answer.Assignment != nil {
				r.Owned = answer.Assignment
			}
			r.RebalanceTimeout, r.Topics = -1, nil
		}
		if must(c.b, c.ConsumerDescribe(beats[0].Group)).State == Stable {
			return
		}
	}
}

// BenchmarkConsumersRebalance is from the join of the 101st member of a group of the
// consumer protocol, in which 100 share 1,000 partitions, until each of them has its
// own, if nobody waits between heartbeats.
func BenchmarkConsumersRebalance(b *testing.B) {
	c := newBenchCluster(b)
	topics := newFakeTopics().with(map[string]int32{"t": 1000})
	c.view = func() View { return topics }
	join := func(n int) *ConsumerHeartbeatRequest {
		r := consumerJoin("g", fmt.Sprint("m", n))
		return &r
	}
	var beats []*ConsumerHeartbeatRequest
	for n := range 100 {
		beats = append(beats, join(n))
	}
	c.beatAll(beats)
	saved := testutil.ToFloat64(c.metrics.saved)
	for b.Loop() {
		all := append(beats, join(100))
		c.beatAll(all)

		b.StopTimer() // the newcomer leaves, and the others share again
		must(b, c.ConsumerHeartbeat(ConsumerHeartbeatRequest{Group: "g", MemberID: "m100", Epoch: LeaveEpoch, Owned: assignor.Partitions{}}))
		c.beatAll(beats)
		b.StartTimer()
	}
	b.ReportMetric((testutil.ToFloat64(c.metrics.saved)-saved)/float64(2*b.N), "writes/rebalance")
}
