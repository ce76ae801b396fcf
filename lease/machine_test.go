package lease

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// TestMachine runs the transcripts in testdata/machine, without jitter. Each
// command is followed by what the machine then holds and when it is due next.
//
//	grant p= epoch= leader= sent= now=
//	refuse p= holder= ends= now=         the lease ends at the instant ends
//	ask p= now=                          whether the store should be asked
//	renewed sent= asked=(p/leader,...) got=(p/leader/epoch,...)
//	renewal-failed now=
//	doubt now=
//	expire now=
//	lose p=
func TestMachine(t *testing.T) {
	datadriven.Walk(t, "testdata/machine", func(t *testing.T, path string) {
		var now time.Duration
		m := newMachine(DefaultConfig(), func() time.Duration { return now }, func() float64 { return 0 })
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.HasArg("now") {
				now = instant(t, d, "now")
			}
			var out strings.Builder
			step(t, m, d, now, &out)
			describe(m, &out)
			return out.String()
		})
	})
}

func step(t *testing.T, m *machine, d *datadriven.TestData, now time.Duration, out *strings.Builder) {
	lost := func(leases []*Lease) {
		slices.SortFunc(leases, func(a, b *Lease) int { return a.key.Compare(b.key) })
		for _, l := range leases {
			fmt.Fprintf(out, "lost p%d\n", l.key.Partition)
		}
	}
	switch d.Cmd {
	case "grant":
		r := Result{Term: Term{Key: partition(t, d), Epoch: int64(number(t, d, "epoch")), LeaderEpoch: int32(number(t, d, "leader"))}}
		if _, takeover := m.granted(instant(t, d, "sent"), now, r); takeover >= 0 {
			fmt.Fprintf(out, "took over after %v\n", takeover)
		}
	case "refuse":
		var holder string
		d.ScanArgs(t, "holder", &holder)
		m.refused(now, &HeldByOtherError{Key: partition(t, d), Holder: Holder{AgentID: holder, ExpiresIn: instant(t, d, "ends") - now}})
	case "ask":
		var held *HeldByOtherError
		switch err := m.refusal(now, partition(t, d)); {
		case err == nil:
			out.WriteString("ask the store\n")
		case errors.As(err, &held):
			fmt.Fprintf(out, "refused: %s has it\n", held.Holder.AgentID)
		}
	case "renewed":
		lost(m.renewed(instant(t, d, "sent"), terms(t, d, "asked"), terms(t, d, "got")))
	case "renewal-failed":
		m.renewalFailed(now)
	case "doubt":
		m.doubt(now)
	case "expire":
		lost(m.expired(now))
	case "lose":
		if l := m.get(partition(t, d)); l == nil || !m.remove(l) || m.remove(l) {
			out.WriteString("not held\n")
		}
	default:
		d.Fatalf(t, "unknown command")
	}
}

func describe(m *machine, out *strings.Builder) {
	leases := m.leases()
	slices.SortFunc(leases, func(a, b *Lease) int { return a.key.Compare(b.key) })
	for _, l := range leases {
		fmt.Fprintf(out, "p%d leader %d epoch %d until %v", l.key.Partition, l.leaderEpoch, l.epoch.Load(), time.Duration(l.deadline.Load()))
		if !l.Held() {
			out.WriteString(", past it")
		}
		out.WriteByte('\n')
	}
	if at := m.next(); at != never {
		fmt.Fprintf(out, "next at %v\n", at)
	} else {
		out.WriteString("idle\n")
	}
}

func instant(t *testing.T, d *datadriven.TestData, name string) time.Duration {
	var text string
	d.ScanArgs(t, name, &text)
	v, err := time.ParseDuration(text)
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	return v
}

func number(t *testing.T, d *datadriven.TestData, name string) (n int) {
	d.ScanArgs(t, name, &n)
	return n
}

func partition(t *testing.T, d *datadriven.TestData) Key {
	return Key{Partition: int32(number(t, d, "p"))}
}

// terms reads terms in the form (p/leader/epoch,...).
func terms(t *testing.T, d *datadriven.TestData, name string) (terms []Term) {
	arg, _ := d.Arg(name)
	for _, v := range arg.Vals {
		if v == "" {
			continue
		}
		var term Term
		n, _ := fmt.Sscanf(v, "%d/%d/%d", &term.Partition, &term.LeaderEpoch, &term.Epoch)
		if n < 2 {
			d.Fatalf(t, "no term: %s", v)
		}
		terms = append(terms, term)
	}
	return terms
}
