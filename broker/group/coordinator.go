package group

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// Leases is what the coordinator asks of the agent's leases.
type Leases interface {
	// Acquire returns the leases of the keys, or why there is none.
	Acquire(ctx context.Context, keys []lease.Key) []lease.Acquired
	// HandOver ends leases and makes them over to their successors.
	HandOver(ctx context.Context, reason lease.HandoverReason, leases []*lease.Lease, to lease.Successor) []error
	// Lose gives up a lease that the agent has lost, or can't trust any more.
	Lose(l *lease.Lease, cause error)
}

// Coordinator coordinates the groups of the shards that the agent leads. It is
// safe for concurrent use.
//
// Its methods begin a request before they return, without waiting for anything,
// so that requests take effect in the order of the calls. What is not answered
// when Run ends is answered then, with COORDINATOR_NOT_AVAILABLE.
//
// Besides what they say themselves, all requests may fail with
//   - INVALID_GROUP_ID: the group's name is no text, or too long.
//   - NOT_COORDINATOR: another agent leads the group's shard, or this one lost it.
//   - COORDINATOR_NOT_AVAILABLE: the metadata store can't be asked, or too many
//     requests wait for it.
type Coordinator struct {
	groups  metadata.Groups
	leases  Leases
	view    func() View
	agentID string
	cfg     Config
	metrics *Metrics
	log     *slog.Logger

	start  time.Time // instants are counted from here, on the monotonic clock
	shards [metadata.GroupShards]*shard
	rearm  chan struct{} // has an element if a timer may be due before all known
}

// NewCoordinator makes a coordinator. The configuration must be valid. view
// returns the cluster as it is known now, without waiting; it is at least as new as
// the one before.
func NewCoordinator(groups metadata.Groups, leases Leases, view func() View, agentID string, cfg Config, m *Metrics, log *slog.Logger) *Coordinator {
	c := &Coordinator{
		groups: groups, leases: leases, view: view, agentID: agentID, cfg: cfg, metrics: m, log: log,
		start: time.Now(),
		rearm: make(chan struct{}, 1),
	}
	for n := range c.shards {
		c.shards[n] = newShard(c, metadata.GroupShardKey(cfg.AgentGroup, int32(n)))
	}
	return c
}

// Run acquires shards, asks the store and fires timers until ctx ends, and
// returns nil then.
func (c *Coordinator) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	for _, s := range c.shards {
		loops.Go(func() { s.run(ctx) })
	}
	loops.Go(func() { c.runTimers(ctx) })
	loops.Wait()
	return nil
}

// runTimers fires the timers of all shards.
func (c *Coordinator) runTimers(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.rearm:
		case <-timer.C:
		}
		timer.Stop()
		first, pending := time.Duration(0), false
		for _, s := range c.shards {
			if at, ok := s.tick(c.now()); ok && (!pending || at < first) {
				first, pending = at, true
			}
		}
		if pending {
			timer.Reset(first - c.now())
		}
	}
}

func (c *Coordinator) now() time.Duration { return time.Since(c.start) }

// Shard returns the lease key of a group's shard.
func (c *Coordinator) Shard(group string) lease.Key {
	return metadata.GroupShard(c.cfg.AgentGroup, group)
}

// maxGroupID is how many bytes the name of a group may have: it is part of a key
// in the store.
const maxGroupID = 1024

// begin hands a request to the shard of its group.
func (c *Coordinator) begin(group string, body any) *call {
	// What the store can't take would fail the requests of other groups too that
	// are in the same statement.
	if len(group) > maxGroupID || !utf8.ValidString(group) || strings.Contains(group, "\x00") {
		return refusedCall(kerr.InvalidGroupID)
	}
	return c.shards[c.Shard(group).Partition].begin(body)
}

// refusedCall is a call that was answered at once.
func refusedCall(err error) *call {
	c := newCall()
	c.complete(nil, err)
	return c
}

// refused is a request that was answered at once.
func refused[T any](err error) Pending[T] { return Pending[T]{refusedCall(err)} }

// Join waits until the rebalance that it takes part in, or begins, has brought
// the next generation. Errors are INVALID_GROUP_ID, INVALID_SESSION_TIMEOUT,
// GROUP_MAX_SIZE_REACHED, INCONSISTENT_GROUP_PROTOCOL, MEMBER_ID_REQUIRED,
// UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID and REBALANCE_IN_PROGRESS: the member
// has joined again meanwhile.
func (c *Coordinator) Join(r JoinRequest) Pending[JoinResponse] {
	switch {
	case r.Group == "":
		return refused[JoinResponse](kerr.InvalidGroupID)
	case r.SessionTimeout < c.cfg.MinSessionTimeout || r.SessionTimeout > c.cfg.MaxSessionTimeout:
		return refused[JoinResponse](kerr.InvalidSessionTimeout)
	}
	if r.MemberID == "" {
		r.newMemberID = cmp.Or(r.InstanceID, r.ClientID) + "-" + uuid.NewString()
	}
	return Pending[JoinResponse]{c.begin(r.Group, &r)}
}

// Sync waits for the leader's assignment. Errors are INVALID_GROUP_ID,
// UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID, ILLEGAL_GENERATION,
// INCONSISTENT_GROUP_PROTOCOL, REBALANCE_IN_PROGRESS, and UNKNOWN_SERVER_ERROR of an
// assignment that is too large.
func (c *Coordinator) Sync(r SyncRequest) Pending[SyncResponse] {
	if r.Group == "" {
		return refused[SyncResponse](kerr.InvalidGroupID)
	}
	return Pending[SyncResponse]{c.begin(r.Group, &r)}
}

// Heartbeat extends a member's session. Errors are INVALID_GROUP_ID,
// UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID, ILLEGAL_GENERATION, and
// REBALANCE_IN_PROGRESS, with which the session is extended too.
func (c *Coordinator) Heartbeat(r HeartbeatRequest) Pending[struct{}] {
	if r.Group == "" {
		return refused[struct{}](kerr.InvalidGroupID)
	}
	return Pending[struct{}]{c.begin(r.Group, &r)}
}

// Leave removes members. The answer has an error for each, nil if it was
// removed: UNKNOWN_MEMBER_ID or FENCED_INSTANCE_ID.
func (c *Coordinator) Leave(r LeaveRequest) Pending[[]error] {
	if r.Group == "" {
		return refused[[]error](kerr.InvalidGroupID)
	}
	return Pending[[]error]{c.begin(r.Group, &r)}
}

// ConsumerHeartbeat is how members of the consumer protocol join, stay in, learn
// of their assignment and leave (KIP-848). Errors are INVALID_GROUP_ID,
// INVALID_REQUEST, UNSUPPORTED_ASSIGNOR, INVALID_REGULAR_EXPRESSION,
// GROUP_ID_NOT_FOUND, GROUP_MAX_SIZE_REACHED, UNRELEASED_INSTANCE_ID,
// UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID and FENCED_MEMBER_EPOCH; many are a
// *Refusal.
func (c *Coordinator) ConsumerHeartbeat(r ConsumerHeartbeatRequest) Pending[ConsumerHeartbeatResponse] {
	switch {
	case r.Group == "":
		return refused[ConsumerHeartbeatResponse](kerr.InvalidGroupID)
	case r.Assignor != "" && !slices.Contains(c.cfg.ConsumerAssignors, r.Assignor):
		return refused[ConsumerHeartbeatResponse](refuse(kerr.UnsupportedAssignor, "ServerAssignor %s is not supported. Supported assignors: %s.",
			r.Assignor, strings.Join(c.cfg.ConsumerAssignors, ", ")))
	}
	if r.MemberID == "" {
		r.newMemberID = uuid.NewString()
	}
	return Pending[ConsumerHeartbeatResponse]{c.begin(r.Group, &r)}
}

// ConsumerDescribe returns a group of the consumer protocol with its members. The
// error is GROUP_ID_NOT_FOUND, a *Refusal.
func (c *Coordinator) ConsumerDescribe(group string) Pending[ConsumerDescription] {
	return Pending[ConsumerDescription]{c.begin(group, &consumerDescribeRequest{group})}
}

// Commit stores offsets. The answer has an error for each: nil, or
// OFFSET_METADATA_TOO_LARGE. Errors of all are UNKNOWN_MEMBER_ID,
// FENCED_INSTANCE_ID, ILLEGAL_GENERATION, REBALANCE_IN_PROGRESS and
// GROUP_ID_NOT_FOUND.
func (c *Coordinator) Commit(r CommitRequest) Pending[[]error] {
	return Pending[[]error]{c.begin(r.Group, &r)}
}

// Fetch returns all offsets of a group, with every commit that was begun before.
// They are not the caller's alone, and must not be changed.
func (c *Coordinator) Fetch(r FetchRequest) Pending[[]metadata.CommittedOffset] {
	return Pending[[]metadata.CommittedOffset]{c.begin(r.Group, &r)}
}

// DeleteOffsets forgets offsets. The answer has an error for each partition:
// nil, or GROUP_SUBSCRIBED_TO_TOPIC. Errors of all are GROUP_ID_NOT_FOUND, and
// NON_EMPTY_GROUP of groups that are not consumers.
func (c *Coordinator) DeleteOffsets(r DeleteOffsetsRequest) Pending[[]error] {
	return Pending[[]error]{c.begin(r.Group, &r)}
}

// Delete forgets a group. Errors are GROUP_ID_NOT_FOUND and NON_EMPTY_GROUP.
func (c *Coordinator) Delete(group string) Pending[struct{}] {
	return Pending[struct{}]{c.begin(group, &deleteRequest{group})}
}

// Describe returns a group with its members. With GROUP_ID_NOT_FOUND it is Dead.
func (c *Coordinator) Describe(group string) Pending[Description] {
	return Pending[Description]{c.begin(group, &describeRequest{group})}
}

// List returns the groups that this agent coordinates, by name, and those that
// clients are told to find here, for which it acquires what it lacks.
func (c *Coordinator) List(ctx context.Context, f ListFilter) ([]Listed, error) {
	var pending []Pending[[]Listed]
	for _, s := range c.shards {
		if s.leads() || f.Shards(s.key) {
			pending = append(pending, Pending[[]Listed]{s.begin(&listRequest{})})
		}
	}
	var all []Listed
	for _, p := range pending {
		groups, err := p.Wait(ctx)
		switch {
		case errors.Is(err, kerr.NotCoordinator):
			continue // another agent lists them
		case err != nil:
			return nil, err
		}
		all = append(all, groups...)
	}
	all = slices.DeleteFunc(all, func(g Listed) bool {
		return !selects(f.States, g.State.String()) || !selects(f.Types, g.Type)
	})
	slices.SortFunc(all, func(a, b Listed) int { return cmp.Compare(a.Group, b.Group) })
	return all, nil
}

// selects says whether a filter lets a value pass.
func selects(filter []string, value string) bool {
	return len(filter) == 0 || slices.ContainsFunc(filter, func(f string) bool {
		return strings.EqualFold(strings.TrimSpace(f), value)
	})
}
