package group

import (
	"cmp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// machine is the protocol of all groups of a shard. It is not safe for
// concurrent use. Instants are times since some fixed one, and don't go back.
type machine struct {
	cfg     *Config
	groups  map[string]*group
	timers  timers
	counts  counts
	effects []effect
}

func newMachine(cfg *Config) *machine {
	return &machine{cfg: cfg, groups: make(map[string]*group)}
}

// effect is what a step wants done.
type effect interface{ isEffect() }

// Effects of a step.
type (
	// reply answers a request; answer may be nil.
	reply struct {
		call   *call
		answer any
		err    error
	}
	// storeCommit asks for offsets to be stored. The answer is for when they are.
	storeCommit struct {
		call   *call
		commit metadata.OffsetCommit
		answer []error
	}
	// storeDelete asks for offsets to be forgotten; no keys means all. A group
	// that is neither known nor has offsets is not there.
	storeDelete struct {
		call   *call
		group  string
		keys   []lease.Key
		known  bool
		answer []error
	}
	// storeFetch asks for a group's offsets; answer makes the response of them.
	storeFetch struct {
		call   *call
		group  string
		answer func([]metadata.CommittedOffset) (any, error)
	}
	// note tells of a change that somebody who looks at the log cares about.
	note struct {
		what       string
		group      string
		generation int32
		members    int
		reason     string
	}
)

func (reply) isEffect()       {}
func (storeCommit) isEffect() {}
func (storeDelete) isEffect() {}
func (storeFetch) isEffect()  {}
func (note) isEffect()        {}

// What a note says.
const (
	rebalancing = "rebalancing group"
	stable      = "group is stable"
)

// step takes a request. The effects are valid until the next step.
func (m *machine) step(now time.Duration, c *call, request any) []effect {
	m.effects = m.effects[:0]
	switch r := request.(type) {
	case *JoinRequest:
		m.join(now, c, r)
	case *SyncRequest:
		m.sync(now, c, r)
	case *HeartbeatRequest:
		m.reply(c, nil, m.heartbeat(now, r))
	case *LeaveRequest:
		m.leave(now, c, r)
	case *CommitRequest:
		m.commit(now, c, r)
	case *DeleteOffsetsRequest:
		m.deleteOffsets(c, r)
	case *fetchRequest:
		m.emit(storeFetch{c, r.group, func(offsets []metadata.CommittedOffset) (any, error) { return offsets, nil }})
	case *describeRequest:
		m.describe(c, r.group)
	case *deleteRequest:
		m.delete(c, r.group)
	default:
		panic("group: unknown request") // only the coordinator makes requests
	}
	return m.effects
}

// expire fires what is due. The effects are valid until the next step.
func (m *machine) expire(now time.Duration) []effect {
	m.effects = m.effects[:0]
	m.timers.expire(now)
	return m.effects
}

// abandon returns all requests that wait for a member of a group.
func (m *machine) abandon() []*call {
	var calls []*call
	for _, g := range m.groups {
		for _, mb := range g.members {
			for _, c := range []*call{mb.joining, mb.syncing} {
				if c != nil {
					calls = append(calls, c)
				}
			}
		}
	}
	return calls
}

func (m *machine) emit(e effect) { m.effects = append(m.effects, e) }

func (m *machine) reply(c *call, answer any, err error) { m.emit(reply{c, answer, err}) }

// member finds the member that a request comes from.
func (m *machine) member(r *Membership) (*group, *member, error) {
	g := m.groups[r.Group]
	if g == nil || g.state == Empty {
		return nil, nil, kerr.UnknownMemberID
	}
	mb, err := g.member(r.MemberID, r.InstanceID)
	switch {
	case err != nil:
		return nil, nil, err
	case r.Generation != g.generation:
		return nil, nil, kerr.IllegalGeneration
	}
	return g, mb, nil
}

func (m *machine) heartbeat(now time.Duration, r *HeartbeatRequest) error {
	g, mb, err := m.member(&r.Membership)
	if err != nil {
		return err
	}
	g.extend(now, mb)
	if g.state == PreparingRebalance {
		return kerr.RebalanceInProgress
	}
	return nil
}

func (m *machine) leave(now time.Duration, c *call, r *LeaveRequest) {
	g := m.groups[r.Group]
	answer := make([]error, len(r.Members))
	left := ""
	for i, l := range r.Members {
		if answer[i] = g.leave(l); answer[i] == nil {
			left = cmp.Or(brief(l.Reason), "members left")
		}
	}
	if left != "" {
		switch g.state {
		case Stable, CompletingRebalance:
			g.rebalance(now, left)
		case PreparingRebalance:
			g.completeJoinIfAll(now)
		}
		g.forgetIfBlank()
	}
	m.reply(c, answer, nil)
}

// commit validates as Kafka's ClassicGroup.validateOffsetCommit does, but
// answers UNKNOWN_MEMBER_ID where Kafka says that there is no such group: the
// group may have been lost with another coordinator, and then its members must
// join again, which that code makes every client do.
func (m *machine) commit(now time.Duration, c *call, r *CommitRequest) {
	if err := m.mayCommit(now, r); err != nil {
		m.reply(c, nil, err)
		return
	}
	answer := make([]error, len(r.Offsets))
	accepted := make([]metadata.CommittedOffset, 0, len(r.Offsets))
	for i, o := range r.Offsets {
		if len(o.Metadata) > m.cfg.MaxMetadataBytes {
			answer[i] = kerr.OffsetMetadataTooLarge
			continue
		}
		accepted = append(accepted, o)
	}
	if len(accepted) == 0 {
		m.reply(c, answer, nil)
		return
	}
	m.emit(storeCommit{c, metadata.OffsetCommit{Group: r.Group, Offsets: accepted}, answer})
}

func (m *machine) mayCommit(now time.Duration, r *CommitRequest) error {
	g := m.groups[r.Group]
	if r.Generation < 0 && (g == nil || g.state == Empty) {
		return nil // a consumer that manages its partitions itself, or an administrator
	}
	if r.Generation < 0 && r.MemberID == "" && r.InstanceID == "" {
		return kerr.UnknownMemberID
	}
	g, mb, err := m.member(&r.Membership)
	switch {
	case err != nil:
		return err
	case g.state == CompletingRebalance:
		return kerr.RebalanceInProgress
	}
	g.extend(now, mb)
	return nil
}

func (m *machine) deleteOffsets(c *call, r *DeleteOffsetsRequest) {
	g := m.groups[r.Group]
	if g != nil && g.state != Empty && g.protocolType != consumerProtocol {
		m.reply(c, nil, kerr.NonEmptyGroup)
		return
	}
	answer := make([]error, len(r.Partitions))
	keys := make([]lease.Key, 0, len(r.Partitions))
	for i, p := range r.Partitions {
		if g != nil && g.subscribes(p.Topic) {
			answer[i] = kerr.GroupSubscribedToTopic
			continue
		}
		keys = append(keys, p.Key)
	}
	if len(keys) == 0 {
		m.reply(c, answer, nil)
		return
	}
	m.emit(storeDelete{call: c, group: r.Group, keys: keys, known: g != nil, answer: answer})
}

func (m *machine) delete(c *call, id string) {
	g := m.groups[id]
	if g != nil && g.state != Empty {
		m.reply(c, nil, kerr.NonEmptyGroup)
		return
	}
	if g != nil {
		g.forget()
	}
	m.emit(storeDelete{call: c, group: id, known: g != nil})
}

func (m *machine) describe(c *call, id string) {
	if g := m.groups[id]; g != nil {
		m.reply(c, g.describe(), nil)
		return
	}
	m.emit(storeFetch{c, id, func(offsets []metadata.CommittedOffset) (any, error) {
		if len(offsets) == 0 {
			return Description{State: Dead}, kerr.GroupIDNotFound
		}
		return Description{State: Empty}, nil
	}})
}

// list returns the groups in the order of their names.
func (m *machine) list() []Listed {
	all := make([]Listed, 0, len(m.groups))
	for id, g := range m.groups {
		all = append(all, Listed{Group: id, ProtocolType: g.protocolType, State: g.state})
	}
	slices.SortFunc(all, func(a, b Listed) int { return cmp.Compare(a.Group, b.Group) })
	return all
}
