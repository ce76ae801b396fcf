package group

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// consumerProtocol is the protocol type of consumers, whose metadata names the
// topics that a member subscribes to.
const consumerProtocol = "consumer"

// group is a classic group, or one that has positions and never had members. It
// implements coordinated.
type group struct {
	m     *machine
	id    string
	known bool // to the store, or on its way there

	state        State
	generation   int32
	protocolType string
	protocol     string // "" unless there is a generation with members
	leader       string // member id

	members []*member // by age
	byID    map[string]*member
	static  map[string]*member // by instance id
	// pending are member ids that were given out and not used yet (KIP-394),
	// with the end of their session.
	pending map[string]*timer

	supported map[string]int // how many members support a protocol
	bytes     int            // that the members say of themselves
	joining   int            // members whose join waits
	unsynced  int            // members that did not ask for their assignment yet

	// The first rebalance of an empty group waits for newcomers: initial is set
	// while it does, grew if one came since the last extension, and it never
	// waits longer than initialEnd.
	initial    bool
	grew       bool
	initialEnd time.Duration

	joinTimer timer // ends PreparingRebalance
	syncTimer timer // removes who did not ask for an assignment

	emptySince time.Duration // meaningful if it is Empty

	topics []string // what members subscribe to, sorted; meaningful if topicsKnown
	// topicsKnown is false if some member's metadata could not be read.
	topicsKnown bool
}

// member is a member of a group.
type member struct {
	id, instance, clientID, clientHost string

	sessionTimeout, rebalanceTimeout time.Duration

	protocols []Protocol
	bytes     int // that it says of itself
	// assignment is of the last generation that was stable. The member may own
	// some of it until it has the next one.
	assignment []byte

	joining  *call // waits for the next generation
	syncing  *call // waits for the leader's assignment
	unsynced bool
	isNew    bool // has not been in a generation yet

	session timer
}

// newGroup makes a group that is empty since some time.
func (m *machine) newGroup(since time.Duration, id string) *group {
	g := &group{
		m: m, id: id, state: Empty, emptySince: since,
		byID:      make(map[string]*member),
		static:    make(map[string]*member),
		pending:   make(map[string]*timer),
		supported: make(map[string]int),
	}
	g.joinTimer.fire = g.joinDue
	g.syncTimer.fire = g.syncDue
	m.groups[id] = g
	m.counts.groups[Empty]++
	return g
}

func (g *group) setState(s State) {
	g.m.counts.groups[g.state]--
	g.m.counts.groups[s]++
	g.state = s
}

func (g *group) reply(c *call, answer any, err error) { g.m.reply(g.id, c, answer, err) }

// changed marks the group as changed. It is not blank any more.
func (g *group) changed() {
	g.known = true
	g.m.changed(g.id)
}

// discard implements coordinated.
func (g *group) discard() {
	for _, t := range g.pending {
		g.m.timers.cancel(t)
	}
	for _, mb := range g.members {
		g.m.timers.cancel(&mb.session)
	}
	for _, t := range []*timer{&g.joinTimer, &g.syncTimer} {
		g.m.timers.cancel(t)
	}
	g.m.counts.groups[g.state]--
	g.m.counts.members -= len(g.members)
	delete(g.m.groups, g.id)
}

// discardIfBlank removes the group if it never had a generation or positions, and
// nobody is about to join.
func (g *group) discardIfBlank() {
	if g.state == Empty && !g.known && len(g.pending) == 0 {
		g.discard()
	}
}

// calls implements coordinated.
func (g *group) calls() (calls []*call) {
	for _, mb := range g.members {
		for _, c := range []*call{mb.joining, mb.syncing} {
			if c != nil {
				calls = append(calls, c)
			}
		}
	}
	return calls
}

// mayCommit implements coordinated, as Kafka's ClassicGroup.validateOffsetCommit.
func (g *group) mayCommit(now time.Duration, r *CommitRequest) error {
	if r.Generation < 0 && g.state == Empty {
		return nil // a consumer that manages its partitions itself, or an administrator
	}
	if r.Generation < 0 && r.MemberID == "" && r.InstanceID == "" {
		return kerr.UnknownMemberID
	}
	mb, err := g.current(&r.Membership)
	switch {
	case err != nil:
		return err
	case g.state == CompletingRebalance:
		return kerr.RebalanceInProgress
	}
	g.extend(now, mb)
	return nil
}

// mayForget implements coordinated.
func (g *group) mayForget(topic string) error {
	switch {
	case len(g.members) == 0:
		return nil
	case g.protocolType != consumerProtocol:
		return kerr.NonEmptyGroup
	case g.subscribes(topic):
		return kerr.GroupSubscribedToTopic
	}
	return nil
}

// expires implements coordinated. Positions of a group without a protocol type
// are those of consumers that manage their partitions themselves.
func (g *group) expires(now time.Duration) (positions, group bool) {
	switch g.state {
	case Empty:
		positions = g.protocolType == "" || now-g.emptySince >= g.m.cfg.OffsetsRetention
		return positions, len(g.pending) == 0
	case Stable:
		return g.topicsKnown, false
	}
	return false, false
}

// current returns the member that a request comes from.
func (g *group) current(r *Membership) (*member, error) {
	if g.state == Empty {
		return nil, kerr.UnknownMemberID
	}
	mb, err := g.member(r.MemberID, r.InstanceID)
	switch {
	case err != nil:
		return nil, err
	case r.Generation != g.generation:
		return nil, kerr.IllegalGeneration
	}
	return mb, nil
}

// member returns the member of that id, which must be the one that has the
// instance id if one is given.
func (g *group) member(id, instance string) (*member, error) {
	if instance != "" {
		switch mb := g.static[instance]; {
		case mb == nil:
			return nil, kerr.UnknownMemberID
		case mb.id != id:
			return nil, kerr.FencedInstanceID
		}
	}
	if mb := g.byID[id]; mb != nil {
		return mb, nil
	}
	return nil, kerr.UnknownMemberID
}

// add makes a member of a join that waits.
func (g *group) add(now time.Duration, c *call, r *JoinRequest, id string) *member {
	mb := &member{
		id: id, instance: r.InstanceID, clientID: r.ClientID, clientHost: r.ClientHost,
		sessionTimeout: r.SessionTimeout, rebalanceTimeout: r.RebalanceTimeout,
		protocols: r.Protocols, isNew: true,
	}
	if len(g.members) == 0 {
		g.protocolType, g.leader = r.ProtocolType, id
	}
	if g.state == PreparingRebalance && g.initial {
		g.grew = true
	}
	g.insert(mb)
	g.removePending(id)
	g.setJoining(mb, c)
	// A new member has no heartbeats yet, and its client can't be told from one
	// that has gone.
	g.m.timers.schedule(&mb.session, now+g.m.cfg.NewMemberJoinTimeout)
	return mb
}

// insert makes a member one of the group's.
func (g *group) insert(mb *member) {
	mb.session.fire = func(now time.Duration) { g.sessionDue(now, mb) }
	g.members = append(g.members, mb)
	g.byID[mb.id] = mb
	if mb.instance != "" {
		g.static[mb.instance] = mb
	}
	g.support(mb, 1)
	g.m.counts.members++
}

// update takes what a member that joins again says about itself.
func (g *group) update(mb *member, c *call, r *JoinRequest) {
	g.support(mb, -1)
	mb.protocols = r.Protocols
	mb.sessionTimeout, mb.rebalanceTimeout = r.SessionTimeout, r.RebalanceTimeout
	g.support(mb, 1)
	g.setJoining(mb, c)
}

// remove takes a member out. What it waits for ends with UNKNOWN_MEMBER_ID, so
// that its client joins again if it is there.
func (g *group) remove(mb *member) {
	g.answerJoin(mb, JoinResponse{}, kerr.UnknownMemberID)
	g.answerSync(mb, kerr.UnknownMemberID)
	g.setSynced(mb)
	g.m.timers.cancel(&mb.session)
	g.support(mb, -1)
	g.m.counts.members--
	delete(g.byID, mb.id)
	if mb.instance != "" {
		delete(g.static, mb.instance)
	}
	g.members = slices.DeleteFunc(g.members, func(o *member) bool { return o == mb })
	if g.leader == mb.id {
		g.leader = ""
		if len(g.members) > 0 {
			g.leader = g.members[0].id
		}
	}
}

func (g *group) removePending(id string) {
	if t := g.pending[id]; t != nil {
		g.m.timers.cancel(t)
		delete(g.pending, id)
	}
}

// setJoining makes c the member's join that waits. The one before, if any, is
// of a connection that the client has given up.
func (g *group) setJoining(mb *member, c *call) {
	g.answerJoin(mb, JoinResponse{}, kerr.RebalanceInProgress)
	mb.joining = c
	g.joining++
}

// answerJoin answers the member's join, if one waits.
func (g *group) answerJoin(mb *member, answer JoinResponse, err error) {
	if mb.joining != nil {
		g.reply(mb.joining, answer, err)
		mb.joining = nil
		g.joining--
	}
}

// answerSync answers the member's sync, if one waits, with its assignment.
func (g *group) answerSync(mb *member, err error) (answered bool) {
	if mb.syncing == nil {
		return false
	}
	var answer SyncResponse
	if err == nil {
		answer = g.assignment(mb)
	}
	g.reply(mb.syncing, answer, err)
	mb.syncing = nil
	return true
}

func (g *group) assignment(mb *member) SyncResponse {
	return SyncResponse{ProtocolType: g.protocolType, Protocol: g.protocol, Assignment: mb.assignment}
}

func (g *group) setSynced(mb *member) {
	if mb.unsynced {
		mb.unsynced = false
		g.unsynced--
	}
}

// extend begins the member's session anew.
func (g *group) extend(now time.Duration, mb *member) {
	g.m.timers.schedule(&mb.session, now+mb.sessionTimeout)
}

// allJoined says whether there is nobody to wait for.
func (g *group) allJoined() bool { return g.joining == len(g.members) && len(g.pending) == 0 }

// minRebalanceTimeout is what a rebalance may take whatever members ask for, which
// may be no time at all.
const minRebalanceTimeout = time.Second

// rebalanceTimeout is the largest of the members'.
func (g *group) rebalanceTimeout() time.Duration {
	longest := minRebalanceTimeout
	for _, mb := range g.members {
		longest = max(longest, mb.rebalanceTimeout)
	}
	return longest
}

// support counts in what a member says of itself, or, with -1, out, before it
// changes.
func (g *group) support(mb *member, n int) {
	if n > 0 {
		mb.bytes = len(mb.id) + len(mb.instance) + len(mb.clientID) + protocolBytes(mb.protocols)
	}
	g.bytes += n * mb.bytes
	for _, p := range mb.protocols {
		if g.supported[p.Name] += n; g.supported[p.Name] == 0 {
			delete(g.supported, p.Name)
		}
	}
}

func protocolBytes(protocols []Protocol) (n int) {
	for _, p := range protocols {
		n += len(p.Name) + len(p.Metadata)
	}
	return n
}

// fits says whether there is room for what a member says of itself, if that is
// more than before.
func (g *group) fits(r *JoinRequest) bool {
	more := r.bytes()
	if mb := cmp.Or(g.byID[r.MemberID], g.static[r.InstanceID]); mb != nil {
		more -= mb.bytes
	}
	return more <= 0 || g.bytes+more <= maxGroupBytes
}

// bytes is how many the member says of itself.
func (r *JoinRequest) bytes() int {
	return len(r.MemberID) + len(r.newMemberID) + len(r.InstanceID) + len(r.ClientID) + protocolBytes(r.Protocols)
}

// supports says whether somebody with these protocols can be a member: one of
// them must be everybody's.
func (g *group) supports(protocolType string, protocols []Protocol) bool {
	if g.state == Empty {
		return protocolType != "" && len(protocols) > 0
	}
	return protocolType == g.protocolType && slices.ContainsFunc(protocols, func(p Protocol) bool {
		return g.supported[p.Name] == len(g.members)
	})
}

// vote is the protocol that most members prefer among those that all support.
// With as many votes, the oldest member's preference counts.
func (g *group) vote() string {
	votes := make(map[string]int)
	for _, mb := range g.members {
		for _, p := range mb.protocols {
			if g.supported[p.Name] == len(g.members) {
				votes[p.Name]++
				break
			}
		}
	}
	best := ""
	for _, p := range g.members[0].protocols {
		if votes[p.Name] > votes[best] {
			best = p.Name
		}
	}
	return best
}

// metadata is what the member said for the group's protocol.
func (g *group) metadata(mb *member) []byte {
	for _, p := range mb.protocols {
		if p.Name == g.protocol {
			return p.Metadata
		}
	}
	return nil
}

// readTopics learns what the members subscribe to.
func (g *group) readTopics() {
	g.topics, g.topicsKnown = nil, g.protocolType == consumerProtocol
	if !g.topicsKnown {
		return
	}
	for _, mb := range g.members {
		var subscription kmsg.ConsumerMemberMetadata
		if subscription.ReadFrom(g.metadata(mb)) != nil {
			g.topicsKnown = false
			return
		}
		g.topics = append(g.topics, subscription.Topics...)
	}
	slices.Sort(g.topics)
	g.topics = slices.Compact(g.topics)
}

// subscribes says whether a member is, or may be, subscribed to the topic.
func (g *group) subscribes(topic string) bool {
	if !g.topicsKnown {
		return true
	}
	_, found := slices.BinarySearch(g.topics, topic)
	return found
}

// same says whether the member would say the same again.
func (mb *member) same(protocols []Protocol) bool {
	return slices.EqualFunc(mb.protocols, protocols, func(a, b Protocol) bool {
		return a.Name == b.Name && bytes.Equal(a.Metadata, b.Metadata)
	})
}

// listed implements coordinated.
func (g *group) listed() Listed {
	return Listed{Group: g.id, ProtocolType: g.protocolType, State: g.state, Type: ClassicType}
}

func (g *group) describe() Description {
	d := Description{State: g.state, ProtocolType: g.protocolType}
	if g.state == Stable {
		d.Protocol = g.protocol
	}
	for _, mb := range g.members {
		m := MemberDescription{MemberID: mb.id, InstanceID: mb.instance, ClientID: mb.clientID, ClientHost: mb.clientHost}
		if g.state == Stable {
			m.Metadata, m.Assignment = g.metadata(mb), mb.assignment
		}
		d.Members = append(d.Members, m)
	}
	return d
}
