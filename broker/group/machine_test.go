package group

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// TestTranscripts runs the machine through the files under testdata. Each says
// what it shows; -rewrite writes what the machine does now.
//
// A command is a request, whose number is its name in what follows, or
// "advance", which lets time pass. Member ids that the machine gives out are
// m1, m2 and so on.
func TestTranscripts(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		tr := newTranscript(t)
		datadriven.RunTest(t, path, tr.run)
	})
}

// transcript drives a machine.
type transcript struct {
	t     *testing.T
	cfg   Config
	m     *machine
	now   time.Duration
	calls map[*call]string
	ids   int
}

func newTranscript(t *testing.T) *transcript {
	tr := &transcript{t: t, cfg: DefaultConfig(), calls: make(map[*call]string)}
	tr.cfg.InitialRebalanceDelay = 0
	tr.cfg.MaxMetadataBytes = 8
	tr.m = newMachine(&tr.cfg)
	return tr
}

func (tr *transcript) run(_ *testing.T, d *datadriven.TestData) string {
	a := args{d}
	switch d.Cmd {
	case "config":
		if a.has("max-size") {
			tr.cfg.MaxSize = a.int("max-size")
		}
		tr.cfg.InitialRebalanceDelay = a.duration("initial-delay", tr.cfg.InitialRebalanceDelay)
		return ""
	case "advance":
		by, err := time.ParseDuration(d.CmdArgs[0].Key)
		if err != nil {
			d.Fatalf(tr.t, "%v", err)
		}
		return tr.advance(by)
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
			ProtocolType: cmp.Or(a.str("type"), "consumer"), Protocols: protocols(cmp.Or(a.str("protocols"), "range")),
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
		r := &CommitRequest{Membership: membership}
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
		return &fetchRequest{"g"}
	}
	d.Fatalf(tr.t, "unknown command %q", d.Cmd)
	return nil
}

// protocols are names, or names with the topics that are subscribed to.
func protocols(s string) []Protocol {
	var all []Protocol
	for p := range strings.SplitSeq(s, "|") {
		name, topics, ok := strings.Cut(p, ":")
		subscription := kmsg.NewConsumerMemberMetadata()
		if ok {
			subscription.Topics = strings.Split(topics, "+")
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
			fmt.Fprintf(&out, "#%s %s\n", tr.calls[e.call], answered(e.answer, e.err))
		case note:
			fmt.Fprintf(&out, "%s: generation %d, %d members", e.what, e.generation, e.members)
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
		case storeDelete:
			fmt.Fprintf(&out, "#%s deletes %d offsets of %s, known %t\n", tr.calls[e.call], len(e.keys), e.group, e.known)
		case storeFetch:
			fmt.Fprintf(&out, "#%s reads the offsets of %s\n", tr.calls[e.call], e.group)
		}
	}
	return out.String()
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
			out += fmt.Sprintf(" %s/%s %q", a.ProtocolType, a.Protocol, a.Assignment)
		}
	case []error:
		out = ""
		for i, err := range a {
			if i > 0 {
				out += " "
			}
			out += code(err)
		}
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
