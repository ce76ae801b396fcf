package group

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/broker/group/assignor"
	"github.com/streamhouse/streamhouse/metadata"
)

// TestConsumerGroupProperties has consumers of both protocols come, go, fall
// silent and change their minds, which migrates their group either way, loses
// answers, changes topics, and replaces the coordinator between and within steps.
// At no time do two members use one partition, by what they were told; and when all
// is quiet, the group is stable, and each partition of each topic that is subscribed
// to has its one consumer.
func TestConsumerGroupProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt)
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			w.random()
		}
		w.quiet()
	})
}

// world is a coordinator, its store and its clients.
type world struct {
	*rapid.T
	cfg     Config
	m       *machine
	now     time.Duration
	topics  *fakeTopics
	behind  *fakeTopics // what the coordinator knows of them
	history []*fakeTopics
	gone    map[string]bool
	records map[string]string
	clients []*client
	ids     int
}

// client is a consumer: what it believes, and what it does accordingly.
type client struct {
	id, instance string
	classic      bool
	newcomer     bool // of the classic protocol: it was given no id yet
	eager        bool // of the classic protocol
	topics       []string
	regex        string

	joined bool
	epoch  int32
	synced bool
	uses   assignor.Partitions
	told   assignor.Partitions // what it has not taken on yet, as it has to give something up first; nil for nothing
	full   bool                // it says all in its next heartbeat, as the last one was not answered

	waits *call          // in the classic protocol
	loses bool           // the answer that it waits for
	leads []JoinedMember // to whom it is to assign
}

func newWorld(rt *rapid.T) *world {
	w := &world{T: rt, cfg: DefaultConfig(), topics: newFakeTopics(), gone: make(map[string]bool), records: make(map[string]string)}
	w.cfg.InitialRebalanceDelay = 0
	w.changeTopics()
	w.behind = w.topics
	w.restart()
	return w
}

func (w *world) draw(name string, n int) int { return rapid.IntRange(0, n-1).Draw(w.T, name) }

// changeTopics makes a topic, or makes it larger, or deletes it for good: one of the
// same name has another id, and is another topic.
func (w *world) changeTopics() {
	defer func() { w.history = append(w.history, w.topics) }()
	name := string("tuv"[w.draw("topic", 3)])
	if w.gone[name] = w.gone[name] || w.draw("delete", 8) == 0; w.gone[name] {
		w.topics = w.topics.with(map[string]int32{name: 0})
		return
	}
	w.topics = w.topics.with(map[string]int32{name: max(w.topics.sizes[name], int32(w.draw("partitions", 6)))})
}

func (w *world) restart() {
	var stored []metadata.StoredGroup
	for id, record := range w.records {
		stored = append(stored, metadata.StoredGroup{GroupRecord: metadata.GroupRecord{Group: id, Record: record}})
	}
	for _, c := range w.clients {
		c.waits = nil // it is told to ask again
	}
	var err error
	if w.m, err = newMachine(&w.cfg, func() View { return w.behind }, w.now, stored); err != nil {
		w.Fatal(err)
	}
}

func (w *world) random() {
	switch w.draw("what", 12) {
	case 0:
		w.changeTopics()
	case 1:
		w.behind = w.topics
	case 2: // another agent, which knows of the topics what it knows
		w.behind = w.history[w.draw("version", len(w.history))]
		w.restart()
	case 3:
		w.pass(time.Duration(w.draw("seconds", 30)) * time.Second)
	case 4:
		w.newClient()
	default:
		if len(w.clients) > 0 {
			w.act(w.clients[w.draw("client", len(w.clients))])
		}
	}
	w.check()
}

func (w *world) newClient() {
	if len(w.clients) == 5 {
		return
	}
	w.ids++
	c := &client{
		id: fmt.Sprint("m", w.ids), classic: rapid.Bool().Draw(w.T, "classic"), newcomer: true,
		eager: rapid.Bool().Draw(w.T, "eager"), uses: assignor.Partitions{},
	}
	instance := fmt.Sprint("i", w.draw("instance", 4))
	if instance < "i2" && !slices.ContainsFunc(w.clients, func(o *client) bool { return o.instance == instance }) {
		c.instance = instance
	}
	w.subscribe(c)
	w.clients = append(w.clients, c)
}

func (w *world) subscribe(c *client) {
	c.topics, c.regex = nil, ""
	for _, topic := range []string{"t", "u", "v"} {
		if rapid.Bool().Draw(w.T, "subscribes") {
			c.topics = append(c.topics, topic)
		}
	}
	if !c.classic && w.draw("by pattern", 4) == 0 {
		c.regex = "[uv]"
	}
}

// act is one thing that a client does.
func (w *world) act(c *client) {
	switch w.draw("act", 16) {
	case 0: // it dies
		w.clients = slices.DeleteFunc(w.clients, func(o *client) bool { return o == c })
	case 1:
		w.leave(c)
	case 2:
		w.subscribe(c)
		c.full = true
		if c.classic {
			c.joined = false
		}
	default:
		w.beat(c, rapid.Bool().Draw(w.T, "loses the answer"))
	}
}

// beat lets a client give up what it has to, and then be heard of.
func (w *world) beat(c *client, loses bool) {
	if c.classic {
		w.classicBeat(c, loses)
		return
	}
	if c.told != nil {
		c.uses, c.told = c.told, nil // what it gave up, and what it got for that
	}
	r := &ConsumerHeartbeatRequest{Group: "g", MemberID: c.id, InstanceID: c.instance, Epoch: c.epoch, RebalanceTimeout: -1}
	if !c.joined {
		r.Epoch, c.uses = JoinEpoch, assignor.Partitions{}
		if w.m.classic("g") != nil {
			// As in Kafka, an upgrade forgets what members were assigned of topics
			// that the coordinator does not know yet.
			w.behind = w.topics
		}
	}
	if !c.joined || c.full {
		r.RebalanceTimeout, r.Topics, r.Regex = 10*time.Second, append([]string{}, c.topics...), &c.regex
	}
	if !c.joined || c.full || rapid.Bool().Draw(w.T, "says what it owns") {
		r.Owned = c.uses
	}
	answer, err := w.ask(r, loses)
	switch {
	case errors.Is(err, errLost):
		c.full = true
	case err != nil:
		c.joined, c.uses, c.told = false, assignor.Partitions{}, nil
	default:
		a := answer.(ConsumerHeartbeatResponse)
		c.joined, c.full, c.epoch = true, false, a.Epoch
		if a.Assignment == nil {
			return
		}
		if c.told = a.Assignment; subset(c.uses, c.told) {
			c.uses, c.told = c.told, nil // at once
		}
	}
}

func (w *world) leave(c *client) {
	switch {
	case c.classic:
		_, _ = w.ask(&LeaveRequest{Group: "g", Members: []LeavingMember{{MemberID: c.id}}}, false)
	case c.instance != "":
		_, _ = w.ask(&ConsumerHeartbeatRequest{Group: "g", MemberID: c.id, InstanceID: c.instance, Epoch: LeaveStaticEpoch}, false)
	default:
		_, _ = w.ask(&ConsumerHeartbeatRequest{Group: "g", MemberID: c.id, Epoch: LeaveEpoch}, false)
	}
	w.ids++
	c.newcomer, c.waits = true, nil
	c.id, c.joined, c.uses, c.told = fmt.Sprint("m", w.ids), false, assignor.Partitions{}, nil
}

// errLost is why there is no answer.
var errLost = errors.New("lost")

// ask steps the machine. The answer may be lost, and so may be, with the
// coordinator, what was on its way to the store: then there is no answer for sure.
func (w *world) ask(request any, loses bool) (any, error) {
	c := newCall()
	effects := w.m.step(w.now, c, request)
	if loses && w.draw("crash", 2) == 0 {
		w.Logf("%T %+v: crash", request, request)
		w.restart()
		return nil, errLost
	}
	w.take(effects)
	if loses {
		w.Logf("%T %+v: lost", request, request)
		return nil, errLost
	}
	for _, e := range effects {
		if r, ok := e.(reply); ok && r.call == c {
			w.Logf("%T %+v: %+v %v", request, request, r.answer, r.err)
			return r.answer, r.err
		}
	}
	panic("members of the consumer protocol are answered at once")
}

func (w *world) take(effects []effect) {
	if err := w.m.check(); err != nil {
		w.Fatalf("invariant broken: %v", err)
	}
	for _, e := range effects {
		switch e := e.(type) {
		case storeGroup:
			w.records[e.group] = encodeRecord(e.record)
			if e.deleted {
				delete(w.records, e.group)
			}
		case reply:
			for _, c := range w.clients {
				if c.waits == e.call {
					w.classicAnswer(c, e.answer, e.err)
				}
			}
		}
	}
	w.m.stored(unstored(w.m))
}

func (w *world) pass(by time.Duration) {
	end := w.now + by
	for at, ok := w.m.timers.next(); ok && at <= end; at, ok = w.m.timers.next() {
		w.now = max(w.now, at)
		w.take(w.m.expire(w.now))
	}
	w.now = end
}

// check looks for a partition that two members use. Clients that are no members
// any more know it by their own clocks.
func (w *world) check() {
	users := make(map[slot]string)
	for _, c := range w.clients {
		if !w.isMember(c.id) {
			c.uses, c.told = assignor.Partitions{}, nil
		}
		for topic, list := range c.uses {
			for _, p := range list {
				k := slot{topicName(topic), p}
				if other, taken := users[k]; taken {
					w.Fatalf("%s and %s use %v", other, c.id, k)
				}
				users[k] = c.id
			}
		}
	}
}

func (w *world) isMember(id string) bool {
	switch g := w.m.groups["g"].(type) {
	case *consumerGroup:
		return g.members[id] != nil
	case *group:
		return g.byID[id] != nil
	}
	return false
}

type slot struct {
	topic     string
	partition int32
}

// quiet lets all that goes on come to its end, and checks how.
func (w *world) quiet() {
	w.behind = w.topics
	w.pass(2 * time.Minute) // who has died is gone
	for range 60 {
		for _, c := range w.clients {
			w.beat(c, false)
			w.check()
		}
		w.pass(time.Second)
	}
	want, got := make(map[slot]bool), make(map[slot]bool)
	for _, c := range w.clients {
		for name, n := range w.topics.sizes {
			if slices.Contains(c.topics, name) || c.regex != "" && (name == "u" || name == "v") {
				for p := range n {
					want[slot{name, p}] = true
				}
			}
		}
		for topic, list := range c.uses {
			for _, p := range list {
				got[slot{topicName(topic), p}] = true
			}
		}
	}
	if g := w.m.groups["g"]; len(w.clients) > 0 && (g == nil || g.listed().State != Stable) {
		w.Fatalf("not stable: %+v", g)
	}
	if !maps.Equal(want, got) {
		w.Fatalf("%v are used, not %v", got, want)
	}
}
