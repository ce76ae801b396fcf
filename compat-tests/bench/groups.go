package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Groups are many groups of the classic protocol, formed and stable. Close ends their connections.
type Groups struct {
	load    Load
	conns   []*conn
	members []*classicMember
}

// FormGroups forms groups of size members each. They are formed in so many lanes at once. A lane has as many connections
// as a group has members; its groups are formed one after the other and share them, a connection for one member of each.
func FormGroups(ctx context.Context, load Load, groups, size, lanes int) (*Groups, error) {
	conns, err := dialAll(ctx, load.Address, lanes*size)
	if err != nil {
		return nil, err
	}
	formed := make([][]*classicMember, lanes)
	errs := make([]error, lanes)
	var wg sync.WaitGroup
	for lane := range lanes {
		wg.Go(func() {
			for n := lane; n < groups && errs[lane] == nil; n += lanes {
				group := newClassicGroup(fmt.Sprintf("group-%d", n), load, conns[lane*size:(lane+1)*size])
				_, errs[lane] = group.rebalance(ctx)
				formed[lane] = append(formed[lane], group.members...)
			}
		})
	}
	wg.Wait()
	g := &Groups{load: load, conns: conns, members: slices.Concat(formed...)}
	if err := errors.Join(errs...); err != nil {
		g.Close()
		return nil, fmt.Errorf("form groups: %w", err)
	}
	return g, nil
}

// Close ends the connections. Members stay in their groups until their sessions end.
func (g *Groups) Close() { closeAll(g.conns) }

// Commit lets each member commit the offset of one partition, over and over, each time after the answer to the last
// one. It returns the times to the answers in rising order.
func (g *Groups) Commit(duration time.Duration) ([]time.Duration, error) {
	end := time.Now().Add(duration)
	took := make([][]time.Duration, len(g.members))
	errs := make([]error, len(g.members))
	var wg sync.WaitGroup
	for i, m := range g.members {
		wg.Go(func() {
			partition := int32(i % g.load.Partitions)
			for offset, sent := int64(0), time.Now(); sent.Before(end) && errs[i] == nil; offset++ {
				errs[i] = m.commit(partition, offset)
				took[i] = append(took[i], time.Since(sent))
				sent = time.Now()
			}
		})
	}
	wg.Wait()
	all := slices.Concat(took...)
	slices.Sort(all)
	return all, errors.Join(errs...)
}

// commit commits one partition's offset.
func (m *classicMember) commit(partition int32, offset int64) error {
	committed := kmsg.NewOffsetCommitRequestTopicPartition()
	committed.Partition, committed.Offset = partition, offset
	topic := kmsg.NewOffsetCommitRequestTopic()
	topic.Topic = m.group.load.Topic
	topic.Partitions = append(topic.Partitions, committed)
	request := kmsg.NewPtrOffsetCommitRequest()
	request.SetVersion(8)
	request.Group, request.MemberID, request.Generation = m.group.name, m.id, m.generation
	request.Topics = append(request.Topics, topic)
	response, err := ask[*kmsg.OffsetCommitResponse](m.conn, request)
	if err != nil {
		return err
	}
	if len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1 {
		return errors.New("commit: the answer is not about the one partition committed")
	}
	if err := kerr.ErrorForCode(response.Topics[0].Partitions[0].ErrorCode); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// Rest lets each member send a heartbeat in each interval, all of them spread evenly over it. It returns the times to
// the answers in rising order.
func (g *Groups) Rest(ctx context.Context, interval, duration time.Duration) ([]time.Duration, error) {
	var (
		mu       sync.Mutex
		took     []time.Duration
		failure  firstError
		answered sync.WaitGroup
	)
	begin := time.Now()
	end := begin.Add(duration)
	for n := 0; failure.get() == nil; n++ {
		due := begin.Add(interval * time.Duration(n) / time.Duration(len(g.members)))
		if !due.Before(end) {
			break
		}
		if err := sleepUntil(ctx, due); err != nil {
			failure.set(err)
			break
		}
		m := g.members[n%len(g.members)]
		answered.Add(1)
		m.conn.send(m.heartbeat(), func(response kmsg.Response, err error) {
			defer answered.Done()
			if err == nil {
				err = kerr.ErrorForCode(response.(*kmsg.HeartbeatResponse).ErrorCode)
			}
			failure.set(err)
			mu.Lock()
			took = append(took, time.Since(due))
			mu.Unlock()
		})
	}
	answered.Wait()
	slices.Sort(took)
	return took, failure.get()
}
