package group

import (
	"cmp"
	"encoding/json"
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
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/group/assignor"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// TestTranscripts runs the machine through the files under testdata. Each says
// what it shows; -rewrite writes what the machine does now.
//
// A command is a request, whose number is its name in what follows, or
// "advance", which lets time pass, "restart", after which another coordinator has
// what was stored, or "old", which answers the question for old offsets. Member ids that the machine gives out are
// m1, m2 and so on.
func TestTranscripts(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		tr := newTranscript(t)
		datadriven.RunTest(t, path, tr.run)
	})
}

// transcript drives a machine. Its store answers at once, or when it is told to.
type transcript struct {
	t      *testing.T
	cfg    Config
	topics *fakeTopics
	m      *machine
	now    time.Duration
	calls  map[*call]string
	ids    int

	slow     bool // the store
	underWay []storeGroup
	held     []reply // until the store answers
	records  map[string]storedAt
}

// storedAt is a record in the store.
type storedAt struct {
	record string
	at     time.Duration
}

func newTranscript(t *testing.T) *transcript {
	tr := &transcript{t: t, cfg: DefaultConfig(), topics: newFakeTopics(), calls: make(map[*call]string), records: make(map[string]storedAt)}
	tr.cfg.InitialRebalanceDelay = 0
	tr.cfg.MaxMetadataBytes = 8
	tr.load()
	return tr
}

// load makes a machine of what is stored.
func (tr *transcript) load() {
	var stored []metadata.StoredGroup
	for id, r := range tr.records {
		stored = append(stored, metadata.StoredGroup{
			GroupRecord: metadata.GroupRecord{Group: id, Record: r.record}, Age: tr.now - r.at,
		})
	}
	var err error
	if tr.m, err = newMachine(&tr.cfg, func() View { return tr.topics }, tr.now, stored); err != nil {
		tr.t.Fatal(err)
	}
	if err := tr.m.check(); err != nil {
		tr.t.Errorf("invariant broken: %v", err)
	}
}

// restart is another coordinator, which has what was stored.
func (tr *transcript) restart() string {
	var out strings.Builder
	for _, r := range tr.held {
		fmt.Fprintf(&out, "#%s NOT_COORDINATOR\n", tr.calls[r.call])
	}
	for _, c := range tr.m.abandon() {
		fmt.Fprintf(&out, "#%s NOT_COORDINATOR\n", tr.calls[c])
	}
	tr.held, tr.underWay = nil, nil
	tr.load()
	fmt.Fprintf(&out, "%d groups, %d members\n", len(tr.m.groups), tr.m.counts.members)
	return out.String()
}

// stored brings what is under way to the store.
func (tr *transcript) stored() string {
	var groups []string
	for _, s := range tr.underWay {
		groups = append(groups, s.group)
		if s.deleted {
			delete(tr.records, s.group)
		} else {
			tr.records[s.group] = storedAt{encodeRecord(s.record), tr.now}
		}
	}
	tr.m.stored(groups)
	var out strings.Builder
	for _, r := range tr.held {
		fmt.Fprintf(&out, "#%s %s\n", tr.calls[r.call], answered(r.answer, r.err))
	}
	tr.held, tr.underWay = nil, nil
	return out.String()
}

func (tr *transcript) run(_ *testing.T, d *datadriven.TestData) string {
	a := args{d}
	switch d.Cmd {
	case "config":
		if a.has("max-size") {
			tr.cfg.MaxSize = a.int("max-size")
		}
		tr.cfg.InitialRebalanceDelay = a.duration("initial-delay", tr.cfg.InitialRebalanceDelay)
		tr.cfg.OffsetsRetention = a.duration("retention", tr.cfg.OffsetsRetention)
		tr.slow = a.has("slow-store")
		tr.consumerConfig(a)
		return ""
	case "advance":
		by, err := time.ParseDuration(d.CmdArgs[0].Key)
		if err != nil {
			d.Fatalf(tr.t, "%v", err)
		}
		return tr.advance(by)
	case "topics":
		return tr.setTopics(d)
	case "restart":
		return tr.restart()
	case "stored":
		return tr.stored()
	case "records":
		var out strings.Builder
		for _, id := range slices.Sorted(maps.Keys(tr.records)) {
			fmt.Fprintf(&out, "%s: %s\n", id, tr.records[id].record)
		}
		return cmp.Or(out.String(), "none\n")
	case "old":
		old := metadata.OldOffsets{Total: a.int("total"), Gone: make([]lease.Key, max(0, a.int("gone")))}
		for i, topic := range a.list("topics") {
			old.Old = append(old.Old, metadata.OldOffset{Key: lease.Key{TopicID: uuid.UUID{byte(i + 1)}}, Topic: topic})
		}
		return cmp.Or(tr.effects(tr.m.expireOffsets(tr.now, []string{"g"}, []metadata.OldOffsets{old})), "nothing expires\n")
	case "groups":
		var out strings.Builder
		for _, g := range tr.m.list() {
			fmt.Fprintf(&out, "%s %s %q\n", g.Group, g.State, g.ProtocolType)
		}
		return cmp.Or(out.String(), "none\n")
	}
	request := tr.request(d, a)
	c := newCall()
	name := strconv.Itoa(len(tr.calls) + 1)
	tr.calls[c] = name
	out := tr.effects(tr.m.step(tr.now, c, request))
	if !strings.Contains(out, "#"+name+" ") {
		out += "#" + name + " waits\n"
	}
	return out
}

// advance lets time pass, from one timer to the next.
func (tr *transcript) advance(by time.Duration) string {
	var out strings.Builder
	end := tr.now + by
	for at, ok := tr.m.timers.next(); ok && at <= end; at, ok = tr.m.timers.next() {
		tr.now = max(tr.now, at)
		if s := tr.effects(tr.m.expire(tr.now)); s != "" {
			fmt.Fprintf(&out, "at %v:\n%s", tr.now, s)
		}
	}
	tr.now = end
	return cmp.Or(out.String(), "nothing happens\n")
}

func (tr *transcript) request(d *datadriven.TestData, a args) any {
	membership := Membership{Group: "g", MemberID: a.str("member"), InstanceID: a.str("instance"), Generation: int32(a.int("generation"))}
	switch d.Cmd {
	case "join":
		r := &JoinRequest{
			Group: "g", MemberID: a.str("member"), InstanceID: a.str("instance"), ClientID: "c", ClientHost: "/host",
			ProtocolType: cmp.Or(a.str("type"), "consumer"), Protocols: protocols(cmp.Or(a.str("protocols"), "range"), partitions(a.list("owns"))),
			SessionTimeout: a.duration("session", 10*time.Second), RebalanceTimeout: a.duration("rebalance", 30*time.Second),
			Reason: a.str("reason"), KnownMemberID: !a.has("old"), CanSkipAssignment: a.has("can-skip"),
		}
		if a.has("no-type") {
			r.ProtocolType = ""
		}
		if a.has("no-protocols") {
			r.Protocols = nil
		}
		if r.MemberID == "" {
			tr.ids++
			r.newMemberID = fmt.Sprintf("m%d", tr.ids)
		}
		return r
	case "sync":
		r := &SyncRequest{Membership: membership, ProtocolType: a.str("type"), Protocol: a.str("protocol")}
		for _, assigned := range a.list("assign") {
			id, data, _ := strings.Cut(assigned, ":")
			r.Assignments = append(r.Assignments, Assignment{id, []byte(data)})
		}
		for _, assigned := range a.list("assigned") {
			id, p, _ := strings.Cut(assigned, "=")
			r.Assignments = append(r.Assignments, Assignment{id, classicAssignment(partitions([]string{p}))})
		}
		return r
	case "heartbeat":
		return &HeartbeatRequest{membership}
	case "leave":
		r := &LeaveRequest{Group: "g"}
		for _, id := range a.list("members") {
			r.Members = append(r.Members, LeavingMember{MemberID: id})
		}
		for _, id := range a.list("instances") {
			r.Members = append(r.Members, LeavingMember{InstanceID: id})
		}
		return r
	case "commit":
		r := &CommitRequest{Membership: membership, MemberEpochs: a.has("new")}
		for _, o := range a.list("offsets") {
			offset, meta, _ := strings.Cut(o, ":")
			n, err := strconv.ParseInt(offset, 10, 64)
			if err != nil {
				d.Fatalf(tr.t, "%v", err)
			}
			r.Offsets = append(r.Offsets, metadata.CommittedOffset{Key: lease.Key{Partition: int32(len(r.Offsets))}, Offset: n, Metadata: meta})
		}
		return r
	case "delete-offsets":
		r := &DeleteOffsetsRequest{Group: "g"}
		for i, topic := range a.list("topics") {
			r.Partitions = append(r.Partitions, Partition{lease.Key{TopicID: uuid.UUID{byte(i + 1)}}, topic})
		}
		return r
	case "delete":
		return &deleteRequest{"g"}
	case "describe":
		return &describeRequest{"g"}
	case "fetch":
		return &FetchRequest{Group: "g", MemberID: a.str("member"), Epoch: int32(a.int("generation"))}
	}
	return tr.consumerRequest(d, a)
}

// protocols are names, or names with the topics that are subscribed to.
func protocols(s string, owned assignor.Partitions) []Protocol {
	var all []Protocol
	for p := range strings.SplitSeq(s, "|") {
		name, topics, ok := strings.Cut(p, ":")
		subscription := kmsg.NewConsumerMemberMetadata()
		if ok {
			subscription.Topics = strings.Split(topics, "+")
		}
		for id, list := range owned {
			subscription.Version = 1
			subscription.OwnedPartitions = append(subscription.OwnedPartitions, kmsg.ConsumerMemberMetadataOwnedPartition{Topic: topicName(id), Partitions: list})
		}
		all = append(all, Protocol{name, subscription.AppendTo(nil)})
	}
	return all
}

func (tr *transcript) effects(effects []effect) string {
	if err := tr.m.check(); err != nil {
		tr.t.Errorf("invariant broken: %v", err)
	}
	var out strings.Builder
	for _, e := range effects {
		switch e := e.(type) {
		case reply:
			if e.held && tr.slow {
				tr.held = append(tr.held, e)
				fmt.Fprintf(&out, "#%s is held\n", tr.calls[e.call])
				continue
			}
			fmt.Fprintf(&out, "#%s %s\n", tr.calls[e.call], answered(e.answer, e.err))
		case storeGroup:
			tr.underWay = append(tr.underWay, e)
			out.WriteString(summary(&e))
		case note:
			out.WriteString(e.what)
			if e.what != expired {
				fmt.Fprintf(&out, ": generation %d, %d members", e.generation, e.members)
			}
			if e.reason != "" {
				fmt.Fprintf(&out, " (%s)", e.reason)
			}
			out.WriteString("\n")
		case storeCommit:
			fmt.Fprintf(&out, "#%s stores", tr.calls[e.call])
			for _, o := range e.commit.Offsets {
				fmt.Fprintf(&out, " %d@%d", o.Offset, o.Partition)
			}
			fmt.Fprintf(&out, ", then %s\n", answered(e.answer, nil))
		case storeForget:
			name := "nobody"
			if e.call != nil {
				name = "#" + tr.calls[e.call]
			}
			fmt.Fprintf(&out, "%s forgets %d offsets of %s\n", name, len(e.forget.Keys), e.forget.Group)
		case storeFetch:
			fmt.Fprintf(&out, "#%s reads the offsets of %s\n", tr.calls[e.call], e.group)
		case storeOld:
			fmt.Fprintf(&out, "asks for old offsets of %s\n", strings.Join(e.groups, ", "))
		}
	}
	if !tr.slow {
		out.WriteString(tr.stored())
	}
	return out.String()
}

// summary says what of a group is stored.
func summary(e *storeGroup) string {
	var r struct {
		Type       string
		State      string
		Generation int32
		Members    []any
	}
	switch {
	case e.deleted:
		return fmt.Sprintf("deletes %s\n", e.group)
	case json.Unmarshal([]byte(encodeRecord(e.record)), &r) != nil:
		return fmt.Sprintf("stores %s, which is no JSON\n", e.group)
	}
	if r.Type == ConsumerType {
		return consumerSummary(e)
	}
	return fmt.Sprintf("stores %s: %s, generation %d, %d members\n", e.group, r.State, r.Generation, len(r.Members))
}

func answered(answer any, err error) string {
	out := "OK"
	if err != nil {
		out = code(err)
	}
	switch a := answer.(type) {
	case JoinResponse:
		if a.MemberID != "" {
			out += " " + a.MemberID
		}
		if err != nil {
			break
		}
		out += fmt.Sprintf(" generation %d, %s/%s, leader %s", a.Generation, a.ProtocolType, a.Protocol, a.LeaderID)
		if a.SkipAssignment {
			out += ", skips the assignment"
		}
		for _, m := range a.Members {
			out += fmt.Sprintf(" [%s", m.MemberID)
			if m.InstanceID != "" {
				out += "=" + m.InstanceID
			}
			out += "]"
		}
	case SyncResponse:
		if err == nil {
			out += fmt.Sprintf(" %s/%s %s", a.ProtocolType, a.Protocol, showAssignment(a.Assignment))
		}
	case []error:
		out = ""
		for i, err := range a {
			if i > 0 {
				out += " "
			}
			out += code(err)
		}
	case ConsumerHeartbeatResponse, ConsumerDescription:
		out += answeredConsumer(a)
	case Description:
		out += fmt.Sprintf(" %s %s/%s", a.State, a.ProtocolType, a.Protocol)
		for _, m := range a.Members {
			out += fmt.Sprintf(" [%s %s %s %s %d %q]", m.MemberID, m.InstanceID, m.ClientID, m.ClientHost, len(m.Metadata), m.Assignment)
		}
	}
	return out
}

func code(err error) string {
	var e *kerr.Error
	switch {
	case err == nil:
		return "OK"
	case errors.As(err, &e):
		return e.Message
	}
	return err.Error()
}

// args are the arguments of a command.
type args struct{ d *datadriven.TestData }

func (a args) has(key string) bool { return a.d.HasArg(key) }

func (a args) list(key string) []string {
	for _, arg := range a.d.CmdArgs {
		if arg.Key == key {
			return arg.Vals
		}
	}
	return nil
}

func (a args) str(key string) string { return strings.Join(a.list(key), ",") }

// int is -1 if it is not given.
func (a args) int(key string) int {
	n, err := strconv.Atoi(a.str(key))
	if err != nil {
		return -1
	}
	return n
}

func (a args) duration(key string, otherwise time.Duration) time.Duration {
	d, err := time.ParseDuration(a.str(key))
	if err != nil {
		return otherwise
	}
	return d
}
