package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// sessionTimeout outlives each load: what is measured has its own schedule of heartbeats.
	sessionTimeout   = 5 * time.Minute
	rebalanceTimeout = time.Minute
	assignor         = "range" // by name; a group's leader assigns partitions in turn
)

// Rebalance is one rebalance of a group.
type Rebalance struct {
	Took time.Duration
	// Rounds is how often all members sent a heartbeat until each of them had its final assignment; 0 in the classic
	// protocol, where it is the coordinator that holds requests until all members are there.
	Rounds int
}

// AwaitCoordinators returns when the broker at address names coordinators of groups.
func AwaitCoordinators(ctx context.Context, address string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(address))
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	defer client.Close()
	return retry(ctx, func() error {
		request := kmsg.NewPtrFindCoordinatorRequest()
		request.CoordinatorKeys = []string{"any"}
		response, err := request.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		if len(response.Coordinators) != 1 {
			return fmt.Errorf("%d coordinators of one group", len(response.Coordinators))
		}
		return kerr.ErrorForCode(response.Coordinators[0].ErrorCode)
	})
}

// retry calls what until it returns no error of those that Kafka's clients retry, such as that of a coordinator that
// is loading.
func retry(ctx context.Context, what func() error) error {
	for pause := newBackoff(); ; {
		err := what()
		if !kerr.IsRetriable(err) {
			return err
		}
		if pause.wait(ctx, nil) != nil {
			return fmt.Errorf("give up: %w", err)
		}
	}
}

// backoff is a pause that grows from a millisecond to a tenth of a second.
type backoff struct{ next time.Duration }

func newBackoff() *backoff { return &backoff{next: time.Millisecond} }

// wait waits until the pause is over, or done is closed, or ctx ends, which is an error.
func (b *backoff) wait(ctx context.Context, done <-chan struct{}) error {
	timer := time.NewTimer(b.next)
	defer timer.Stop()
	b.next = min(2*b.next, 100*time.Millisecond)
	select {
	case <-timer.C:
		return nil
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ClassicRebalances forms a group of the classic protocol and lets a further member join and leave again, so many times.
// A time ends when all members that there are have been synced in one generation. What is measured is the broker, not
// the interval of heartbeats: members ask at once whether there is a rebalance, and again after pauses that begin at a
// millisecond.
func ClassicRebalances(ctx context.Context, load Load, members, times int) (joins, leaves []Rebalance, err error) {
	conns, err := dialAll(ctx, load.Address, members+1)
	if err != nil {
		return nil, nil, err
	}
	defer closeAll(conns)
	group := newClassicGroup("classic", load, conns[:members])
	if _, err := group.rebalance(ctx); err != nil {
		return nil, nil, fmt.Errorf("form the group: %w", err)
	}
	for range times {
		newcomer := &classicMember{conn: conns[members], group: group}
		group.members = append(group.members, newcomer)
		begin := time.Now()
		settled, err := group.rebalance(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("rebalance after a join: %w", err)
		}
		joins = append(joins, Rebalance{Took: settled.Sub(begin)})

		group.members = group.members[:members]
		begin = time.Now()
		if err := newcomer.leave(); err != nil {
			return nil, nil, err
		}
		settled, err = group.rebalance(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("rebalance after a leave: %w", err)
		}
		leaves = append(leaves, Rebalance{Took: settled.Sub(begin)})
	}
	return joins, leaves, nil
}

// classicGroup is a group of the classic protocol whose members subscribe to the load's topic.
type classicGroup struct {
	name         string
	subscription []byte // what each member says of itself
	load         Load
	members      []*classicMember
}

// newClassicGroup returns a group with one member on each of the connections. None of them has joined.
func newClassicGroup(name string, load Load, conns []*conn) *classicGroup {
	subscription := kmsg.NewConsumerMemberMetadata()
	subscription.Topics = []string{load.Topic}
	g := &classicGroup{name: name, subscription: subscription.AppendTo(nil), load: load}
	for _, c := range conns {
		g.members = append(g.members, &classicMember{conn: c, group: g})
	}
	return g
}

// rebalance returns when all the members, and nobody else, have been synced in one generation, and when that was. Those
// that never joined do; the others must have been given a reason.
func (g *classicGroup) rebalance(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &settlement{size: len(g.members), synced: map[int32]int{}, done: make(chan struct{})}
	errs := make([]error, len(g.members))
	var wg sync.WaitGroup
	for i, m := range g.members {
		wg.Go(func() {
			if errs[i] = m.follow(ctx, s); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	return s.at, errors.Join(errs...)
}

// settlement is what members know together of the rebalance that they are in.
type settlement struct {
	size int
	done chan struct{}

	mu       sync.Mutex
	complete int32         // the generation that has all members, once there is one
	synced   map[int32]int // members by the generation in which they were synced
	at       time.Time     // when all were
}

// assigned notes that a leader found all members in its generation.
func (s *settlement) assigned(generation int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.complete = generation
}

// sync notes that a member was synced. A leader is noted as assigned before.
func (s *settlement) sync(generation int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.synced[generation]++
	if generation == s.complete && s.synced[generation] == s.size {
		s.at = time.Now()
		close(s.done)
	}
}

// classicMember is a member of a group of the classic protocol.
type classicMember struct {
	conn       *conn
	group      *classicGroup
	id         string
	generation int32 // 0 before the first one
}

// follow takes the member through generations until the group has settled.
func (m *classicMember) follow(ctx context.Context, s *settlement) error {
	for rejoin := m.generation == 0; ; rejoin = true {
		if rejoin {
			synced, err := m.enter(ctx, s)
			if err != nil {
				return err
			}
			if !synced {
				continue
			}
		}
		told, err := m.awaitRebalance(ctx, s.done)
		if !told || err != nil {
			return err
		}
	}
}

// enter joins and syncs. It returns false when the next rebalance came between.
func (m *classicMember) enter(ctx context.Context, s *settlement) (bool, error) {
	var joined *kmsg.JoinGroupResponse
	err := retry(ctx, func() (err error) {
		joined, err = m.join()
		return err
	})
	if err != nil {
		return false, err
	}
	m.id, m.generation = joined.MemberID, joined.Generation
	request := kmsg.NewPtrSyncGroupRequest()
	request.SetVersion(5)
	request.Group, request.MemberID, request.Generation = m.group.name, m.id, m.generation
	request.ProtocolType, request.Protocol = kmsg.StringPtr("consumer"), joined.Protocol
	if joined.LeaderID == m.id {
		request.GroupAssignment = m.group.assign(joined.Members)
		if len(joined.Members) == s.size {
			s.assigned(m.generation)
		}
	}
	response, err := ask[*kmsg.SyncGroupResponse](m.conn, request)
	if err != nil {
		return false, err
	}
	switch err := kerr.ErrorForCode(response.ErrorCode); {
	case errors.Is(err, kerr.RebalanceInProgress):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("sync: %w", err)
	}
	s.sync(m.generation)
	return true, nil
}

// join asks to be in the next generation, with the id that a newcomer is given first (KIP-394).
func (m *classicMember) join() (*kmsg.JoinGroupResponse, error) {
	request := kmsg.NewPtrJoinGroupRequest()
	request.SetVersion(9)
	request.Group, request.MemberID, request.ProtocolType = m.group.name, m.id, "consumer"
	request.SessionTimeoutMillis = int32(sessionTimeout.Milliseconds())
	request.RebalanceTimeoutMillis = int32(rebalanceTimeout.Milliseconds())
	request.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: assignor, Metadata: m.group.subscription}}
	response, err := ask[*kmsg.JoinGroupResponse](m.conn, request)
	if err != nil {
		return nil, err
	}
	err = kerr.ErrorForCode(response.ErrorCode)
	if errors.Is(err, kerr.MemberIDRequired) && m.id == "" {
		m.id = response.MemberID
		return m.join()
	}
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	return response, nil
}

// assign gives the partitions to the members in turn.
func (g *classicGroup) assign(members []kmsg.JoinGroupResponseMember) []kmsg.SyncGroupRequestGroupAssignment {
	assignments := make([]kmsg.SyncGroupRequestGroupAssignment, len(members))
	for i, m := range members {
		topic := kmsg.NewConsumerMemberAssignmentTopic()
		topic.Topic = g.load.Topic
		for p := i; p < g.load.Partitions; p += len(members) {
			topic.Partitions = append(topic.Partitions, int32(p))
		}
		assignment := kmsg.NewConsumerMemberAssignment()
		assignment.Topics = append(assignment.Topics, topic)
		assignments[i] = kmsg.SyncGroupRequestGroupAssignment{MemberID: m.MemberID, MemberAssignment: assignment.AppendTo(nil)}
	}
	return assignments
}

// awaitRebalance sends heartbeats until one is answered with a rebalance, which it returns, or the group has settled.
func (m *classicMember) awaitRebalance(ctx context.Context, settled <-chan struct{}) (told bool, err error) {
	for pause := newBackoff(); ; {
		select {
		case <-settled:
			return false, nil
		default:
		}
		response, err := ask[*kmsg.HeartbeatResponse](m.conn, m.heartbeat())
		if err != nil {
			return false, err
		}
		switch err := kerr.ErrorForCode(response.ErrorCode); {
		case errors.Is(err, kerr.RebalanceInProgress):
			return true, nil
		case err != nil:
			return false, fmt.Errorf("heartbeat: %w", err)
		}
		if err := pause.wait(ctx, settled); err != nil {
			return false, err
		}
	}
}

func (m *classicMember) heartbeat() *kmsg.HeartbeatRequest {
	request := kmsg.NewPtrHeartbeatRequest()
	request.SetVersion(4)
	request.Group, request.MemberID, request.Generation = m.group.name, m.id, m.generation
	return request
}

func (m *classicMember) leave() error {
	request := kmsg.NewPtrLeaveGroupRequest()
	request.SetVersion(5)
	request.Group = m.group.name
	request.Members = []kmsg.LeaveGroupRequestMember{{MemberID: m.id}}
	response, err := ask[*kmsg.LeaveGroupResponse](m.conn, request)
	if err != nil {
		return err
	}
	codes := []int16{response.ErrorCode}
	for _, member := range response.Members {
		codes = append(codes, member.ErrorCode)
	}
	if failed := slices.IndexFunc(codes, func(code int16) bool { return code != 0 }); failed >= 0 {
		return fmt.Errorf("leave: %w", kerr.ErrorForCode(codes[failed]))
	}
	return nil
}
