package check

import (
	"fmt"
	"slices"
	"strings"
)

// Kind is a way in which a history is wrong. The package's comment says more of each.
type Kind string

// Kinds of anomalies.
const (
	Lost               Kind = "lost write"
	Vanished           Kind = "vanished read"
	WrongOffset        Kind = "wrong offset"
	Duplicate          Kind = "duplicate"
	RepeatedDuplicate  Kind = "duplicate without idempotence"
	InconsistentOffset Kind = "inconsistent offset"
	Divergence         Kind = "divergence of agents"
	Gap                Kind = "gap"
	BeyondEnd          Kind = "beyond the end"
	Reordered          Kind = "reordered"
	NonmonotonicSend   Kind = "non-monotonic send"
	FailedRead         Kind = "read of a failed write"
	Phantom            Kind = "phantom"
	NonmonotonicPoll   Kind = "non-monotonic poll"
	PollSkip           Kind = "poll skip"
	StaleEnd           Kind = "stale end"
	StaleWatermark     Kind = "stale high watermark"
	EndWentBack        Kind = "end went back"
	StaleRead          Kind = "stale read"
	CommitWentBack     Kind = "commit went back"
	PhantomCommit      Kind = "phantom commit"
)

// Anomaly is one thing that is wrong with a history.
type Anomaly struct {
	Kind      Kind
	Partition int32
	Offset    int64 // where it shows, or NoOffset
	ID        ID    // of the record concerned, if Named
	Named     bool
	Detail    string
	// Evidence are operations of the history that have to do with the record or the offset, at most 8 of them.
	Evidence []string
}

// String has a line for the anomaly, and an indented one for each piece of evidence.
func (a Anomaly) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "partition %d, offset %d: %s: ", a.Partition, a.Offset, a.Kind)
	if a.Named {
		fmt.Fprintf(&b, "%v ", a.ID)
	}
	b.WriteString(a.Detail)
	for _, e := range a.Evidence {
		b.WriteString("\n\t")
		b.WriteString(e)
	}
	return b.String()
}

// Bounds on what is returned of a history that is wrong throughout.
const (
	maxAnomalies = 1000 // of a kind
	maxEvidence  = 8    // for an anomaly
)

// identity is what makes two anomalies the same.
type identity struct {
	kind      Kind
	partition int32
	offset    int64
	id        ID
}

// report notes an anomaly, once, unless its kind is legal or there are plenty of it.
func (c *checker) report(a Anomaly) {
	same := identity{a.Kind, a.Partition, a.Offset, a.ID}
	if c.reported[same] || c.count[a.Kind] == maxAnomalies || slices.Contains(c.options.Legal, a.Kind) {
		return
	}
	c.reported[same] = true
	c.count[a.Kind]++
	c.anomalies = append(c.anomalies, a)
}

// wrongRecord reports an anomaly of a record.
func (c *checker) wrongRecord(kind Kind, p *partition, r Record, detail string, args ...any) {
	c.report(Anomaly{
		Kind: kind, Partition: p.number, Offset: r.Offset, ID: r.ID, Named: true, Detail: fmt.Sprintf(detail, args...),
	})
}

// wrongOffset reports an anomaly that is of no one record.
func (c *checker) wrongOffset(kind Kind, partition int32, offset int64, detail string, args ...any) {
	c.report(Anomaly{Kind: kind, Partition: partition, Offset: offset, Detail: fmt.Sprintf(detail, args...)})
}
