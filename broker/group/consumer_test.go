package group

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/broker/group/assignor"
	"github.com/streamhouse/streamhouse/metadata"
)

// fakeTopics is a View of topics of which the names are single letters, in which
// all groups are configured alike.
type fakeTopics struct {
	version int64
	sizes   map[string]int32
	config  *config.Group
}

func newFakeTopics() *fakeTopics {
	return &fakeTopics{sizes: make(map[string]int32), config: unconfigured}
}

// unconfigured is a group that has no configs of its own.
var unconfigured = new(config.Broker).Group(nil)

// noTopics are those of a coordinator whose groups don't care.
func noTopics() View { return newFakeTopics() }

// with is the next version, in which topics have these sizes, 0 for a topic that
// is gone.
func (f *fakeTopics) with(sizes map[string]int32) *fakeTopics {
	next := &fakeTopics{version: f.version + 1, sizes: maps.Clone(f.sizes), config: f.config}
	maps.Copy(next.sizes, sizes)
	maps.DeleteFunc(next.sizes, func(_ string, n int32) bool { return n == 0 })
	return next
}

func (f *fakeTopics) Version() int64 { return f.version }

func (f *fakeTopics) Changed() int64 { return f.version }

func (f *fakeTopics) Lookup(name string) (uuid.UUID, int32, bool) {
	n, ok := f.sizes[name]
	return topicID(name), n, ok
}

func (f *fakeTopics) Name(id uuid.UUID) (string, bool) {
	name := topicName(id)
	_, ok := f.sizes[name]
	return name, ok
}

func (f *fakeTopics) Names() []string { return slices.Sorted(maps.Keys(f.sizes)) }

func (f *fakeTopics) Config(string) *config.Group { return f.config }

func topicID(name string) uuid.UUID { return uuid.UUID{name[0]} }

func topicName(id uuid.UUID) string { return string(id[:1]) }

// setTopics is the command "topics": the next version, or with "old" the one
// before, as an agent has it that does not know of the newest yet.
func (tr *transcript) setTopics(d *datadriven.TestData) string {
	if d.HasArg("old") {
		tr.topics = &fakeTopics{version: tr.topics.version - 1, sizes: make(map[string]int32), config: tr.topics.config}
		return ""
	}
	sizes := make(map[string]int32)
	for _, arg := range d.CmdArgs {
		n, err := strconv.Atoi(arg.Vals[0])
		if err != nil {
			d.Fatalf(tr.t, "%v", err)
		}
		sizes[arg.Key] = int32(n)
	}
	tr.topics = tr.topics.with(sizes)
	return ""
}

func (tr *transcript) consumerConfig(a args) {
	if a.has("consumer-max-size") {
		tr.cfg.ConsumerMaxSize = a.int("consumer-max-size")
	}
	if a.has("policy") {
		tr.cfg.ConsumerMigrationPolicy = MigrationPolicy(a.str("policy"))
	}
	if a.has("group-session") {
		ms := a.duration("group-session", 0).Milliseconds()
		tr.topics.config = new(config.Broker).Group(map[string]string{"consumer.session.timeout.ms": fmt.Sprint(ms)})
	}
}

// consumerRequest is a request of the consumer protocol. A beat that joins is
// complete; others say what they are told to.
func (tr *transcript) consumerRequest(d *datadriven.TestData, a args) any {
	switch d.Cmd {
	case "beat":
		r := &ConsumerHeartbeatRequest{
			Group: "g", MemberID: a.str("member"), Epoch: int32(max(a.int("epoch"), 0)), InstanceID: a.str("instance"),
			Rack: a.str("rack"), ClientID: "c", ClientHost: "/host", Assignor: a.str("assignor"),
			RebalanceTimeout: -1, Topics: a.list("topics"), Owned: partitions(a.list("owns")),
		}
		if r.Epoch == JoinEpoch || a.has("rebalance") {
			r.RebalanceTimeout = a.duration("rebalance", 30*time.Second)
		}
		if a.has("regex") {
			regex := strings.TrimPrefix(a.str("regex"), "none")
			r.Regex = &regex
		}
		if a.str("topics") == "none" {
			r.Topics = []string{}
		}
		if r.Epoch == JoinEpoch && r.Owned == nil {
			r.Owned = assignor.Partitions{}
		}
		if r.MemberID == "" {
			tr.ids++
			r.newMemberID = fmt.Sprintf("m%d", tr.ids)
		}
		return r
	case "bye":
		r := &ConsumerHeartbeatRequest{Group: "g", MemberID: a.str("member"), Epoch: LeaveEpoch, InstanceID: a.str("instance")}
		if a.has("back-soon") {
			r.Epoch = LeaveStaticEpoch
		}
		return r
	case "describe-consumer":
		return &consumerDescribeRequest{"g"}
	}
	d.Fatalf(tr.t, "unknown command %q", d.Cmd)
	return nil
}

// partitions are such as "t:0-2" and "t:0"; "none" are none.
func partitions(list []string) assignor.Partitions {
	if list == nil {
		return nil
	}
	all := make(assignor.Partitions)
	for _, s := range list {
		if name, text, ok := strings.Cut(s, ":"); ok {
			some, err := parsePartitions(text)
			if err != nil {
				panic(err)
			}
			all[topicID(name)] = append(all[topicID(name)], some...)
		}
	}
	return all
}

func showPartitions(p assignor.Partitions) string {
	var all []string
	for _, id := range p.Topics() {
		all = append(all, topicName(id)+":"+formatPartitions(p[id]))
	}
	return "[" + strings.Join(all, " ") + "]"
}

func answeredConsumer(answer any) string {
	switch a := answer.(type) {
	case ConsumerHeartbeatResponse:
		out := fmt.Sprintf(" %s epoch %d", a.MemberID, a.Epoch)
		if a.Assignment != nil {
			out += " " + showPartitions(a.Assignment)
		}
		return out
	case ConsumerDescription:
		out := fmt.Sprintf(" %s, epoch %d, target %d, %s", a.State, a.Epoch, a.TargetEpoch, a.Assignor)
		for _, m := range a.Members {
			out += fmt.Sprintf("\n  %s %s epoch %d subscribes %v %q has %s of %s", m.MemberID, m.InstanceID, m.Epoch, m.Topics, m.Regex,
				showNamed(m.Assigned), showNamed(m.Target))
			if m.Classic {
				out += " classic"
			}
		}
		return out
	}
	return ""
}

func showNamed(list []NamedPartitions) string {
	p := make(assignor.Partitions)
	for _, n := range list {
		p[n.TopicID] = n.Partitions
	}
	return showPartitions(p)
}

// showAssignment is an assignment of the classic protocol, or the text that tests
// use for one.
func showAssignment(data []byte) string {
	var a kmsg.ConsumerMemberAssignment
	if len(data) < 6 || a.ReadFrom(data) != nil {
		return fmt.Sprintf("%q", data)
	}
	p := make(assignor.Partitions)
	for _, t := range a.Topics {
		p[topicID(t.Topic)] = t.Partitions
	}
	return showPartitions(p)
}

// consumerSummary says what is stored of a group.
func consumerSummary(e *storeGroup) string {
	r := e.record.(consumerRecord)
	out := fmt.Sprintf("stores %s: epoch %d, target %d", e.group, r.Epoch, r.TargetEpoch)
	for _, m := range r.Members {
		out += fmt.Sprintf("; %s %d", m.ID, m.Epoch)
		if len(m.Assigned) > 0 {
			out += " " + showPartitions(assignor.Partitions(m.Assigned))
		}
		if len(m.Revoking) > 0 {
			out += " -" + showPartitions(assignor.Partitions(m.Revoking))
		}
	}
	return out + "\n"
}

func TestPartitionsInRecords(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]int32{
		"0": {0}, "0-3": {0, 1, 2, 3}, "0-1,3,5-6": {0, 1, 3, 5, 6}, "7,9": {7, 9},
	} {
		got, err := parsePartitions(text)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q is %v, %v", text, got, err)
		}
		if again := formatPartitions(got); again != text {
			t.Errorf("%q became %q", text, again)
		}
	}
	for _, text := range []string{"", "x", "-1", "1-", "2-1", "1,1", "3,0", "0-1,1", "0-99999999999", "0-9999999"} {
		if got, err := parsePartitions(text); !errors.Is(err, errRecord) {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
}

// FuzzLoadConsumer loads records of any kind, which must be refused or hold.
func FuzzLoadConsumer(f *testing.F) {
	for _, seed := range []string{
		`{"version":1,"type":"consumer","epoch":2,"targetEpoch":2,"members":[{"id":"a","state":"STABLE","epoch":2,` +
			`"assigned":{"74000000-0000-0000-0000-000000000000":"0-1"},"target":{"74000000-0000-0000-0000-000000000000":"0-1"}}]}`,
		`{"version":1,"type":"consumer","epoch":1,"members":[{"id":"a","state":"STABLE"},{"id":"a","state":"STABLE"}]}`,
		`{"version":1,"type":"consumer","members":[{"id":"a","state":"NONE"}]}`,
		`{"version":1,"type":"classic","state":"Stable"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, record string) {
		if len(record) > 4096 {
			return
		}
		cfg := DefaultConfig()
		m, err := newMachine(&cfg, noTopics, 0, []metadata.StoredGroup{{GroupRecord: metadata.GroupRecord{Group: "g", Record: record}}})
		if err != nil {
			return
		}
		if err := m.check(); err != nil {
			t.Fatal(err)
		}
		m.expire(24 * time.Hour)
		if err := m.check(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestPatterns(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		pattern  string
		yes, no  string
		mistaken bool
	}{
		{pattern: "t.*", yes: "topic", no: "at"},
		{pattern: "a|b", yes: "b", no: "ab"}, // of whole names
		{pattern: "(?i)T", yes: "t", no: "tt"},
		{pattern: `\Qa.b\E`, yes: "a.b", no: "axb"},
		{pattern: "(", mistaken: true},
		{pattern: "a)(b", mistaken: true},
		{pattern: `(a)\1`, mistaken: true}, // RE2 has no references
		{pattern: "((a{100}){10}){10}", mistaken: true},
		{pattern: strings.Repeat("a", 2000), mistaken: true},
	} {
		p, err := compilePattern(test.pattern)
		switch {
		case (err != nil) != test.mistaken:
			t.Errorf("%.20s: %v", test.pattern, err)
		case err == nil && (!p.MatchString(test.yes) || p.MatchString(test.no)):
			t.Errorf("%s matches %s or not %s", test.pattern, test.no, test.yes)
		}
	}
}

// A group with a steady membership costs a heartbeat no more than looking it up.
func BenchmarkConsumerHeartbeat(b *testing.B) {
	cfg := DefaultConfig()
	topics := newFakeTopics().with(map[string]int32{"t": 100})
	m, err := newMachine(&cfg, func() View { return topics }, 0, nil)
	if err != nil {
		b.Fatal(err)
	}
	const members = 100
	beats := make([]*ConsumerHeartbeatRequest, members)
	for round := range 3 {
		for i := range beats {
			r := &ConsumerHeartbeatRequest{Group: "g", MemberID: fmt.Sprint("m", i), RebalanceTimeout: -1, ClientID: "c", ClientHost: "/host"}
			if round == 0 {
				r.RebalanceTimeout, r.Topics, r.Owned = time.Minute, []string{"t"}, assignor.Partitions{}
			} else {
				r.Epoch = beats[i].Epoch
				r.Owned = assignor.Partitions{}
			}
			answer := only(b, m.step(0, newCall(), r))
			m.stored(unstored(m))
			r.Epoch = answer.Epoch
			beats[i] = r
		}
	}
	for i := range beats {
		beats[i].Owned = nil
	}
	if state := m.groups["g"].listed().State; state != Stable {
		b.Fatal(state)
	}
	c := newCall()
	now := time.Duration(0)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		now += time.Millisecond
		if effects := m.step(now, c, beats[i%members]); len(effects) != 1 {
			b.Fatal(effects)
		}
	}
}

// only returns the one answer among the effects.
func only(tb testing.TB, effects []effect) ConsumerHeartbeatResponse {
	tb.Helper()
	for _, e := range effects {
		if r, ok := e.(reply); ok {
			if r.err != nil {
				tb.Fatal(r.err)
			}
			return r.answer.(ConsumerHeartbeatResponse)
		}
	}
	tb.Fatal("no answer")
	return ConsumerHeartbeatResponse{}
}

// unstored names each record that is on its way.
func unstored(m *machine) (groups []string) {
	for id, n := range m.unstored {
		for range n {
			groups = append(groups, id)
		}
	}
	return groups
}

// classicAssignment is an assignment in the form of the classic protocol.
func classicAssignment(p assignor.Partitions) []byte {
	a := kmsg.NewConsumerMemberAssignment()
	for _, id := range p.Topics() {
		a.Topics = append(a.Topics, kmsg.ConsumerMemberAssignmentTopic{Topic: topicName(id), Partitions: p[id]})
	}
	return a.AppendTo(nil)
}

// BenchmarkConsumerGroupGathers is of 1,000 members that join a group of 10,000
// partitions one after the other, and are heard of until each has its own.
func BenchmarkConsumerGroupGathers(b *testing.B) {
	cfg := DefaultConfig()
	topics := newFakeTopics()
	for i := range 26 {
		topics = topics.with(map[string]int32{string(rune('a' + i)): 385})
	}
	const members = 1000
	for b.Loop() {
		m, err := newMachine(&cfg, func() View { return topics }, 0, nil)
		if err != nil {
			b.Fatal(err)
		}
		steps := 0
		epochs := make([]int32, members)
		owns := make([]assignor.Partitions, members)
		for round := 0; round < 4 || m.groups["g"].listed().State != Stable; round++ {
			for i := range members {
				r := &ConsumerHeartbeatRequest{
					Group: "g", MemberID: fmt.Sprint("m", i), Epoch: epochs[i], RebalanceTimeout: -1,
					ClientID: "c", ClientHost: "/host", Owned: owns[i],
				}
				if round == 0 {
					r.RebalanceTimeout, r.Topics, r.Owned = time.Minute, topics.Names(), assignor.Partitions{}
				}
				answer := only(b, m.step(0, newCall(), r))
				m.stored(unstored(m))
				if epochs[i] = answer.Epoch; answer.Assignment != nil {
					owns[i] = answer.Assignment
				}
				steps++
			}
		}
		b.ReportMetric(float64(steps), "heartbeats/op")
	}
}

func TestPatternsOfPeopleAreSmallEnough(t *testing.T) {
	for expression, fits := range map[string]bool{
		`(orders|payments|refunds)\.(eu|us|ap)-[a-z]+-[0-9]{1,3}\.v[0-9]+`: true,
		`[\p{L}\p{N}._-]{1,64}`:           true,
		`.*`:                              true,
		strings.Repeat("t", 249):          true, // one name, of the longest
		`(?:[a-z]{1,50}-){1,10}`:          false,
		`(((a{1,10}){1,10}){1,10}){1,10}`: false,
	} {
		if _, err := compilePattern(expression); (err == nil) != fits {
			t.Errorf("%s: %v", expression, err)
		}
	}
}
