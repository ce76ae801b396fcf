package group

import (
	"cmp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/metadata"
)

// machine is the protocol of all groups of a shard. It is not safe for
// concurrent use. Instants are times since some fixed one, and don't go back.
//
// What a step changes of a group that must not be forgotten goes to the store
// before anything is said of it: the step marks the group as changed, and at its
// end the group's record is an effect, before the step's other effects. Replies
// about the group are held from then on, until the shard has called stored.
type machine struct {
	cfg     *Config
	view    func() View            // the cluster as it is now; at least as new as before
	groups  map[string]coordinated // of any kind, which may change in a step
	timers  timers
	counts  counts
	effects []effect

	dirty    []string       // groups that this step has changed
	unstored map[string]int // how many records of a group are on their way to the store

	retention timer           // looks for positions that have expired
	aging     map[string]bool // groups of which old positions were asked for, and that had no commit since
}

// coordinated is a group of any kind.
type coordinated interface {
	listed() Listed
	// record is what must not be forgotten, as it is now; see encodeRecord. Later
	// steps don't change it.
	record() any
	// discard takes the group out of the machine, with its timers.
	discard()
	// calls returns the requests that wait.
	calls() []*call
	// mayCommit says whether whoever asks may commit positions, and takes it for
	// a sign of life.
	mayCommit(now time.Duration, r *CommitRequest) error
	// mayForget says whether positions in the topic may be forgotten:
	// NON_EMPTY_GROUP means that none may, GROUP_SUBSCRIBED_TO_TOPIC that these
	// may not.
	mayForget(topic string) error
	// expires says whether old positions expire now (KIP-211), and whether the
	// group does when it has no positions.
	expires(now time.Duration) (positions, group bool)
	// check returns what does not hold though it must, and counts the members.
	check() (members int, err error)
}

// newMachine makes the machine of a shard whose groups were stored so. Errors are
// those of records that can't be read.
func newMachine(cfg *Config, view func() View, now time.Duration, stored []metadata.StoredGroup) (*machine, error) {
	m := &machine{
		cfg: cfg, view: view, groups: make(map[string]coordinated, len(stored)),
		unstored: make(map[string]int), aging: make(map[string]bool),
	}
	m.retention.fire = m.retentionDue
	m.timers.schedule(&m.retention, now+cfg.RetentionCheckInterval)
	for i := range stored {
		if err := m.load(now, &stored[i]); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// effect is what a step wants done.
type effect interface{ isEffect() }

// Effects of a step.
type (
	// reply answers a request; answer may be nil.
	reply struct {
		group  string // of which it says something; "" of several
		call   *call
		answer any
		err    error
		held   bool // until all that was asked of the store before is there
	}
	// storeGroup asks for a group's record to be stored, or for the group to be
	// deleted with its positions.
	storeGroup struct {
		group   string
		record  any // see coordinated
		deleted bool
	}
	// storeCommit asks for positions to be stored. The answer is for when they are.
	storeCommit struct {
		call   *call
		commit metadata.OffsetCommit
		answer []error
	}
	// storeForget asks for positions to be forgotten. The call is nil if nobody
	// waits for it.
	storeForget struct {
		call   *call
		forget metadata.OffsetDelete
		answer []error
	}
	// storeFetch asks for a group's positions, which are the answer.
	storeFetch struct {
		call  *call
		group string
	}
	// storeOld asks for the positions of groups that may have expired, which
	// expireOffsets takes.
	storeOld struct{ groups []string }
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
func (storeGroup) isEffect()  {}
func (storeCommit) isEffect() {}
func (storeForget) isEffect() {}
func (storeFetch) isEffect()  {}
func (storeOld) isEffect()    {}
func (note) isEffect()        {}

// What a note says.
const (
	rebalancing = "rebalancing group"
	stable      = "group is stable"
	expired     = "group has expired"
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
		m.reply(r.Group, c, nil, m.heartbeat(now, r))
	case *LeaveRequest:
		m.leave(now, c, r)
	case *CommitRequest:
		m.commit(now, c, r)
	case *DeleteOffsetsRequest:
		m.deleteOffsets(c, r)
	case *FetchRequest:
		m.fetch(c, r)
	case *ConsumerHeartbeatRequest:
		m.consumerHeartbeat(now, c, r)
	case *consumerDescribeRequest:
		m.consumerDescribe(c, r.group)
	case *describeRequest:
		m.describe(c, r.group)
	case *deleteRequest:
		m.delete(c, r.group)
	case *listRequest:
		m.reply("", c, m.list(), nil)
	default:
		panic("group: unknown request") // only the coordinator makes requests
	}
	return m.finish()
}

// expire fires what is due. The effects are valid until the next step.
func (m *machine) expire(now time.Duration) []effect {
	m.effects = m.effects[:0]
	m.timers.expire(now)
	return m.finish()
}

// changed says that the step has changed what must not be forgotten of a group. It
// may be that the group is not there any more.
func (m *machine) changed(group string) { m.dirty = append(m.dirty, group) }

// finish ends a step.
func (m *machine) finish() []effect {
	if len(m.dirty) == 0 && len(m.unstored) == 0 {
		return m.effects
	}
	slices.Sort(m.dirty)
	effects := make([]effect, 0, len(m.dirty)+len(m.effects))
	for _, id := range slices.Compact(m.dirty) {
		m.unstored[id]++
		if g := m.groups[id]; g != nil {
			effects = append(effects, storeGroup{group: id, record: g.record()})
		} else {
			effects = append(effects, storeGroup{group: id, deleted: true})
		}
	}
	m.dirty = m.dirty[:0]
	for _, e := range m.effects {
		if r, ok := e.(reply); ok && (r.group == "" || m.unstored[r.group] > 0) {
			r.held = true
			e = r
		}
		effects = append(effects, e)
	}
	return effects
}

// stored says that records have reached the store, one of a group for each time
// that it is named.
func (m *machine) stored(groups []string) {
	for _, id := range groups {
		if m.unstored[id]--; m.unstored[id] == 0 {
			delete(m.unstored, id)
		}
	}
}

// abandon returns all requests that wait for a member of a group.
func (m *machine) abandon() []*call {
	var calls []*call
	for _, g := range m.groups {
		calls = append(calls, g.calls()...)
	}
	return calls
}

func (m *machine) emit(e effect) { m.effects = append(m.effects, e) }

func (m *machine) reply(group string, c *call, answer any, err error) {
	m.emit(reply{group: group, call: c, answer: answer, err: err})
}

// classic returns the classic group of that name, nil if there is none.
func (m *machine) classic(id string) *group {
	g, _ := m.groups[id].(*group)
	return g
}

// member finds the member that a request comes from.
func (m *machine) member(r *Membership) (*group, *member, error) {
	g := m.classic(r.Group)
	if g == nil {
		return nil, nil, kerr.UnknownMemberID
	}
	mb, err := g.current(r)
	return g, mb, err
}

func (m *machine) heartbeat(now time.Duration, r *HeartbeatRequest) error {
	if g := m.consumer(r.Group); g != nil {
		return g.classicHeartbeat(now, r)
	}
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
	answer := make([]error, 0, len(r.Members))
	for g := m.consumer(r.Group); g != nil && len(answer) < len(r.Members); g = m.consumer(r.Group) {
		answer = append(answer, g.classicLeave(now, r.Members[len(answer)]))
	}
	g, left := m.classic(r.Group), ""
	for _, l := range r.Members[len(answer):] {
		err := g.leave(l)
		if err == nil {
			left = cmp.Or(brief(l.Reason), "members left")
		}
		answer = append(answer, err)
	}
	if left != "" {
		switch g.state {
		case Stable, CompletingRebalance:
			g.rebalance(now, left)
		case PreparingRebalance:
			g.completeJoinIfAll(now)
		}
		g.discardIfBlank()
	}
	m.reply(r.Group, c, answer, nil)
}
