package group

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/broker/group/assignor"
	"github.com/streamhouse/streamhouse/lease"
)

// consumerGroup is a group of the consumer protocol (KIP-848). It implements
// coordinated.
//
// Three epochs drive it. The group's grows with each change of members,
// subscriptions or topics. The target assignment is made anew when its epoch is
// behind. A member's is the epoch of the target that it was brought to: first it
// gives up what is not its own any more, then it takes on the new epoch, and gets
// what others have given up, as soon as they have.
type consumerGroup struct {
	m  *machine
	id string

	state       State
	epoch       int32
	targetEpoch int32

	members  map[string]*consumerMember
	static   map[string]*consumerMember // by instance id
	classics int                        // members that use the classic protocol
	bytes    int                        // that the members say of themselves
	// owners are the members that may use a partition: that have it assigned, or
	// have not said yet that they gave it up. There is at most one.
	owners map[lease.Key]*consumerMember

	// partitions are the topics to which somebody subscribes, with their sizes, as
	// of the version of the topics.
	partitions    map[uuid.UUID]int32
	topicsVersion int64
	patterns      map[string]*pattern // of subscriptions; nil for one that is not valid
}

// consumerMember is a member of a consumerGroup.
type consumerMember struct {
	id, instance, rack, clientID, clientHost string

	rebalanceTimeout time.Duration
	topics           []string // ascending, none twice
	regex            string   // "" for none
	assignor         string   // its preference; "" for none
	bytes            int      // that it says of itself

	state         memberState
	epoch         int32
	previousEpoch int32
	assigned      assignor.Partitions // not nil
	revoking      assignor.Partitions // what it has not given up yet
	target        assignor.Partitions
	classic       *classicMember // nil for a member of the consumer protocol

	session  timer
	reaction timer // ends the time that it has to do as it was told
}

// classicMember is what only members of the classic protocol have.
type classicMember struct {
	sessionTimeout time.Duration
	protocols      []Protocol
}

// memberState is how far a member is on its way to the target.
type memberState int

// The states of a member.
const (
	// memberStable has what it should have as of its epoch.
	memberStable memberState = iota
	// memberUnrevoked has to give something up first.
	memberUnrevoked
	// memberUnreleased waits for partitions that others have not given up.
	memberUnreleased
)

// newConsumerGroup makes a group, which is not among the machine's yet.
func (m *machine) newConsumerGroup(id string) *consumerGroup {
	return &consumerGroup{
		m: m, id: id, state: Empty,
		members:    make(map[string]*consumerMember),
		static:     make(map[string]*consumerMember),
		owners:     make(map[lease.Key]*consumerMember),
		partitions: make(map[uuid.UUID]int32),
		patterns:   make(map[string]*pattern),
	}
}

// insert makes the group one of the machine's.
func (g *consumerGroup) insert() {
	g.state = g.currentState()
	g.m.groups[g.id] = g
	g.m.counts.groups[g.state]++
	g.m.counts.members += len(g.members)
}

// discard implements coordinated.
func (g *consumerGroup) discard() {
	for _, mb := range g.members {
		g.m.timers.cancel(&mb.session)
		g.m.timers.cancel(&mb.reaction)
	}
	g.m.counts.groups[g.state]--
	g.m.counts.members -= len(g.members)
	delete(g.m.groups, g.id)
}

func (g *consumerGroup) reply(c *call, answer any, err error) { g.m.reply(g.id, c, answer, err) }

func (g *consumerGroup) changed() { g.m.changed(g.id) }

// newMember makes a member, which is not in the group yet.
func (g *consumerGroup) newMember(id, instance string) *consumerMember {
	mb := &consumerMember{id: id, instance: instance, assigned: assignor.Partitions{}}
	mb.session.fire = func(now time.Duration) {
		g.fence(now, mb, "member "+mb.id+" was not heard of for its session timeout")
	}
	mb.reaction.fire = func(now time.Duration) {
		g.fence(now, mb, "member "+mb.id+" did not take on its assignment in time")
	}
	return mb
}

// put makes a member part of the group.
func (g *consumerGroup) put(mb *consumerMember) {
	g.members[mb.id] = mb
	if mb.instance != "" {
		g.static[mb.instance] = mb
	}
	if mb.classic != nil {
		g.classics++
	}
	g.weigh(mb)
	g.own(mb, mb.assigned)
	g.own(mb, mb.revoking)
}

// take is the inverse of put.
func (g *consumerGroup) take(mb *consumerMember) {
	delete(g.members, mb.id)
	if mb.instance != "" {
		delete(g.static, mb.instance)
	}
	if mb.classic != nil {
		g.classics--
	}
	g.bytes -= mb.bytes
	g.release(mb.assigned)
	g.release(mb.revoking)
}

// weigh counts in what a member says of itself, which has changed.
func (g *consumerGroup) weigh(mb *consumerMember) {
	g.bytes -= mb.bytes
	mb.bytes = len(mb.id) + len(mb.instance) + len(mb.rack) + len(mb.clientID) + len(mb.regex) + textBytes(mb.topics)
	if mb.classic != nil {
		mb.bytes += protocolBytes(mb.classic.protocols)
	}
	g.bytes += mb.bytes
}

// fits says whether there is room for what a member says of itself, if that is
// more than before. The member is nil if it is new.
func (g *consumerGroup) fits(mb *consumerMember, bytes int) bool {
	if mb != nil {
		bytes -= mb.bytes
	}
	return bytes <= 0 || g.bytes+bytes <= maxGroupBytes
}

func textBytes(texts []string) (n int) {
	for _, t := range texts {
		n += len(t)
	}
	return n
}

// setClassic says what protocol a member of the group uses.
func (g *consumerGroup) setClassic(mb *consumerMember, c *classicMember) {
	if mb.classic != nil {
		g.classics--
	}
	if c != nil {
		g.classics++
	}
	mb.classic = c
}

func (g *consumerGroup) own(mb *consumerMember, partitions assignor.Partitions) {
	for topic, list := range partitions {
		for _, p := range list {
			g.owners[lease.Key{TopicID: topic, Partition: p}] = mb
		}
	}
}

func (g *consumerGroup) release(partitions assignor.Partitions) {
	for topic, list := range partitions {
		for _, p := range list {
			delete(g.owners, lease.Key{TopicID: topic, Partition: p})
		}
	}
}

// sorted returns the members in the order of their ids.
func (g *consumerGroup) sorted() []*consumerMember {
	return slices.SortedFunc(maps.Values(g.members), func(a, b *consumerMember) int { return cmp.Compare(a.id, b.id) })
}

// bump begins a new epoch, in which the target is to be made anew.
func (g *consumerGroup) bump(reason string) {
	g.epoch++
	g.changed()
	g.settle()
	g.m.emit(note{rebalancing, g.id, g.epoch, len(g.members), reason})
}

// settle finds the state after a change.
func (g *consumerGroup) settle() {
	before := g.state
	g.state = g.currentState()
	g.m.counts.groups[before]--
	g.m.counts.groups[g.state]++
	if g.state == Stable && before != Stable {
		g.m.emit(note{stable, g.id, g.epoch, len(g.members), ""})
	}
}

func (g *consumerGroup) currentState() State {
	switch {
	case len(g.members) == 0:
		return Empty
	case g.epoch > g.targetEpoch:
		return Assigning
	}
	for _, mb := range g.members {
		if mb.state != memberStable || mb.epoch != g.targetEpoch {
			return Reconciling
		}
	}
	return Stable
}

// fence takes a member out. If only members of the classic protocol are left, the
// group goes on as one of theirs.
func (g *consumerGroup) fence(now time.Duration, mb *consumerMember, reason string) {
	g.m.timers.cancel(&mb.session)
	g.m.timers.cancel(&mb.reaction)
	last := g.lastOfProtocol(mb)
	g.take(mb)
	g.m.counts.members--
	if last && g.mayDowngrade() {
		g.downgrade(now, reason)
		return
	}
	g.bump(reason)
}

// member returns the member of that id, which must be the one that has the
// instance id if one is given.
func (g *consumerGroup) member(id, instance string) (*consumerMember, error) {
	if instance != "" {
		switch mb := g.static[instance]; {
		case mb == nil:
			return nil, refuse(kerr.UnknownMemberID, "Instance id %s is unknown.", instance)
		case mb.id != id:
			return nil, refuse(kerr.FencedInstanceID, "Static member %s with instance id %s was fenced by member %s.", id, instance, mb.id)
		default:
			return mb, nil
		}
	}
	if mb := g.members[id]; mb != nil {
		return mb, nil
	}
	return nil, refuse(kerr.UnknownMemberID, "Member %s is not a member of group %s.", id, g.id)
}

// calls implements coordinated: members of either protocol are answered at once.
func (g *consumerGroup) calls() []*call { return nil }

// listed implements coordinated.
func (g *consumerGroup) listed() Listed {
	return Listed{Group: g.id, ProtocolType: consumerProtocol, State: g.state, Type: ConsumerType}
}

// in refuses members that are not in the epoch that they believe to be in.
func (mb *consumerMember) in(epoch int32) error {
	switch {
	case epoch == mb.epoch:
		return nil
	case mb.classic != nil:
		return kerr.IllegalGeneration
	}
	return kerr.StaleMemberEpoch
}

// mayCommit implements coordinated, as Kafka's ConsumerGroup.validateOffsetCommit.
func (g *consumerGroup) mayCommit(_ time.Duration, r *CommitRequest) error {
	if r.Generation < 0 && len(g.members) == 0 {
		return nil // a consumer that manages its partitions itself, or an administrator
	}
	mb, err := g.member(r.MemberID, "")
	switch {
	case err != nil:
		return err
	case mb.classic == nil && !r.MemberEpochs:
		return kerr.UnsupportedVersion
	}
	return mb.in(r.Generation)
}

// mayFetch refuses a member that may not know of all commits to what it owns, as
// Kafka's ConsumerGroup.validateOffsetFetch.
func (g *consumerGroup) mayFetch(r *FetchRequest) error {
	if r.MemberID == "" && r.Epoch < 0 {
		return nil
	}
	mb, err := g.member(r.MemberID, "")
	if err != nil {
		return err
	}
	return mb.in(r.Epoch)
}

// mayForget implements coordinated.
func (g *consumerGroup) mayForget(topic string) error {
	for _, mb := range g.members {
		if g.subscribes(mb, topic) {
			return kerr.GroupSubscribedToTopic
		}
	}
	return nil
}

// expires implements coordinated. Positions expire by their own age, whatever the
// group's state.
func (g *consumerGroup) expires(time.Duration) (positions, group bool) {
	return true, len(g.members) == 0
}

func (g *consumerGroup) describe() ConsumerDescription {
	d := ConsumerDescription{State: g.state, Epoch: g.epoch, TargetEpoch: g.targetEpoch, Assignor: g.assignor()}
	view := g.m.view()
	for _, mb := range g.sorted() {
		d.Members = append(d.Members, ConsumerMemberDescription{
			MemberID: mb.id, InstanceID: mb.instance, Rack: mb.rack, ClientID: mb.clientID, ClientHost: mb.clientHost,
			Epoch: mb.epoch, Topics: mb.topics, Regex: mb.regex, Classic: mb.classic != nil,
			Assigned: named(view, mb.assigned), Target: named(view, mb.target),
		})
	}
	return d
}

// named leaves out topics that are gone.
func named(view View, partitions assignor.Partitions) []NamedPartitions {
	all := []NamedPartitions{}
	for _, id := range partitions.Topics() {
		if name, ok := view.Name(id); ok {
			all = append(all, NamedPartitions{id, name, partitions[id]})
		}
	}
	return all
}

// check implements coordinated.
func (g *consumerGroup) check() (members int, err error) {
	owned, classics, bytes := 0, 0, 0
	for id, mb := range g.members {
		bytes += mb.bytes
		owned += mb.assigned.Count() + mb.revoking.Count()
		if mb.classic != nil {
			classics++
		}
		switch {
		case mb.id != id || mb.instance != "" && g.static[mb.instance] != mb:
			return 0, errors.New("a member that is not found by its id")
		case mb.epoch > g.targetEpoch:
			return 0, errors.New("a member is ahead of the target")
		case mb.state == memberUnrevoked && mb.epoch != LeaveStaticEpoch && mb.revoking.Count() == 0:
			return 0, errors.New("a member gives up nothing")
		case !mb.session.queued:
			return 0, errors.New("a member without a session")
		}
	}
	for k, mb := range g.owners {
		if g.members[mb.id] != mb || !mb.assigned.Contains(k.TopicID, k.Partition) && !mb.revoking.Contains(k.TopicID, k.Partition) {
			return 0, errors.New("an owner of what it does not have")
		}
	}
	switch {
	case owned != len(g.owners):
		return 0, errors.New("a partition with two owners, or none that is known")
	case classics != g.classics:
		return 0, errors.New("miscounted members of the classic protocol")
	case bytes != g.bytes:
		return 0, errors.New("miscounted bytes")
	case g.targetEpoch > g.epoch:
		return 0, errors.New("a target ahead of the group")
	case g.state != g.currentState():
		return 0, errors.New("not in its state")
	}
	return len(g.members), nil
}
