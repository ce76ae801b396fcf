package sim

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/internal/check"
)

// commitOffsets commits positions of a group that has no members, and asks for
// them, until the load ends.
func (w *world) commitOffsets(number int) {
	c := w.newNative("group", number)
	defer c.hangUp()
	group := fmt.Sprintf("group-%d", number%2)
	for next := int64(1); w.loading(); next++ {
		c.findCoordinator(group)
		p := int32(c.dice.intN(int(w.settings.partitions)))
		if c.dice.oneIn(2) {
			c.commitOffset(group, p, next)
		} else {
			c.fetchOffset(group, p)
		}
		w.rest(c.dice.between(20*time.Millisecond, 500*time.Millisecond))
	}
}

func (c *client) findCoordinator(group string) {
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.Version, req.CoordinatorKey = 3, group
	resp, err := c.ask(req)
	if err != nil {
		return
	}
	if r := resp.(*kmsg.FindCoordinatorResponse); r.ErrorCode == 0 {
		if at := net.JoinHostPort(r.Host, strconv.Itoa(int(r.Port))); at != c.address {
			c.goTo(at)
		}
	}
}

func (c *client) commitOffset(group string, p int32, offset int64) {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group, req.Generation = 8, group, -1
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic = c.world.topic.Name
	part := kmsg.NewOffsetCommitRequestTopicPartition()
	part.Partition, part.Offset, part.LeaderEpoch = p, offset, -1
	t.Partitions = append(t.Partitions, part)
	req.Topics = append(req.Topics, t)
	commit := check.Commit{Group: group, Partition: p, Offset: offset, Invoked: c.world.recorder.Now()}
	resp, err := c.ask(req)
	if err == nil && resp.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode == 0 {
		commit.Outcome = check.Acked
	}
	c.world.recorder.Commit(commit)
}

func (c *client) fetchOffset(group string, p int32) {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Version, req.Group = 7, group
	t := kmsg.NewOffsetFetchRequestTopic()
	t.Topic, t.Partitions = c.world.topic.Name, []int32{p}
	req.Topics = append(req.Topics, t)
	position := check.Position{Group: group, Partition: p, Agent: c.connected().agent, Invoked: c.world.recorder.Now()}
	resp, err := c.ask(req)
	if err != nil {
		return
	}
	r := resp.(*kmsg.OffsetFetchResponse)
	if r.ErrorCode != 0 || r.Topics[0].Partitions[0].ErrorCode != 0 {
		return
	}
	position.Offset = r.Topics[0].Partitions[0].Offset
	c.world.recorder.Position(position)
}
